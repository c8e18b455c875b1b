"""The talk with the gateway, in a thread of its own: the screen never waits for an answer."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import quote

from gateway.cli.reach import Line, Reach, Unreached
from gateway.cli.screen import Failed
from gateway.cli.watch import pages
from gateway.cli.watch.approvals import Approvals
from gateway.cli.watch.events import (
    Approve,
    Arrived,
    Broken,
    Event,
    Explain,
    Explained,
    Link,
    Opened,
    Reject,
    Said,
    Show,
    Waiting,
    Wish,
)
from gateway.cli.watch.feed import Feed, Page
from gateway.core.lookalikes import guarded

FIRST_S, LONGEST_S = 0.25, 1.0
ANSWER_S = 10.0
_GROWTH = 1.5
_PENDING_EVERY_S = 5.0
_JOIN_S = 1.0
_PASSING = frozenset({429, 502, 503, 504})


def passes(problem: Failed) -> bool:
    """Whether asking again later may help: no gateway there, or one that says so."""
    if isinstance(problem, Unreached):
        return True
    return isinstance(problem.document, dict) and problem.document.get("status") in _PASSING


def pause(problem: Failed, longest_s: float = 30.0) -> float:
    """Seconds to wait before asking again: as the gateway says, else ``LONGEST_S``."""
    said = problem.document.get("retry_after") if isinstance(problem.document, dict) else None
    return min(max(float(said), FIRST_S), longest_s) if isinstance(said, int | float) else LONGEST_S


class Talker:
    """Polls the log, and serves one wish after the other.

    ``tell`` is called from the thread for everything that happened.
    """

    def __init__(self, reach: Reach, since_us: int | None, approvals: Approvals, tell: Callable[[Event], None]) -> None:
        self._reach = reach
        self._since = since_us
        self._approvals = approvals
        self._tell = tell
        self._wishes: queue.SimpleQueue[Wish | None] = queue.SimpleQueue()
        self._interval = FIRST_S
        self._pending_due = 0.0
        self._pending_problem: Said | None = None
        self._is_well: bool | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wishes.put(None)
        self._thread.join(_JOIN_S)  # an answer that does not come holds nobody up: the thread ends with the process

    def ask(self, wish: Wish) -> None:
        """Serve this as soon as may be."""
        self._wishes.put(wish)

    def _run(self) -> None:
        try:
            with self._reach.line(ANSWER_S) as line:
                self._talk(line, Feed(line, self._since))
        except Exception as error:  # noqa: BLE001 - handed over, and raised once the terminal is restored
            self._tell(Broken(error))

    def _talk(self, line: Line, feed: Feed) -> None:
        due = time.monotonic()
        while True:
            try:
                wish = self._wishes.get(timeout=max(0.0, due - time.monotonic()))
            except queue.Empty:
                due = time.monotonic() + self._poll(feed)
                continue
            if wish is None:
                return
            try:
                self._serve(line, wish)
            except Failed as problem:  # said, and the talk goes on
                self._tell(_failure(problem))

    def _poll(self, feed: Feed) -> float:
        """Look once; seconds until the next look."""
        try:
            page = feed.next()
        except Failed as problem:
            if self._is_well is None or not passes(problem):
                raise  # never reached, or refused for good: waiting would never end
            self._link(problem.format_message())
            return pause(problem)
        self._link(None)
        if page.records or page.fresh:
            self._tell(Arrived(page.records, page.fresh))
            self._interval = FIRST_S
        else:
            self._interval = min(LONGEST_S, self._interval * _GROWTH)
        self._look_at_pending(page)
        return 0.0 if page.more else self._interval

    def _look_at_pending(self, page: Page) -> None:
        # Asked for when the log hints at a change, and now and then: some end by time alone.
        if time.monotonic() < self._pending_due and not any(_hints(record) for _, record in page.records):
            return
        self._pending_due = time.monotonic() + _PENDING_EVERY_S
        try:
            self._tell(Waiting(tuple(self._approvals.pending())))
        except Failed as problem:
            said = _failure(problem)
            if said != self._pending_problem:  # once is enough: whoever may not review watches all the same
                self._tell(said)
            self._pending_problem = said
        else:
            self._pending_problem = None

    def _link(self, problem: str | None) -> None:
        if self._is_well is not (problem is None):
            self._is_well = problem is None
            self._tell(Link(problem))

    def _serve(self, line: Line, wish: Wish) -> None:
        match wish:
            case Explain(call_id):
                path = f"/v1/calls/{quote(call_id, safe='')}"
                self._tell(Explained(call_id, pages.explained(line.get(f"{path}/explain"), line.get(path))))
            case Show(approval_id):
                self._tell(Opened(self._approvals.show(approval_id)))
            case Approve(seen):
                self._approvals.approve(seen)
                self._after_signing(f"approved {seen.tool}")
            case Reject(approval_id, reason):
                self._approvals.reject(approval_id, reason)
                self._after_signing(f"rejected {approval_id}")

    def _after_signing(self, words: str) -> None:
        self._tell(Said(guarded(words)))
        self._tell(Waiting(tuple(self._approvals.pending())))


def _failure(problem: Failed) -> Said:
    return Said(guarded(" ".join(problem.format_message().split())), bad=True)


def _hints(record: Any) -> bool:
    body = record.get("body")
    is_decision = isinstance(body, dict) and body.get("effect") == "needs_approval"
    return is_decision or str(record.get("type")).startswith("approval.")

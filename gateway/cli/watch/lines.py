"""The watch where no terminal is: one line a call, as it ends."""

import json
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NoReturn

import click

from gateway.cli.reach import Reach
from gateway.cli.screen import Failed, wants_json
from gateway.cli.watch.calls import CallRow, Calls, State
from gateway.cli.watch.feed import Feed, Page
from gateway.cli.watch.pages import moment
from gateway.cli.watch.talker import ANSWER_S, FIRST_S, LONGEST_S, passes, pause
from gateway.cli.watch.view import ending, span
from gateway.core.lookalikes import plain

_OPEN_AT_MOST = 10_000
_GROWTH = 1.5


class _Ended(BaseException):
    """A signal asks for the end."""


def once(reach: Reach, since_us: int | None) -> None:
    """Print what there is, and the calls that still run; then end.

    Raises:
        Failed: no gateway there, or it refused.
    """
    printer = Printer()
    with reach.line(ANSWER_S) as line:
        feed = Feed(line, since_us)
        while True:
            page = feed.next()
            _print(printer.lines(page))
            if not page.more:
                break
    _print(printer.unended())


def follow(reach: Reach, since_us: int | None) -> None:
    """Print each call as it ends, until a signal comes.

    Raises:
        Failed: no gateway there at the start, or it refused.
    """
    printer = Printer()
    try:
        with _signals(), reach.line(ANSWER_S) as line:
            for page in _pages(Feed(line, since_us)):
                _print(printer.lines(page))
    except _Ended:
        return  # being told to end is no failure


class Printer:
    """Records in, printed lines out; remembers only calls that have not ended."""

    def __init__(self) -> None:
        self._open = Calls(_OPEN_AT_MOST)
        self._show = _as_json if wants_json() else _as_line

    def lines(self, page: Page) -> Iterator[str]:
        """What a page of the log gives to print."""
        if page.fresh:
            self._open = Calls(_OPEN_AT_MOST)
        for index, record in page.records:
            row = self._open.take(index, record)
            if row is None:
                continue
            if row.has_ended:
                self._open.forget(row.call_id)
                yield self._show(row, "ended")
            elif wants_json() and record.get("type") == "decision":
                yield self._show(row, "decided")

    def unended(self) -> Iterator[str]:
        """The calls that still run, oldest first."""
        for row in reversed(self._open.newest_first()):
            yield self._show(row, "running")


def _pages(feed: Feed) -> Iterator[Page]:
    interval, was_reached, is_well = FIRST_S, False, True
    while True:
        try:
            page = feed.next()
        except Failed as problem:
            if not (was_reached and passes(problem)):
                raise
            if is_well:
                click.echo(f"ostiary: gateway gone, waiting ({problem.format_message()})", err=True)
            is_well = False
            time.sleep(pause(problem))
            continue
        was_reached = is_well = True
        yield page
        interval = FIRST_S if page.records else min(LONGEST_S, interval * _GROWTH)
        if not page.more:
            time.sleep(interval)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)  # echo flushes


def _as_json(row: CallRow, event: str) -> str:
    return json.dumps({"event": event, **asdict(row)})


def _as_line(row: CallRow, event: str) -> str:  # noqa: ARG001 - only machines are told
    ended = row.state.value if row.state is State.RUNNING else ending(row)[0]
    parts = [
        moment(row.at_us),
        plain(row.agent or "(person)"),
        plain(row.tool or "?"),
        plain(row.decision or "-") + ("" if row.enforced else " (not enforced)"),
        ended,
        plain(row.reason or "-"),
        f"redactions={row.redactions}",
        "took=?" if row.took_us is None else f"took={span(row.took_us).replace(' ', '')}",
        plain(row.call_id),
    ]
    return "  ".join(parts)


@contextmanager
def _signals() -> Iterator[None]:
    def end(_number: int, _frame: Any) -> NoReturn:
        raise _Ended

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

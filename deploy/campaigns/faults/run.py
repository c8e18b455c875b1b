"""One run: an upstream, a gateway and a judge, each a process of its own, all forked from this one.

This process must have no threads and no event loop. It reads what the gateway reports from a pipe, whose end is the
gateway's end, however that came.
"""

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deploy.campaigns.faults import judge, life, upstream, world
from deploy.campaigns.faults.life import Spoil, Stage
from deploy.campaigns.faults.plan import DEADLY, TIMEOUT_S, Fault, Peer, Plan, plan
from deploy.campaigns.faults.strikes import FROZEN

_LIFE_S: Final = 40.0
_START_S: Final = 2.0
_UPSTREAM_S: Final = 6.0
_JUDGE_S: Final = 30.0
_POLL_S: Final = 0.005
_VERDICT: Final = "verdict.json"
_LOG: Final = "run.log"
# An outcome must fit into a pipe that nobody reads yet.
_MOST_WORDS: Final = 3000
_MOST_VIOLATIONS: Final = 50


@dataclass(slots=True)
class Outcome:
    """How a run went.

    Attributes:
        point: where the fault was to strike; empty for one that strikes anywhere.
        struck: whether it did.
        violations: a sentence each; empty = the invariant holds.
        counts: see ``judge``.
        words: end of the run's log, where something is wrong.
    """

    seed: int
    fault: str
    point: str
    struck: bool = False
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    words: str = ""


def run(seed: int, spoil: Spoil) -> Outcome:
    """Run the plan of ``seed`` in a folder of its own, which is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="ostiary-faults-"))
    try:
        return _Run(plan(seed), folder, spoil).outcome()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class _Run:
    plan: Plan
    folder: Path
    spoil: Spoil
    reports: list[dict[str, Any]] = field(default_factory=list)

    def outcome(self) -> Outcome:
        plan = self.plan
        outcome = Outcome(plan.seed, plan.fault, "" if plan.point is None else str(plan.point))
        status = self._play()
        outcome.struck = self._struck(status)
        outcome.violations = self._misbehaviour(status)
        verdict = self._judged()
        outcome.violations = [*outcome.violations, *verdict["violations"]][:_MOST_VIOLATIONS]
        outcome.counts = verdict["counts"]
        if outcome.violations:
            outcome.words = (self.folder / _LOG).read_text("utf-8", "replace")[-_MOST_WORDS:]
        return outcome

    def _play(self) -> int:
        # Returns the gateway's exit status, negative for the signal that ended it.
        listening = upstream.listener()
        world.prepare(self.plan, self.folder, listening.getsockname()[1])
        hears, tells = os.pipe()
        stateless = self.plan.peer is Peer.STATELESS

        def serve() -> None:
            os.close(tells)
            upstream.run(self.folder, listening, hears, stateless=stateless, too_late_s=TIMEOUT_S * 1.5)

        serving = self._fork(serve)
        listening.close()
        os.close(hears)
        reads, writes = os.pipe()
        living = self._fork(lambda: life.live(Stage(self.plan, self.folder, serving, tells, writes, self.spoil)))
        os.close(writes)
        self._listen(reads, living)
        status = os.waitstatus_to_exitcode(os.waitpid(living, 0)[1])
        os.close(tells)
        self._end_frozen()
        if not _ends(serving, _UPSTREAM_S):
            os.kill(serving, signal.SIGKILL)
            os.waitpid(serving, 0)
        return status

    def _listen(self, reads: int, living: int) -> None:
        if self.plan.fault is Fault.KILLED_STARTING:
            self._await_files()
            self._kill(living, "struck")
        deadline, waiting = time.monotonic() + _LIFE_S, b""
        while True:
            now = time.monotonic()
            if now >= deadline:
                self._kill(living, "hung")
                deadline = now + _LIFE_S
            ready, _, _ = select.select([reads], [], [], deadline - now)
            block = os.read(reads, 1 << 16) if ready else b""
            if ready and not block:
                break
            *lines, waiting = (waiting + block).split(b"\n")
            self.reports += [json.loads(line) for line in lines]
            if self.plan.fault is Fault.KILLED_ANY_TIME and any(b"begun" in line for line in lines):
                time.sleep(self.plan.at_s)
                self._kill(living, "struck")
        os.close(reads)

    def _await_files(self) -> None:
        # The first start makes keys, log and guard, a file at a time; between any two of them it may be killed.
        state = self.folder / "state"
        wanted = len(list(state.rglob("*"))) + self.plan.passing
        deadline = time.monotonic() + _START_S
        while len(list(state.rglob("*"))) < wanted and time.monotonic() < deadline:
            pass

    def _kill(self, living: int, why: str) -> None:
        self.reports.append({why: "the gateway"})
        os.kill(living, signal.SIGKILL)

    def _struck(self, status: int) -> bool:
        if self.plan.fault is Fault.KILLED_AT_UPSTREAM:
            return status == -signal.SIGKILL
        if self.plan.fault in DEADLY and status == 0:
            return False  # it was over before
        return self.plan.fault is Fault.NONE or any("struck" in report for report in self.reports)

    def _misbehaviour(self, status: int) -> list[str]:
        found = [f"{report['crashed']}: {report['error']}" for report in self.reports if "crashed" in report]
        found += [f"hung: {report['hung']}" for report in self.reports if "hung" in report]
        found += [f"{n} limits are held by nobody" for report in self.reports if (n := report.get("held"))]
        killed = status == -signal.SIGKILL and self.plan.fault in DEADLY
        return found if status == 0 or killed else [*found, f"the gateway ended with {status}"]

    def _judged(self) -> dict[str, Any]:
        answers = [report for report in self.reports if "marker" in report]

        def judging() -> None:
            finding = judge.judge(self.plan, self.folder, answers)
            (self.folder / _VERDICT).write_text(json.dumps(finding.document()), "utf-8")

        judging_process = self._fork(judging)
        if not _ends(judging_process, _JUDGE_S):
            os.kill(judging_process, signal.SIGKILL)
            os.waitpid(judging_process, 0)
        try:
            verdict: dict[str, Any] = json.loads((self.folder / _VERDICT).read_text("utf-8"))
        except (OSError, ValueError):
            return {"violations": ["the run could not be judged: see its log"], "counts": {}}
        return verdict

    def _fork(self, work: Callable[[], None]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            log = os.open(self.folder / _LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.dup2(log, 1)
            os.dup2(log, 2)
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the end of a process: whatever it is, it is told
            traceback.print_exc()
        finally:
            # Where nothing can be written any more, as in some of the faults, the process ends all the same.
            with suppress(OSError):
                sys.stderr.flush()
            os._exit(status)

    def _end_frozen(self) -> None:
        # The workers of a gateway that was killed while they stood still have nobody else to end them.
        path = self.folder / FROZEN
        for line in path.read_text("ascii").split() if path.exists() else ():
            with suppress(ProcessLookupError):
                os.kill(int(line), signal.SIGKILL)


def _ends(process: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(_POLL_S)
    return False


def as_document(outcome: Outcome) -> Mapping[str, Any]:
    """An outcome as plain data."""
    return {name: getattr(outcome, name) for name in Outcome.__slots__}

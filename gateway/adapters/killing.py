"""The kill switch at work: implements ``core.kills.Kills`` and ``core.kills.KillDesk``.

Its order: what is meant gets nothing more; its calls are broken off; the minting tokens of its runs are ended, then its
logins; where a whole lease template is meant, the break-glass credential ends everything of it, whoever minted it; and
what is left is counted by asking the vault.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from anyio import CancelScope
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.approval import Action
from gateway.core.call import Caller, Intent, Lease, Principal
from gateway.core.errors import GatewayError
from gateway.core.kills import Cut, Kill, Kind, Target, broken_off, holder_of_caller, refusal, target
from gateway.core.leasing import Holder, holder_of
from gateway.core.tool import Tool

# How long a slow disk is waited for before calls are broken off all the same, and calls that do not let go.
_PATIENCE_S = 0.25
_LEFT_S = 1.0


class KillBook(Protocol):
    """What is stopped, durably; see ``adapters/ledger/books/kills.py``."""

    quorum: int

    @property
    def stands(self) -> bool: ...  # noqa: D102
    def all(self) -> tuple[Kill, ...]: ...  # noqa: D102
    def covering(self, holder: Holder) -> Kill | None: ...  # noqa: D102
    def covers(self, kill: Kill, holder: Holder) -> bool: ...  # noqa: D102
    def on_kill(self, heard: Callable[[Kill], None]) -> None: ...  # noqa: D102
    async def current(self) -> None: ...  # noqa: D102
    async def fresh(self) -> None: ...  # noqa: D102
    def engage(self, by: Principal, target: Target, name: str, reason: str) -> "tuple[Kill, asyncio.Future[None]]": ...  # noqa: D102
    async def lift(self, by: Principal, kill_id: str, reason: str) -> Kill: ...  # noqa: D102
    def carried_out(self, kill: Kill, cut: Cut) -> None: ...  # noqa: D102


class Lender(Protocol):
    """The minted credentials in use."""

    def obey(self, stop: Callable[[Holder], None]) -> None:
        """Ask ``stop`` before anything is minted: it raises for whom nothing may be."""

    async def kill(self, meant: Callable[[Holder], bool], *, whole_runs: bool) -> Cut:
        """End all credentials of those who are meant; ``whole_runs``: and the tokens of their runs."""


class BreakGlass(Protocol):
    """Ends everything of a lease template at once."""

    async def sweep(self, template: str) -> Cut:
        """What was left of it, by the vault's own list."""


class KillMeter(Protocol):
    """Counts for operators. Cannot fail."""

    def kills(self, in_force: int) -> None:
        """How many kills are in force."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the switch works on.

    Attributes:
        lender: None where nothing is minted.
        glass: None where no break-glass credential is configured.
        templates: the names of all lease templates.
        tools: the tools as they are pinned now.
    """

    lender: Lender | None
    glass: BreakGlass | None
    templates: Sequence[str]
    tools: Callable[[], Sequence[Tool]]
    meter: KillMeter


class _Watch(Struct, eq=False):
    """Implements ``core.kills.Watch`` for one call, and is its bracket.

    Attributes:
        left: set once the call is over; there only where it was cut.
    """

    switch: "KillSwitch"
    watches: "set[_Watch]"
    intent: Intent
    stop: Callable[[], None]
    is_out: bool = False
    kill: Kill | None = None
    left: asyncio.Event | None = None

    def __enter__(self) -> Self:
        # What was stopped while its intent became durable: nothing is minted for it any more.
        if self.switch.book.stands:
            self.switch.refuse(self.holder)
        self.watches.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.watches.discard(self)
        if self.left is not None:
            self.left.set()

    async def look(self, lease: Lease) -> None:
        """Nothing is handed out any more once a kill has taken effect, at whatever gateway."""
        if lease.login is not None or lease.headers:
            await self.switch.book.fresh()
        if self.switch.book.stands:
            self.switch.refuse(self.holder)
        self.is_out = True

    @property
    def holder(self) -> Holder:
        """Whose call it is: asked for where anything is stopped at all."""
        return holder_of(self.intent)

    def broken_off(self) -> GatewayError:
        """How the call ends; see ``core.kills.Watch``."""
        assert self.kill is not None  # nobody else stops it
        return broken_off(self.intent, self.kill.kind, self.kill.id, is_out=self.is_out)

    def cut(self, kill: Kill) -> asyncio.Event:
        """Break the call off; what is returned is set once it is over."""
        self.kill = self.kill or kill
        self.left = self.left or asyncio.Event()
        self.stop()
        return self.left


class KillSwitch:
    """An async context manager.

    Failure mode, closed: where nobody can say what is stopped, nothing is executed.
    """

    def __init__(self, book: KillBook, means: Means) -> None:
        self.book = book
        self._means = means
        self._watches: set[_Watch] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        book.on_kill(self._heard)
        if means.lender is not None:
            means.lender.obey(self.refuse)

    @property
    def quorum(self) -> int:
        """How many must ask; see ``core.kills.KillDesk``."""
        return self.book.quorum

    async def __aenter__(self) -> Self:
        self._count()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    async def check(self, caller: Caller) -> GatewayError | None:
        """Whether it is stopped; see ``core.kills.Kills``."""
        await self.book.current()
        if not self.book.stands:
            return None
        holder = holder_of_caller(caller, caller.call.tool)
        kill = self.book.covering(holder)
        if kill is None:
            return None
        self.refuse(replace(holder, tool=None))  # more than the tool
        return refusal(kill.kind, kill.id)

    async def check_parked(self, action: Action) -> None:
        """Whether any of it is stopped; see ``core.kills.Kills``."""
        await self.book.current()
        who, run, call, tool = action.principal, action.run, action.call_id, action.tool
        self.refuse(Holder(run, call, who.agent, who.user, tool, who.issuer, who.delegation))

    async def check_person(self, principal: Principal) -> None:
        """Whether they are stopped; see ``core.kills.Kills``."""
        await self.book.current()
        holder = Holder(user=principal.user)
        for kill in self.book.all():
            if kill.kind is Kind.USER and kill.lifted_us is None and self.book.covers(kill, holder):
                raise refusal(kill.kind, kill.id)

    def refuse(self, holder: Holder) -> None:
        """Nothing where nobody has stopped it, as far as this process knows.

        Raises:
            Killed: somebody has.
        """
        kill = self.book.covering(holder)
        if kill is not None:
            raise refusal(kill.kind, kill.id)

    def watch(self, intent: Intent, stop: Callable[[], None]) -> _Watch:
        """Break it off when it is stopped; see ``core.kills.Kills``."""
        return _Watch(self, self._watches, intent, stop)

    def all(self) -> tuple[Kill, ...]:
        """Every kill; see ``core.kills.KillDesk``."""
        return self.book.all()

    async def engage(self, by: Principal, kind: Kind, name: str, reason: str) -> tuple[Kill, Cut]:
        """Stop it; see ``core.kills.KillDesk``. Whoever asked may leave: it is done all the same."""
        meant = target(kind, name)
        with CancelScope(shield=True):
            kill, written = self.book.engage(by, meant, name.strip(), reason)
            self._count()
            # A slow disk keeps nobody going: the record is in the writer's hands and will be written, or owed.
            await asyncio.wait({written}, timeout=_PATIENCE_S)
            cut = await self._carry_out(kill, with_glass=True)
            await written
        return kill, cut

    async def lift(self, by: Principal, kill_id: str, reason: str) -> Kill:
        """One voice for lifting it; see ``core.kills.KillDesk``."""
        with CancelScope(shield=True):
            kill = await self.book.lift(by, kill_id, reason)
        self._count()
        return kill

    def _heard(self, kill: Kill) -> None:
        if kill.lifted_us is None:
            self._start(self._carry_out(kill, with_glass=False))
        self._count()

    async def _carry_out(self, kill: Kill, *, with_glass: bool) -> Cut:
        hit = [watch for watch in self._watches if self.book.covers(kill, watch.holder)]
        left = [watch.cut(kill) for watch in hit]
        cut = Cut(calls=len(left))
        if self._means.lender is not None:
            whole = kill.kind is not Kind.TOOL
            cut += await self._means.lender.kill(lambda holder: self.book.covers(kill, holder), whole_runs=whole)
        if with_glass and self._means.glass is not None:
            for template in self._whole_templates(kill):
                cut += await self._means.glass.sweep(template)
        cut += Cut(running=await self._still_there(left))
        self.book.carried_out(kill, cut)
        return cut

    async def _still_there(self, left: Sequence[asyncio.Event]) -> int:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEFT_S):
                for call in left:
                    await call.wait()
        return sum(not call.is_set() for call in left)

    def _whole_templates(self, kill: Kill) -> list[str]:
        # Only what nobody else needs: a prefix is everybody's who has a credential of that template.
        if kill.kind is Kind.ALL:
            return list(self._means.templates)
        if kill.kind is not Kind.TOOL:
            return []
        users: dict[str, list[bool]] = {}
        for tool in self._means.tools():
            if tool.credential is not None:
                users.setdefault(tool.credential, []).append(self.book.covers(kill, Holder(tool=tool.fqn)))
        return [name for name in self._means.templates if all(users.get(name, [False]))]

    def _count(self) -> None:
        self._means.meter.kills(sum(kill.lifted_us is None for kill in self.book.all()))

    def _start(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

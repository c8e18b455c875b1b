"""Following resources over a pipe that all callers share: the process cannot tell them apart, so they are one there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connectors.mcp.dialect import Dialect
from connectors.mcp.faults import Refused
from connectors.mcp.messages import Hearing
from connectors.mcp.multiplex import Multiplex
from connectors.mcp.session import Ask
from connectors.mcp.sessions import Identity
from gateway.core.mcpwire.jsonrpc import Notification

EVERYBODY = Identity({})


@dataclass(slots=True, eq=False)
class PipeSession:
    """One life of the process, as ``holding.Held``."""

    multiplex: Multiplex
    dialect: Dialect
    users: int = 0

    async def ask(self, ask: Ask) -> bytes:
        """Send one request, once."""
        return await self.multiplex.ask(ask.method, self.dialect.params(ask.members))

    async def hold(self, hearing: Hearing) -> None:
        """Hear what is said that belongs to no request, until the process ends."""
        async with self.multiplex.overheard() as heard:
            await hearing.opened()
            await heard(hearing.hear)

    async def attend(self, ask: Ask, hear: Callable[[Notification], Awaitable[None]]) -> None:
        """Send a request that is answered once nothing more is to be told."""
        request_id = self.multiplex.next_id()
        await self.multiplex.ask(ask.method, self.dialect.params(ask.members), request_id, hear)


@dataclass(frozen=True, slots=True)
class Pipes:
    """The lives of one process, as ``holding.Holders``.

    Attributes:
        reached: the line to the process that serves now, waited for as many seconds; raises ``Unprepared``.
    """

    reached: Callable[[float], Awaitable[PipeSession]]

    async def get(self, _: Identity, budget_s: float) -> PipeSession:
        """The process that serves now, whoever asks."""
        return await self.reached(budget_s)

    def learn(self, session: object, refusal: Refused) -> None:
        """Nothing: a process knows its one session."""

    def forget(self, session: object) -> None:
        """Nothing: it is there, or it is gone."""

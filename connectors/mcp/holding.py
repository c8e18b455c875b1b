"""What is needed of an upstream to follow its resources, over HTTP or pipes, and how much of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from connectors.mcp.dialect import Dialect
from connectors.mcp.faults import Refused
from connectors.mcp.messages import Hearing
from connectors.mcp.session import Ask
from connectors.mcp.sessions import Identity
from gateway.core.mcpwire.jsonrpc import Notification


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is followed, and how patiently.

    Attributes:
        streams: most of them at a time; each holds a connection.
        streams_each: of those, of one user.
        each: most resources on one of them.
        connect_s: longest a stream may take to be opened, seconds.
        first_pause_s: pause before one that ended is opened again; doubled each time one ends early.
        longest_pause_s: where the doubling ends.
        steady_s: a life of this length counts as healthy, and the pause starts over.
        attempts: how often an upstream that cannot be reached is tried before all is lost.
    """

    streams: int = 64
    streams_each: int = 48
    each: int = 200
    connect_s: float = 10.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 30.0
    steady_s: float = 60.0
    attempts: int = 6


class Held(Protocol):
    """A session in which resources are followed (``connectors.mcp.session.Session`` says how)."""

    users: int

    @property
    def dialect(self) -> Dialect:
        """How it is spoken."""

    async def ask(self, ask: Ask) -> bytes:
        """Send one request, once."""

    async def hold(self, hearing: Hearing) -> None:
        """Hold the session's own stream, in the handshake era."""

    async def attend(self, ask: Ask, hear: Callable[[Notification], Awaitable[None]]) -> None:
        """Send a request whose answer is a stream, in the stateless era."""


class Holders(Protocol):
    """Where sessions come from (``connectors.mcp.sessions.Sessions`` says how)."""

    async def get(self, whose: Identity, budget_s: float, /) -> Held:
        """Their session."""

    def learn(self, session: object, refusal: Refused) -> None:
        """Forget what a refusal shows to be wrong."""

    def forget(self, session: object) -> None:
        """Use it for nothing more."""

"""What a client wants to hear of its call while it is carried out, and how it takes a call back.

A client names its calls by ids of its own, which are its own within one session only: a cancellation reaches a call of
the same principal, at the same endpoint, in the same session. The stateless era has no such message: there the client
leaves.
"""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from anyio import CancelScope

from gateway.core import scopes
from gateway.core.errors import Unavailable
from gateway.core.flow import Clean, Deliver, Flow, Put, Wants
from gateway.core.mcpwire import asking, eras, notices
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import Id, Notification, Request
from gateway.edge.faults import ClientGone, InvalidParams
from gateway.edge.mcp.session import Session

SET_LEVEL = "logging/setLevel"
NOTHING = Wants()
_MAX_TOKEN = 256
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Line:
    """A call's flow, and the scope in which nothing was done for it yet.

    Attributes:
        flow: what the call takes with it.
        scope: cancelled where the client takes the call back before anything was done.
    """

    flow: Flow
    scope: CancelScope


def line(wants: Wants, clean: Clean, deliver: Deliver, put: Put | None) -> Line:
    """The line of a call; ``deliver`` sends what goes out ahead of its answer."""
    scope = scopes.scope()
    return Line(Flow(wants, clean, deliver, scope.cancel, put), scope)


def wants(said: Mapping[str, Any], era: Era, session: Session | None) -> Wants:
    """What the client wants to hear of a request with this ``_meta``.

    Raises:
        InvalidParams: a progress token or log level that is none.
    """
    token = _token(said.get("progressToken"))
    if era is Era.HANDSHAKE:
        # Who has named no level hears what the server says by itself.
        if session is None:
            return Wants(token, notices.LEVELS[0])
        return Wants(token, session.level or notices.LEVELS[0], session.level is not None, session.askable)
    capabilities, level = said.get(eras.META_CAPABILITIES), said.get(eras.META_LOG_LEVEL)
    askable = asking.declared(capabilities) if capabilities else {}
    if token is None and level is None and not askable:
        return NOTHING
    return Wants(token, None if level is None else _level(level), level is not None, askable)


def set_level(request: Request, session: Session | None) -> None:
    """Carry ``logging/setLevel`` out.

    Raises:
        InvalidParams: no level, or no session that could have one.
    """
    level = _level(request.params.value.get("level"))
    if session is None:
        raise InvalidParams("a log level belongs to a session: initialize first", cause_code="session")
    session.level = level


def _token(token: object) -> Id | None:
    if token is None or (isinstance(token, str) and len(token) <= _MAX_TOKEN):
        return token
    if isinstance(token, int) and not isinstance(token, bool):
        return token
    raise InvalidParams("_meta.progressToken must be an integer or a short string", cause_code="progress_token")


def _level(level: object) -> str:
    if not isinstance(level, str) or level not in notices.LEVELS:
        raise InvalidParams(f"a log level is one of {', '.join(notices.LEVELS)}", cause_code="log_level")
    return level


class _Place(NamedTuple):
    """Whose call: a session is its principal's and its endpoint's own already. ``1`` and ``"1"`` are two ids."""

    session: str
    request: Id
    is_number: bool


@dataclass(slots=True)
class Running:
    """The calls of this process that a client can take back: those of a session."""

    _lines: dict[_Place, list[Line]] = field(default_factory=dict)

    async def answered(self, session: Session, request_id: Id, line: Line, work: Awaitable[T]) -> T:
        """The result of ``work``, a call that is under way in the line's scope.

        Raises:
            Unavailable: its client took it back before anything was done for it.
        """
        place = _Place(session.id, request_id, isinstance(request_id, int))
        self._lines.setdefault(place, []).append(line)
        try:
            return await work
        except ClientGone:
            if line.flow.is_withdrawn:
                raise Unavailable("the client cancelled the call; nothing was done", cause_code="withdrawn") from None
            raise
        finally:
            self._leave(place, line)

    def withdraw(self, told: Notification, session: Session | None) -> None:
        """Carry ``notifications/cancelled`` out; one that names no call under way says nothing."""
        request_id = told.params.value.get("requestId")
        if session is None or isinstance(request_id, bool) or not isinstance(request_id, str | int):
            return
        for line in self._lines.get(_Place(session.id, request_id, isinstance(request_id, int)), ()):
            line.flow.withdraw()

    def _leave(self, place: _Place, line: Line) -> None:
        lines = self._lines[place]
        lines.remove(line)
        if not lines:
            del self._lines[place]

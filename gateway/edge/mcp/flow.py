"""What a client wants to hear of its call while it is carried out, and how it takes a call back.

A client names its calls by ids of its own, which are its own within one session only: a cancellation reaches a call of
the same principal, at the same endpoint, in the same session. The stateless era has no such message: there the client
leaves.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import structs

from gateway.core.errors import GatewayError, Unavailable
from gateway.core.flow import Flow, Wants
from gateway.core.mcpwire import asking, eras, notices
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import Id, Notification, Request
from gateway.edge.disconnect import Watched
from gateway.edge.faults import ClientGone, InvalidParams
from gateway.edge.mcp.session import Session

SET_LEVEL = "logging/setLevel"
NOTHING = Wants()
_MAX_TOKEN = 256


class Line(Watched):
    """What a call is carried out within whose client can hear of it: a bracket that the client can also end.

    Attributes:
        flow: what the call takes with it; to be set before it begins.
        request_id: what its client calls it; likewise, where it can name it to take it back.
    """

    __slots__ = ("flow", "request_id")
    flow: Flow
    request_id: Id

    def gone(self) -> ClientGone | GatewayError:
        """See ``Watched``."""
        if self.flow.is_withdrawn:
            return Unavailable("the client cancelled the call; nothing was done", cause_code="withdrawn")
        return super().gone()


def wants(said: Mapping[str, Any], era: Era, session: Session | None) -> Wants:
    """What the client wants to hear of a request with this ``_meta``.

    Raises:
        InvalidParams: a progress token or log level that is none.
    """
    token = said.get("progressToken")
    if token is not None:
        token = _token(token)
    if era is Era.HANDSHAKE:
        # Who has named no level hears what the server says by itself.
        if session is None:
            return Wants(token, notices.LEVELS[0])
        known = session.wants or _in_session(session)
        return known if token is None else structs.replace(known, token=token)
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
    session.level, session.wants = level, None


def _in_session(session: Session) -> Wants:
    # What a call wants to hear that names no progress token: the same for each until the client says otherwise.
    level = session.level
    session.wants = Wants(None, level or notices.LEVELS[0], level is not None, session.askable)
    return session.wants


def _token(token: object) -> Id:
    if isinstance(token, str) and len(token) <= _MAX_TOKEN:
        return token
    if isinstance(token, int) and not isinstance(token, bool):
        return token
    raise InvalidParams("_meta.progressToken must be an integer or a short string", cause_code="progress_token")


def _level(level: object) -> str:
    if not isinstance(level, str) or level not in notices.LEVELS:
        raise InvalidParams(f"a log level is one of {', '.join(notices.LEVELS)}", cause_code="log_level")
    return level


def withdraw(told: Notification, session: Session | None) -> None:
    """Carry ``notifications/cancelled`` out; one that names no call under way says nothing."""
    request_id = told.params.value.get("requestId")
    if session is None or isinstance(request_id, bool) or not isinstance(request_id, str | int):
        return
    for line in (*session.calls.fresh, *session.calls.heard):
        if isinstance(line, Line) and line.request_id == request_id:  # ``1`` and ``"1"`` are two ids
            line.flow.withdraw()

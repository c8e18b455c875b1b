"""What an upstream says while it carries out a call: asked for as its caller wants it, and heard for this call only."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from connectors.mcp.dialect import Dialect
from gateway.core.flow import Flow
from gateway.core.mcpwire import eras, notices
from gateway.core.mcpwire.jsonrpc import Notification, encode

SET_LEVEL: Final = "logging/setLevel"


class Ear(Struct, frozen=True):
    """Hears for one request.

    Attributes:
        flow: the line to the caller.
        token: the request's progress token upstream, used for no other one there.
    """

    flow: Flow
    token: int

    async def __call__(self, told: Notification) -> None:
        """Hand on what is said of this request; returns when the next may come."""
        said = notices.notice(told, self.token)
        if said is not None:
            await self.flow.tell(said)


def wanted(ear: Ear | None, dialect: Dialect, *, shared: bool = False) -> Mapping[str, Any]:
    """What a request's ``_meta`` asks the upstream to say while it is carried out.

    On a line ``shared`` by calls a log message does not say whose it is, so that none is asked for.
    """
    if ear is None:
        return {}
    said: dict[str, Any] = {}
    wants = ear.flow.wants
    if wants.token is not None:
        said["progressToken"] = ear.token
    if dialect.stateless and wants.capabilities:
        said[eras.META_CAPABILITIES] = wants.capabilities
    if dialect.stateless and wants.is_asked and wants.level is not None and not shared:
        said[eras.META_LOG_LEVEL] = wants.level
    return said


def level_to_set(flow: Flow | None, dialect: Dialect, known: str | None) -> str | None:
    """The level that the session is to be set to before a call, or None where it stays as it is.

    A session serves several callers: it is only ever made to say more, and each hears what they asked for. Whoever
    asked for no level hears what the upstream says by itself.

    Args:
        flow: the line to the caller.
        dialect: how the upstream is spoken to.
        known: the level it was set to before.
    """
    if flow is None or not flow.wants.is_asked or "logging" not in dialect.offers or dialect.stateless:
        return None
    level = flow.wants.level
    if level is None or (known is not None and notices.LEVELS.index(known) <= notices.LEVELS.index(level)):
        return None
    return level


def level_members(level: str) -> bytes:
    """The inside of the ``params`` of ``SET_LEVEL``."""
    return b'"level":' + encode(level)

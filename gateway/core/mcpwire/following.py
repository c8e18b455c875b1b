"""How each era says that somebody follows a resource, and that one has changed; read from untrusted bytes."""

from typing import Any, Final

import msgspec

from gateway.core.mcpwire.jsonrpc import Notification

SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
UPDATED: Final = "notifications/resources/updated"
# The stateless era: one request names all that its stream is to tell.
LISTEN: Final = "subscriptions/listen"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
FILTER: Final = "resourceSubscriptions"
META_SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"


class _Updated(msgspec.Struct):
    uri: str


class _Tagged(msgspec.Struct):
    meta: dict[str, Any] = msgspec.field(default_factory=dict, name="_meta")


class _Acknowledged(msgspec.Struct):
    notifications: dict[str, Any]


_UPDATED: Final = msgspec.json.Decoder(_Updated)
_TAGGED: Final = msgspec.json.Decoder(_Tagged)
_ACKNOWLEDGED: Final = msgspec.json.Decoder(_Acknowledged)


def updated(told: Notification) -> str | None:
    """The address that has changed, or None where nothing is said of any, or malformed."""
    if told.method != UPDATED:
        return None
    try:
        return _UPDATED.decode(told.text).uri
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors, and so is that of bad UTF-8
        return None


def acknowledged(told: Notification) -> frozenset[str] | None:
    """The addresses that a server will tell of, or None where it is no such acknowledgement."""
    if told.method != ACKNOWLEDGED:
        return None
    try:
        said = _ACKNOWLEDGED.decode(told.text).notifications.get(FILTER)
    except (ValueError, RecursionError):
        return frozenset()
    return frozenset(uri for uri in said if isinstance(uri, str)) if isinstance(said, list) else frozenset()


def subscription_id(told: Notification) -> int | None:
    """Which ``LISTEN`` of ours a notification belongs to, or None where it names none."""
    try:
        found = _TAGGED.decode(told.text or b"{}").meta.get(META_SUBSCRIPTION)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def concerns(uri: str, followed: str) -> bool:
    """Whether a change at ``uri`` is one of what is followed: it itself, or a part of it."""
    return uri == followed or uri.startswith(f"{followed.rstrip('/')}/")

"""What an upstream says while a call is carried out: progress and log messages, read from untrusted bytes.

Both eras spell them alike. What is read here is written anew from the members that the specification has: whatever else
an upstream puts there does not reach a client.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from gateway.core.mcpwire.jsonrpc import Id, Notification, encode

PROGRESS: Final = "notifications/progress"
MESSAGE: Final = "notifications/message"
CANCELLED: Final = "notifications/cancelled"
# Severities of log messages, the least severe first (RFC 5424 names).
LEVELS: Final = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call has come.

    Attributes:
        done: a number that grows.
        said: JSON text of an object: the members of the notification but its token.
    """

    done: float
    said: bytes


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One line of an upstream's log.

    Attributes:
        level: one of ``LEVELS``.
        said: JSON text of the notification's params.
    """

    level: str
    said: bytes


Notice = Progress | LogMessage


class _Progress(msgspec.Struct, rename="camel", omit_defaults=True):
    progress_token: str | int
    progress: int | float
    total: int | float | None = None
    message: str | None = None


class _Message(msgspec.Struct, omit_defaults=True):
    level: str
    data: Any
    logger: str | None = None


class _Cancelled(msgspec.Struct, rename="camel"):
    request_id: str | int


_PROGRESS: Final = msgspec.json.Decoder(_Progress)
_MESSAGES: Final = msgspec.json.Decoder(_Message)
_CANCELLED: Final = msgspec.json.Decoder(_Cancelled)


def notice(told: Notification, token: int) -> Notice | None:
    """The notice of the request whose progress token is ``token``, or None where it is none of its, or malformed."""
    try:
        if told.method == PROGRESS:
            return _progress(_PROGRESS.decode(told.text), token)
        if told.method == MESSAGE:
            return _message(_MESSAGES.decode(told.text))
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors, and so is that of bad UTF-8
        return None
    return None


def progress_token(told: Notification) -> Id | None:
    """Which request a progress notification is about, or None where it is none, or malformed."""
    if told.method != PROGRESS:
        return None
    try:
        return _PROGRESS.decode(told.text).progress_token
    except (ValueError, RecursionError):
        return None


def cancelled_id(text: bytes) -> Id | None:
    """Which request the ``params`` of a cancellation name, or None where they are malformed."""
    try:
        return _CANCELLED.decode(text).request_id
    except (ValueError, RecursionError):
        return None


def _progress(said: _Progress, token: int) -> Progress | None:
    if said.progress_token != token:
        return None
    members = {"progress": said.progress, "total": said.total, "message": said.message}
    return Progress(said.progress, encode({name: value for name, value in members.items() if value is not None}))


def _message(said: _Message) -> LogMessage | None:
    if said.level not in LEVELS:
        return None
    named = {} if said.logger is None else {"logger": said.logger}
    return LogMessage(said.level, encode({"level": said.level, **named, "data": said.data}))

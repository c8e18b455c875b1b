"""Pins: which words of an upstream about its tools were approved, and what keeps every other wording away.

A pin binds the whole definition of a tool (name, description, schemas, annotations, whatever else stands there) and
where it is reached. It is a record of the log. A tool that its upstream describes otherwise is quarantined until a
person approves exactly what it says now, also where the upstream takes its words back: it was another tool meanwhile.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.suspicion import Suspicion

_CONTEXT = b"ostiary.pin/v1\n"


class PinState(StrEnum):
    """What may be done with a tool: be used, not be used until somebody approves it, not even be seen."""

    PINNED = "pinned"
    QUARANTINED = "quarantined"
    NEW = "new"


class Cause(StrEnum):
    """Why a pinned tool may not be used. ``changed`` holds until a person pins it again, the others while they last."""

    CHANGED = "changed"
    ENDPOINT = "endpoint"
    GONE = "gone"
    UNUSABLE = "unusable"


class Basis(StrEnum):
    """On whose word a tool was pinned."""

    FIRST_USE = "first_use"
    PERSON = "person"


CAUSES: Mapping[Cause, str] = {
    Cause.CHANGED: "the upstream has described this tool otherwise than approved",
    Cause.ENDPOINT: "the upstream's address is not the one this tool was approved at",
    Cause.GONE: "the upstream no longer offers this tool",
    Cause.UNUSABLE: "the tool's schema cannot be used",
}


@dataclass(frozen=True, slots=True)
class Described:
    """A tool as its upstream describes it.

    Attributes:
        endpoint: URL or command line.
        definition: the MCP tool definition, whole.
        digest: ``tool.definition_digest`` of both; what is approved.
    """

    endpoint: str
    definition: Mapping[str, Any]
    digest: str


@dataclass(frozen=True, slots=True)
class Pin:
    """An approved tool. ``is_changed``: its upstream has described it otherwise since."""

    approved: Described
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class Quarantine:
    """That a pinned tool may not be used.

    Attributes:
        tool: ``server.tool``.
        pinned: digest of its pin.
        now: what its upstream says instead; None where it is not that.
    """

    tool: str
    pinned: str
    cause: Cause
    now: Described | None = None


@dataclass(frozen=True, slots=True)
class Consent:
    """A person's word that a tool may be used as it is described now.

    Attributes:
        digest: what they were shown.
        key_id: their enrolled key, where they sign.
        signature: that key's, over ``pin_message``.
    """

    digest: str
    key_id: str | None = None
    signature: bytes | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """What becomes a pin.

    Attributes:
        tool: ``server.tool``.
        was: digest of the pin before it.
        rules: ids of the suspicions it was approved in spite of.
        consent: the person's word; None where it is trusted on first use.
    """

    tool: str
    described: Described
    was: str | None = None
    rules: tuple[str, ...] = ()
    consent: Consent | None = None


@dataclass(frozen=True, slots=True)
class Dossier:
    """All that is known of a tool's pin.

    Attributes:
        cause: why it may not be used.
        approved: what was approved; agents are shown this and nothing else.
        live: what the upstream said last; None where it was not heard, or no longer offers the tool.
        suspicions: what is odd about ``live``.
    """

    tool: str
    state: PinState
    cause: Cause | None
    approved: Described | None
    live: Described | None
    suspicions: tuple[Suspicion, ...] = ()


class PinBook(Protocol):
    """What was approved. Closed: a pin that cannot be recorded does not hold; a quarantine holds all the same.

    Attributes:
        revision: grows whenever anything changed.
    """

    revision: int

    def of(self, server: str) -> Mapping[str, Pin]:
        """The pins of one server by tool name; empty where nothing was ever approved."""

    async def sync(self) -> None:
        """Take in what other processes recorded.

        Raises:
            Unavailable: the log cannot be read.
        """

    async def trust(self, server: str, found: Sequence[Approval]) -> None:
        """Pin the tools of a server that has no pin yet, on its own word; does nothing where it has one.

        Raises:
            Unavailable: they cannot be recorded.
        """

    async def pin(self, by: Principal, approval: Approval) -> None:
        """Pin a tool on a person's word.

        Raises:
            Conflict: the pin before it is not ``approval.was`` any more.
            Unavailable: it cannot be recorded.
        """

    async def quarantine(self, cases: Sequence[Quarantine]) -> None:
        """Let tools be changed from now on, and record it, once for each new wording, as soon as that works.

        Raises:
            Unavailable: it could not be recorded yet.
        """


class PinDesk(Protocol):
    """What people do with pins."""

    @property
    def origin(self) -> str:
        """The log's name in what they sign."""

    @property
    def roles(self) -> tuple[str, ...]:
        """One of these a signer must have; empty = no signature is needed."""

    def all(self) -> tuple[Dossier, ...]:
        """Every tool of an MCP upstream, by name, without suspicions."""

    def counts(self) -> Mapping[str, int]:
        """How many there are, by state."""

    def state(self, tool: str) -> PinState:
        """The state of a tool that is in the catalogue; what the catalogue declares itself is ``pinned``."""

    def show(self, tool: str) -> Dossier:
        """One tool.

        Raises:
            NotFound: no upstream has or had one of this name.
        """

    async def pin(self, by: Principal, tool: str, consent: Consent) -> Dossier:
        """Approve what the upstream says now, which is asked once more: it must still be what was shown.

        Raises:
            NotFound: no such tool.
            Conflict: the upstream says something else than what was shown, or nothing about this tool.
            Forbidden: an agent asks, or nobody with the role has signed exactly this.
            Unavailable: the upstream does not answer, or the pin cannot be recorded.
        """


def pin_message(origin: str, tool: str, digest: str, was: str | None) -> bytes:
    """The bytes a reviewer's key signs to approve a tool.

    Args:
        origin: the log it is for.
        tool: ``server.tool``.
        digest: of what is approved.
        was: of what was approved before.
    """
    word = {"v": 1, "origin": origin, "tool": tool, "digest": digest, "was": was}
    return _CONTEXT + hashlib.sha256(encode(word)).digest()

"""Recorded decisions as they come: events in OPA's decision-log shape, from the gateway or from an exported file."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from gateway.cli.screen import Misconfigured, shown
from gateway.core.decision import Effect, Phase

_LONGEST_LINE = 16 * 1024 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NO_INPUT = msgspec.Raw(b"")


class _Reason(msgspec.Struct, frozen=True):
    id: str
    package: str = ""
    msg: str = ""
    fact: str | None = None


class _Need(msgspec.Struct, frozen=True):
    id: str
    msg: str = ""
    quorum: int = 1
    roles: tuple[str, ...] = ()


class _Result(msgspec.Struct, frozen=True):
    effect: Effect
    reasons: tuple[_Reason, ...] = ()
    requirements: tuple[_Need, ...] = ()


class _Revision(msgspec.Struct, frozen=True):
    revision: str


class _Facts(msgspec.Struct, frozen=True):
    index: int
    call_id: str
    tool: str | None  # a name of no tool is only the caller's word, and stands in the input alone
    phase: Phase
    enforced: bool = True
    run_id: str | None = None
    engine: str = ""
    input_digest: str | None = None
    outcome: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """The tool of a recorded input; one that does not exist has no digest."""

    fqn: str
    effect: str
    digest: str = ""


class Person(msgspec.Struct, frozen=True):
    """Who called, or for whom, in a recorded input."""

    id: str
    groups: tuple[str, ...] = ()


class _Agent(msgspec.Struct, frozen=True):
    id: str


class Input(msgspec.Struct, frozen=True):
    """What is read here of a recorded ``gateway.input/v1`` document."""

    tool: Tool
    principal: Person
    agent: _Agent | None = None
    on_behalf_of: Person | None = None
    args: dict[str, Any] = {}

    @property
    def person(self) -> Person:
        """The person: who called, or whom the agent works for."""
        return self.on_behalf_of or self.principal


class Event(msgspec.Struct, frozen=True):
    """One recorded decision: an OPA decision-log event with the gateway's own facts in ``ostiary``.

    Attributes:
        bundles: which revision decided.
        input: the document policy read, byte for byte; empty where it was not kept.
        erased: ``/input`` where it was not kept, or its key was destroyed.
        masked: what was taken out of it.
    """

    decision_id: str
    timestamp: Annotated[datetime, msgspec.Meta(tz=True)]
    bundles: dict[str, _Revision]
    result: _Result
    ostiary: _Facts
    path: Literal["gateway/main/decision"] = "gateway/main/decision"
    input: msgspec.Raw = _NO_INPUT
    erased: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()


class Page(msgspec.Struct, frozen=True):
    """A page of them as JSON texts, in log order; ``next`` is the ``after`` of the page that follows."""

    decisions: tuple[msgspec.Raw, ...]
    next: int | None = None


class Lacking(StrEnum):
    """Why a recorded decision cannot be replayed."""

    ERASED = "the input was not kept, or its key was destroyed"
    MASKED = "values of the input were taken out"
    FAULT = "the engine failed at the time, and policy never spoke"
    REVISION = "the policy of the time is not kept any more"
    UNKNOWN = "the record names no policy revision"
    NO_TOOL = "a name of no tool, which no policy lets pass"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded decision that can be looked at again.

    Attributes:
        event: as it was recorded.
        document: the policy input, byte for byte; empty where it was not kept.
        input: the same, read; None where it was not kept.
        lacking: why it cannot be replayed, or None.
    """

    event: Event
    document: bytes
    input: Input | None
    lacking: Lacking | None = None

    @property
    def revision(self) -> str:
        """The revision that decided; empty where none is named."""
        return next((one.revision for one in self.event.bundles.values()), "")

    @property
    def tool(self) -> str:
        """The tool, or the name that was asked for; empty where it is not known."""
        return self.event.ostiary.tool or ("" if self.input is None else self.input.tool.fqn)

    @property
    def agent(self) -> str:
        """The calling agent; empty where a person called, or where it is not known."""
        return self.input.agent.id if self.input is not None and self.input.agent is not None else ""

    @property
    def person(self) -> str:
        """The person who called or whom the agent works for; empty where it is not known."""
        return "" if self.input is None else self.input.person.id

    @property
    def at_us(self) -> int:
        """When, microseconds since the epoch."""
        return (self.event.timestamp - _EPOCH) // timedelta(microseconds=1)

    @property
    def is_intact(self) -> bool:
        """Whether the input is, byte for byte, the one whose digest was recorded."""
        return hashlib.sha256(self.document).hexdigest() == self.event.ostiary.input_digest


def recorded(event: Event) -> Recorded:
    """The event, with what keeps it from being replayed.

    Raises:
        Misconfigured: its input is no policy input.
    """
    document = bytes(event.input)
    lacking = _lacking(event, document)
    if not document:
        return Recorded(event, document, None, lacking)
    try:
        return Recorded(event, document, msgspec.json.decode(document, type=Input), lacking)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"the input of decision {shown(event.decision_id)} is no policy input: {shown(str(error))}"
        ) from None


def in_file(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of an exported file that hold something, each with its place.

    Raises:
        Misconfigured: unreadable.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), b""), 1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from None


def page(content: bytes) -> Page:
    """A page as the gateway answers it.

    Raises:
        Misconfigured: it is no page.
    """
    try:
        return msgspec.json.decode(content, type=Page)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"what answers there gives no decisions: {shown(str(error))}", "use a gateway of the same version"
        ) from None


def parsed(line: bytes, place: str) -> Event:
    """One event; ``place`` says where it stands.

    Raises:
        Misconfigured: it is none.
    """
    try:
        return msgspec.json.decode(line, type=Event)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        fix = "give a file that `ostiary policy decisions` wrote"
        raise Misconfigured(f"{shown(place)}: no recorded decision: {shown(str(error))}", fix) from None


def _lacking(event: Event, document: bytes) -> Lacking | None:
    if not document or event.erased:
        return Lacking.ERASED
    if event.masked:
        return Lacking.MASKED
    if any(reason.id.startswith("engine.") for reason in event.result.reasons):
        return Lacking.FAULT
    return None if event.bundles else Lacking.UNKNOWN

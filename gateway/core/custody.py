"""What is kept of payloads and for how long: erasure, legal holds, and who looked at them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from gateway.core.call import Principal


@dataclass(frozen=True, slots=True)
class Target:
    """Whose payloads are meant: those of one run, or of all that one user asked for. Exactly one is set.

    Attributes:
        run: id of a run.
        subject: (issuer, user) as tokens name the person.
    """

    run: str | None = None
    subject: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """Somebody whom records name by a pseudonym only. Exactly one is set.

    Attributes:
        subject: (issuer, user) as tokens name the person.
        person: as reviewers are enrolled.
    """

    subject: tuple[str, str] | None = None
    person: str | None = None


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did.

    Attributes:
        runs: how many runs' payloads can be read no more.
        keys: how many data keys were destroyed.
        complete: whether the last copy of them left the database's files; where a reader of the log is in the way,
            that is tried again until it is done.
    """

    runs: int
    keys: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Hold:
    """A legal hold in force.

    Attributes:
        target: ``run:ID``, or ``subject:`` and the user's pseudonym.
        since_us: when it was set.
        index: the record that set it.
        why: as it was given.
        keys: how many data keys it kept when it was set; None where nobody counted.
    """

    target: str
    since_us: int
    index: int
    why: str | None
    keys: int | None = None


class CustodyDesk(Protocol):
    """Erasure and legal holds. Closed: what cannot be recorded is not done, and nothing is half done."""

    async def erase(self, by: Principal, target: Target, why: str) -> Erased:
        """Destroy the data keys of the target's payloads and record it, in one transaction.

        Raises:
            NotFound: nothing of it can be read anyway.
            Conflict: a run of it is open, has calls or approvals under way, or is held.
            Unavailable: the log cannot be read or written.
        """

    async def hold(self, by: Principal, target: Target, why: str) -> Hold:
        """From now on nothing of the target is erased.

        Raises:
            NotFound: no such run.
            Conflict: it is held already.
            Unavailable: the log cannot be read or written.
        """

    async def release(self, by: Principal, target: Target, why: str) -> None:
        """Let a hold end.

        Raises:
            Conflict: it is not held.
            Unavailable: the log cannot be written.
        """

    async def holds(self) -> tuple[Hold, ...]:
        """Those in force, oldest first."""

    def pseudonym(self, named: Named) -> str:
        """What records call them: 32 hexadecimal digits, always the same in this log."""


class View(StrEnum):
    """Where a person saw payloads."""

    CALL = "call"
    EXPLANATION = "explanation"
    DECISIONS = "decisions"
    RUN = "run"
    APPROVAL = "approval"
    APPROVALS = "approvals"
    HOLDS = "holds"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person is about to see.

    Attributes:
        roles: of the payloads.
        which: what they belong to: ``call``, ``run``, ``approval`` or ``approvals`` (ids), ``records`` (indexes).
    """

    view: View
    roles: Sequence[str]
    which: Mapping[str, Any] = field(default_factory=dict)


class Views(Protocol):
    """Records who looks at payloads. Closed: what cannot be recorded is not shown."""

    async def record(self, by: Principal, seen: Seen) -> None:
        """Write ``payload.viewed`` durably, before anything is shown; one for each request.

        Raises:
            Unavailable: the log cannot be written.
        """

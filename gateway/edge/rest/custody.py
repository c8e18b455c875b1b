"""REST for whoever answers for what is kept: erasure and legal holds."""

from collections.abc import Sequence

from pydantic import Field

from gateway.core.custody import Hold, Named, Seen, Target, View
from gateway.core.desk import Desk
from gateway.core.errors import Conflict, InvalidArguments, NotFound, Unavailable
from gateway.core.records import Role
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

_NAMED = 200  # records in one record of who saw them


class TargetGiven(Model):
    """Whose payloads are meant, and why: a run, or a user."""

    run: str | None = Field(None, min_length=1, max_length=64)
    user: str | None = Field(None, min_length=1, max_length=256, description="As tokens name the person.")
    issuer: str | None = Field(None, min_length=1, max_length=512, description="Of those tokens; absent = the local.")
    why: str = Field(
        min_length=1, max_length=1000, description="Sealed with the record; name a case here, rather than a person."
    )


class NameGiven(Model):
    """Somebody whom records name by a pseudonym: a user, or a reviewer's person."""

    user: str | None = Field(None, min_length=1, max_length=256, description="As tokens name the person.")
    issuer: str | None = Field(None, min_length=1, max_length=512, description="Of those tokens; absent = the local.")
    person: str | None = Field(None, min_length=1, max_length=256, description="As reviewers are enrolled.")


class PseudonymShown(Model):
    """What records call somebody."""

    pseudonym: str


class ErasureShown(Model):
    """What was erased."""

    runs: int
    keys: int = Field(description="How many data keys were destroyed.")
    complete: bool = Field(
        description="Whether the last copy of them left the database's files; false while somebody reads the log, "
        "and then tried again until it is done."
    )


class HoldShown(Model):
    """A legal hold in force."""

    target: str = Field(description="`run:ID`, or `subject:` and the user's pseudonym.")
    since_us: int
    index: int = Field(description="The record that set it.")
    why: str | None = None
    keys: int | None = Field(
        None,
        description="How many data keys it keeps, in the answer to setting it; 0 for a user nobody knows.",
    )


class HoldList(Model):
    """The holds in force, oldest first."""

    holds: tuple[HoldShown, ...]


class Released(Model):
    """A hold that has ended."""

    released: bool = True


class CustodyRest:
    """Operations on what is kept; all that change anything need the scope ``admin`` of a person."""

    def __init__(self, desk: Desk, issuer: str) -> None:
        """``issuer`` is the one of the local tokens."""
        self._custody = desk.custody
        self._views = desk.views
        self._changes = desk.changes
        self._issuer = issuer

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            *self._holding(),
            Operation(
                "POST",
                "/v1/audit/pseudonyms",
                "findPseudonym",
                "What a user, or a reviewer's person, is called in records; that it was asked is recorded.",
                self.find,
                PseudonymShown,
                scopes=("audit", "admin"),
                persons=True,
                body=NameGiven,
                refusals=(InvalidArguments, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/audit/erasures",
                "erasePayloads",
                "Destroy the data keys of all that a run, or a user, left in the log; its records stay provable.",
                self.erase,
                ErasureShown,
                scopes=("admin",),
                persons=True,
                body=TargetGiven,
                refusals=(NotFound, Conflict, InvalidArguments, Unavailable),
            ),
        )

    def _holding(self) -> Sequence[Operation]:
        return (
            Operation(
                "GET",
                "/v1/audit/holds",
                "listHolds",
                "The legal holds in force.",
                self.list,
                HoldList,
                scopes=("audit", "admin"),
                persons=True,
                refusals=(Unavailable,),
            ),
            Operation(
                "POST",
                "/v1/audit/holds",
                "setHold",
                "Keep what a run, or a user, left in the log from erasure and retention.",
                self.hold,
                HoldShown,
                scopes=("admin",),
                persons=True,
                body=TargetGiven,
                status=201,
                refusals=(NotFound, Conflict, InvalidArguments, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/audit/holds/release",
                "releaseHold",
                "Let a legal hold end.",
                self.release,
                Released,
                scopes=("admin",),
                persons=True,
                body=TargetGiven,
                refusals=(Conflict, InvalidArguments, Unavailable),
            ),
        )

    async def erase(self, asked: Asked) -> Reply:
        """Destroy the keys."""
        done = await self._custody.erase(asked.visit.principal, self._target(asked.body), asked.body.why)
        return shown(ErasureShown(runs=done.runs, keys=done.keys, complete=done.complete))

    async def find(self, asked: Asked) -> Reply:
        """Name them, once it is recorded that somebody looks for them."""
        given: NameGiven = asked.body
        if (given.user is None) is (given.person is None) or (given.issuer is not None and given.user is None):
            raise InvalidArguments("name a user or a person (issuer goes with a user)", cause_code="target")
        named = Named(person=given.person)
        if given.user is not None:
            named = Named(subject=(given.issuer or self._issuer, given.user))
        said = given.model_dump(exclude_none=True)
        await self._changes.record(asked.visit.principal, "log.pseudonym_asked", said)
        return shown(PseudonymShown(pseudonym=self._custody.pseudonym(named)))

    async def list(self, asked: Asked) -> Reply:
        """Those in force; that their reasons were read is recorded."""
        holds = await self._custody.holds()
        opened = [hold.index for hold in holds if hold.why is not None]
        for at in range(0, len(opened), _NAMED):
            which = {"records": opened[at : at + _NAMED]}
            await self._views.record(asked.visit.principal, Seen(View.HOLDS, (Role.REASONS,), which))
        return shown(HoldList(holds=tuple(map(_shown, holds))))

    async def hold(self, asked: Asked) -> Reply:
        """Set one."""
        return shown(
            _shown(await self._custody.hold(asked.visit.principal, self._target(asked.body), asked.body.why)), 201
        )

    async def release(self, asked: Asked) -> Reply:
        """End one."""
        await self._custody.release(asked.visit.principal, self._target(asked.body), asked.body.why)
        return shown(Released())

    def _target(self, given: TargetGiven) -> Target:
        if (given.run is None) is (given.user is None) or (given.issuer is not None and given.user is None):
            raise InvalidArguments("name a run or a user (issuer goes with a user)", cause_code="target")
        subject = None if given.user is None else (given.issuer or self._issuer, given.user)
        return Target(given.run, subject)


def _shown(hold: Hold) -> HoldShown:
    return HoldShown(target=hold.target, since_us=hold.since_us, index=hold.index, why=hold.why, keys=hold.keys)

"""REST for reviewers: whose key may approve. Each enrolment but the first is signed by an enrolled key."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, StringConstraints

from gateway.core.approval import Reviewer
from gateway.core.desk import Desk, Enrolment
from gateway.core.errors import Conflict, Forbidden, InvalidArguments, NotFound, Unavailable
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.approvals import REVIEWING, KeyId, SignatureText
from gateway.edge.rest.routes import Asked, Operation, shown
from gateway.edge.rest.runs import Name

Role = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,63}$")]
Hex32 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Account(Model):
    """A person's account at an issuer of tokens."""

    issuer: str = Field(min_length=1, max_length=256)
    user: Name


class EnrolmentGiven(Model):
    """A key to be enrolled."""

    public: Hex32 = Field(description="Raw Ed25519 public key, hex.")
    person: Name = Field(description="Who holds it; a quorum counts persons, not keys.")
    roles: list[Role] = Field([], max_length=32, description="What the person may approve as.")
    accounts: list[Account] = Field(
        [], max_length=32, description="The person's accounts; they decide on no call made for one of them."
    )
    nonce: Hex32
    signed_by: KeyId | None = Field(None, description="An enrolled key; only the first needs none.")
    signature: SignatureText | None = None


class ReviewerShown(Model):
    """An enrolled key."""

    key_id: str
    public: str
    person: str
    roles: tuple[str, ...]
    accounts: tuple[Account, ...]
    enrolled_by: str | None = None
    revoked: bool


class ReviewerList(Model):
    """Every key that was ever enrolled."""

    reviewers: tuple[ReviewerShown, ...]
    origin: str = Field(description="The log's public key: what signatures of enrolments and verdicts name.")


class ReviewerRest:
    """Operations on reviewers."""

    def __init__(self, desk: Desk) -> None:
        """Work through the desk."""
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/reviewers",
                "listReviewers",
                "Every key that was ever enrolled.",
                self.list,
                ReviewerList,
                scopes=(*REVIEWING, "audit"),
                persons=True,
            ),
            Operation(
                "POST",
                "/v1/reviewers",
                "enrolReviewer",
                "Enrol a key; all but the first are signed by an enrolled one.",
                self.enrol,
                ReviewerShown,
                scopes=("admin",),
                persons=True,
                body=EnrolmentGiven,
                status=201,
                refusals=(Conflict, Forbidden, InvalidArguments, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/reviewers/{key}/revoke",
                "revokeReviewer",
                "Let a key count no more, from now on.",
                self.revoke,
                ReviewerShown,
                scopes=("admin",),
                persons=True,
                refusals=(NotFound, Conflict, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """All keys."""
        desk = self._desk.reviewers
        return shown(ReviewerList(reviewers=tuple(_shown(one) for one in desk.all()), origin=desk.origin))

    async def enrol(self, asked: Asked) -> Reply:
        """Enrol a key."""
        given: EnrolmentGiven = asked.body
        wish = Enrolment(
            public=bytes.fromhex(given.public),
            person=given.person,
            roles=tuple(given.roles),
            accounts=tuple((account.issuer, account.user) for account in given.accounts),
            nonce=given.nonce,
            signed_by=given.signed_by,
            signature=None if given.signature is None else bytes.fromhex(given.signature),
        )
        return shown(_shown(await self._desk.reviewers.enrol(asked.visit.principal, wish)), 201)

    async def revoke(self, asked: Asked) -> Reply:
        """Revoke a key."""
        return shown(_shown(await self._desk.reviewers.revoke(asked.visit.principal, asked.path["key"])))


def _shown(reviewer: Reviewer) -> ReviewerShown:
    return ReviewerShown(
        key_id=reviewer.key_id,
        public=reviewer.public.hex(),
        person=reviewer.person,
        roles=tuple(sorted(reviewer.roles)),
        accounts=tuple(Account(issuer=issuer, user=user) for issuer, user in sorted(reviewer.accounts)),
        enrolled_by=reviewer.enrolled_by,
        revoked=reviewer.revoked,
    )

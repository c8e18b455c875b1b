"""REST for approvals: what waits for people, what exactly it would do, and a reviewer's signed word on it.

The word's authority is the signature of an enrolled key, never the credential it comes with. An agent may ask after its
own calls and learns no more than where they stand.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from gateway.core.approval import Signature, State, Verdict
from gateway.core.call import Principal
from gateway.core.custody import Seen, View
from gateway.core.desk import Ballot, Desk, Dossier
from gateway.core.errors import Conflict, Forbidden, InvalidArguments, NotFound, Unavailable
from gateway.core.ports import Ports
from gateway.core.records import Role, identifier
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

REVIEWING = ("review", "admin")
_LISTED, _HEAD = 200, 160
_REMEMBERED = 20_000
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
SignatureText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]


class NeedShown(Model):
    """What policy asks for."""

    id: str
    msg: str
    quorum: int
    roles: tuple[str, ...]
    missing: int = Field(description="How many persons' signatures are still lacking.")


class RuleShown(Model):
    """Why policy asks."""

    id: str
    msg: str


class SignatureShown(Model):
    """Who has signed."""

    key_id: str
    person: str
    roles: tuple[str, ...]
    verdict: Verdict
    at_us: int


class ApprovalStatus(Model):
    """Where an approval stands: all that the agent it is for may know."""

    id: str
    state: State
    expires_us: int
    why: str | None = None
    call_id: str | None = Field(None, description="The call it was used for.")


class ApprovalShown(ApprovalStatus):
    """An approval as reviewers see it."""

    tool: str
    parked_call_id: str
    goal: str | None = Field(None, description="What the person who opened the run asked for; absent where nobody did.")
    arguments_json: str = Field(description="The whole canonical arguments; their SHA-256 is in the statement.")
    statement: dict[str, Any] = Field(description="What a verdict is on: what reviewers sign.")
    requirements: tuple[NeedShown, ...]
    reasons: tuple[RuleShown, ...]
    signatures: tuple[SignatureShown, ...] = ()


class ApprovalSummary(Model):
    """A waiting approval in a list; look at it whole before deciding."""

    id: str
    tool: str
    user: str
    agent: str | None
    arguments_head: str = Field(description="The beginning of the canonical arguments.")
    requested_us: int
    expires_us: int
    missing: int = Field(description="How many persons' signatures are still lacking, at the least.")


class ApprovalList(Model):
    """The oldest that wait for people."""

    approvals: tuple[ApprovalSummary, ...]
    waiting: int = Field(description="How many wait altogether.")


class BallotGiven(Model):
    """A reviewer's word."""

    verdict: Literal["approve", "reject"]
    key_id: KeyId
    signature: SignatureText = Field(description="Ed25519, hex; see docs/approvals.md for what it is over.")
    reason: str | None = Field(None, min_length=1, max_length=1000, description="For the agent, with a rejection.")


class ApprovalRest:
    """Operations on approvals."""

    def __init__(self, ports: Ports, desk: Desk) -> None:
        """``ports`` tells whose a parked call is."""
        self._ports = ports
        self._desk = desk
        self._shown: set[tuple[str, str]] = set()

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/approvals",
                "listApprovals",
                "What waits for people, oldest first.",
                self.list,
                ApprovalList,
                scopes=REVIEWING,
                persons=True,
            ),
            Operation(
                "GET",
                "/v1/approvals/{id}",
                "showApproval",
                "One approval: whole for reviewers, its state for the agent whose call it is.",
                self.show,
                ApprovalStatus,
                refusals=(NotFound,),
            ),
            Operation(
                "POST",
                "/v1/approvals/{id}/decision",
                "decideApproval",
                "A reviewer's signed word; the last one needed lets the call be carried out, once.",
                self.decide,
                ApprovalShown,
                scopes=REVIEWING,
                persons=True,
                body=BallotGiven,
                refusals=(NotFound, Conflict, Forbidden, InvalidArguments, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:
        """What waits."""
        oldest, waiting = await self._desk.approvals.waiting(_LISTED)
        await self._listed(asked.visit.principal, [dossier.action.id for dossier in oldest])
        return shown(ApprovalList(approvals=tuple(_summary(dossier) for dossier in oldest), waiting=waiting))

    async def show(self, asked: Asked) -> Reply:
        """One approval, as far as the caller may see it."""
        principal, approval_id = asked.visit.principal, asked.path["id"]
        if principal.agent is None and principal.run is None and not principal.scopes.isdisjoint(REVIEWING):
            dossier = await self._desk.approvals.dossier(approval_id)
            await self._noted(principal, dossier)
            return shown(await self._whole(dossier))
        await self._ports.approvals.check_own(principal, approval_id)
        return shown(ApprovalStatus(**_status(await self._desk.approvals.dossier(approval_id))))

    async def decide(self, asked: Asked) -> Reply:
        """Take a reviewer's word."""
        given: BallotGiven = asked.body
        ballot = Ballot(Verdict(given.verdict), given.key_id, bytes.fromhex(given.signature), given.reason)
        return shown(await self._whole(await self._desk.approvals.decide(asked.path["id"], ballot)))

    async def _noted(self, principal: Principal, dossier: Dossier) -> None:
        which = {"approval": dossier.action.id, "call": dossier.action.call_id, "run": dossier.action.run}
        named = {kind: identifier(name) for kind, name in which.items()}
        await self._desk.views.record(principal, Seen(View.APPROVAL, (Role.ACTION, Role.RUN), named))

    async def _listed(self, principal: Principal, listed: Sequence[str]) -> None:
        # Inboxes ask again and again: only what was not shown to the person before is worth a record.
        fresh = [name for name in listed if (principal.key, name) not in self._shown]
        if not fresh:
            return
        names = {"approvals": [identifier(name) for name in fresh]}
        await self._desk.views.record(principal, Seen(View.APPROVALS, (Role.ACTION,), names))
        if len(self._shown) > _REMEMBERED:
            self._shown.clear()
        self._shown.update((principal.key, name) for name in fresh)

    async def _whole(self, dossier: Dossier) -> ApprovalShown:
        action = dossier.action
        run = await self._desk.runs.show(action.run)
        return ApprovalShown(
            **_status(dossier),
            tool=action.tool,
            parked_call_id=action.call_id,
            goal=None if run is None else run.goal,
            arguments_json=action.arguments.canonical.decode(),
            statement=action.statement(),
            requirements=tuple(
                NeedShown(id=need.id, msg=need.msg, quorum=need.quorum, roles=need.roles, missing=lacking)
                for need, lacking in zip(action.requirements, dossier.missing, strict=True)
            ),
            reasons=tuple(RuleShown(id=reason.id, msg=reason.msg) for reason in action.reasons),
            signatures=tuple(_signature(said) for said in dossier.signatures),
        )


def _summary(dossier: Dossier) -> ApprovalSummary:
    action = dossier.action
    return ApprovalSummary(
        id=action.id,
        tool=action.tool,
        user=action.principal.user,
        agent=action.principal.agent,
        arguments_head=action.arguments.canonical[:_HEAD].decode(errors="ignore"),
        requested_us=action.requested_us,
        expires_us=action.expires_us,
        missing=max(dossier.missing, default=0),
    )


def _status(dossier: Dossier) -> dict[str, Any]:
    return {
        "id": dossier.action.id,
        "state": dossier.state,
        "expires_us": dossier.action.expires_us,
        "why": dossier.why,
        "call_id": dossier.call_id,
    }


def _signature(said: Signature) -> SignatureShown:
    return SignatureShown(
        key_id=said.key_id,
        person=said.person,
        roles=tuple(sorted(said.roles)),
        verdict=said.verdict,
        at_us=said.at_us,
    )

"""REST for those who answer for policy: what is in force, what was, and what it decided."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from gateway.core.canonical import encode
from gateway.core.custody import Seen, View
from gateway.core.decision_log import event
from gateway.core.desk import Desk, Recorded
from gateway.core.errors import InvalidArguments, NotFound
from gateway.core.inquiry import Query, Searched
from gateway.core.ports import PipelineSettings
from gateway.core.records import Role
from gateway.edge.models import Model, QueryModel
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

_MAX_US = 2**53
_PAGE = 200
_DIGEST = 64


class DecisionQuery(QueryModel):
    """Which decisions; every given term must match."""

    tool: str | None = Field(None, max_length=256, description="`server.tool`, or a pattern with `*`.")
    effect: Literal["allow", "deny", "needs_approval"] | None = None
    agent: str | None = Field(None, max_length=128)
    call_id: str | None = Field(None, max_length=64)
    since_us: int | None = Field(None, ge=0, lt=_MAX_US, description="First microsecond, inclusive.")
    until_us: int | None = Field(None, ge=0, lt=_MAX_US, description="Last microsecond, inclusive.")
    after: int = Field(-1, ge=-1, lt=_MAX_US, description="Go on after this index: `next` of the page before.")
    limit: int = Field(100, ge=1, le=_PAGE, description="Most decisions of a page.")


class DecisionPage(Model):
    """Decisions in log order."""

    decisions: tuple[dict[str, Any], ...] = Field(
        description="Decision-log events as OPA writes them. `ostiary` holds what only this log knows; `erased` says "
        "that the input was not kept whole, or that its key was destroyed."
    )
    next: int | None = Field(None, description="`after` of the next page; absent on the last.")


class Candidate(Model):
    """What the sources hold, and why it is not in force."""

    problems: tuple[str, ...]
    since_us: int


class DenyOnlyShown(Model):
    """A layer that may only restrict."""

    origin: str
    said_by: tuple[str, ...] = Field(description="`gateway.toml`, or the bundle's own `.manifest`.")


class PolicyShown(Model):
    """The policy in force."""

    revision: str
    engine: str
    since_us: int
    origin: tuple[str, ...] = Field(description="Where its layers come from.")
    deny_only: tuple[DenyOnlyShown, ...] = Field(description="Those of its layers that may only restrict.")
    candidate: Candidate | None = Field(None, description="Present where newer policy was refused or is out of reach.")


class RevisionShown(Model):
    """A bundle that is or was in force."""

    revision: str
    modules: tuple[tuple[str, str], ...] = Field(description="Name and source of each Rego file.")
    data: str = Field(description="JSON text of the data documents; the revision is the digest of these very bytes.")


class PolicyRest:
    """Operations on policy; all need the scope ``audit`` of a person: they tell of hidden tools."""

    def __init__(self, desk: Desk, settings: PipelineSettings) -> None:
        """Read through the desk."""
        self._desk = desk
        self._labels: Mapping[str, str] = {"env": settings.environment, "region": settings.region}

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/policy",
                "showPolicy",
                "The policy in force, and why not a newer one.",
                self.standing,
                PolicyShown,
                scopes=("audit",),
                persons=True,
            ),
            Operation(
                "GET",
                "/v1/policy/revisions/{revision}",
                "showRevision",
                "The Rego and data of a revision that is or was in force.",
                self.revision,
                RevisionShown,
                scopes=("audit",),
                persons=True,
                refusals=(NotFound,),
            ),
            Operation(
                "GET",
                "/v1/audit/decisions",
                "exportDecisions",
                "Recorded decisions with what policy read and said.",
                self.decisions,
                DecisionPage,
                scopes=("audit",),
                persons=True,
                query=DecisionQuery,
                refusals=(InvalidArguments,),
            ),
        )

    async def standing(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """What is in force."""
        now = self._desk.policy.standing()
        since_us = now.problems_since_us
        candidate = None if since_us is None else Candidate(problems=now.problems, since_us=since_us)
        return shown(
            PolicyShown(
                revision=now.revision,
                engine=now.engine,
                since_us=now.since_us,
                origin=now.origin,
                deny_only=tuple(DenyOnlyShown(origin=one.origin, said_by=one.said_by) for one in now.deny_only),
                candidate=candidate,
            )
        )

    async def revision(self, asked: Asked) -> Reply:
        """One revision's Rego and data."""
        wanted = asked.path["revision"]
        found = await self._desk.policy.bundle(wanted) if len(wanted) == _DIGEST else None
        if found is None:
            raise NotFound("no such revision", cause_code="revision")
        modules = tuple((module.name, module.text) for module in found.modules)
        return shown(RevisionShown(revision=found.revision, modules=modules, data=found.data))

    async def decisions(self, asked: Asked) -> Reply:
        """Decisions, as events."""
        query = Query(type="decision", **asked.query.model_dump())
        found = await self._desk.reader.decisions(query)
        searched = Searched("decisions", query, None, len(found))
        await self._desk.searches.record(asked.visit.principal, searched)
        await self._noted(asked, found)
        page: dict[str, Any] = {"decisions": [event(one, self._labels) for one in found]}
        if len(found) == query.limit:
            page["next"] = found[-1].record.index
        return Reply(200, encode(page))

    async def _noted(self, asked: Asked, found: Sequence[Recorded]) -> None:
        opened = [one.record.index for one in found if one.said is not None]
        if opened:
            roles = (Role.REASONS, Role.REQUEST) if any(one.document for one in found) else (Role.REASONS,)
            seen = Seen(View.DECISIONS, roles, {"records": opened})
            await self._desk.views.record(asked.visit.principal, seen)

"""REST for auditors: search the log, one run's timeline.

Every search is in the log before its answer leaves; what cannot be recorded is not answered. An unrecorded search would
be worth more to who must not be seen searching than to an auditor: those find the whole log in its files, too.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from gateway.core.desk import Desk, LogRecord
from gateway.core.errors import InvalidArguments, MalformedRequest, NotFound
from gateway.core.filters import MAX_QUERY, FilterError, parse, term
from gateway.core.filters import Field as Name
from gateway.core.inquiry import Query, Searched
from gateway.edge.models import Model, QueryModel
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

_MAX_US = 2**53
_PAGE = 1000


class RecordQuery(QueryModel):
    """Search terms; every given one must match. Each but the cursor can stand in ``q`` as well, and means the same."""

    q: str | None = Field(
        None,
        max_length=MAX_QUERY,
        description="Terms in the query language: `tool:pay.* effect:deny -agent:clerk since:24h`. Fields: agent, "
        "call, effect, reason, run, since, tool, type, until, user (a pseudonym). `-` in front leaves such records "
        "out; values with spaces stand in double quotes; `*` in agent, reason, tool and type for any characters.",
    )
    type: str | None = Field(None, max_length=64, description="Record type, e.g. `decision`, or a pattern: `tool.*`.")
    run_id: str | None = Field(None, max_length=64)
    call_id: str | None = Field(None, max_length=64)
    tool: str | None = Field(None, max_length=256, description="`server.tool`, or a pattern with `*`.")
    effect: Literal["allow", "deny", "needs_approval"] | None = None
    agent: str | None = Field(None, max_length=128, description="Agent, or a pattern with `*`.")
    since_us: int | None = Field(None, ge=0, lt=_MAX_US, description="First microsecond, inclusive.")
    until_us: int | None = Field(None, ge=0, lt=_MAX_US, description="Last microsecond, inclusive.")
    after: int = Field(-1, ge=-1, lt=_MAX_US, description="Go on after this index: `next` of the page before.")
    limit: int = Field(100, ge=1, le=_PAGE, description="Most records of a page.")


class RunQuery(QueryModel):
    """Which part of a run's timeline."""

    after: int = Field(-1, ge=-1, lt=_MAX_US, description="Go on after this index: `next` of the page before.")
    limit: int = Field(_PAGE, ge=1, le=_PAGE, description="Most records of a page.")


class RecordShown(Model):
    """A record and its place in the log."""

    index: int
    record: dict[str, Any] = Field(description="The leaf, decoded.")


class RecordPage(Model):
    """Records in log order."""

    records: tuple[RecordShown, ...]
    next: int | None = Field(None, description="`after` of the next page; absent on the last.")


class AuditRest:
    """Operations on the log; all need the scope ``audit``."""

    def __init__(self, desk: Desk) -> None:
        """Read through the desk."""
        self._reader = desk.reader
        self._searches = desk.searches

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/audit/records",
                "searchRecords",
                "Search the log.",
                self.search,
                RecordPage,
                scopes=("audit",),
                query=RecordQuery,
                refusals=(InvalidArguments,),
            ),
            Operation(
                "GET",
                "/v1/audit/runs/{id}",
                "auditRun",
                "All records of a run.",
                self.run,
                RecordPage,
                scopes=("audit",),
                query=RunQuery,
                refusals=(NotFound,),
            ),
        )

    async def search(self, asked: Asked) -> Reply:
        """Matching records."""
        given: RecordQuery = asked.query
        query = await self._understood(asked, given)
        try:
            found = await self._reader.search(query)
        except InvalidArguments:  # how long it took says something, too
            await self._searches.record(asked.visit.principal, Searched("records", query, given.q, 0))
            raise
        await self._searches.record(asked.visit.principal, Searched("records", query, given.q, len(found)))
        return _page(found, query.limit)

    async def _understood(self, asked: Asked, given: RecordQuery) -> Query:
        try:
            return understood(given, asked.visit.call.at_us)
        except MalformedRequest:  # what somebody looked for and misspelt is what they looked for
            query = Query(after=given.after, limit=given.limit)
            searched = Searched("records", query, _written(given), 0, is_malformed=True)
            await self._searches.record(asked.visit.principal, searched)
            raise

    async def run(self, asked: Asked) -> Reply:
        """One run's records."""
        query = Query(run_id=asked.path["id"], after=asked.query.after, limit=asked.query.limit)
        found = await self._reader.search(query)
        await self._searches.record(asked.visit.principal, Searched("run", query, None, len(found)))
        if not found and query.after < 0:
            raise NotFound("no record of such a run", cause_code="run")
        return _page(found, query.limit)


def understood(given: RecordQuery, now_us: int) -> Query:
    """What is asked for, in words or by parameters.

    Raises:
        MalformedRequest: it is not of the language, or no record can be so.
    """
    members = {Name.TYPE: given.type, Name.RUN: given.run_id, Name.CALL: given.call_id, Name.TOOL: given.tool}
    members |= {Name.EFFECT: given.effect, Name.AGENT: given.agent}
    place = "q"
    try:
        asked = parse(given.q or "", now_us)
        terms = list(asked.terms)
        for name, value in members.items():
            place = name
            if value is not None:
                terms.append(term(name, value))
    except FilterError as error:
        where = f"q, {error}" if place == "q" else f"{place}: {error.problem}; {error.remedy}"
        raise MalformedRequest(where, cause_code="query") from None
    since = max((each for each in (asked.since_us, given.since_us) if each is not None), default=None)
    until = min((each for each in (asked.until_us, given.until_us) if each is not None), default=None)
    return Query(terms=tuple(terms), since_us=since, until_us=until, after=given.after, limit=given.limit)


def _written(given: RecordQuery) -> str:
    """All terms as they came, however they are spelt."""
    terms = given.model_dump(exclude={"q", "after", "limit"}, exclude_none=True)
    return " ".join([given.q or "", *(f"{name}:{value}" for name, value in terms.items())]).strip()


def shown_record(record: LogRecord) -> RecordShown:
    """``record`` as the API shows it."""
    return RecordShown(index=record.index, record=dict(record.body))


def _page(found: Sequence[LogRecord], limit: int) -> Reply:
    last = found[-1].index if len(found) == limit else None
    return shown(RecordPage(records=tuple(shown_record(record) for record in found), next=last))

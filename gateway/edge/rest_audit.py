"""REST for auditors: search the log, one run's timeline."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from gateway.core.desk import Desk, LogRecord, Query
from gateway.core.errors import NotFound
from gateway.edge.reply import Reply
from gateway.edge.rest import Asked, Model, Operation, QueryModel, shown

_MAX_US = 2**53
_PAGE = 1000


class RecordQuery(QueryModel):
    """Search terms; every given one must match."""

    type: str | None = Field(None, max_length=64, description="Record type, e.g. `decision` or `tool.completed`.")
    run_id: str | None = Field(None, max_length=64)
    call_id: str | None = Field(None, max_length=64)
    tool: str | None = Field(None, max_length=256, description="`server.tool`, or a pattern with `*`.")
    effect: Literal["allow", "deny", "needs_approval"] | None = None
    agent: str | None = Field(None, max_length=128)
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
        query = Query(**asked.query.model_dump())
        return _page(await self._reader.search(query), query.limit)

    async def run(self, asked: Asked) -> Reply:
        """One run's records."""
        query = Query(run_id=asked.path["id"], after=asked.query.after, limit=asked.query.limit)
        found = await self._reader.search(query)
        if not found and query.after < 0:
            raise NotFound("no record of such a run", cause_code="run")
        return _page(found, query.limit)


def shown_record(record: LogRecord) -> RecordShown:
    """``record`` as the API shows it."""
    return RecordShown(index=record.index, record=dict(record.body))


def _page(found: Sequence[LogRecord], limit: int) -> Reply:
    last = found[-1].index if len(found) == limit else None
    return shown(RecordPage(records=tuple(shown_record(record) for record in found), next=last))

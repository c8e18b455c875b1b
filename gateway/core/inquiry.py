"""Questions to the log: what is asked for, and that it was asked."""

from dataclasses import dataclass
from typing import Protocol

from gateway.core.call import Principal
from gateway.core.filters import Field, Term


@dataclass(frozen=True, slots=True)
class Query:
    """A search of the log; every given field and every term must match.

    Attributes:
        type: record type, e.g. ``decision`` or ``tool.completed``.
        tool: ``server.tool`` or a pattern with ``*``.
        effect: ``allow`` | ``deny`` | ``needs_approval``.
        since_us: first microsecond, inclusive.
        until_us: last microsecond, inclusive.
        after: index to go on after (cursor); -1 = from the start.
        limit: most records, 1..1000.
        terms: further conditions.
    """

    type: str | None = None
    run_id: str | None = None
    call_id: str | None = None
    tool: str | None = None
    effect: str | None = None
    agent: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    after: int = -1
    limit: int = 100
    terms: tuple[Term, ...] = ()

    @property
    def conditions(self) -> tuple[Term, ...]:
        """All conditions but the times and the cursor, in one form."""
        given = (
            (Field.AGENT, self.agent),
            (Field.CALL, self.call_id),
            (Field.EFFECT, self.effect),
            (Field.RUN, self.run_id),
            (Field.TOOL, self.tool),
            (Field.TYPE, self.type),
        )
        return (*(Term(name, value) for name, value in given if value is not None), *self.terms)

    @property
    def fields(self) -> tuple[Field, ...]:
        """What is searched by, each once and in order; empty where the log is only read on."""
        times = ((Field.SINCE, self.since_us), (Field.UNTIL, self.until_us))
        named = {term.field for term in self.conditions} | {name for name, bound in times if bound is not None}
        return tuple(sorted(named))


@dataclass(frozen=True, slots=True)
class Searched:
    """A search, as it is recorded.

    Attributes:
        door: where it came in: ``records`` | ``run`` | ``decisions`` | ``call`` | ``proof`` (of the record after the
            cursor).
        query: what was asked.
        text: the query as it was written, where it was.
        results: how many records the answer holds.
        is_malformed: whether it was not of the language: then ``text`` alone says what was asked.
    """

    door: str
    query: Query
    text: str | None
    results: int
    is_malformed: bool = False

    @property
    def follows(self) -> bool:
        """Whether the log is only read on, by who wants whatever comes."""
        return not self.query.fields and self.door != "proof" and not self.is_malformed


class Searches(Protocol):
    """Records who searches the log. Closed: what cannot be recorded is not answered."""

    async def record(self, by: Principal, searched: Searched) -> None:
        """Write ``query`` durably, before the answer goes out.

        Reading on, which has no conditions, shows nothing of what its reader looks for: it is recorded once in a while
        for each reader, or following the log would write to the log for ever.

        Raises:
            Unavailable: the log cannot be written.
        """

"""What the log knows of approvals and reviewers: read back when the gateway starts, and after each attempt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.adapters.ledger.actiondoc import read_action
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.storage.claims import COLUMNS, Stand, stand_of
from gateway.core.approval import Action
from gateway.core.call import Answer
from gateway.core.errors import GatewayError, OutcomeUnknown, recalled
from gateway.core.records import ENDINGS, EventType, Role

_OPEN = "state in ('pending', 'approved', 'executing')"


@dataclass(frozen=True, slots=True)
class Word:
    """One ``approval.decided`` record.

    Attributes:
        body: its leaf's body.
        reason: what the reviewer said, if anything.
    """

    at_us: int
    body: Mapping[str, Any]
    reason: str | None


@dataclass(frozen=True, slots=True)
class Case:
    """One approval as the log has it.

    Attributes:
        action: None where its payload was erased.
        words: what reviewers said, in order.
        why: why it lapsed or could not be used, where that is recorded.
    """

    id: str
    stand: Stand
    action: Action | None
    words: tuple[Word, ...]
    why: str | None


async def cases(reader: LogReader, since_us: int) -> tuple[Case, ...]:
    """The approvals that are open, and those that were moved since then."""

    def run(db: Database) -> tuple[Case, ...]:
        rows = db.execute(
            f"select id, {COLUMNS} from approvals where {_OPEN} or at_us >= ? order by idx",  # noqa: S608 - literals
            (since_us,),
        )
        return tuple(_case(reader, db, row[0], stand_of(row[1:])) for row in rows.fetchall())

    return await reader.ask(run)


async def stands(reader: LogReader, since_us: int) -> dict[str, Stand]:
    """Where the approvals stand that are open, or were moved since then; the oldest first."""

    def run(db: Database) -> dict[str, Stand]:
        rows = db.execute(
            f"select id, {COLUMNS} from approvals where {_OPEN} or at_us >= ? order by idx",  # noqa: S608 - literals
            (since_us,),
        )
        return {row[0]: stand_of(row[1:]) for row in rows}

    return await reader.ask(run)


async def case(reader: LogReader, approval_id: str) -> Case | None:
    """One approval, or None where there is none."""

    def run(db: Database) -> Case | None:
        row = db.execute(f"select id, {COLUMNS} from approvals where id = ?", (approval_id,)).fetchone()  # noqa: S608 - a literal
        return None if row is None else _case(reader, db, row[0], stand_of(row[1:]))

    return await reader.ask(run)


async def stand(reader: LogReader, approval_id: str) -> Stand | None:
    """Where an approval stands, or None where there is none."""

    def run(db: Database) -> Stand | None:
        row = db.execute(f"select {COLUMNS} from approvals where id = ?", (approval_id,)).fetchone()  # noqa: S608 - a literal
        return None if row is None else stand_of(row)

    return await reader.ask(run)


async def outcome(reader: LogReader, call_id: str) -> Answer | GatewayError:
    """How a call ended, from its records: its answer again, or its error."""

    def run(db: Database) -> Answer | GatewayError:
        rows = db.execute("select idx, leaf from records where call_id = ? order by idx", (call_id,)).fetchall()
        for index, entry in reversed(rows):
            record = msgspec.json.decode(entry)
            if record["type"] == EventType.TOOL_COMPLETED:
                return _answer(record, reader.sealed(db, index, record, Role.RESULT))
            if record["type"] in ENDINGS:
                return _error(record["body"], reader.sealed(db, index, record, Role.ERROR))
        return OutcomeUnknown("the call has no recorded end", cause_code="no_record")

    return await reader.ask(run)


def _case(reader: LogReader, db: Database, approval_id: str, where: Stand) -> Case:
    (entry,) = db.execute("select leaf from records where idx = ?", (where.index,)).fetchone()
    request = msgspec.json.decode(entry)
    content = reader.sealed(db, where.index, request, Role.ACTION)
    rows = db.execute("select idx, leaf from records where call_id = ? order by idx", (request["call_id"],)).fetchall()
    words: list[Word] = []
    why = None
    for index, record in ((index, msgspec.json.decode(leaf)) for index, leaf in rows):
        if record["body"].get("approval") != approval_id:
            continue
        said = _text(reader.sealed(db, index, record, Role.REASONS))
        if record["type"] == EventType.APPROVAL_DECIDED:
            words.append(Word(record["ts"], record["body"], said))
        elif record["type"] == EventType.APPROVAL_VOID:
            why = said
    return Case(approval_id, where, None if content is None else read_action(content), tuple(words), why)


def _text(content: bytes | None) -> str | None:
    said = None if content is None else msgspec.json.decode(content).get("reason")
    return said if isinstance(said, str) else None


def _answer(record: Mapping[str, Any], body: bytes | None) -> Answer | GatewayError:
    if body is None:
        return OutcomeUnknown("the call was carried out; its result was erased", cause_code="erased")
    said = record["body"]
    return Answer(record["call_id"], record["run_id"], body, said["is_error"], said["redactions"], replayed=True)


def _error(said: Mapping[str, Any], content: bytes | None) -> GatewayError:
    words = {} if content is None else msgspec.json.decode(content)
    detail = words.get("detail") or "the gateway stopped during the call; an effect may have happened"
    return recalled(str(said["code"]), str(detail), str(said["cause"]))

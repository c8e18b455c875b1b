"""Reading the log: its own connection that cannot write, used off the event loop, one query at a time."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import msgspec
from anyio import CancelScope, to_thread

from gateway.adapters.ledger.additions import PAYLOAD_SLOTS
from gateway.adapters.ledger.database import FAULTS, Database
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.keyring.sealing import SealBroken, unseal, unwrap
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.searching import search, size_before
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.adapters.ledger.storage.outcome import DISPLACED
from gateway.adapters.ledger.storage.site import Site, sited
from gateway.core.call import RunKind
from gateway.core.desk import LogRecord, Recorded
from gateway.core.errors import NotFound, Unavailable
from gateway.core.inquiry import Query
from gateway.core.leasing import Leftover
from gateway.core.policy_input import with_arguments
from gateway.core.records import EventType, Role

_DUE_BATCH = 500
T = TypeVar("T")

# The type stands in it literally, or its partial index would not be used.
_RECENT = "select leaf from records where type = 'tool.requested' and {} and ts >= ? order by ts"
# When a run expires stands in the leaf of its start. What is under way, on whatever replica, is not idle.
_DUE = """
select run_id, expires <= ? from (
  select o.run_id, o.binding is not null as implicit,
    (select {} from records r where r.run_id = o.run_id and r.seq_run = 0) as expires,
    (select ts from records r where r.run_id = o.run_id order by seq_run desc limit 1) as last
  from open_runs o where o.run_id > ?
) as due where expires <= ? or (implicit and last <= ? and not exists (
  select 1 from records r where r.run_id = due.run_id and (
    r.idx in (select idx from intents)
    or r.idx in (select idx from approvals where state in ('pending', 'approved', 'executing'))
  )
)) order by run_id limit ?
"""

# From a record on, as a database may hand over all it finds at once.
_OF_TYPE = f"select idx, leaf from records where {RARE_TYPE} and type = ? and idx >= ? order by idx desc"  # noqa: S608 - literals only

# A key that was destroyed stays so, even where somebody put it back.
LIVE_KEY = "select wrapped from deks where id = ? and not exists (select 1 from erased where key = deks.id)"
_LAST = "select ts from records where run_id = ? order by seq_run desc limit 1"


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What the log knows of one run.

    Attributes:
        document: the sealed ``run`` payload of its start, opened; None where its key was destroyed.
        is_open: whether it has not ended.
        last_us: time of its last record.
        requested: each ``tool.requested`` record, unless the run is implicit.
    """

    document: dict[str, Any] | None
    is_open: bool
    last_us: int
    requested: tuple["Requested", ...]


class _RequestBody(msgspec.Struct, frozen=True, gc=False):
    tool: str
    measures: dict[str, int]


class _Requester(msgspec.Struct, frozen=True, gc=False):
    user: str | None


class Requested(msgspec.Struct, frozen=True, gc=False, rename={"at_us": "ts"}):
    """What a ``tool.requested`` record says of usage.

    Attributes:
        at_us: when, microseconds.
    """

    at_us: int
    run_id: str
    actor: _Requester
    body: _RequestBody

    @property
    def tool(self) -> str:
        """The tool, ``server.tool``."""
        return self.body.tool

    @property
    def measures(self) -> dict[str, int]:
        """What the call's measures were, by name."""
        return self.body.measures


class LogReader:
    """Implements ``core.desk.AuditReader`` on a ledger that is open; an async context manager.

    Failure mode, closed: a log that cannot be read is ``Unavailable``.
    """

    def __init__(
        self, place: Path | Site, keys: LogKeys, *, writer: Ledger | None = None, is_hasty: bool = False
    ) -> None:
        """``writer``: who writes the log in this process; ``is_hasty``: calls wait for the answers."""
        self._writer = writer
        self._is_hasty = is_hasty
        self._site = sited(place)
        self._kek = keys.kek
        self._db: Database | None = None
        # Whether the connection looks into the tables alone.
        self._is_settled = False
        self._turn = anyio.Lock()
        # A task that is cancelled waits no longer, and its question goes on all the same.
        self._in_use = threading.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            await to_thread.run_sync(self._close)

    async def search(self, query: Query) -> tuple[LogRecord, ...]:
        """Matching records in log order; see ``core.desk.AuditReader``."""

        def run(db: Database) -> tuple[LogRecord, ...]:
            return tuple(LogRecord(index, entry, msgspec.json.decode(entry)) for index, entry in search(db, query))

        return await self.ask(run)

    async def newest(self, kind: EventType) -> LogRecord | None:
        """The last record of a type that is not among the most common, or None."""

        def run(db: Database) -> LogRecord | None:
            row = db.execute(f"{_OF_TYPE} limit 1", (kind, 0)).fetchone()
            return None if row is None else LogRecord(row[0], row[1], msgspec.json.decode(row[1]))

        return await self.ask(run)

    async def decisions(self, query: Query) -> tuple[Recorded, ...]:
        """Matching decisions, with what policy read and said; see ``core.desk.AuditReader``."""
        wanted = replace(query, type=EventType.DECISION)

        def run(db: Database) -> tuple[Recorded, ...]:
            rows = search(db, wanted)
            return tuple(self._recorded(db, LogRecord(idx, leaf, msgspec.json.decode(leaf))) for idx, leaf in rows)

        return await self.ask(run)

    async def payload(self, call_id: str, role: str) -> Any:
        """A sealed payload, opened and decoded; see ``core.desk.AuditReader``."""
        return await self.ask(lambda db: self._payload(db, "call_id", call_id, role))

    async def run(self, run_id: str) -> StoredRun | None:
        """What the log knows of a run, or None where there is no such run."""
        return await self.ask(lambda db: self._run(db, run_id))

    async def bound_run(self, binding: str) -> str | None:
        """Id of the open implicit run of a session, by its keyed name."""

        def run(db: Database) -> str | None:
            row = db.execute("select run_id from open_runs where binding = ?", (binding,)).fetchone()
            return None if row is None else str(row[0])

        return await self.ask(run)

    async def due_runs(self, after: str, now_us: int, idle_us: int) -> tuple[tuple[str, str], ...]:
        """Open runs with ids greater than ``after`` that are over by ``now_us``, at most 500: (id, why).

        An implicit run is over, too, ``idle_us`` after its last record.
        """

        def run(db: Database) -> tuple[tuple[str, str], ...]:
            statement = _DUE.format(db.dialect.number("body.expires_us"))
            rows = db.execute(statement, (now_us, after, now_us, now_us - idle_us, _DUE_BATCH))
            return tuple((str(run_id), "expired" if is_expired else "idle") for run_id, is_expired in rows)

        return await self.ask(run)

    async def standing(self, run_id: str) -> tuple[bool, int]:
        """Whether a run is open, and the time of its last record (0 where it has none)."""

        def run(db: Database) -> tuple[bool, int]:
            is_open = db.execute("select 1 from open_runs where run_id = ?", (run_id,)).fetchone() is not None
            last = db.execute(_LAST, (run_id,)).fetchone()
            return is_open, 0 if last is None else int(last[0])

        return await self.ask(run)

    async def recent_requests(self, agent: str | None, user: str | None, since_us: int) -> tuple[Requested, ...]:
        """The intents of an actor (as leaves name it) in implicit runs since then, in the order of time."""

        def run(db: Database) -> tuple[Requested, ...]:
            who, named = ("agent is null", ()) if agent is None else ("agent = ?", (agent,))
            rows = db.execute(_RECENT.format(who), (*named, since_us))
            found = [request for (entry,) in rows if (request := _REQUESTED.decode(entry)).actor.user == user]
            implicit = {run_id: _is_implicit(db, run_id) for run_id in {request.run_id for request in found}}
            return tuple(request for request in found if implicit[request.run_id])

        return await self.ask(run)

    async def open_tokens(self, since_us: int) -> tuple[Leftover, ...]:
        """Minting tokens opened, or in doubt, since then and never closed; not those of another process that lives.

        Oldest first.
        """

        def run(db: Database) -> tuple[Leftover, ...]:
            others = self._site.others(db)
            closed = {record["body"]["mark"] for _, record in _newest(db, EventType.CREDENTIAL_REVOKED, since_us)}
            # Of what is in doubt for long the token was opened before; of one that was opened since, both say the same.
            kinds = (EventType.CREDENTIAL_REVOKE_PENDING, EventType.CREDENTIAL_LEASED)
            found = {
                record["body"]["mark"]: (index, record)
                for kind in kinds
                for index, record in _newest(db, kind, since_us)
                if record["body"]["kind"] == "token"
                and record["payloads"]
                and record["body"]["mark"] not in closed
                and record["body"].get("replica") not in others
            }
            return tuple(
                self._leftover(db, index, record) for index, record in sorted(found.values(), key=lambda one: one[0])
            )

        return await self.ask(run)

    def _leftover(self, db: Database, index: int, record: dict[str, Any]) -> Leftover:
        said = self.sealed(db, index, record, Role.LEASE)
        known = {} if said is None else msgspec.json.decode(said, type=dict[str, str])
        body, name = record["body"], known.get("name") or None
        return Leftover(record["run_id"], body["mark"], known.get("accessor"), body["template"], name)

    async def ask(self, question: Callable[[Database], T]) -> T:
        """What ``question`` finds; it runs off the event loop, on a connection that cannot write.

        Raises:
            Unavailable: the log cannot be read.
            NotFound: no record can have what was asked for.
        """

        def run() -> T:
            with self._in_use:
                if self._db is None:
                    self._db = self._site.reader(is_hasty=self._is_hasty, is_settled=self._is_settled)
                return question(self._db)

        async with self._turn:
            await self._settle()
            try:
                return await to_thread.run_sync(run)
            except (UnicodeEncodeError, OverflowError):
                raise NotFound("no record can have such an id or time") from None
            except (*FAULTS, msgspec.DecodeError, SealBroken) as error:
                with CancelScope(shield=True):
                    await to_thread.run_sync(self._close)  # the next question opens the log anew
                raise Unavailable("the audit log cannot be read", cause_code="ledger_unreadable") from error

    async def _settle(self) -> None:
        # What was acknowledged is found, however long it has been so.
        if self._writer is None:
            return
        try:
            await self._writer.settle()
            is_settled = True
        except Unavailable as error:
            if error.cause_code == DISPLACED:  # what would be opened now is another log, or a part of this one
                raise
            is_settled = False
        if not (is_settled and self._is_settled):
            # One that is opened now sees what the tables could not take; or it need not look for it any more.
            with CancelScope(shield=True):
                await to_thread.run_sync(self._close)
        self._is_settled = is_settled

    def _close(self) -> None:
        with self._in_use:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _run(self, db: Database, run_id: str) -> StoredRun | None:
        last = db.execute(_LAST, (run_id,)).fetchone()
        if last is None:
            return None
        is_open = db.execute("select 1 from open_runs where run_id = ?", (run_id,)).fetchone() is not None
        document = self._payload(db, "run_id", run_id, Role.RUN)
        requested = () if document is not None and document["kind"] == RunKind.IMPLICIT else _requested(db, run_id)
        return StoredRun(document, is_open, int(last[0]), requested)

    def _recorded(self, db: Database, record: LogRecord) -> Recorded:
        sealed = self.sealed(db, record.index, record.body, Role.REASONS)
        if sealed is None:
            return Recorded(record, None, None)
        said = msgspec.json.decode(sealed, type=dict[str, msgspec.Raw])
        document = None
        if "facts" in said and "input_digest" in said:
            arguments = self._arguments(db, record)
            document = with_arguments(bytes(said["facts"]), arguments, msgspec.json.decode(said["input_digest"]))
        return Recorded(record, msgspec.json.decode(sealed), document)

    def _arguments(self, db: Database, record: LogRecord) -> bytes | None:
        # With a refusal they stand in the record itself, otherwise in that of the intent.
        request = self.sealed(db, record.index, record.body, Role.REQUEST)
        if request is None and record.body["call_id"] is not None:
            request, _ = self._first(db, "call_id", record.body["call_id"], Role.REQUEST)
        found = {} if request is None else msgspec.json.decode(request, type=dict[str, msgspec.Raw])
        return bytes(found["arguments"]) if "arguments" in found else None

    def sealed(self, db: Database, index: int, record: Mapping[str, Any], role: str) -> bytes | None:
        """The opened payload ``role`` of a record, as bytes; None where there is none or its key was destroyed."""
        for slot, ref in enumerate(record["payloads"]):
            if ref["role"] == role:
                return self._opened(db, index * PAYLOAD_SLOTS + slot, record["id"], ref)
        return None

    def _payload(self, db: Database, column: str, value: str, role: str) -> Any:
        content, mime = self._first(db, column, value, role)
        if content is None:
            return None
        return msgspec.json.decode(content) if mime == "application/json" else content.decode()

    def _first(self, db: Database, column: str, value: str, role: str) -> tuple[bytes | None, str]:
        order = "seq_run limit 1" if column == "run_id" else "idx"
        rows = db.execute(f"select idx, leaf from records where {column} = ? order by {order}", (value,))  # noqa: S608 - column is one of two literals
        for index, entry in rows.fetchall():
            record = msgspec.json.decode(entry)
            for ref in record["payloads"]:
                if ref["role"] == role:
                    return self.sealed(db, index, record, role), ref["mime"]
        return None, ""

    def _opened(self, db: Database, pid: int, record_id: str, ref: Mapping[str, Any]) -> bytes | None:
        key_row = db.execute(LIVE_KEY, (ref["dek"],)).fetchone()
        row = db.execute("select sealed from payloads where pid = ?", (pid,)).fetchone()
        if key_row is None or row is None:
            return None
        return unseal(unwrap(self._kek, ref["dek"], key_row[0]), record_id, ref["role"], row[0])


_REQUESTED = msgspec.json.Decoder(Requested)


def _newest(db: Database, kind: EventType, since_us: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, entry in db.execute(_OF_TYPE, (kind, size_before(db, since_us))):
        record = msgspec.json.decode(entry)
        if record["ts"] >= since_us:
            yield index, record


def _requested(db: Database, run_id: str) -> tuple[Requested, ...]:
    rows = db.execute(
        "select leaf from records where run_id = ? and +type = ? order by seq_run", (run_id, EventType.TOOL_REQUESTED)
    )
    return tuple(_REQUESTED.decode(entry) for (entry,) in rows)


def _is_implicit(db: Database, run_id: str) -> bool:
    (entry,) = db.execute("select leaf from records where run_id = ? and seq_run = 0", (run_id,)).fetchone()
    return bool(msgspec.json.decode(entry)["body"]["kind"] == RunKind.IMPLICIT)

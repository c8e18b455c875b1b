"""One transaction's worth of records: each draft gets its place, its bytes and its leaf in the tree.

A batch holds what callers appended at about the same time. One caller's bad draft fails that caller only; whatever
fails the transaction fails them all, and the batch is thrown away.
"""

from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from gateway.adapters.ledger.additions import PAYLOAD_SLOTS, Additions
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.pool import Pool
from gateway.adapters.ledger.keyring.ring import KeyRing
from gateway.adapters.ledger.keyring.sealing import NONCE_SIZE, DataKeys, seal
from gateway.adapters.ledger.storage import claims, custody, key_records, kill_records, share_records
from gateway.adapters.ledger.storage.claims import Claims, Stand
from gateway.adapters.ledger.storage.custody import Custody, Kept
from gateway.adapters.ledger.storage.files import CHECKPOINT_WINDOW, COMMON_REASON
from gateway.adapters.ledger.storage.span import Span
from gateway.core.errors import Conflict, NotFound, Unavailable
from gateway.core.log_keys import KeyHistory
from gateway.core.records import ENDINGS, Draft, EventType, PayloadRef, Place, RecordError, leaf
from gateway.core.tlog import Checkpoint, Frontier, leaf_hash

_CACHED_HEADS = 65_536
# By names of their own: to find one in its class takes several times as long, and each record is compared with some.
_DECISION, _KEY, _TOOL_REQUESTED = EventType.DECISION, EventType.KEY, EventType.TOOL_REQUESTED
_RUN_STARTED, _RUN_ENDED = EventType.RUN_STARTED, EventType.RUN_ENDED
# What belongs to a run that is open.
_OPEN_ONLY = frozenset({EventType.TOOL_REQUESTED, EventType.STATE_SNAPSHOT, EventType.RUN_ENDED})
# What begins or ends an intent.
_OF_CALL = ENDINGS | {EventType.TOOL_REQUESTED}
# What changes what may be written after it.
_FOLLOWED = custody.KINDS | share_records.KINDS | kill_records.KINDS | {EventType.KEY}
_BOUND = "select run_id from open_runs where binding = ?"
_TS = 4  # the column of a record's time
_COMMON = frozenset({COMMON_REASON})
_RUN_COLUMN, _CALL_COLUMN = 6, 8  # of a row of the table of records


class Head(Place, frozen=True, gc=False):
    """Where the next record of a run has its place, and whether the run has ended."""

    ended: bool = False


_OUTSIDE, _FIRST = Head(None, None), Head(0, None)


class Heads:
    """The heads of the runs being written, in memory as far as there is room. Belongs to whoever writes."""

    def __init__(self) -> None:
        self._heads: dict[str, Head] = {}

    def of(self, run_id: str, db: Database) -> Head | None:
        """The run's head, or None where the log has no record of it."""
        return self._heads.get(run_id) or _stored_head(run_id, db)

    def put(self, heads: dict[str, Head]) -> None:
        """Keep newer heads; where there are too many, those that came first are looked for in the log again."""
        known = self._heads
        known.update(heads)
        while len(known) > _CACHED_HEADS:
            del known[next(iter(known))]

    def forget(self) -> None:
        """Drop what is in memory: a transaction failed."""
        self._heads.clear()


class _Rows(msgspec.Struct):
    """What one caller's drafts add to the database."""

    records: list[tuple[Any, ...]] = []
    payloads: list[tuple[int, Any]] = []
    leaves: list[bytes] = []
    opened: dict[str, tuple[int, str]] = {}
    closed: list[str] = []
    started: list[tuple[str, str | None]] = []
    ended: list[str] = []
    heads: dict[str, Head] = {}
    approvals: dict[str, Stand] = {}
    reasons: list[tuple[str, int]] = []
    kept: Kept = msgspec.field(default_factory=Kept)

    def take(self, other: "_Rows") -> None:
        """Add another caller's rows."""
        self.records += other.records
        self.payloads += other.payloads
        self.leaves += other.leaves
        self.heads |= other.heads
        self.opened |= other.opened
        self.closed += other.closed
        self.reasons += other.reasons
        if other.started or other.ended:
            self.started += other.started
            self.ended += other.ended
        if other.approvals:
            self.approvals |= other.approvals
        if other.kept.erased or other.kept.holds:
            self.kept.take(other.kept)


class Batch(msgspec.Struct):
    """Drafts becoming records, inside a transaction of ``db``.

    Attributes:
        frontier: the tree so far; grows with the batch.
        open_calls: calls of this replica whose intent has not ended; changes with the batch.
        span: the times so far; grows with the batch.
        ring: the log's signing keys.
        history: which of them sign; changes with the batch.
        replica: which gateway process this is.
        kills: what is stopped; changes with the batch.
        living: the other gateway processes that write the log.
        places: calls that hold a place in a budget; None where the database does not keep places.
    """

    db: Database
    pool: Pool
    keys: DataKeys
    heads: Heads
    frontier: Frontier
    open_calls: set[str]
    span: Span
    ring: KeyRing
    history: KeyHistory
    replica: str = ""
    places: frozenset[str] | None = None
    kills: kill_records.Stands = {}
    living: Callable[[Database], frozenset[str]] = lambda _: frozenset()
    _rows: _Rows = msgspec.field(default_factory=_Rows)

    def add(self, drafts: Sequence[Draft]) -> None:
        """Take one caller's drafts, all or none.

        Raises:
            NotFound: an intent in a run that has ended, or its second end; or a kill that is not in force.
            Killed: an intent of what is stopped.
            Conflict: what is to be erased is in use or held; or a key is to be added or retired out of turn.
            RecordError: a draft that breaks the rules of the log.
            SealBroken: the run's data key cannot be opened.
        """
        rows = _Rows()
        law = self.history, self.kills
        # Each draft becomes one record.
        for index, draft in enumerate(drafts, self.frontier.size + len(self._rows.records)):
            head = self._admit(draft, index, rows)
            if draft.body.get("approval") is not None:
                Claims(self.db, self._rows.approvals, rows.approvals).take(draft, index)
            if draft.type in _FOLLOWED:
                law = self._follow(law, draft, index, rows)
            elif draft.type is _TOOL_REQUESTED:
                kill_records.admit(law[1], draft)
            self._place(draft, head, index, rows)
        self.history, self.kills = law
        if self._rows.records:
            self._rows.take(rows)
        else:  # a caller who is alone
            self._rows = rows
        self.open_calls.update(rows.opened)
        self.open_calls.difference_update(rows.closed)

    def store(self, *, settles: bool = False) -> str:
        """Write all rows and the checkpoint that covers them; returns the checkpoint. ``settles``: see ``Database``."""
        db, rows, first = self.db, self._rows, self.frontier.size
        self.heads.put(rows.heads)
        tops = self.frontier.extend(rows.leaves)
        if rows.started or rows.ended:
            over = set(rows.ended)
            db.executemany("delete from open_runs where run_id = ?", [(run_id,) for run_id in rows.ended])
            begun = [run for run in rows.started if run[0] not in over]
            db.executemany("insert into open_runs values (?, ?)", begun)
        if rows.approvals:
            claims.store(db, rows.approvals)
        if rows.kept.erased or rows.kept.holds:
            custody.store(db, rows.kept)
        size = self.frontier.size
        note = self.ring.sign(Checkpoint(self.history.first.name, size, self.frontier.root()), self.history)
        window = size // CHECKPOINT_WINDOW
        self.span = self.span.grown(window, [record[_TS] for record in rows.records])
        checkpoint = (window, size, self.span.high_us, self.span.low_us, note, self.frontier.encode())
        added = Additions(
            first=first,
            size=size,
            nodes=list(tops),
            records=rows.records,
            payloads=rows.payloads,
            opened=rows.opened,
            # What begins and ends here never stands among the calls under way.
            closed=[call_id for call_id in rows.closed if rows.opened.pop(call_id, None) is None],
            reasons=rows.reasons,
            checkpoints={window: checkpoint},
        )
        db.add(added, settles=settles)
        return note

    @property
    def destroys(self) -> bool:
        """Whether data keys are destroyed with it."""
        return bool(self._rows.kept.erased)

    def _in_use(self) -> Callable[[str], str | None]:
        """Tells of a run why it may not be erased now, or None; good until the next record."""
        elsewhere = {
            call_id for (call_id,) in self.db.execute("select call_id from intents where replica <> ?", (self.replica,))
        }
        calling = {self._run_of("call_id", call_id) for call_id in self.open_calls | elsewhere}
        stored = self.db.execute("select idx from approvals where state in ('pending', 'approved', 'executing')")
        waits = {index for (index,) in stored} | {stand.index for stand in self._rows.approvals.values()}
        waiting = {self._run_of("idx", index) for index in waits}

        def why(run_id: str) -> str | None:
            head = self._head(run_id)
            if head is not None and not head.ended:
                return "it is open; end it first"
            if run_id in calling:
                return "a call of it is under way"
            return "an approval of it is open" if run_id in waiting else None

        return why

    def _run_of(self, column: str, value: str | int) -> str | None:
        row = self.db.execute(f"select run_id from records where {column} = ?", (value,)).fetchone()  # noqa: S608 - one of two literals
        place = 0 if column == "idx" else _CALL_COLUMN
        here = next((row[_RUN_COLUMN] for row in self._rows.records if row[place] == value), None)
        found = here if row is None else row[0]
        return None if found is None else str(found)

    def _follow(
        self, law: tuple[KeyHistory, kill_records.Stands], draft: Draft, index: int, rows: _Rows
    ) -> tuple[KeyHistory, kill_records.Stands]:
        """Which keys sign and what is stopped, after a record that may change that or what is kept."""
        history, kills = law
        if draft.type in custody.KINDS:
            Custody(self.db, self._rows.kept, rows.kept, self._in_use).take(draft, index)
        if draft.type in share_records.KINDS:
            share_records.check(self.db, draft, self.living)
        if draft.type is _KEY:
            history = key_records.follow(history, draft, index, self.ring)
        if draft.type in kill_records.KINDS:
            kills = kill_records.follow(kills, draft)
        return history, kills

    def _head(self, run_id: str) -> Head | None:
        """The head of a run before the drafts that are being added."""
        return self._rows.heads.get(run_id) or self.heads.of(run_id, self.db)

    def _admit(self, draft: Draft, index: int, rows: _Rows) -> Head:
        """The place of the draft in its run; what the draft begins or ends is noted."""
        kind, run_id = draft.type, draft.run_id
        head = _OUTSIDE if run_id is None else rows.heads.get(run_id) or self._head(run_id)
        if kind in _OF_CALL:
            self._admit_call(draft, index, rows)
        elif kind is _RUN_STARTED:
            self._admit_run(draft, head, rows)
            return _FIRST
        elif kind is _RUN_ENDED and run_id is not None:
            rows.ended.append(run_id)
        if head is None:
            raise RecordError("the run was never started")
        if head.ended and kind in _OPEN_ONLY:
            raise NotFound("the run has ended", cause_code="run_ended")
        return head

    def _admit_run(self, draft: Draft, head: Head | None, rows: _Rows) -> None:
        if draft.run_id is None or head is not None:
            raise RecordError("a run starts once")
        self._admit_binding(draft)
        rows.started.append((draft.run_id, draft.body["binding"]))

    def _admit_binding(self, draft: Draft) -> None:
        binding = draft.body["binding"]
        found = None if binding is None else self.db.execute(_BOUND, (binding,)).fetchone()
        if found is not None and found[0] not in self._rows.ended:
            raise Conflict("the session has a run already", cause_code="session_bound")

    def _admit_call(self, draft: Draft, index: int, rows: _Rows) -> None:
        # Every intent ends exactly once: what would break that never becomes a record.
        call_id, begins = draft.call_id, draft.type is _TOOL_REQUESTED
        is_open = (call_id in self.open_calls or call_id in rows.opened) and call_id not in rows.closed
        if call_id is None or is_open is begins:
            raise RecordError("an intent ends exactly once")
        if not begins:
            rows.closed.append(call_id)
        elif self.places is None or call_id in self.places:
            rows.opened[call_id] = index, self.replica
        else:  # given back meanwhile, so somebody else may have it now
            raise Unavailable("the call lost its place in its run's budget", retry_after=1, cause_code="place_lost")

    def _place(self, draft: Draft, head: Head, index: int, rows: _Rows) -> None:
        kind, run_id, body = draft.type, draft.run_id, draft.body
        entry = leaf(draft, head, self._seal(draft, index, rows) if draft.payloads else ())
        digest = leaf_hash(entry)
        rows.leaves.append(digest)
        effect = None
        if kind is _DECISION:
            effect = body.get("effect")
            rows.reasons += [(reason, index) for reason in rare_reasons(body.get("reasons"))]
        row = (
            index,
            draft.id,
            bytearray(entry),  # of all that can hold bytes, sqlite3 binds only these without looking for an adapter
            bytearray(digest),
            # What searches use; the verifier holds it against the leaf.
            draft.at_us,
            kind._value_,  # an enumeration's member takes a database longer to bind than a plain string
            run_id,
            head.seq_run,
            draft.call_id,
            body.get("tool"),
            effect,
            draft.actor.agent,
        )
        rows.records.append(row)
        if run_id is not None and head.seq_run is not None:
            rows.heads[run_id] = Head(head.seq_run + 1, digest.hex(), head.ended or kind is _RUN_ENDED)

    def _seal(self, draft: Draft, index: int, rows: _Rows) -> tuple[PayloadRef, ...]:
        if len(draft.payloads) > PAYLOAD_SLOTS:
            raise RecordError("too many payloads")
        here, before = rows.kept.erased, self._rows.kept.erased
        key = self.keys.of(draft, self.db, ChainMap(here, before) if here or before else ())
        refs = []
        for place, payload in enumerate(draft.payloads, index * PAYLOAD_SLOTS):
            ref, sealed = seal(key, draft, payload, self.pool.take(NONCE_SIZE))
            rows.payloads.append((place, sealed))
            refs.append(ref)
        return tuple(refs)


def requested(groups: Iterable[Sequence[Draft]]) -> list[str]:
    """The calls whose intents are among several callers' drafts."""
    return [
        draft.call_id
        for drafts in groups
        for draft in drafts
        if draft.type is _TOOL_REQUESTED and draft.call_id is not None
    ]


def rare_reasons(said: Iterable[str] | None) -> set[str]:
    """Which of a decision's reasons the list of reasons holds."""
    return {*(said or ())} - _COMMON


def _stored_head(run_id: str, db: Database) -> Head | None:
    row = db.execute(
        "select seq_run, hash from records where run_id = ? order by seq_run desc limit 1", (run_id,)
    ).fetchone()
    if row is None:
        return None
    is_open = db.execute("select 1 from open_runs where run_id = ?", (run_id,)).fetchone() is not None
    return Head(row[0] + 1, row[1].hex(), not is_open)

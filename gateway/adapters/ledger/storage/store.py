"""The writer's side of the database, for one thread: transactions that happen wholly or not at all.

What is in memory is a copy of the database's end. When a transaction fails the copy is thrown away, and the next write
reads and checks it anew; so an ambiguous commit can neither be lost nor be built upon twice.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from gateway.adapters.ledger.database import FAULTS, Database, DatabaseFault, Displaced
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.keyring.pool import Pool
from gateway.adapters.ledger.keyring.sealing import DataKeys
from gateway.adapters.ledger.storage import files, kill_records, tail
from gateway.adapters.ledger.storage.amends import Amends
from gateway.adapters.ledger.storage.batch import Batch, Heads, requested
from gateway.adapters.ledger.storage.guarding import UNGUARDED, Guard
from gateway.adapters.ledger.storage.outcome import DISPLACED, Outcome, Prepared, added, added_sparingly, is_damage
from gateway.adapters.ledger.storage.site import End, Site, sited
from gateway.adapters.ledger.storage.sweeping import Sweeping
from gateway.core.errors import Unavailable
from gateway.core.log_keys import KeyHistory, first_body
from gateway.core.ports import Clock
from gateway.core.records import CLOSINGS, ENDINGS, Draft, EventType
from gateway.core.tlog import Checkpoint, Frontier

_LOG = logging.getLogger("gateway.ledger")
_UNKNOWN = -1  # what others did meanwhile is to be told, whatever the size
_BEHIND_US = 60_000_000
_UNWRITABLE = "the audit log cannot be written"
_BEGUN = (
    "a log is begun with keys that were here before: where there was one of theirs, end the gateway and put it back, "
    "or there will be two of one name"
)
_DAMAGED = "the audit log is damaged"
_DISPLACED = "the audit log is not in its place any more"


class Store:
    """The database of one log, opened for writing. All methods belong to one thread at a time.

    Attributes:
        trouble: why the log cannot take new calls right now, or None.
        sweeping: cleans up after destroyed data keys.
        sweeps: whether cleaning up leaves no copy anywhere.
    """

    def __init__(self, place: Path | Site, keys: LogKeys, clock: Clock, reserve_bytes: int) -> None:
        self.trouble: str | None = None
        self._stopped: Callable[[], Unavailable] | None = None
        self._told = ""
        self._site = site = sited(place)
        self._folder = site.folder
        self.sweeping, self.sweeps = Sweeping(site, clock), site.sweeps
        self._changes = 0
        self._is_patrol_due = self._is_fresh = self._is_low = False
        self._keys = keys
        self._ring = keys.ring
        self._clock = clock
        self._scribe = Scribe(clock, keys)
        self._amends = Amends(self._scribe)
        self._reserve = reserve_bytes
        self._data_keys = DataKeys(keys.kek, clock)
        self._heads = Heads()
        self._pool = Pool(clock)
        self._db: Database | None = None
        self._tail: tail.Tail | None = None
        self._acknowledged: set[str] = set()
        self._written: str | None = None
        self._owed: list[Sequence[Draft]] = []
        self._guard = Guard(self._folder, clock)

    def open(self) -> None:
        """Take the folder, check the log's end, end what a dead process left open.

        Raises:
            StateRefused: in use, altered, set back, unreadable, or not writable.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._site.take()
            if self._site.is_local:
                tail.look(self._folder, self._keys)
            db = self._opened()
            with self._site.starting(db):
                is_new = self._site.joins(db, self._keys.common)
                end = self._end_of(db)
                self._check_end(db, end, is_new=is_new)
                self._start(db, end)
        except (*FAULTS, OSError) as error:
            self.close()
            raise StateRefused(files.unopened(self._folder, error)) from error
        except BaseException:
            self.close()
            raise

    def write(self, groups: Sequence[Sequence[Draft]]) -> list[Outcome]:
        """Append the drafts of several callers in one durable transaction; one outcome for each caller.

        An empty group asks whether writing works at all, and has the tables catch up. What is damaged is written no
        more: that would make it worse.
        """
        return self.finish(self.prepare(groups))

    def prepare(self, groups: Sequence[Sequence[Draft]]) -> Prepared:
        """All of ``write`` that waits for no disk. Nothing has happened before ``finish``, which is to follow next."""
        if self._stopped is not None:
            return Prepared([self._stopped() for _ in groups])
        try:
            return self._prepared(groups)
        # A writer that dies would leave every caller waiting for ever; whatever this is, nothing was written.
        except Exception as error:  # noqa: BLE001
            return Prepared(self._failed(error, len(groups)))

    def finish(self, prepared: Prepared) -> list[Outcome]:
        """Make durable what was prepared; one outcome for each caller."""
        if prepared.batch is None:
            return prepared.outcomes
        try:
            self._commit(prepared, prepared.batch)
        except Exception as error:  # noqa: BLE001 - see above
            return self._failed(error, len(prepared.outcomes))
        self.sweeping.sweep(self._db)
        return prepared.outcomes

    def _failed(self, error: Exception, callers: int) -> list[Outcome]:
        if isinstance(error, Displaced):
            # The connection is kept: as it is closed, what is in the write-ahead log gets into the database it is of.
            self._stop(_DISPLACED, DISPLACED, f"{error}: put it back where it was, and start the gateway again")
            return [Unavailable(_DISPLACED, cause_code=DISPLACED) for _ in range(callers)]
        if isinstance(error, StateRefused):
            self._drop()  # who may not write leaves its calls under way to the others
        self.abandon()
        if not isinstance(error, (*FAULTS, OSError, StateRefused)):
            _LOG.error("the ledger's writer failed", exc_info=error)
            return [Unavailable(_UNWRITABLE, retry_after=1) for _ in range(callers)]
        self._tell(error)
        if is_damage(error):
            self._stop(
                _DAMAGED,
                "ledger_damaged",
                f"the log is damaged ({error}): end the gateway, keep a copy, see what `ostiary audit verify` "
                "says, and restore a backup",
            )
        cause = "ledger_full" if "full" in str(error) else "ledger_unwritable"
        return [Unavailable(_UNWRITABLE, retry_after=1, cause_code=cause) for _ in range(callers)]

    def _stop(self, trouble: str, cause: str, said: str) -> None:
        self.trouble, self._stopped = trouble, partial(Unavailable, trouble, cause_code=cause)
        _LOG.error("nothing is written any more: %s", said)

    def _tell(self, error: Exception) -> None:
        # Once: every call tries again, and would say it again.
        if str(error) != self._told:
            self._told = str(error)
            _LOG.error("the log cannot be written: %s", error)

    @property
    def is_scattered(self) -> bool:
        """Whether something durable stands in no table yet; the next write without drafts puts it there."""
        # Who knows, where the connection was lost.
        return self.is_local and (self._db is None or self._db.is_behind)

    @property
    def is_due(self) -> bool:
        """Whether there is something to ``tend`` to."""
        return self._tail is not None and self._guard.is_due

    @property
    def is_behind(self) -> bool:
        """Whether there will be something to ``tend`` to, though nothing more is written."""
        return self._tail is not None and (self._guard.is_behind(self._tail.note) or self.is_scattered)

    def tend(self) -> None:
        """Note the guard: what follows writes now and then, and nobody waits for."""
        if self._tail is None:
            return
        self._guard.tend(self._tail.note)
        if self.trouble in {None, UNGUARDED}:
            self.trouble = self._guard.trouble

    def rest(self) -> None:
        """Nobody writes just now: put into the tables what is durable elsewhere."""
        try:
            if self._db is not None:
                self._db.settle()
        except Exception as error:  # noqa: BLE001 - see ``prepare``
            self._failed(error, 0)

    def abandon(self) -> None:
        """Throw the transaction in progress away; the next write starts from what is on disk."""
        if self._is_rolled_back():
            self._forget()
        else:
            self._drop()
        self.trouble = _UNWRITABLE

    @property
    def is_local(self) -> bool:
        """Whether it is a file here that only this process writes."""
        return self._site.is_local

    @property
    def replica(self) -> str:
        """Which of the processes that write the log this is."""
        return self._site.replica

    def patrol(self) -> None:
        """With the next write, end the calls of processes that are dead."""
        self._is_patrol_due = True

    def owe(self, drafts: Sequence[Draft]) -> None:
        """Endings that could not be written: they go first as soon as writing works again."""
        self._owed.append(drafts)

    def close(self) -> None:
        """Note the guard and let go of the folder."""
        self.tend()
        self.rest()
        self._drop()
        self._site.release()

    def _transact(self, groups: Sequence[Sequence[Draft]]) -> list[Outcome]:
        prepared = self._prepared(groups)
        if prepared.batch is not None:
            self._commit(prepared, prepared.batch)
        return prepared.outcomes

    def _prepared(self, groups: Sequence[Sequence[Draft]]) -> Prepared:
        db, end = self._connected()
        is_low = self._looked(groups)
        self._begin(db, end)
        batch = self._batch(db, end, groups)
        for drafts in self._owed:
            added(batch, drafts)  # what the log holds already is refused, and rightly forgotten
        add = added_sparingly if is_low else added
        outcomes = [add(batch, drafts) for drafts in groups]
        note = batch.store(settles=not all(groups))
        self._changes += batch.destroys or batch.history is not end.history or batch.kills is not end.kills
        if not self._site.is_local:
            self._site.advance(db, End(batch.frontier.size, note, batch.frontier.encode(), batch.span, self._changes))
        return Prepared(outcomes, batch, end, note, is_low)

    def _looked(self, groups: Sequence[Sequence[Draft]]) -> bool:
        # Whether the reserve is used up: of no matter to what ends calls, which looked as they began.
        types = {draft.type for drafts in groups for draft in drafts}
        if not (types <= CLOSINGS and types & ENDINGS):
            free = self._site.free_bytes()
            self._is_low = free is not None and free < self._reserve
        return self._is_low

    def _commit(self, prepared: Prepared, batch: Batch) -> None:
        end = self._tail
        if end is None or end is not prepared.end:  # thrown away meanwhile: a commit of nothing must not pass for it
            raise DatabaseFault("the transaction was thrown away")
        batch.db.commit()
        end.frontier, end.note, end.span, end.history = batch.frontier, prepared.note, batch.span, batch.history
        end.kills = batch.kills
        self._ring.history = end.history
        if not self._site.is_local and self._ring.holds_retired:
            self._ring.prune()  # whichever gateway retired it: a thief finds it here, too
        if batch.destroys:
            self._data_keys.forget()
            self.sweeping.soiled()
        self._acknowledged, self._written = set(end.open_calls), prepared.note
        self._owed.clear()
        self._told = ""
        self.trouble = "the disk reserve is used up" if prepared.is_low else self._guard.trouble

    def _begin(self, db: Database, end: tail.Tail) -> None:
        moved = self._site.begin(db, _UNKNOWN if self._is_fresh else end.frontier.size)
        self._is_fresh = False
        if moved is not None:  # another replica wrote: what is in memory of the log's end is taken anew
            if moved.changes != self._changes:
                self._data_keys.forget()
                end.history = tail.keys_of(db, end.history.first)
                end.kills = kill_records.load(db)
                self._ring.settle(end.history)
            self._changes = moved.changes
            tail.follow(end, moved)
            self._heads.forget()
        if self._is_patrol_due:
            for call_id in self._site.orphans(db):
                end.open_calls.add(call_id)
                self._owed.append(self._amends.ending(db, call_id, EventType.TOOL_OUTCOME_UNKNOWN, "swept"))
            self._is_patrol_due = False

    def _batch(self, db: Database, end: tail.Tail, groups: Sequence[Sequence[Draft]]) -> Batch:
        frontier, site = end.frontier.copy(), self._site
        places = None if site.is_local else site.redeem(db, requested(groups))
        return Batch(
            db=db,
            pool=self._pool,
            keys=self._data_keys,
            heads=self._heads,
            frontier=frontier,
            open_calls=end.open_calls,
            span=end.span,
            ring=self._ring,
            history=end.history,
            replica=site.replica,
            places=places,
            kills=end.kills,
            living=site.others,
        )

    def _connected(self) -> tuple[Database, tail.Tail]:
        db = self._opened()
        return db, self._end_of(db)

    def _opened(self) -> Database:
        if self._db is None:
            self._db = self._site.connect()
        return self._db

    def _end_of(self, db: Database) -> tail.Tail:
        if self._tail is None:
            db.snapshot()
            self._is_fresh = True
            self._tail = tail.load(db, self._ring.history.first, self._site.replica)
            if self._written is not None:  # a server that lost its newest state must not be built upon
                tail.check_guard(db, self._tail, self._written)
            if self._site.is_local:
                self._ring.history = self._tail.history  # ``look`` has seen to it that they are here
            else:
                self._ring.settle(self._tail.history)
            # A commit may have reported failure and yet be there. Its caller was told that nothing was done.
            strays = self._tail.open_calls - self._acknowledged if self._guard.has_begun else set()
            self._owed += [self._amends.ending(db, call, EventType.TOOL_NOT_SENT, "unacknowledged") for call in strays]
            db.rollback()
        return self._tail

    def _check_end(self, db: Database, end: tail.Tail, *, is_new: bool) -> None:
        guard = None if self._site.is_local else files.read_guard(self._folder)
        # A database that was put back does not know who joined since then: who has a guard is held to it all the same.
        if guard is not None or not (self._site.is_local or (is_new and end.frontier.size)):
            tail.check_guard(db, end, guard)
        elif is_new and end.frontier.size:
            # Before the database knows that this folder has joined: who is killed in between must find a guard.
            self._guard.note(end.note)
        self._ring.prune()
        if end.span.high_us - self._clock.now_us() > _BEHIND_US:
            _LOG.warning("the clock is behind the newest records: set it right, or approvals last longer")
        if end.frontier.size == 0:
            if not self._keys.are_new and files.read_guard(self._folder) is None:
                _LOG.warning(_BEGUN)
            # Before the first record: a start that is killed in between must not look like a log set back.
            self._guard.note(self._ring.sign(_empty(end.history), end.history))

    def _drop(self) -> None:
        # Closing rolls back whatever is open, even where a rollback itself would fail.
        if self._db is not None:
            self._db.close()
        self._db = None
        self._forget()

    def _forget(self) -> None:
        self._tail = None
        self._heads.forget()
        self._data_keys.forget()

    def _is_rolled_back(self) -> bool:
        # Among several processes the session is this one's life: whoever closes it gives up the calls under way.
        if self._db is None or self._site.is_local:
            return False
        try:
            self._db.rollback()
        except FAULTS:
            return False
        return True

    def _start(self, db: Database, end: tail.Tail) -> None:
        groups: list[Sequence[Draft]] = [
            self._amends.ending(db, call, EventType.TOOL_OUTCOME_UNKNOWN, "swept") for call in end.open_calls
        ]
        groups += self._amends.erasures(db)
        if end.frontier.size == 0:
            groups.append(
                [self._scribe.draft(EventType.KEY, Subject(), first_body(end.history.first, self._keys.lasting))]
            )
        self._is_patrol_due = True
        for refusal in self._transact(groups):
            if refusal is not None:
                raise StateRefused(f"the log in {self._folder} cannot be written: {refusal}")
        db.settle()
        self._guard.begin(end.note)
        # Whoever was killed after an erasure may have left copies of the keys there.
        self.sweeping.sweep(self._db)


def _empty(history: KeyHistory) -> Checkpoint:
    return Checkpoint(history.first.name, 0, Frontier().root())

"""Which data keys are destroyed and what is held, kept by the writer in the transaction that records it.

The record, the destroyed keys and the list of them are one transaction: a process that is killed in between has either
erased nothing or everything, and a hold that comes first always wins.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.sealing import scope_of
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.errors import Conflict
from gateway.core.records import Draft, EventType, RecordError

KINDS = frozenset({EventType.ERASURE, EventType.LEGAL_HOLD})
MOST_KEYS = 400  # named in one record: a leaf has 64 KiB
_ERASURES = f"select idx, leaf from records where {RARE_TYPE} and type = '{EventType.ERASURE}' order by idx"  # noqa: S608 - literals only


class Cause(StrEnum):
    """Why keys were destroyed."""

    RUN = "run"
    SUBJECT = "subject"
    RETENTION = "retention"
    RETURNED = "returned"


def erasure_body(cause: Cause, keys: Sequence[str], subject: str | None = None) -> dict[str, Any]:
    """Leaf of an ``erasure``."""
    runs = {scope.run for scope in map(scope_of, keys) if scope.run is not None}
    return {"cause": cause, "keys": list(keys), "runs": len(runs), "subject": subject}


class Action(StrEnum):
    """What a ``legal_hold`` record does."""

    SET = "set"
    RELEASED = "released"


def run_target(run_id: str) -> str:
    """A run as holds name it."""
    return f"run:{run_id}"


def subject_target(pseudonym: str) -> str:
    """A user as holds name them."""
    return f"subject:{pseudonym}"


class Holds:
    """The holds in force, and whether they cover a data key. ``stored`` are targets."""

    def __init__(self, stored: set[str], user_of: Callable[[str], str | None]) -> None:
        """``user_of`` tells the pseudonym of a run's user."""
        self.targets = stored
        self._user_of = user_of

    def cover(self, key: str) -> bool:
        """Whether what is sealed under the data key may not be erased."""
        scope = scope_of(key)
        if scope.run is not None and run_target(scope.run) in self.targets:
            return True
        if not any(target.startswith("subject:") for target in self.targets):
            return False
        user = scope.user if scope.run is None else self._user_of(scope.run)
        return user is not None and subject_target(user) in self.targets


def held(db: Database) -> Holds:
    """The holds that the database has."""
    targets = {target for (target,) in db.execute("select target from holds")}
    return Holds(targets, lambda run_id: user_of(db, run_id))


def user_of(db: Database, run_id: str) -> str | None:
    """Pseudonym of a run's user, by its first record."""
    row = db.execute("select leaf from records where run_id = ? and seq_run = 0", (run_id,)).fetchone()
    user = None if row is None else msgspec.json.decode(row[0])["actor"]["user"]
    return user if isinstance(user, str) else None


class Kept(msgspec.Struct):
    """What drafts destroy and hold.

    Attributes:
        erased: data key -> record that destroys it.
        holds: target -> (record, its id) that sets it; None where it was released.
    """

    erased: dict[str, int] = {}
    holds: dict[str, tuple[int, str] | None] = {}

    def take(self, other: "Kept") -> None:
        """Add another caller's."""
        self.erased |= other.erased
        self.holds |= other.holds


@dataclass(slots=True)
class Custody:
    """What one caller's drafts destroy and hold, on top of what was before in the same transaction.

    Attributes:
        before: earlier in the transaction.
        kept: what this caller's drafts add.
        in_use: looks at what is under way; the answer tells of a run why it may not be erased now, or None.
    """

    db: Database
    before: Kept
    kept: Kept
    in_use: Callable[[], Callable[[str], str | None]]

    def take(self, draft: Draft, index: int) -> None:
        """Follow the record at ``index``.

        Raises:
            Conflict: a run is in use or held; or a hold is there, or not there, already.
            RecordError: a key is not there.
        """
        if draft.type is EventType.ERASURE:
            again = draft.body["cause"] == Cause.RETURNED
            for key in draft.body["keys"]:
                self._check_there(key)
            if not again:
                self._check_free(draft.body["keys"])
            self.kept.erased |= dict.fromkeys(draft.body["keys"], index)
        elif draft.type is EventType.LEGAL_HOLD:
            self._hold(draft, index)

    def _check_there(self, key: str) -> None:
        is_there = self.db.execute("select 1 from deks where id = ?", (key,)).fetchone() is not None
        if not is_there or key in self.before.erased or key in self.kept.erased:
            raise RecordError("a data key that is not there cannot be destroyed")

    def _check_free(self, keys: Sequence[str]) -> None:
        holds, in_use = self._holds(), self.in_use()
        for key in keys:
            run = scope_of(key).run
            why = None if run is None else in_use(run)
            if why is not None:
                raise Conflict(f"run {run} cannot be erased: {why}", cause_code="run_in_use")
            if holds.cover(key):
                raise Conflict("a legal hold forbids this: `ostiary audit hold list`", cause_code="held")

    def _hold(self, draft: Draft, index: int) -> None:
        target = draft.body["target"]
        sets = draft.body["action"] == Action.SET
        if (target in self._holds().targets) is sets:
            raise Conflict("it is held already" if sets else "it is not held", cause_code="hold_state")
        self.kept.holds[target] = (index, draft.id) if sets else None

    def _holds(self) -> Holds:
        now = held(self.db)
        for target, record in {**self.before.holds, **self.kept.holds}.items():
            (now.targets.discard if record is None else now.targets.add)(target)
        return now


def store(db: Database, kept: Kept) -> None:
    """Destroy keys and write the lists, as a transaction's records say."""
    db.executemany("delete from deks where id = ?", [(key,) for key in kept.erased])
    db.executemany("insert into erased values (?, ?) on conflict do nothing", kept.erased.items())
    db.executemany("delete from holds where target = ?", [(target,) for target in kept.holds])
    found = [(target, *record) for target, record in kept.holds.items() if record is not None]
    db.executemany("insert into holds values (?, ?, ?)", found)


def recorded(db: Database) -> Iterator[tuple[str, int]]:
    """The data keys that records say are destroyed, each with the record."""
    for index, entry in db.execute(_ERASURES):
        for key in msgspec.json.decode(entry)["body"]["keys"]:
            yield key, index


def returned(db: Database) -> list[str]:
    """The data keys that are there although they were destroyed: somebody put an older state of them back.

    The list of destroyed keys is made whole on the way, so that none of them is used.
    """
    db.begin()
    known = {key for (key,) in db.execute("select key from erased")}
    missing = [row for row in recorded(db) if row[0] not in known]
    db.executemany("insert into erased values (?, ?) on conflict do nothing", missing)
    db.commit()
    rows = db.execute("select id from deks where id in (select key from erased) order by id")
    return [key for (key,) in rows]

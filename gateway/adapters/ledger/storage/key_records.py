"""The log's ``key`` records: read back as the history of its keys, and followed while records are written."""

from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.ring import KeyRing
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.errors import Conflict
from gateway.core.log_keys import KeyAction, KeyHistory, KeyRefused
from gateway.core.records import Draft, EventType, RecordError
from gateway.core.tlog import VerifierKey

_KEYS = f"select idx, leaf from records where {RARE_TYPE} and type = '{EventType.KEY}' order by idx"  # noqa: S608 - literals only


class _Leaf(msgspec.Struct, gc=False):
    ts: int
    body: dict[str, Any]


_LEAF = msgspec.json.Decoder(_Leaf)


def key_records(db: Database) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Index, time and body of each ``key`` record.

    Raises:
        KeyRefused: one cannot be read.
        FAULTS: the log cannot be.
    """
    for index, entry in db.execute(_KEYS).fetchall():
        try:
            leaf = _LEAF.decode(entry)
            yield index, leaf.ts, leaf.body
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
            raise KeyRefused(f"record {index} cannot be read") from None


def history_of(db: Database, first: VerifierKey) -> KeyHistory:
    """The keys of the log that ``first`` names.

    Raises:
        KeyRefused: a record of them may not stand where it does.
        FAULTS: the log cannot be read.
    """
    history = KeyHistory.begun(first)
    for index, at_us, body in key_records(db):
        history = history.after(index, at_us, body)
    return history


def follow(history: KeyHistory, draft: Draft, index: int, ring: KeyRing) -> KeyHistory:
    """The history with a draft that is to become the record at ``index``.

    Raises:
        Conflict: the keys in force do not allow it.
        RecordError: nobody here could sign with it.
    """
    try:
        grown = history.after(index, draft.at_us, draft.body)
    except KeyRefused as error:
        raise Conflict(str(error), cause_code="log_key") from None
    if draft.body["action"] == KeyAction.ADDED and not ring.has(grown.newest.key):
        raise RecordError("the private half of the new key is not here")
    return grown

"""``checkpoint.witnessed`` records: what one says, and where they stand in the log."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.adapters.ledger.database import Database, DatabaseFault
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.cosigning import Cosignature, CosignerKey
from gateway.core.records import EventType
from gateway.core.tlog import Checkpoint, NoteError, split_note

_TYPE = f"{RARE_TYPE} and type = '{EventType.CHECKPOINT_WITNESSED}'"
_ALL = f"select idx, leaf from records where {_TYPE} order by idx"  # noqa: S608 - literals only
_NEWEST = f"select idx, leaf from records where {_TYPE} order by idx desc"  # noqa: S608 - literals only
_GROWTH = "select 1 from records where idx >= ? and type <> ? limit 1"


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A witness's word as a record has it: not checked.

    Attributes:
        index: the record.
        size: of the tree it cosigned.
        root: of that tree.
    """

    index: int
    size: int
    root: bytes
    cosignature: Cosignature


def body_of(note: str, cosignature: Cosignature) -> dict[str, Any]:
    """Leaf of the record that ``cosignature`` is of the checkpoint ``note``."""
    checkpoint = Checkpoint.parse(split_note(note)[0])
    return {
        "root": checkpoint.root.hex(),
        "signature": cosignature.signature.hex(),
        "size": checkpoint.size,
        "time_s": cosignature.time_s,
        "witness": cosignature.key.text,
    }


def recorded(db: Database) -> Iterator[Witnessed | int]:
    """Each such record, in log order; its index alone where it cannot be read.

    Raises:
        FAULTS: the log cannot be read.
    """
    for index, entry in db.execute(_ALL):
        try:
            yield _read(index, entry)
        except _MALFORMED:
            yield int(index)


def newest(db: Database, key: CosignerKey) -> Witnessed | None:
    """The newest word of one witness, or None.

    Raises:
        FAULTS: the log cannot be read, or such a record was altered.
    """
    try:
        words = (_read(index, entry) for index, entry in db.execute(_NEWEST))
        return next((word for word in words if word.cosignature.key == key), None)
    except _MALFORMED as error:
        raise DatabaseFault("a record of a witness cannot be read") from error


def growth(db: Database, size: int) -> bool:
    """Whether the log holds anything behind its first ``size`` records but the words of witnesses."""
    return db.execute(_GROWTH, (size, EventType.CHECKPOINT_WITNESSED)).fetchone() is not None


def _read(index: int, entry: bytes) -> Witnessed:
    body = msgspec.json.decode(entry)["body"]
    word = Cosignature(CosignerKey.parse(body["witness"]), int(body["time_s"]), bytes.fromhex(body["signature"]))
    return Witnessed(index, int(body["size"]), bytes.fromhex(body["root"]), word)


_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, NoteError, KeyError, TypeError, ValueError)

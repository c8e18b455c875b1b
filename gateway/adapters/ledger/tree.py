"""Tiles and proofs of the log's tree, read from the database; implements ``core.desk.LogTree``.

Leaf hashes stand with their records and the tops of full tiles in ``nodes``, so a node takes one range of at most 256
rows. A row that was altered gives a proof that does not check: nothing read here is signed for.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from gateway.adapters.ledger.database import Database, DatabaseFault
from gateway.adapters.ledger.reading import LogReader
from gateway.core.errors import NotFound
from gateway.core.tiles import Proof, Tile, bundle, consistency, inclusion, write_proof
from gateway.core.tlog import TILE_HEIGHT, Checkpoint, node_hash

_NEWEST = "select note from checkpoints order by win desc limit 1"
_LEAVES = "select hash from records where idx >= ? and idx < ? order by idx"
_TOPS = "select hash from nodes where level = ? and place >= ? and place < ? order by place"
_ENTRIES = "select leaf from records where idx >= ? and idx < ? order by idx"
T = TypeVar("T")


class LogTree:
    """The tree of an open ledger.

    Failure mode, closed: a log that cannot be read is ``Unavailable``.
    """

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    async def checkpoint(self) -> str:
        """See ``core.desk.LogTree``."""
        return await self._read(lambda _db, _size, note: note)

    async def tile(self, tile: Tile) -> bytes:
        """See ``core.desk.LogTree``."""

        def read(db: Database, size: int, _note: str) -> bytes:
            if not tile.is_in(size):
                raise NotFound("the log has no such tile yet", cause_code="tile")
            if tile.is_bundle:
                return bundle(_column(db, _ENTRIES, (tile.first, tile.first + tile.width), tile.width))
            return b"".join(_hashes(db, TILE_HEIGHT * tile.level, tile.first, tile.width))

        return await self._read(read)

    async def prove(self, index: int, under: str | None = None) -> str:
        """See ``core.desk.LogTree``."""

        def read(db: Database, size: int, note: str) -> str:
            if index >= size:
                raise NotFound("the log has no such record yet", cause_code="record")
            end, signed = size, note
            if under is not None and index < _size(under) <= size:
                end, signed = _size(under), under
            hashes = inclusion(index, end, partial(node, db))
            (entry,) = _column(db, _ENTRIES, (index, index + 1), 1)
            return write_proof(Proof(index, tuple(hashes), signed, entry))

        return await self._read(read)

    async def extend(self, old: int, new: int | None) -> tuple[int, Sequence[bytes]]:
        """See ``core.desk.LogTree``."""

        def read(db: Database, size: int, _note: str) -> tuple[int, Sequence[bytes]]:
            end = size if new is None else new
            if not old <= end <= size:
                raise NotFound("the log has no trees of these sizes, in this order", cause_code="tree_size")
            return end, consistency(old, end, partial(node, db))

        return await self._read(read)

    async def _read(self, question: Callable[[Database, int, str], T]) -> T:
        def read(db: Database) -> T:
            note, size = newest_note(db)
            # What is below a signed checkpoint never changes, so this needs no snapshot.
            return question(db, size, note)

        return await self._reader.ask(read)


def newest_note(db: Database) -> tuple[str, int]:
    """The newest signed checkpoint and how many records it is over.

    Raises:
        NotFound: nothing was logged yet.
    """
    row = db.execute(_NEWEST).fetchone()
    if row is None:
        raise NotFound("nothing was logged yet")
    note = str(row[0])
    return note, _size(note)


def _size(note: str) -> int:
    return Checkpoint.parse(note.rpartition("\n\n")[0] + "\n").size


def node(db: Database, level: int, place: int) -> bytes:
    """Hash of a node that is below a signed checkpoint."""
    rest = level % TILE_HEIGHT
    hashes = _hashes(db, level - rest, place << rest, 1 << rest)
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def _hashes(db: Database, level: int, first: int, count: int) -> list[bytes]:
    """Hashes of nodes beside each other, at a level that has stored ones."""
    if level == 0:
        return _column(db, _LEAVES, (first, first + count), count)
    return _column(db, _TOPS, (level, first, first + count), count)


def _column(db: Database, statement: str, values: tuple[int, ...], count: int) -> list[bytes]:
    rows = [row for (row,) in db.execute(statement, values)]
    if len(rows) != count:
        raise DatabaseFault("the tree has holes")
    return rows

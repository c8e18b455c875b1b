"""How many transactions were committed: counted in the files, SQLite's write-ahead log and the journal before it.

Format of the one: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. A frame whose header gives the size of
the database ends a transaction; frames count as long as they carry the salts of the file's header. Each frame of the
other is a transaction and says which it is since the gateway has opened it.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
# Of the journal: mark, numbers, digest; in blocks.
_MARK: Final = b"ostjrnl1"
_NUMBERS: Final = struct.Struct("<4Q")
_HEAD: Final = len(_MARK) + _NUMBERS.size + 32
_BLOCK: Final = 4096
_MAGIC: Final = frozenset({0x377F0682, 0x377F0683})


@dataclass(frozen=True, slots=True)
class Count:
    """What a write-ahead log holds.

    Attributes:
        salts: of its header; other salts: it was begun anew, and counts cannot be compared. None while it is empty.
        commits: transactions in it.
        frames: transactions in the journal since it was opened.
    """

    salts: tuple[int, int] | None
    commits: int
    frames: int = 0

    def since(self, earlier: "Count") -> int | None:
        """Transactions since then; None where that cannot be told."""
        begun = earlier.salts is None and self.salts is not None
        is_one = begun or earlier.salts == self.salts
        return self.commits - earlier.commits + self.frames - earlier.frames if is_one else None


def count(database: Path) -> Count:
    """Count the transactions in the write-ahead log beside ``database``, and in the journal."""
    written = _moved(database)
    return Count(written.salts, written.commits, _framed(database.with_name("log.journal")))


def _framed(journal: Path) -> int:
    # The newest is the last of those that follow each other: of each, the records after it are those before the next.
    newest, after, at = 0, None, 0
    data = journal.read_bytes() if journal.exists() else b""
    while data[at : at + len(_MARK)] == _MARK:
        number, before, then, length = _NUMBERS.unpack_from(data, at + len(_MARK))
        if after not in {None, before}:
            break
        newest, after = number, then
        at += -(-(_HEAD + length) // _BLOCK) * _BLOCK
    return newest


def _moved(database: Path) -> Count:
    try:
        with database.with_name(database.name + "-wal").open("rb") as wal:
            head = wal.read(_HEADER.size)
            if len(head) < _HEADER.size:
                return Count(None, 0)
            magic, _, page, _, *salts, _, _ = _HEADER.unpack(head)
            if magic not in _MAGIC:
                return Count(None, 0)
            commits = 0
            while len(frame := wal.read(_FRAME.size)) == _FRAME.size:
                _, size, *found, _, _ = _FRAME.unpack(frame)
                if found != salts:
                    break
                commits += size != 0
                wal.seek(page, 1)
            return Count((salts[0], salts[1]), commits)
    except FileNotFoundError:
        return Count(None, 0)

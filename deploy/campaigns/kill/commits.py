"""How many transactions were committed: counted in SQLite's own write-ahead log, not by anything of ours.

Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. A frame whose header gives the size of the database
ends a transaction; frames count as long as they carry the salts of the file's header.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = frozenset({0x377F0682, 0x377F0683})


@dataclass(frozen=True, slots=True)
class Count:
    """What a write-ahead log holds.

    Attributes:
        salts: of its header; other salts: it was begun anew, and counts cannot be compared. None while it is empty.
        commits: transactions in it.
    """

    salts: tuple[int, int] | None
    commits: int

    def since(self, earlier: "Count") -> int | None:
        """Transactions since then; None where that cannot be told."""
        begun = earlier.salts is None and self.salts is not None
        return self.commits - earlier.commits if begun or earlier.salts == self.salts else None


def count(database: Path) -> Count:
    """Count the transactions in the write-ahead log beside ``database``."""
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

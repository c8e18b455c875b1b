"""The journal of a SQLite log: what calls add is durable here first, by one write, and moves into the tables later.

A commit of SQLite writes a dozen pages and waits for them; a frame of the journal is one write to a file that never
grows. Frames follow each other: each tells how many records the log has before and after it. When what they hold stands
in the tables, the next one is written at the beginning again, and whatever is left behind it follows nothing: it is of
an older state.
"""

import errno
import hashlib
import mmap
import os
import struct
from pathlib import Path

import msgspec

from gateway.adapters.ledger.additions import Additions
from gateway.adapters.ledger.database import Database, DatabaseFault
from gateway.adapters.ledger.keyring.key_files import sync_folder

JOURNAL = "log.journal"
CAPACITY = 1024 * 1024
# What a device writes at once, and what it may be told to write past the cache.
_BLOCK = 4096
_MARK = b"ostjrnl1"
_NUMBERS = struct.Struct("<4Q")  # of the frame since the journal was opened; records before, and after; bytes
_DIGEST = hashlib.sha256().digest_size
_HEAD = len(_MARK) + _NUMBERS.size + _DIGEST
_DECODER = msgspec.msgpack.Decoder(Additions)
_ENCODER = msgspec.msgpack.Encoder()


class Journal:
    """The journal in ``path``, open for writing. Whoever opens it has the log to itself, and has moved what it held.

    Failure mode, closed: what cannot be written raises, and whether it is there then is known to who reads it again.
    """

    def __init__(self, path: Path) -> None:
        """Open it, or make it.

        Raises:
            OSError: it cannot be made or written.
        """
        self._at = self._size = self._number = 0
        self._frame = mmap.mmap(-1, CAPACITY)  # aligned to pages, as a write past the cache wants it
        self._seen = memoryview(self._frame)
        _make(path)
        try:
            self._begin(path, os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A file system that writes nothing past its cache.
            self._begin(path)

    def _begin(self, path: Path, how: int = 0) -> None:
        self._file = _opened(path, how)
        try:
            self.clear()
        except OSError:
            self.close()
            raise

    def hold(self, additions: Additions) -> bool:
        """Make the next frame of these; False where it has no room. Nothing is written before ``append``."""
        content = _ENCODER.encode(additions)
        end = _HEAD + len(content)
        size = _padded(end)
        if self._at + size > CAPACITY:
            return False
        numbers = _NUMBERS.pack(self._number + 1, additions.first, additions.size, len(content))
        self._frame[:end] = b"".join((_MARK, numbers, _digest(numbers, content), content))
        self._size = size
        return True

    def append(self) -> None:
        """Make the frame durable.

        Raises:
            OSError: it may not be.
        """
        if os.pwrite(self._file, self._seen[: self._size], self._at) != self._size:
            raise OSError(errno.EIO, "the log's journal was written in part")
        self._at += self._size
        self._number += 1

    def restart(self) -> None:
        """All that it holds stands in the tables, durably: begin anew."""
        self._at = 0

    def clear(self) -> None:
        """All that it holds stands in the tables: leave nothing that could be taken for what comes next.

        Nor for what comes later: beside a backup that was put back, an old frame would follow by its numbers one day.

        Raises:
            OSError: it cannot be written.
        """
        self._frame[:] = bytes(CAPACITY)
        self._at, self._size = 0, CAPACITY
        self.append()
        self._at = self._number = 0

    def close(self) -> None:
        """Close the file."""
        # The memory goes with the object: whoever handles a write that failed may still hold a part of it.
        os.close(self._file)


def frames(path: Path) -> list[Additions]:
    """What a journal holds, as far as frames follow each other; nothing where there is none.

    Raises:
        DatabaseFault: it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0, opener=_unblocked) as file:
            return _frames(file.fileno())
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise DatabaseFault(f"the log's journal {path} cannot be read: {error}") from error


def _unblocked(path: str, flags: int) -> int:
    # A pipe in its place is refused by the first read: opening it would wait for somebody who writes to it.
    return os.open(path, flags | os.O_NONBLOCK)


def _frames(descriptor: int) -> list[Additions]:
    found: list[Additions] = []
    at = 0
    while True:
        head = os.pread(descriptor, _HEAD, at)
        if len(head) < _HEAD or head[: len(_MARK)] != _MARK:
            return found
        numbers, digest = head[len(_MARK) : -_DIGEST], head[-_DIGEST:]
        _, first, _, length = _NUMBERS.unpack(numbers)
        follows = not found or found[-1].size == first
        content = os.pread(descriptor, length, at + _HEAD) if follows and length <= CAPACITY else b""
        # Also where it is being written just now: nobody was told of what it holds.
        if _digest(numbers, content) != digest:
            return found
        found.append(_DECODER.decode(content))
        at += _padded(_HEAD + length)


def beyond(held: list[Additions], size: int) -> Additions:
    """What the journal has beyond the first ``size`` records: what stands in no table yet.

    Nothing where there are none: a log's first record is in the tables before anybody is told that it has begun. What
    is beside an empty one is of another log, or of a start that was killed and is made anew.
    """
    more = Additions.none(size)
    for frame in held:
        if frame.first == more.size > 0:
            more.take(frame)
    return more


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def reach(db: Database, path: Path) -> int:
    """How many records a log has, in its tables and beyond them in the journal in ``path``.

    Raises:
        FAULTS: it cannot be read.
    """
    held = frames(path)  # before the tables, see ``overlay``
    return beyond(held, log_size(db)).size


def log_size(db: Database) -> int:
    """How many records a connection sees of a log."""
    # Of a view that shows more than one table SQLite finds the greatest by reading all.
    row = db.execute("select idx from records order by idx desc limit 1").fetchone()
    return 0 if row is None else int(row[0]) + 1


def _digest(numbers: bytes, content: bytes) -> bytes:
    return hashlib.sha256(numbers + content).digest()


def _opened(path: Path, how: int = 0) -> int:
    flags = os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC
    try:
        return os.open(path, flags | how)
    except OSError as error:
        if how and error.errno == errno.EINVAL:
            return os.open(path, flags)
        raise


def _make(path: Path) -> None:
    # In its full size from the beginning: a file that grows takes twice as long to sync.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        there = os.fstat(descriptor).st_size
        if there != CAPACITY:
            os.ftruncate(descriptor, min(there, CAPACITY))
            os.pwrite(descriptor, bytes(CAPACITY - min(there, CAPACITY)), there)
            os.fsync(descriptor)
            sync_folder(path.parent)
    finally:
        os.close(descriptor)

"""Tiles, entry bundles and proofs of the log's tree: C2SP tlog-tiles and tlog-proof, over RFC 6962.

Pure functions. A *node* is the root of a perfect subtree, named by its level (0 = leaves) and its place in that level;
whoever keeps the tree says what hash a node has.
"""

import base64
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.core.tlog import (
    HASH_SIZE,
    TILE_HEIGHT,
    Checkpoint,
    VerifierKey,
    leaf_hash,
    node_hash,
    open_checkpoint,
)

WIDTH: Final = 1 << TILE_HEIGHT
MAX_LEVEL: Final = 63
ENTRIES: Final = "entries"
PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
_EXTRA, _INDEX = "extra ", "index "
_MAX_PROOF = 64
_LENGTH = struct.Struct(">H")
_PATH = re.compile(r"(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")

Node = tuple[int, int]
"""Level and place."""

Nodes = Callable[[int, int], bytes]
"""The hash of the node at a level and place."""


class ProofError(ValueError):
    """A proof that proves nothing: malformed, of the wrong length, or of another tree."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile, or the bundle of entries below one.

    Attributes:
        level: of the tile: each hash in it is that of a node at tree level ``8 * level``; 0 for a bundle.
        index: its place among the tiles of its level.
        width: hashes in it, 1 to 256.
        is_bundle: whether it is the entries themselves.
    """

    level: int
    index: int
    width: int = WIDTH
    is_bundle: bool = False

    @property
    def first(self) -> int:
        """Place of the first node in it, among the nodes of its level."""
        return self.index * WIDTH

    @property
    def path(self) -> str:
        """As in a URL, below ``tile/``."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        *upper, last = (digits[at : at + 3] for at in range(0, len(digits), 3))
        place = "".join(f"x{each}/" for each in upper) + last
        level = ENTRIES if self.is_bundle else str(self.level)
        return f"{level}/{place}" + (f".p/{self.width}" if self.width < WIDTH else "")

    @classmethod
    def parse(cls, path: str) -> "Tile | None":
        """The tile a path names; None where it names none. One tile has one path."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        level, upper, last, width = found.groups()
        is_bundle = level == ENTRIES
        tile = cls(
            0 if is_bundle else int(level), int(upper.replace("x", "").replace("/", "") + last), WIDTH, is_bundle
        )
        if width is not None:
            tile = cls(tile.level, tile.index, int(width), is_bundle)
        is_one = tile.level <= MAX_LEVEL and tile.width <= WIDTH and tile.path == path
        return tile if is_one else None

    def is_in(self, size: int) -> bool:
        """Whether a tree of ``size`` leaves has all the hashes of this tile."""
        return self.first + self.width <= size >> (TILE_HEIGHT * self.level)


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry is in the tree of a signed checkpoint; a ``.tlog-proof`` file.

    Attributes:
        index: place of the entry.
        hashes: siblings from the leaf up.
        checkpoint: the signed note.
        entry: the entry itself, as extra data, or empty; it proves nothing until its hash was checked.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    entry: bytes = b""


def tiles(size: int) -> Iterator[Tile]:
    """The tiles of a tree of ``size`` leaves, full and partial, from the leaves up; bundles are not among them."""
    level = 0
    while (nodes := size >> (TILE_HEIGHT * level)) > 0:
        for index in range(-(-nodes // WIDTH)):
            yield Tile(level, index, min(WIDTH, nodes - index * WIDTH))
        level += 1


def bundle(entries: Sequence[bytes]) -> bytes:
    """Entries as they are served: each after its length in 16 bits."""
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def unbundle(data: bytes) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        ProofError: it ends in the middle of one.
    """
    entries, at = [], 0
    while at < len(data):
        start = at + _LENGTH.size
        end = start + (_LENGTH.unpack_from(data, at)[0] if start <= len(data) else 0)
        if not start <= end <= len(data):
            raise ProofError("the entry bundle ends in the middle of an entry")
        entries.append(data[start:end])
        at = end
    return entries


def inclusion(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """The proof that the leaf at ``index`` is in the tree of ``size`` leaves: siblings from the leaf up.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("there is no such leaf in the tree")
    return [_range_root(begin, end, nodes) for begin, end in _siblings(index, 0, size)]


def consistency(old: int, new: int, nodes: Nodes) -> list[bytes]:
    """The proof that the tree of ``old`` leaves is the beginning of that of ``new``: RFC 6962, section 2.1.2.

    Raises:
        ValueError: ``old`` is greater than ``new``.
    """
    if not 0 <= old <= new:
        raise ValueError("the older tree is not the smaller one")
    if old in {0, new}:
        return []
    return [_range_root(begin, end, nodes) for begin, end in _seams(old, 0, new, is_whole=True)]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf with hash ``leaf`` is at ``index`` of the tree.

    Raises:
        ProofError: it is not, as far as this proof says.
    """
    if not 0 <= index < size:
        raise ProofError("the leaf is beyond the end of the tree")
    expected = [(begin, end) for begin, end in _siblings(index, 0, size)]
    if len(proof) != len(expected):
        raise ProofError("the proof has the wrong length")
    found = leaf
    for (begin, _), sibling in zip(expected, proof, strict=True):
        found = node_hash(sibling, found) if begin < index else node_hash(found, sibling)
    if found != root:
        raise ProofError("the proof does not lead to the root of the tree")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of ``old`` leaves is the beginning of that of ``new``.

    Raises:
        ProofError: it is not, as far as this proof says.
    """
    if not 0 <= old <= new:
        raise ProofError("the older tree is not the smaller one")
    if old in {0, new}:
        if proof or (old == new and old_root != new_root):
            raise ProofError("the trees are not the same")
        return
    ranges = _seams(old, 0, new, is_whole=True)
    if len(proof) != len(ranges):
        raise ProofError("the proof has the wrong length")
    known = dict(zip(ranges, proof, strict=True))
    if old.bit_count() == 1:
        known[0, old] = old_root  # it is one of the newer tree's own nodes, so the proof leaves it out
    if (_joined(0, old, known), _joined(0, new, known)) != (old_root, new_root):
        raise ProofError("the proof does not lead to the roots of the trees")


def write_proof(proof: Proof) -> str:
    """A ``.tlog-proof`` file."""
    extra = (_EXTRA + base64.b64encode(proof.entry).decode(),) if proof.entry else ()
    hashes = (base64.b64encode(each).decode() for each in proof.hashes)
    return "\n".join((PROOF_HEADER, *extra, f"{_INDEX}{proof.index}", *hashes, "", proof.checkpoint))


def read_proof(text: str) -> Proof:
    """What a ``.tlog-proof`` file says.

    Raises:
        ProofError: malformed.
    """
    head, blank, checkpoint = text.partition("\n\n")
    lines = head.split("\n")
    if not blank or lines.pop(0) != PROOF_HEADER:
        raise ProofError("this is no tlog-proof file")
    extra = lines.pop(0).removeprefix(_EXTRA) if lines and lines[0].startswith(_EXTRA) else ""
    number = lines.pop(0).removeprefix(_INDEX) if lines and lines[0].startswith(_INDEX) else ""
    if _NUMBER.fullmatch(number) is None or len(lines) > _MAX_PROOF:
        raise ProofError("the proof is malformed")
    hashes = tuple(_decoded(line) for line in lines)
    if any(len(each) != HASH_SIZE for each in hashes):
        raise ProofError("a hash in the proof is no SHA-256 hash")
    return Proof(int(number), hashes, checkpoint, _decoded(extra))


def check_proof(proof: Proof, *keys: VerifierKey) -> Checkpoint:
    """Check the entry of a proof against public keys of the log; returns the checkpoint it is under.

    Raises:
        ProofError: the entry is not there, or not in the tree.
        NoteError: the checkpoint is signed by none of the keys.
    """
    checkpoint = open_checkpoint(proof.checkpoint, *keys)
    if not proof.entry:
        raise ProofError("the proof does not hold the entry itself")
    check_inclusion(leaf_hash(proof.entry), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    return checkpoint


def _siblings(index: int, begin: int, end: int) -> list[tuple[int, int]]:
    # The other half at each split on the way down to the leaf, from the leaf up.
    found = []
    while end - begin > 1:
        split = begin + _split(end - begin)
        if index < split:
            found.append((split, end))
            end = split
        else:
            found.append((begin, split))
            begin = split
    return found[::-1]


def _seams(old: int, begin: int, end: int, *, is_whole: bool) -> list[tuple[int, int]]:
    if old == end - begin:
        return [] if is_whole else [(begin, end)]
    half = _split(end - begin)
    if old <= half:
        return [*_seams(old, begin, begin + half, is_whole=is_whole), (begin + half, end)]
    return [*_seams(old - half, begin + half, end, is_whole=False), (begin, begin + half)]


def _joined(begin: int, end: int, known: Mapping[tuple[int, int], bytes]) -> bytes:
    found = known.get((begin, end))
    if found is not None:
        return found
    middle = begin + _split(end - begin)
    return node_hash(_joined(begin, middle, known), _joined(middle, end, known))


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)


def _range_root(begin: int, end: int, nodes: Nodes) -> bytes:
    """Root over the leaves from ``begin`` up to ``end``, a range as the tree's own splits make them."""
    peaks = [nodes(level, place) for level, place in _perfect(begin, end)]
    root = peaks.pop()
    while peaks:
        root = node_hash(peaks.pop(), root)
    return root


def _perfect(begin: int, end: int) -> Iterator[Node]:
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield level, begin >> level
        begin += 1 << level


def _decoded(line: str) -> bytes:
    try:
        decoded = base64.b64decode(line, validate=True)
    except ValueError:
        raise ProofError("the proof is not base64") from None
    # Stray bits in the last character: an altered proof must not pass as the same one.
    if base64.b64encode(decoded).decode() != line:
        raise ProofError("the proof is not base64 as it is written")
    return decoded

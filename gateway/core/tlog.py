"""The Merkle tree of RFC 6962 and the signed checkpoints of C2SP (signed-note, tlog-checkpoint).

Pure functions over bytes: what the log writes with and what an offline verifier checks with is the same code. Foreign
tools (Go ``x/mod/sumdb/note`` and ``tlog``) read the same bytes.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Struct

HASH_SIZE = 32
TILE_HEIGHT = 8
EMPTY_ROOT = hashlib.sha256(b"").digest()
_SHA256 = hashlib.sha256
_ED25519 = b"\x01"
_KEY_ID_SIZE = 4
_VKEY_PARTS = 3
_CHECKPOINT_LINES = 3
_MAX_NOTE = 64 * 1024
_DASH = "\u2014 "


class NoteError(ValueError):
    """A note, checkpoint or key that is malformed, or whose signature is missing or wrong."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash of one log entry: SHA-256(00 || entry). The prefixes keep leaves and nodes from passing for each other."""
    return _SHA256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier(Struct):
    """The right edge of a tree: the roots of its maximal perfect subtrees, largest (leftmost) first.

    All that appending needs; ``size`` leaves take ``size.bit_count()`` hashes.
    """

    size: int = 0
    peaks: list[bytes] = []

    def append(self, leaf: bytes) -> Sequence[tuple[int, int, bytes]]:
        """As ``extend``, for one leaf hash."""
        return self.extend((leaf,))

    def extend(self, leaves: Sequence[bytes]) -> Sequence[tuple[int, int, bytes]]:
        """Add leaf hashes.

        Returns the tops of the tiles that are full with them, as (level, place, hash): what the tiles above are made
        of.
        """
        peaks = self.peaks
        tops: list[tuple[int, int, bytes]] = []
        for number, leaf in enumerate(leaves, self.size):
            place, level, top = number, 0, leaf
            while place & 1:  # the right half of a pair, whose left one is the last peak
                top = _SHA256(b"\x01" + peaks.pop() + top).digest()  # ``node_hash``, in place: once a record
                place >>= 1
                level += 1
                if level % TILE_HEIGHT == 0:
                    tops.append((level, place, top))
            peaks.append(top)
        self.size += len(leaves)
        return tops

    def root(self) -> bytes:
        """Root of the tree of all leaves so far."""
        if not self.peaks:
            return EMPTY_ROOT
        *rest, root = self.peaks
        rest.reverse()
        for peak in rest:
            root = _SHA256(b"\x01" + peak + root).digest()  # ``node_hash``, in place: once a peak, with each commit
        return root

    def copy(self) -> "Frontier":
        """An independent copy, to go on from without touching this one."""
        return Frontier(self.size, list(self.peaks))

    def encode(self) -> bytes:
        """The peaks, concatenated."""
        return b"".join(self.peaks)

    @classmethod
    def decode(cls, size: int, peaks: bytes) -> "Frontier":
        """The frontier of ``size`` leaves from its stored peaks.

        Raises:
            NoteError: the length does not fit the size.
        """
        if size < 0 or len(peaks) != size.bit_count() * HASH_SIZE:
            raise NoteError("the stored tree does not fit its size")
        return cls(size, [peaks[at : at + HASH_SIZE] for at in range(0, len(peaks), HASH_SIZE)])


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A log's public key, named."""

    name: str
    public: Ed25519PublicKey

    @property
    def raw(self) -> bytes:
        """The 32 public bytes."""
        return self.public.public_bytes_raw()

    @property
    def id(self) -> bytes:
        """Key id: SHA-256(name || 0A || type || public key), first four bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.raw).digest()[:_KEY_ID_SIZE]

    @property
    def text(self) -> str:
        """The vkey: ``name+hex(key id)+base64(type || public key)``."""
        return f"{self.name}+{self.id.hex()}+{_base64(_ED25519 + self.raw)}"

    @classmethod
    def parse(cls, vkey: str) -> "VerifierKey":
        """Read a vkey.

        Raises:
            NoteError: malformed, of another algorithm, or its key id does not fit.
        """
        parts = vkey.strip().split("+", _VKEY_PARTS - 1)
        if len(parts) != _VKEY_PARTS or not is_key_name(parts[0]):
            raise NoteError("the verifier key is malformed")
        encoded = unbase64(parts[2])
        if encoded[:1] != _ED25519 or len(encoded) != 1 + HASH_SIZE:
            raise NoteError("the verifier key is not an Ed25519 key")
        key = cls(parts[0], Ed25519PublicKey.from_public_bytes(encoded[1:]))
        if key.id.hex() != parts[1]:
            raise NoteError("the verifier key's id does not fit its key")
        return key


class Signer:
    """A log's signing key. ``name`` is the origin of its checkpoints.

    Attributes:
        key: the public half, which others check with.
    """

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self.name = name
        self.key = VerifierKey(name, private.public_key())
        self._private = private
        self._key_id = self.key.id

    def sign(self, text: str) -> str:
        """The signed note of ``text``, which ends in a newline."""
        return f"{text}\n{self.line(text)}"

    def line(self, text: str) -> str:
        """The signature line alone, to stand beside others."""
        return write_line(self.name, self._key_id, self._private.sign(text.encode()))

    def raw_sign(self, message: bytes) -> bytes:
        """The bare Ed25519 signature of ``message``, 64 bytes; never of what could be read as a note."""
        return self._private.sign(message)


class Checkpoint(Struct, frozen=True, gc=False):
    """What a log commits to: this many entries under this root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The note text that is signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a note text; extension lines are allowed and ignored.

        Raises:
            NoteError: no checkpoint.
        """
        lines = text.split("\n")
        if len(lines) <= _CHECKPOINT_LINES or not lines[0] or "" in lines[:-1]:
            raise NoteError("the checkpoint is malformed")
        digits = lines[1]
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > len(str(2**63)) or str(int(digits)) != digits:
            raise NoteError("the checkpoint's size is no number")
        root = unbase64(lines[2])
        if len(root) != HASH_SIZE:
            raise NoteError("the checkpoint's root is no SHA-256 hash")
        return cls(lines[0], int(digits), root)


def is_key_name(name: str) -> bool:
    """Whether ``name`` may name a key: not empty, no white space, no plus sign."""
    return bool(name) and name.isprintable() and "+" not in name and not any(char.isspace() for char in name)


def open_note(note: str, keys: Iterable[VerifierKey]) -> str:
    """The text of a note that at least one of ``keys`` signed.

    Signatures of unknown keys are ignored. A known key whose signature fails rejects the note: it was altered.

    Raises:
        NoteError: malformed, not signed by any of the keys, or signed wrongly.
    """
    text, signers = signers_of(note, keys)
    if not signers:
        raise NoteError("the note has no signature by a known key")
    return text


def signers_of(note: str, keys: Iterable[VerifierKey]) -> tuple[str, tuple[VerifierKey, ...]]:
    """The text of a note, and which of ``keys`` signed it; perhaps none.

    Raises:
        NoteError: malformed, or the signature of one of the keys is wrong.
    """
    text, lines = split_note(note)
    known = {(key.name, key.id): key for key in keys}
    found = [_verified(line, text, known) for line in lines]
    return text, tuple(key for key in found if key is not None)


def split_note(note: str) -> tuple[str, Sequence[str]]:
    """The text of a note and its signature lines, unchecked.

    Raises:
        NoteError: malformed.
    """
    if len(note) > _MAX_NOTE or any((char < " " and char != "\n") or "\ud800" <= char <= "\udfff" for char in note):
        raise NoteError("the note is malformed")
    # The text may itself hold blank lines: only the last one parts it from the signatures.
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("the note is malformed")
    return f"{text}\n", signatures[:-1].split("\n")


def open_checkpoint(note: str, *keys: VerifierKey) -> Checkpoint:
    """The checkpoint in a note signed by one of the log's own keys.

    Raises:
        NoteError: malformed, signed by none of them, or of another origin than those that signed.
    """
    text, signers = signers_of(note, keys)
    if not signers:
        raise NoteError("the note has no signature by a known key")
    checkpoint = Checkpoint.parse(text)
    if not all(hmac.compare_digest(checkpoint.origin.encode(), key.name.encode()) for key in signers):
        raise NoteError("the checkpoint is of another log")
    return checkpoint


def signature_line(line: str) -> tuple[str, bytes, bytes]:
    """Key name, key id and signature of a note's signature line, without its newline.

    Raises:
        NoteError: malformed.
    """
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not is_key_name(name):
        raise NoteError("the note has a malformed signature line")
    blob = unbase64(encoded)
    if len(blob) <= _KEY_ID_SIZE:
        raise NoteError("the note has a malformed signature line")
    return name, blob[:_KEY_ID_SIZE], blob[_KEY_ID_SIZE:]


def write_line(name: str, key_id: bytes, signature: bytes) -> str:
    """A note's signature line, with its newline."""
    return f"{_DASH}{name} {_base64(key_id + signature)}\n"


def _verified(line: str, text: str, known: dict[tuple[str, bytes], VerifierKey]) -> VerifierKey | None:
    name, key_id, signature = signature_line(line)
    key = known.get((name, key_id))
    if key is None:
        return None
    try:
        key.public.verify(signature, text.encode())
    except InvalidSignature:
        raise NoteError(f"the signature of {name} is wrong") from None
    return key


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def unbase64(text: str) -> bytes:
    """Base64, in the one way to write it.

    Raises:
        NoteError: it is not.
    """
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteError("base64 is malformed") from None
    # b64decode ignores stray bits in the last character: an altered note must not pass as the same one.
    if _base64(decoded) != text:
        raise NoteError("base64 is not canonical")
    return decoded

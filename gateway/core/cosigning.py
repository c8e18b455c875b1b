"""Witnesses of a log: their keys, their cosignatures and the policy that says which of them must have signed.

Formats of C2SP: tlog-cosignature (``cosignature/v1``, Ed25519) and tlog-policy.
"""

import base64
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.core.tlog import NoteError, VerifierKey, is_key_name, signature_line, split_note, unbase64

_ALGORITHM = b"\x04"
_KEY_SIZE = 32
_TIME_SIZE = 8
_SIGNATURE_SIZE = 64
_LATEST = 2**63 - 1
_PARTS = 3
_MOST_LINES = 4096
NO_QUORUM = "none"
_WHITE = re.compile(r"[ \t]+")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_THRESHOLD = re.compile(r"[1-9][0-9]{0,5}")


class TrustError(ValueError):
    """A trust policy that cannot be used; the message names the line and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A witness's public key, with the name it signs under."""

    name: str
    raw: bytes

    @property
    def id(self) -> bytes:
        """Key id, four bytes."""
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape") + b"\n" + _ALGORITHM + self.raw).digest()[:4]

    @property
    def text(self) -> str:
        """The vkey, of signature type 04."""
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ALGORITHM + self.raw).decode()}"

    @classmethod
    def parse(cls, vkey: str) -> "CosignerKey":
        """Read a vkey.

        Raises:
            NoteError: malformed, of another algorithm, or its key id does not fit.
        """
        parts = vkey.strip().split("+", _PARTS - 1)
        if len(parts) != _PARTS or not is_key_name(parts[0]):
            raise NoteError("the witness's key is malformed")
        encoded = unbase64(parts[2])
        if encoded[:1] != _ALGORITHM or len(encoded) != 1 + _KEY_SIZE:
            raise NoteError("the witness's key is not one for cosignature/v1 (Ed25519, type 04)")
        key = cls(parts[0], encoded[1:])
        if key.id.hex() != parts[1]:
            raise NoteError("the id of the witness's key does not fit the key")
        return key


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's word that a checkpoint extends all it has seen of the log.

    Attributes:
        time_s: when, seconds since the epoch, by the witness's clock.
        signature: 64 bytes.
    """

    key: CosignerKey
    time_s: int
    signature: bytes

    @property
    def line(self) -> str:
        """As it stands below a checkpoint."""
        blob = self.key.id + self.time_s.to_bytes(_TIME_SIZE, "big") + self.signature
        return f"\u2014 {self.key.name} {base64.b64encode(blob).decode()}\n"

    def holds(self, text: str) -> bool:
        """Whether it is of the checkpoint ``text``."""
        message = f"cosignature/v1\ntime {self.time_s}\n{text}".encode()
        try:
            Ed25519PublicKey.from_public_bytes(self.key.raw).verify(self.signature, message)
        except (InvalidSignature, ValueError):
            return False
        return 0 <= self.time_s <= _LATEST


def cosignatures(note: str, keys: Collection[CosignerKey]) -> tuple[Cosignature, ...]:
    """The cosignatures of ``keys`` below a checkpoint, each checked; those of others are ignored.

    Raises:
        NoteError: malformed, or the cosignature of one of the keys is wrong.
    """
    text, lines = split_note(note)
    known = {(key.name, key.id): key for key in keys}
    found = []
    for line in lines:
        name, key_id, blob = signature_line(line)
        key = known.get((name, key_id))
        if key is None:
            continue
        word = Cosignature(key, int.from_bytes(blob[:_TIME_SIZE], "big"), blob[_TIME_SIZE:])
        if len(blob) != _TIME_SIZE + _SIGNATURE_SIZE or not word.holds(text):
            raise NoteError(f"the cosignature of {name} is wrong")
        found.append(word)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness as a policy names it.

    Attributes:
        url: its submission prefix, or None.
    """

    name: str
    key: CosignerKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Of ``members`` (witnesses or groups, by name) at least ``threshold`` must have signed."""

    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """A C2SP tlog-policy.

    Attributes:
        logs: keys of which one must have signed.
        groups: by name, each made of what stands before it.
        quorum: name of the witness or group that must have cosigned, or ``none``.
    """

    logs: tuple[VerifierKey, ...]
    witnesses: tuple[Witness, ...]
    groups: Mapping[str, Group]
    quorum: str

    def is_met(self, signers: Collection[CosignerKey]) -> bool:
        """Whether the cosignatures of ``signers`` are a quorum."""
        if self.quorum == NO_QUORUM:
            return True
        met = {witness.name: witness.key in signers for witness in self.witnesses}
        for name, group in self.groups.items():
            met[name] = sum(met[member] for member in group.members) >= group.threshold
        return met[self.quorum]

    @property
    def text(self) -> str:
        """The policy file."""
        lines = [f"log {key.text}" for key in self.logs]
        lines += [
            f"witness {one.name} {one.key.text}{'' if one.url is None else f' {one.url}'}" for one in self.witnesses
        ]
        lines += [f"group {name} {one.threshold} {' '.join(one.members)}" for name, one in self.groups.items()]
        return "".join(f"{line}\n" for line in (*lines, f"quorum {self.quorum}"))

    @classmethod
    def parse(cls, text: str) -> "TrustPolicy":
        """Read a policy file.

        Raises:
            TrustError: it is none.
        """
        reading = _Reading()
        lines = text.split("\n")
        if len(lines) > _MOST_LINES:
            raise TrustError("the policy is too long")
        for number, line in enumerate(lines, 1):
            try:
                reading.take(line)
            except (TrustError, NoteError) as error:
                raise TrustError(f"line {number} of the policy: {error}") from None
        if reading.quorum is None:
            raise TrustError("the policy has no quorum line")
        return cls(tuple(reading.logs), tuple(reading.witnesses), reading.groups, reading.quorum)


def policy_over(logs: Sequence[VerifierKey], witnesses: Sequence[Witness], threshold: int) -> TrustPolicy:
    """The policy that ``threshold`` of the witnesses must have cosigned what one of ``logs`` signed; 0 = none must."""
    if threshold == 0:
        return TrustPolicy(tuple(logs), tuple(witnesses), {}, NO_QUORUM)
    group = Group(threshold, tuple(witness.name for witness in witnesses))
    return TrustPolicy(tuple(logs), tuple(witnesses), {GROUP: group}, GROUP)


GROUP = "witnesses"


class _Reading:
    """A policy as far as it was read."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.witnesses: list[Witness] = []
        self.groups: dict[str, Group] = {}
        self.quorum: str | None = None
        self._members: set[str] = set()

    def take(self, line: str) -> None:
        if _FORBIDDEN.search(line):
            raise TrustError("it holds a control character")
        kind, *words = _WHITE.split(line.strip(" \t"))
        if not kind or kind.startswith("#"):
            return
        takers = {"log": self._log, "witness": self._witness, "group": self._group, "quorum": self._quorum}
        if kind not in takers:
            raise TrustError("it is neither of log, witness, group and quorum")
        takers[kind](words)

    def _log(self, words: list[str]) -> None:
        if len(words) not in {1, 2}:
            raise TrustError("log VKEY [URL] is meant")
        key = VerifierKey.parse(words[0])
        if any(key.raw == other.raw for other in self.logs):
            raise TrustError("the log's key stands there twice")
        self.logs.append(key)

    def _witness(self, words: list[str]) -> None:
        if len(words) not in {2, 3}:
            raise TrustError("witness NAME VKEY [URL] is meant")
        key = CosignerKey.parse(words[1])
        if any(key.raw == other.key.raw for other in self.witnesses):
            raise TrustError("the witness's key stands there twice")
        self._name(words[0])
        self.witnesses.append(Witness(words[0], key, *words[2:]))

    def _group(self, words: list[str]) -> None:
        name, threshold, *members = (*words, "", "")[: max(len(words), 2)]
        counts = {"any": 1, "all": len(members)}
        count = counts.get(threshold) or (int(threshold) if _THRESHOLD.fullmatch(threshold) else 0)
        if not 1 <= count <= len(members):
            raise TrustError("group NAME any|all|COUNT MEMBER... is meant, with no more than there are members")
        for member in members:
            if member not in self._names():
                raise TrustError(f"{member} is not defined above it")
            if member in self._members:
                raise TrustError(f"{member} is a member twice")
            self._members.add(member)
        self._name(name)
        self.groups[name] = Group(count, tuple(members))

    def _quorum(self, words: list[str]) -> None:
        if len(words) != 1 or self.quorum is not None:
            raise TrustError("one line, quorum NAME, is meant")
        if words[0] != NO_QUORUM and words[0] not in self._names():
            raise TrustError(f"{words[0]} is not defined above it")
        self.quorum = words[0]

    def _names(self) -> set[str]:
        return {witness.name for witness in self.witnesses} | set(self.groups)

    def _name(self, name: str) -> None:
        if not name or name == NO_QUORUM or name in self._names():
            raise TrustError(f"the name {name or 'that is empty'} cannot be given to it")

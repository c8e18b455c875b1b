"""Part of verify.py: which keys may have signed the log, which witnesses have cosigned it, and what a policy asks for.

The formats are C2SP's: signed-note, tlog-checkpoint, tlog-cosignature (Ed25519) and tlog-policy. A log's first key
names it; each further one was signed for by the key in force, which is retired by a record later on. While two are in
force, both sign.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LOG, WITNESS = b"\x01", b"\x04"
OTHER_KEY = "the checkpoint is not signed by the log's key: it is of another log, or the key is another one"

NOT_IN_FORCE = "the checkpoint is signed by a key of the log that was retired before, or added later"


class Unsound(Exception):
    """The bundle is not what was exported, or the log is not what was signed."""


def need(condition: object, problem: str) -> None:
    """Refuse the bundle unless ``condition``."""
    if not condition:
        raise Unsound(problem)


def unbase64(text: str) -> bytes:
    """Base64, in the one way to write it."""
    found = base64.b64decode(text, validate=True)
    need(base64.b64encode(found).decode() == text, "base64 is not as it is written")
    return found


def check_signature(public: bytes, signature: bytes, message: bytes, problem: str) -> None:
    """Ed25519."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Unsound(problem) from None


@dataclass
class Key:
    """A public key; of a log's, the size of the first tree it signs and of the first one it does not sign any more."""

    name: str
    raw: bytes
    kind: bytes = LOG
    since: int = 0
    until: int | None = None

    @property
    def id(self) -> bytes:
        """Key id."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.kind + self.raw).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self.kind + self.raw).decode()}"

    def signs(self, size: int) -> bool:
        """Whether it is in force for the tree of ``size`` records."""
        return self.since <= size and (self.until is None or size < self.until)


def key(vkey: str, kind: bytes = LOG) -> Key:
    """Read a vkey."""
    name, _, encoded = [*vkey.strip().split("+", 2), "", ""][:3]
    raw = unbase64(encoded)
    found = Key(name, raw[1:], kind)
    need(raw[:1] == kind and len(raw) == 33 and str(found) == vkey.strip(), "the public key is malformed")  # noqa: PLR2004
    return found


def signatures(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text of a note; key name, key id and signature of each line below it."""
    text, _, below = note.rpartition("\n\n")
    lines = [line.split(" ") for line in below.splitlines()]
    need(all(line[:1] == ["\u2014"] and len(line) == 3 for line in lines), "the checkpoint is malformed")  # noqa: PLR2004
    blobs = [(line[1], unbase64(line[2])) for line in lines]
    return f"{text}\n", [(name, blob[:4], blob[4:]) for name, blob in blobs]


class Keys:
    """A log's keys, oldest first, by its ``key`` records; one that was given has to be among them."""

    def __init__(self, given: Iterable[str], records: Iterable[tuple[int, dict[str, Any]]]) -> None:
        self.all: list[Key] = []
        known = [key(vkey) for vkey in given]
        for index, body in records:
            found = Key(known[0].name, bytes.fromhex(body["public"]), since=index + 1 if self.all else 0)
            need(found.id.hex() == body["key_id"], f"record {index}: the key's id does not fit")
            active = [one for one in self.all if one.until is None]
            if body["action"] == "added":
                self._add(found, active, body, index)
            else:
                need(len(active) > 1 and active[0].raw == found.raw, f"record {index} retires a key out of turn")
                active[0].until = index + 1
        need({str(one) for one in self.all} & {str(one) for one in known}, OTHER_KEY)

    def _add(self, found: Key, active: list[Key], body: dict[str, Any], index: int) -> None:
        if not self.all:
            need(index == 0, "the record of the log's first key is missing")
            self.all.append(found)
            return
        need(len(active) == 1, f"record {index} adds a key while two are in force")
        need(all(one.raw != found.raw for one in self.all), f"record {index} adds a key a second time")
        word = {"v": 1, "origin": str(self.all[0]), "predecessor": str(active[0]), "key": str(found)}
        hashed = hashlib.sha256(json.dumps(word, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())
        message, problem = b"ostiary.log-key/v1\n" + hashed.digest(), f"record {index}: the new key was not signed for"
        check_signature(active[0].raw, bytes.fromhex(body["signature"]), message, problem)
        self.all.append(found)

    def open(self, note: str) -> tuple[int, bytes]:
        """Size and root of a checkpoint that every key in force has signed, and no other one of the log."""
        text, lines = signatures(note)
        origin, number, root = text.split("\n")[:3]
        size, signed = int(number), []
        for name, key_id, signature in lines:
            for one in self.all:
                if (one.name, one.id) == (name, key_id):
                    check_signature(one.raw, signature, text.encode(), "the checkpoint's signature is not good")
                    signed.append(str(one))
        lacking = [one for one in self.all if one.signs(size) and str(one) not in signed]
        need(signed, OTHER_KEY)
        need(all(one.signs(size) for one in self.all if str(one) in signed), NOT_IN_FORCE)
        need(not lacking, f"the checkpoint lacks the signature of key {', '.join(one.id.hex() for one in lacking)}")
        need(origin == self.all[0].name and str(size) == number, "the checkpoint is of another log")
        return size, unbase64(root)


@dataclass
class Policy:
    """A C2SP trust policy: keys of logs, keys of witnesses by name, groups, and whose cosignatures it takes."""

    logs: list[str] = field(default_factory=list)
    witnesses: dict[str, Key] = field(default_factory=dict)
    groups: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    quorum: str = ""

    def is_met(self, signers: Iterable[str]) -> bool:
        """Whether the cosignatures of these witnesses (vkeys) are a quorum."""
        there = set(signers)
        met = {name: str(one) in there for name, one in self.witnesses.items()}
        for name, (count, members) in self.groups.items():
            met[name] = sum(met[member] for member in members) >= count
        return self.quorum == "none" or met[self.quorum]


def policy(text: str) -> Policy:
    """Read a policy file."""
    found, used = Policy(), set[str]()
    for line in text.split("\n"):
        kind, *words = re.split(r"[ \t]+", line.strip(" \t"))
        names = {*found.witnesses, *found.groups}
        new = words[0] if words else ""
        if kind == "log":
            need(str(key(new)) not in found.logs, "the policy names a log's key twice")
            found.logs.append(str(key(new)))
        elif kind == "witness" and new not in {"none", *names}:
            given = key(words[1], WITNESS)
            # By the key itself: under two names it would count twice.
            need(
                all(one.raw != given.raw for one in found.witnesses.values()), "the policy names a witness's key twice"
            )
            found.witnesses[new] = given
        elif kind == "group" and new not in {"none", *names}:
            members = words[2:]
            count = {"any": 1, "all": len(members)}.get(words[1]) or int(words[1])
            fits = 1 <= count <= len(members) == len(set(members)) and set(members) <= names - used
            need(fits, f"the policy's group {new} is malformed")
            used.update(members)
            found.groups[new] = (count, members)
        elif kind == "quorum" and not found.quorum and new in {"none", *names}:
            found.quorum = new
        else:
            need(not kind or kind.startswith("#"), f"the policy is malformed: {line}")
    need(found.quorum, "the policy has no quorum")
    return found


def cosigners(note: str, witnesses: Iterable[Key]) -> dict[str, int]:
    """The witnesses (vkeys) that have cosigned a checkpoint, each with its time, seconds since the epoch."""
    text, lines = signatures(note)
    found = {}
    for name, key_id, blob in lines:
        for one in witnesses:
            if (one.name, one.id) == (name, key_id):
                time = int.from_bytes(blob[:8], "big")
                message = f"cosignature/v1\ntime {time}\n{text}".encode()
                check_signature(one.raw, blob[8:], message, f"the cosignature of {name} is not good")
                found[str(one)] = time
    return found


def check_extension(old: tuple[int, bytes], new: tuple[int, bytes], proof: list[bytes]) -> None:
    """That one tree (size, root) is the beginning of the other: RFC 9162, section 2.1.4.2."""
    problem = "the witnessed tree is not the beginning of this one"
    need(0 < old[0] <= new[0], problem)
    if old[0] == new[0]:
        need(old[1] == new[1] and not proof, problem)
        return
    path = [old[1], *proof] if old[0] & (old[0] - 1) == 0 else list(proof)
    need(path, problem)
    node, last = old[0] - 1, new[0] - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = path[0]
    for sibling in path[1:]:
        need(last, problem)
        if node & 1 or node == last:
            before = hashlib.sha256(b"\x01" + sibling + before).digest()
            after = hashlib.sha256(b"\x01" + sibling + after).digest()
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = hashlib.sha256(b"\x01" + after + sibling).digest()
        node, last = node >> 1, last >> 1
    need((before, after, last) == (old[1], new[1], 0), problem)

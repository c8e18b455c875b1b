"""Payloads under lock: AES-256-GCM with a data key per run, each data key wrapped by the key file.

Destroying a wrapped data key erases all payloads under it; the leaf keeps a ciphertext digest and a keyed commitment,
which then say nothing about the content. A run has one key because that is what is erased: a run has one user, so
erasing a user is erasing runs. What belongs to no run has a key per day, or retention could not tell old from new; and
what a user asked for outside any run a key per day and user, or it could not be erased without everybody else's.
"""

import hashlib
from collections.abc import Container
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.mac import Mac
from gateway.core.ports import Clock
from gateway.core.records import Draft, EventType, Payload, PayloadRef

NONCE_SIZE = 12
_KEY_SIZE = 32
_TAG_SIZE = 16
WRAPPED_SIZE = NONCE_SIZE + _KEY_SIZE + _TAG_SIZE
DAY_US = 86_400_000_000
_CACHED_KEYS = 4096
_DAY, _HOLD, _REVIEWER, _PIN = "day-", "hold-", "reviewer-", "pin-"
_GENERATION = "+"
# A key that was destroyed and put back is not for erasure and retention: the next start destroys it again, and says so.
LIVE = "select id from deks where not exists (select 1 from erased where key = deks.id)"
_ASKED = frozenset({EventType.DECISION, EventType.DECISION_ADVISORY, EventType.REQUEST_REFUSED})


class SealBroken(Exception):
    """A sealed payload or data key is not what was stored, or its key is another one."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """An unwrapped data key, ready for use."""

    id: str
    aead: AESGCM = field(repr=False)
    commit: Mac = field(repr=False)


def data_key_id(draft: Draft) -> str:
    """The data key of a record's payloads, in its first generation."""
    if draft.run_id is not None:
        return draft.run_id
    day = draft.at_us // DAY_US
    if draft.type is EventType.REVIEWER_ENROLLED:  # good for as long as the reviewer's key is
        return f"{_REVIEWER}{draft.body['key']}"
    if draft.type is EventType.API_KEY_CREATED:  # retention counts from when it ends; erasing the user ends it
        return f"{_DAY}{draft.body['expires_us'] // DAY_US}.{draft.body['user']}"
    if draft.type is EventType.TOOL_PINNED:  # good for as long as the tool may be used
        return f"{_PIN}{draft.body['tool'].partition('.')[0]}"
    if draft.type is EventType.LEGAL_HOLD:  # good for as long as it holds
        return f"{_HOLD}{day}.{draft.id}"
    is_personal = draft.type in _ASKED and draft.actor.user is not None
    return f"{_DAY}{day}.{draft.actor.user}" if is_personal else f"{_DAY}{day}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What is sealed under a data key, by the key's id.

    Attributes:
        run: the run, or None.
        over_us: end of the day outside any run; None for a run, and for what no retention reaches.
        user: pseudonym of whose requests outside any run, or None.
        hold: id of the ``legal_hold`` record, or None.
    """

    run: str | None = None
    over_us: int | None = None
    user: str | None = None
    hold: str | None = None


def scope_of(dek_id: str) -> Scope:
    """What is sealed under the data key of that id, of whatever generation."""
    name = dek_id.partition(_GENERATION)[0]
    if name.startswith((_REVIEWER, _PIN)):
        return Scope()
    for prefix in (_DAY, _HOLD):
        if name.startswith(prefix):
            day, _, rest = name.removeprefix(prefix).partition(".")
            over_us = (int(day) + 1) * DAY_US
            return Scope(None, over_us, hold=rest) if prefix == _HOLD else Scope(None, over_us, rest or None)
    return Scope(name)


def keys_of_run(db: Database, run_id: str) -> list[str]:
    """The ids of the data keys of a run that are there: one, or more where payloads came after an erasure.

    Without those that were destroyed and put back.
    """
    # "~" sorts behind all that ids are made of.
    rows = db.execute(f"{LIVE} and id >= ? and id < cast(? as text) || '~' order by id", (run_id, run_id))
    return [dek_id for (dek_id,) in rows if scope_of(dek_id).run == run_id]


@dataclass(slots=True)
class PayloadKey:
    """The key that wraps data keys, and beside it the one that is being replaced. All that open payloads share it.

    Attributes:
        newest: wraps, and opens; 32 bytes.
        former: opens only, what it has wrapped before; None = there is one key.
    """

    newest: bytes = field(repr=False)
    former: bytes | None = field(default=None, repr=False)

    @property
    def is_settled(self) -> bool:
        """Whether there is one key only."""
        return self.former is None

    def succeed(self, key: bytes) -> None:
        """Wrap with ``key`` from now on; what the present one has wrapped is still opened."""
        self.newest, self.former = key, self.newest

    def settle(self) -> None:
        """Forget the former key."""
        self.former = None

    def wrap(self, dek_id: str, key: bytes, nonce: bytes) -> bytes:
        """The data key under the newest key, bound to its id."""
        return nonce + AESGCM(self.newest).encrypt(nonce, key, dek_id.encode())

    def unwrap(self, dek_id: str, wrapped: bytes) -> bytes:
        """A stored data key.

        Raises:
            SealBroken: altered, or wrapped by another key.
        """
        # Read once: another thread may settle meanwhile, and then all is under the newest.
        former = self.former
        found = _opened(self.newest, dek_id, wrapped)
        if found is None and former is not None:
            found = _opened(former, dek_id, wrapped)
        if found is None:
            raise SealBroken(f"the data key {dek_id} cannot be opened")
        return found

    def renewed(self, dek_id: str, wrapped: bytes, nonce: bytes) -> bytes | None:
        """The data key under the newest key, where the former one has wrapped it; None = there is nothing to do."""
        if self.former is None or _opened(self.newest, dek_id, wrapped) is not None:
            return None
        key = _opened(self.former, dek_id, wrapped)
        return None if key is None else self.wrap(dek_id, key, nonce)


def unwrap(kek: PayloadKey, dek_id: str, wrapped: bytes) -> DataKey:
    """A stored data key, opened.

    Raises:
        SealBroken: altered, or wrapped by another key.
    """
    return _ready(dek_id, kek.unwrap(dek_id, wrapped))


def commitment_key(kek: PayloadKey, dek_id: str, wrapped: bytes) -> bytes:
    """What the commitments under a stored data key are made with, 32 bytes: enough to check them, not to open anything.

    Raises:
        SealBroken: altered, or wrapped by another key.
    """
    return _commitment(kek.unwrap(dek_id, wrapped))


def seal(key: DataKey, draft: Draft, payload: Payload, nonce: bytes) -> tuple[PayloadRef, bytearray]:
    """The sealed bytes of a payload and what the leaf says of them."""
    content, role = payload.content, payload.role._value_
    sealed = bytearray(nonce)
    # Bound to its record and role, so that sealed payloads cannot be swapped for each other.
    sealed += key.aead.encrypt(nonce, content, _context(draft.id, role))
    commitment, digest = key.commit.digest(content).hex(), hashlib.sha256(sealed).hexdigest()
    return PayloadRef(commitment, digest, key.id, len(content), payload.mime, role), sealed


def unseal(key: DataKey, record_id: str, role: str, sealed: bytes) -> bytes:
    """The plaintext of a sealed payload.

    Raises:
        SealBroken: altered, or of another record.
    """
    try:
        return key.aead.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], _context(record_id, role))
    except (InvalidTag, ValueError):
        raise SealBroken(f"the {role} payload of record {record_id} cannot be opened") from None


class DataKeys:
    """The data keys the writer uses, those that came last in memory. Belongs to whoever writes."""

    def __init__(self, kek: PayloadKey, clock: Clock) -> None:
        self._kek = kek
        self._clock = clock
        self._ready: dict[str, DataKey] = {}

    def of(self, draft: Draft, db: Database, doomed: Container[str]) -> DataKey:
        """The record's data key; a new one is stored with the transaction in progress.

        ``doomed`` are those that the same transaction destroys. What is sealed after an erasure gets a key of the next
        generation.

        Raises:
            SealBroken: the stored key cannot be opened.
        """
        dek_id = draft.run_id or data_key_id(draft)
        key = self._ready.get(dek_id)
        if key is None or key.id in doomed:
            key = self._ready[dek_id] = self._fetch(dek_id, db, doomed)
            if len(self._ready) > _CACHED_KEYS:
                del self._ready[next(iter(self._ready))]  # the oldest, which is still stored
        return key

    def forget(self) -> None:
        """Drop what is in memory: keys were destroyed, or a transaction failed and they may not be stored after all."""
        self._ready.clear()

    def _fetch(self, name: str, db: Database, doomed: Container[str]) -> DataKey:
        dek_id, generation = name, 0
        while dek_id in doomed or db.execute("select 1 from erased where key = ?", (dek_id,)).fetchone():
            generation += 1
            dek_id = f"{name}{_GENERATION}{generation}"
        row = db.execute("select wrapped from deks where id = ?", (dek_id,)).fetchone()
        if row is not None:
            return unwrap(self._kek, dek_id, row[0])
        key = self._clock.random(_KEY_SIZE)
        wrapped = self._kek.wrap(dek_id, key, self._clock.random(NONCE_SIZE))
        db.execute("insert into deks (id, wrapped) values (?, ?)", (dek_id, wrapped))
        return _ready(dek_id, key)


def _ready(dek_id: str, key: bytes) -> DataKey:
    return DataKey(dek_id, AESGCM(key), Mac(_commitment(key)))


def _opened(kek: bytes, dek_id: str, wrapped: bytes) -> bytes | None:
    try:
        return AESGCM(kek).decrypt(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], dek_id.encode())
    except (InvalidTag, ValueError):
        return None


def _commitment(key: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY_SIZE, salt=None, info=b"commit").derive(key)


def _context(record_id: str, role: str) -> bytes:
    return f"{record_id}/{role}".encode()

"""The keys that may approve, and whose they are: enrolled and revoked by records of the same log.

The first key is enrolled by who holds the gateway's admin socket; from then on every enrolment is signed by a key that
is enrolled already, so that whoever runs the gateway cannot add an approver unnoticed.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from gateway.adapters.ledger.books.alone import alone
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.sections import Turns
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.adapters.ledger.storage.places import Places
from gateway.core.approval import Reviewer
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.desk import Enrolment
from gateway.core.errors import Conflict, Forbidden, InvalidArguments, NotFound
from gateway.core.ports import Clock
from gateway.core.records import EventType, Payload, Role
from gateway.core.signing import document_hash, enrolment, enrolment_message, is_signed, is_sound_key, key_id

_MAX_REVIEWERS = 1000
_TURN = "reviewers"


class ReviewerRegistry:
    """Implements ``core.desk.ReviewerDesk`` on the log. Load it before use."""

    def __init__(
        self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock, places: Places | None = None
    ) -> None:
        """``places``: where several processes do one thing at a time."""
        self._ledger = ledger
        self._reader = reader
        self._keys = keys
        self._scribe = Scribe(clock, keys)
        self._known: dict[str, Reviewer] = {}
        self._places = places
        self._turns = Turns()
        self.origin = keys.name.text

    async def load(self) -> None:
        """Read all keys from the log; not for who is ``steady``, which has read them.

        Raises:
            Unavailable: the log cannot be read.
        """
        async with self._turns.hold(_TURN):  # or what was read before a revocation would undo it
            await self._read_all()

    async def _read_all(self) -> None:
        self._known = await self._reader.ask(lambda db: _stored(self._reader, db))

    def all(self) -> tuple[Reviewer, ...]:
        """Every key that was ever enrolled; see ``core.desk.ReviewerDesk``."""
        return tuple(self._known.values())

    def active(self, name: str) -> Reviewer:
        """The enrolled key of that id.

        Raises:
            Forbidden: not enrolled, or revoked.
        """
        found = self._known.get(name)
        if found is None or found.revoked:
            raise Forbidden("the signing key is not enrolled here", cause_code="reviewer_key")
        return found

    def steady(self) -> AbstractAsyncContextManager[None]:
        """Nobody is enrolled or revoked meanwhile, by any process."""
        return alone(_TURN, self._turns, self._places, self._read_all)

    async def enrol(self, by: Principal, wish: Enrolment) -> Reviewer:
        """Enrol a key; see ``core.desk.ReviewerDesk``."""
        async with self.steady():
            document = enrolment(wish.public, wish.person, wish.roles, wish.accounts, wish.nonce)
            hashed = document_hash(document)
            reviewer = self._checked(wish, hashed)
            body = {
                "algorithm": "ed25519",
                "document": hashed,
                "enrolled_by": reviewer.enrolled_by,
                "key": reviewer.key_id,
                "person": self._keys.mark("person", reviewer.person),
                "public": wish.public.hex(),
                "roles": sorted(reviewer.roles),
                "signature": None if wish.signature is None else wish.signature.hex(),
            }
            await self._write(by, EventType.REVIEWER_ENROLLED, body, Payload(Role.CHANGE, encode(document)))
            self._known[reviewer.key_id] = reviewer
            return reviewer

    async def revoke(self, by: Principal, name: str) -> Reviewer:
        """Let a key count no more; see ``core.desk.ReviewerDesk``."""
        async with self.steady():
            known = self._known.get(name)
            if known is None:
                raise NotFound("no such key was enrolled")
            if known.revoked:
                raise Conflict("the key is revoked already")
            await self._write(by, EventType.REVIEWER_REVOKED, {"key": name})
            self._known[name] = _revoked(known)
            return self._known[name]

    def _checked(self, wish: Enrolment, hashed: str) -> Reviewer:
        name = key_id(wish.public)
        if not is_sound_key(wish.public) or not wish.person or not wish.nonce:
            raise InvalidArguments("an enrolment needs a sound Ed25519 key, a person and a nonce")
        if name in self._known:
            raise Conflict("this key was enrolled before; a revoked key does not come back")
        if len(self._known) >= _MAX_REVIEWERS:
            raise Conflict(f"more than {_MAX_REVIEWERS} keys")
        if not any(not known.revoked for known in self._known.values()):
            if wish.signed_by is not None:
                raise Forbidden("the signing key is not enrolled here", cause_code="reviewer_key")
            return _reviewer(wish)
        if wish.signed_by is None or wish.signature is None:
            raise Forbidden("a key that is enrolled already must sign this enrolment", cause_code="unsigned")
        signer = self.active(wish.signed_by)
        message = enrolment_message(self.origin, wish.public.hex(), wish.roles, hashed)
        if not is_signed(signer.public, wish.signature, message):
            raise Forbidden("the signature is not of this enrolment", cause_code="signature")
        return _reviewer(wish)

    async def _write(self, by: Principal, kind: EventType, body: Mapping[str, Any], *payloads: Payload) -> None:
        await self._ledger.append([self._scribe.draft(kind, Subject(self._scribe.actor(by)), body, *payloads)])


def _reviewer(wish: Enrolment) -> Reviewer:
    return Reviewer(
        key_id=key_id(wish.public),
        public=wish.public,
        person=wish.person,
        roles=frozenset(wish.roles),
        accounts=frozenset(wish.accounts),
        enrolled_by=wish.signed_by,
    )


def _revoked(known: Reviewer) -> Reviewer:
    return Reviewer(
        known.key_id, known.public, known.person, known.roles, known.accounts, known.enrolled_by, revoked=True
    )


class _Document(msgspec.Struct, frozen=True):
    public: str
    person: str
    roles: tuple[str, ...]
    accounts: tuple[tuple[str, str], ...]


def _stored(reader: LogReader, db: Database) -> dict[str, Reviewer]:
    found: dict[str, Reviewer] = {}
    for index, record in _records(db, EventType.REVIEWER_ENROLLED):
        content = reader.sealed(db, index, record, Role.CHANGE)
        if content is not None:  # erased: the key counts no more
            reviewer = _read(content, record["body"]["enrolled_by"])
            found[reviewer.key_id] = reviewer
    for _, record in _records(db, EventType.REVIEWER_REVOKED):
        known = found.get(record["body"]["key"])
        if known is not None:
            found[known.key_id] = _revoked(known)
    return found


def _records(db: Database, kind: EventType) -> list[tuple[int, dict[str, Any]]]:
    # In the words of the partial index, or every record would be looked at.
    rows = db.execute(f"select idx, leaf from records where type = ? and {RARE_TYPE} order by idx", (kind,))  # noqa: S608 - a literal
    return [(index, msgspec.json.decode(entry)) for index, entry in rows.fetchall()]


def _read(content: bytes, enrolled_by: str | None) -> Reviewer:
    said = msgspec.json.decode(content, type=_Document)
    public = bytes.fromhex(said.public)
    roles, accounts = frozenset(said.roles), frozenset(said.accounts)
    return Reviewer(key_id(public), public, said.person, roles, accounts, enrolled_by)

"""API keys, kept in the log: made and revoked by its records, their hashes and names sealed.

Other gateways on the same log learn of a revocation within a second or two; one that could not look for ten seconds
takes no key at all.
"""

import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.sealing import DAY_US
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.sections import Turns
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.api_keys import AUTH_METHOD, MAX_KEYS, SIZE, ApiKey, KeyWish, digest_of, text_of
from gateway.core.call import Principal
from gateway.core.canonical import encode
from gateway.core.errors import Conflict, Forbidden, NotFound, Unavailable
from gateway.core.records import EventType, Payload, Role, identifier

_ROUND_S = 1.0
_ALONE_S = 5.0
_STALE_S = 10.0
_TURN = "api keys"
_KINDS = f"'{EventType.API_KEY_CREATED}', '{EventType.API_KEY_REVOKED}'"
# What changes when a key was made, revoked or erased.
_STATE = (
    f"select (select max(idx) from records where {RARE_TYPE} and type in ({_KINDS})), (select count(*) from erased)"  # noqa: S608 - literals only
)


class ApiKeyRegistry(Tended):
    """Implements ``core.api_keys.ApiKeyDesk`` and ``ApiKeyBook`` on the log; an async context manager.

    Failure mode, closed: what is not durable does not exist, and what may be revoked elsewhere is not taken.
    """

    def __init__(self, ledger: Ledger, reader: LogReader, scribe: Scribe, issuer: str, *, is_shared: bool) -> None:
        """``issuer`` vouches for who comes with a key; ``is_shared``: other gateways write the same log."""
        self._ledger = ledger
        self._reader = reader
        self._clock = scribe.clock
        self._scribe = scribe
        self._issuer = issuer
        self._is_shared = is_shared
        self._known: dict[str, ApiKey] = {}
        self._by_digest: dict[bytes, ApiKey] = {}
        self._state: tuple[Any, ...] | None = None
        self._seen_at = 0.0
        self._unwritten: dict[str, int] = {}
        self._turns = Turns()
        pause_s = _ROUND_S if is_shared else _ALONE_S
        self._rounds = Rounds(self.look, pause_s, "the API keys could not be looked after")

    async def _begin(self) -> None:
        await self.look()
        await super()._begin()

    def all(self) -> tuple[ApiKey, ...]:
        """Every key; see ``core.api_keys.ApiKeyDesk``."""
        return tuple(self._known.values())

    def find(self, digest: bytes) -> ApiKey | None:
        """The key of that hash; see ``core.api_keys.ApiKeyBook``."""
        if self._is_stale():
            raise Unavailable("keys cannot be checked now", retry_after=1, cause_code="api_keys")
        found = self._by_digest.get(digest)
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None

    def is_good(self, name: str) -> bool:
        """Whether it counts; see ``core.api_keys.ApiKeyBook``."""
        found = self._known.get(name)
        return found is not None and not found.revoked and not self._is_stale()

    def used(self, name: str) -> None:
        """Note a use; see ``core.api_keys.ApiKeyBook``."""
        day, known = self._clock.now_us() // DAY_US, self._known.get(name)
        if known is not None and (known.used_day or 0) < day:
            self._unwritten[name] = day
            self._put(replace(known, used_day=day))

    async def create(self, by: Principal, wish: KeyWish) -> tuple[ApiKey, str]:
        """Make a key; see ``core.api_keys.ApiKeyDesk``."""
        async with self._turns.hold(_TURN):
            self._check(by, wish)
            text = text_of(self._clock.random(SIZE))
            now_us = self._clock.now_us()
            key = ApiKey(
                id=self._clock.uuid(),
                digest=digest_of(text),
                name=wish.name,
                user=wish.user,
                agent=wish.agent,
                groups=wish.groups,
                scopes=wish.scopes,
                created_us=now_us,
                expires_us=wish.end_us(now_us),
            )
            await self._write(by, EventType.API_KEY_CREATED, self._body(key), Payload(Role.CHANGE, _sealed(key)))
            self._put(key)
            return key, text

    async def revoke(self, by: Principal, name: str) -> ApiKey:
        """Revoke a key; see ``core.api_keys.ApiKeyDesk``."""
        async with self._turns.hold(_TURN):
            await self._read()
            known = self._known.get(name)
            if known is None:
                raise NotFound("there is no such key")
            if known.revoked:
                raise Conflict("the key is revoked already")
            await self._write(by, EventType.API_KEY_REVOKED, {"key": name})
            self._put(replace(known, revoked=True))
            return self._known[name]

    async def look(self) -> None:
        """Learn of what others did, and write down what was used.

        Raises:
            Unavailable: the log cannot be read or written.
        """
        async with self._turns.hold(_TURN):
            await self._read()
            while self._unwritten:
                name, day = next(iter(self._unwritten.items()))
                draft = self._scribe.draft(EventType.API_KEY_USED, Subject(), {"day": day, "key": name})
                await self._ledger.append([draft])
                del self._unwritten[name]

    async def _read(self) -> None:
        asked_at = self._clock.monotonic()
        state, found = await self._reader.ask(self._stored)
        if found is not None:
            self._known = {key.id: self._with_use(key) for key in found}
            self._by_digest = {key.digest: key for key in self._known.values()}
            self._state = state
        self._seen_at = asked_at

    def _stored(self, db: Database) -> tuple[tuple[Any, ...], list[ApiKey] | None]:
        state = tuple(db.execute(_STATE).fetchone())
        if state == self._state:
            return state, None
        found: dict[str, ApiKey] = {}
        for index, record in _records(db, EventType.API_KEY_CREATED):
            content = self._reader.sealed(db, index, record, Role.CHANGE)
            if content is not None:  # erased: the key counts no more
                found[record["body"]["key"]] = _opened(record, content)
        for _, record in _records(db, EventType.API_KEY_REVOKED):
            name = record["body"]["key"]
            if name in found:
                found[name] = replace(found[name], revoked=True)
        for _, record in _records(db, EventType.API_KEY_USED):
            name = record["body"]["key"]
            if name in found:
                found[name] = replace(found[name], used_day=record["body"]["day"])
        return state, list(found.values())

    def _with_use(self, key: ApiKey) -> ApiKey:
        day = self._unwritten.get(key.id)
        return key if day is None else replace(key, used_day=day)

    def _put(self, key: ApiKey) -> None:
        self._known[key.id] = self._by_digest[key.digest] = key

    def _is_stale(self) -> bool:
        return self._is_shared and self._clock.monotonic() - self._seen_at > _STALE_S

    def _check(self, by: Principal, wish: KeyWish) -> None:
        if by.auth_method == AUTH_METHOD:
            # Or whoever finds a key could go on after it was revoked.
            raise Forbidden("a key makes no keys: come with a token", cause_code="api_key")
        if not wish.scopes <= by.scopes:
            more = ", ".join(sorted(wish.scopes - by.scopes))
            raise Forbidden(f"a key may not do more than who makes it: {more}", cause_code="scope")
        now_us = self._clock.now_us()
        if sum(not key.revoked and key.expires_us > now_us for key in self._known.values()) >= MAX_KEYS:
            raise Conflict(f"more than {MAX_KEYS} keys: revoke some")

    def _body(self, key: ApiKey) -> dict[str, Any]:
        return {
            "agent": None if key.agent is None else identifier(key.agent),
            "expires_us": key.expires_us,
            "key": key.id,
            "scopes": sorted(key.scopes),
            "user": self._scribe.keys.mark("user", f"{self._issuer}|{key.user}"),
        }

    async def _write(self, by: Principal, kind: EventType, body: Mapping[str, Any], *payloads: Payload) -> None:
        await self._ledger.append([self._scribe.draft(kind, Subject(self._scribe.actor(by)), body, *payloads)])


class _Document(msgspec.Struct, frozen=True):
    digest: str
    name: str
    user: str
    agent: str | None
    groups: tuple[str, ...]


def _sealed(key: ApiKey) -> bytes:
    return encode(_Document(key.digest.hex(), key.name, key.user, key.agent, tuple(sorted(key.groups))))


def _opened(record: Mapping[str, Any], content: bytes) -> ApiKey:
    said, body = msgspec.json.decode(content, type=_Document), record["body"]
    return ApiKey(
        id=body["key"],
        digest=bytes.fromhex(said.digest),
        name=said.name,
        user=said.user,
        agent=said.agent,
        groups=frozenset(said.groups),
        scopes=frozenset(body["scopes"]),
        created_us=record["ts"],
        expires_us=body["expires_us"],
    )


def _records(db: Database, kind: EventType) -> list[tuple[int, dict[str, Any]]]:
    # In the words of the partial index, or every record would be looked at.
    rows = db.execute(f"select idx, leaf from records where type = ? and {RARE_TYPE} order by idx", (kind,))  # noqa: S608 - a literal
    return [(index, msgspec.json.decode(entry)) for index, entry in rows.fetchall()]

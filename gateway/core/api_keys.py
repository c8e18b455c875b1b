"""API keys: secrets of this gateway's own that authenticate until they end or are revoked. Only their hash is kept.

``ostk_``, 64 hex digits of chance, and 8 of a checksum: whoever looks for lost secrets finds them without asking us,
and a slip of the pen is told from a guess.
"""

import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.call import Principal

PREFIX = "ostk_"
SIZE = 32
AUTH_METHOD = "api_key"
MAX_KEYS = 1000
_KEY = re.compile(r"ostk_[0-9a-f]{72}", re.ASCII)
_CHECK = 8


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept.

    Attributes:
        id: UUIDv7; ``jti`` of whoever comes with it.
        digest: SHA-256 of the key, 32 bytes.
        name: for people.
        expires_us: it ends then by itself.
        used_day: days since the epoch of the last day it was used, as far as is recorded; None = never.
    """

    id: str
    digest: bytes = field(repr=False)
    name: str
    user: str
    agent: str | None
    groups: frozenset[str]
    scopes: frozenset[str]
    created_us: int
    expires_us: int
    revoked: bool = False
    used_day: int | None = None


@dataclass(frozen=True, slots=True)
class KeyWish:
    """A key that somebody asks for.

    Attributes:
        ttl_s: how long it is good, seconds.
        until_us: the end of the credential it is asked for with, microseconds; None = that has none.
    """

    name: str
    user: str
    agent: str | None
    groups: frozenset[str]
    scopes: frozenset[str]
    ttl_s: int
    until_us: int | None = None

    def end_us(self, now_us: int) -> int:
        """When a key that is made now ends: a whole second, or with what it is asked for with."""
        asked_us = (now_us // 1_000_000 + self.ttl_s) * 1_000_000
        return asked_us if self.until_us is None else min(asked_us, self.until_us)


class ApiKeyDesk(Protocol):
    """Keys, made and revoked. Closed: what cannot be kept durably is not given out."""

    def all(self) -> Sequence[ApiKey]:
        """Every key, also those that are over, oldest first."""

    async def create(self, by: Principal, wish: KeyWish) -> tuple[ApiKey, str]:
        """A new key; its text is shown this once.

        Raises:
            Forbidden: it would allow more than ``by`` may, or ``by`` came with a key itself.
            InvalidArguments: no such principal, or too long a life.
            Conflict: there are too many.
            Unavailable: it cannot be kept.
        """

    async def revoke(self, by: Principal, name: str) -> ApiKey:
        """Let the key of that id count no more, from now on.

        Raises:
            NotFound: there is none.
            Conflict: it is revoked already.
            Unavailable: it cannot be recorded.
        """


class ApiKeyBook(Protocol):
    """Keys, looked up at each request. Closed: where it may be out of date it says so."""

    def find(self, digest: bytes) -> ApiKey | None:
        """The key of that SHA-256.

        Raises:
            Unavailable: what other gateways have revoked cannot be told.
        """

    def is_good(self, name: str) -> bool:
        """Whether the key of that id still counts. Closed: False where it cannot be told."""

    def used(self, name: str) -> None:
        """Note that the key of that id was used today."""


def text_of(chance: bytes) -> str:
    """A key from 32 random bytes."""
    said = PREFIX + chance.hex()
    return said + _checksum(said)


def is_sound(text: str) -> bool:
    """Whether ``text`` has the form of a key, checksum included."""
    return _KEY.fullmatch(text) is not None and hmac.compare_digest(_checksum(text[:-_CHECK]), text[-_CHECK:])


def digest_of(text: str) -> bytes:
    """What is kept of a key. One hash: 256 bits of chance cannot be guessed, so it need not be slow."""
    return hashlib.sha256(text.encode("ascii")).digest()


def _checksum(said: str) -> str:
    return f"{binascii.crc32(said.encode('ascii')):08x}"

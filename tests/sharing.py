"""Gateways that hand keys over to each other, for tests: their books on one PostgreSQL, and a vault in memory."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.identity import (
    Grant,
    IssuerTerms,
    LocalIdentity,
    LocalIssuer,
    SharedIssuerKey,
    Signing,
    Trust,
    create_key,
    former,
    load_key,
)
from gateway.adapters.ledger.books.key_sharing import KeySharing, restore
from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms
from gateway.adapters.ledger.books.rotations import Books as Kept
from gateway.adapters.ledger.books.shared_log_key import SharedLogKey
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.keyring.keys import create_or_load
from gateway.adapters.ledger.keyring.ring import KeyMissing
from gateway.adapters.ledger.storage.site import Site
from gateway.core.ports import Clock
from gateway.core.rotation import KeyKind
from tests.evidence import make_principal
from tests.fakes.shelf import FakeShelf
from tests.ledgers import ORIGIN, Books, open_books
from tests.replicas import Sites

ADMIN = make_principal(agent=None, scopes=frozenset({"admin"}))
TRUST = Trust("urn:ostiary:local", frozenset({"ostiary"}))
KINDS = (KeyKind.LOG_KEY, KeyKind.ISSUER_KEY)


@dataclass
class House:
    """A gateway's keys."""

    books: Books
    shelf: FakeShelf
    keep_h: int = 24

    def __post_init__(self) -> None:
        """As a start does it."""
        folder, clock, self.learnt = self.books.folder / "keys", self.books.clock, list[bytes]()
        key = load_key(folder / "issuer.pem")
        self.issuer, self.identity = LocalIssuer(clock, TRUST, key), LocalIdentity(clock, TRUST, [key.public_key()])
        for old, until_s in former(folder, clock.now_us() // 1_000_000):
            self.identity.trust(old, until_s)
        scribe = Scribe(clock, self.books.keys)
        self.kept = kept = Kept(self.books.ledger, self.books.reader, scribe, self.books.places)
        others = partial(self.books.reader.ask, self.books.site.others)
        self.sharing = KeySharing(kept, others, self.shelf, self.keep_h)
        signing = Signing(self.issuer, self.identity, clock, self.learnt.append)
        self.key = SharedIssuerKey(folder, signing, IssuerTerms(0, 1, others), self.sharing)
        self.sharing.hold((SharedLogKey(self.books.keys.ring), self.key))
        self.room = KeyRoom(self.books.ledger, self.books.keys, clock, KeyTerms(1), others)
        self.room.hand_over_by(self.sharing)

    def token(self) -> str:
        """One of a day."""
        return self.issuer.issue(self.issuer.principal(Grant("dora", ttl_s=86_400)))

    def names(self) -> list[str]:
        """The files of its private halves."""
        return sorted(path.name for path in (self.books.folder / "keys").glob("*.pem*"))

    def private(self) -> dict[str, bytes]:
        """Those files."""
        return {path.name: path.read_bytes() for path in (self.books.folder / "keys").glob("*.pem")}

    async def rotate(self, kind: KeyKind) -> None:
        """Replace a key."""
        if kind is KeyKind.LOG_KEY:
            await self.room.rotate(ADMIN)
        else:
            await self.key.rotate()


@asynccontextmanager
async def house(  # noqa: PLR0913 - what a test chooses of a gateway
    sites: Sites,
    name: str,
    shelf: FakeShelf,
    clock: Clock | None = None,
    *,
    keep_h: int = 24,
    is_watched: bool = True,
) -> AsyncIterator[House]:
    """A gateway, running; ``is_watched``: with its rounds."""
    site = sites.site(name)
    if not (sites.folder / "a" / "keys" / "issuer.pem").exists():
        create_key(sites.folder / "a" / "keys" / "issuer.pem")
    async with AsyncExitStack() as stack:
        one = House(await joined(site, shelf, clock or SystemClock(), stack), shelf, keep_h)
        if is_watched:
            await stack.enter_async_context(one.sharing)
        yield one


async def joined(site: Site, shelf: FakeShelf, clock: Clock, stack: AsyncExitStack) -> Books:
    """Its books, open; with keys it missed, as the composition root does it."""
    while True:
        try:
            return await stack.enter_async_context(open_books(site, clock))
        except KeyMissing as missing:
            await restore(shelf, create_or_load(site.folder / "keys", ORIGIN), missing)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds follow each other closely."""
    monkeypatch.setattr("gateway.adapters.ledger.books.key_sharing._ROUND_S", 0.02)


@asynccontextmanager
async def houses(sites: Sites, shelf: FakeShelf) -> AsyncIterator[tuple[House, House]]:
    """Two of them."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(house(sites, "a", shelf))
        yield first, await stack.enter_async_context(house(sites, "b", shelf))


def actions(one: House) -> list[str]:
    """What the log says of keys that are handed over."""
    return [record["body"]["action"] for record in one.books.records("rotation.shared")]


async def at_rest(*all_of: House) -> None:
    """Each has looked once more, and nothing lies in the vault."""
    for one in (*all_of, *all_of):
        await one.sharing.look()
    assert all_of[0].shelf.kept == {}


def agree(*all_of: House) -> None:
    """All have the same private halves, sign the log, and take each other's tokens."""
    assert len({tuple(sorted(one.private().items())) for one in all_of}) == 1
    for one in all_of:
        for other in all_of:
            assert one.identity.verify(other.token()).user == "dora"

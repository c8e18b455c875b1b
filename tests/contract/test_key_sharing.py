"""Keys handed over between gateways on one real PostgreSQL: whoever is stopped at any step, one set of keys signs."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.key_sharing import KeySharing, restore, seal
from gateway.adapters.ledger.keys import create_or_load
from gateway.adapters.ledger.mac import Mac
from gateway.adapters.ledger.ring import KeyMissing
from gateway.adapters.ledger.rotating import KeyRoom, KeyTerms
from gateway.adapters.ledger.rotations import Books as Kept
from gateway.adapters.ledger.share_records import shares_of
from gateway.adapters.ledger.shared_log_key import SharedLogKey
from gateway.adapters.ledger.site import Site
from gateway.core.errors import Conflict, Unauthenticated, Unavailable
from gateway.core.key_sharing import Offer, Share, SharedKey, offer_message, offered_body
from gateway.core.ports import Clock
from gateway.core.records import EventType
from gateway.core.rotation import KeyKind
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.fakes.shelf import FakeShelf
from tests.ledgers import ORIGIN, Books, open_books
from tests.replicas import Sites, sites
from tests.waiting import until

__all__ = ["sites"]

ADMIN = make_principal(agent=None, scopes=frozenset({"admin"}))
TRUST = Trust("urn:ostiary:local", frozenset({"ostiary"}))


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
        kept = Kept(self.books.ledger, self.books.reader, scribe, self.books.places)
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
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds follow each other closely."""
    monkeypatch.setattr("gateway.adapters.ledger.key_sharing._ROUND_S", 0.02)


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


KINDS = (KeyKind.LOG_KEY, KeyKind.ISSUER_KEY)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_is_in_force_once_the_other_has_it(sites: Sites, kind: KeyKind) -> None:
    """Offered, taken, agreed upon; the vault held it sealed and holds it no more; both sign, and the log is sound."""
    shelf, seen = FakeShelf(), list[str]()
    async with houses(sites, shelf) as (one, other):
        old = one.token()
        shelf.before = lambda step: seen.extend(shelf.kept.values())
        await one.rotate(kind)
        await at_rest(one, other)
        assert actions(one) == ["offered", "taken", "agreed", "cleared"]
        agree(one, other)
        assert {one.identity.verify(old).user, other.identity.verify(old).user} == {"dora"}
        new = one.private()["issuer.pem" if kind is KeyKind.ISSUER_KEY else one.names()[-1]]
        assert not any(line in text for line in new.decode().splitlines() if "-" not in line for text in seen)
        for gateway in (other, one):
            await gateway.books.ledger.append(())
        assert one.books.verify().findings == []
        if kind is KeyKind.ISSUER_KEY:
            assert new in one.learnt
            assert new in other.learnt


@pytest.mark.parametrize("kind", KINDS)
async def test_a_gateway_that_does_not_take_it_keeps_the_old_one_in_force(
    sites: Sites, kind: KeyKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named; the key is withdrawn and its file removed; the next attempt, when it does, goes well."""
    shelf = FakeShelf()
    async with house(sites, "a", shelf) as one, open_books(sites.site("b"), SystemClock()) as deaf:
        before = one.private()
        with monkeypatch.context() as hasty:
            hasty.setattr("gateway.adapters.ledger.key_sharing._PATIENCE_S", 0.3)
            with pytest.raises(Unavailable, match=f"did not take it: {deaf.site.replica}"):
                await one.rotate(kind)
        await at_rest(one)
        assert (one.private(), actions(one)) == (before, ["offered", "withdrawn", "cleared"])
        await deaf.ledger.append(())
        assert deaf.verify().findings == []
    async with houses(sites, shelf) as (one, other):
        await one.rotate(kind)
        await at_rest(one, other)
        agree(one, other)


async def test_no_log_key_is_added_that_a_living_gateway_does_not_have(sites: Sites) -> None:
    """Whatever asks for it: the writer refuses the record, in its transaction."""
    async with open_books(sites.site("a"), SystemClock()) as books, open_books(sites.site("b"), SystemClock()) as other:
        blind = KeyRoom(books.ledger, books.keys, books.clock, KeyTerms(1))
        with pytest.raises(Conflict, match=other.site.replica):
            await blind.rotate(ADMIN)
        assert len(books.records("key")) == 1


class KilledError(BaseException):
    """The process is gone."""


@dataclass
class Mortal:
    """Counts what a gateway does while it replaces a key, before and after each step, and ends it at one of them.

    Attributes:
        at: how many steps it lives.
    """

    at: int
    is_dead: bool = False

    def step(self) -> None:
        """One more."""
        if self.is_dead or self.at == 0:
            self.is_dead = True
            raise KilledError
        self.at -= 1

    def around(self, what: Any) -> Any:
        """``what``, which may be cut off before it and after it."""

        async def done(*given: Any) -> Any:
            self.step()
            found = await what(*given)
            self.step()
            return found

        return done

    def seize(self, one: House) -> None:
        """Let these be the steps of that gateway: records, requests to the vault, files."""
        ledger, shelf, keys = one.books.ledger, one.shelf, (one.key, one.sharing._holders[KeyKind.LOG_KEY])
        parts = {name: self.around(getattr(shelf, name)) for name in ("put", "get", "clear")}
        kept: Any = SimpleNamespace(append=self.around(ledger.append), replica=ledger.replica)
        asked: Any = SimpleNamespace(**parts)
        one.sharing._shelf, one.sharing._books = asked, replace(one.sharing._books, ledger=kept)
        for key in keys:
            for name in ("take", "follow"):
                setattr(key, name, self.around(getattr(key, name)))


@pytest.mark.parametrize("kind", KINDS)
async def test_who_replaces_a_key_may_be_killed_at_any_step(sites: Sites, kind: KeyKind) -> None:
    """Before and after each record, request and file: the other goes on, the next start has the same keys as it has."""
    shelf, tokens, steps = FakeShelf(), list[str](), count()
    async with house(sites, "a", shelf) as one:
        tokens.append(one.token())
    async with house(sites, "b", shelf) as survivor:
        for at in steps:
            mortal = Mortal(at)
            with suppress(KilledError):
                async with house(sites, "a", shelf, is_watched=False) as victim:
                    mortal.seize(victim)
                    await victim.rotate(kind)
            await survivor.books.ledger.append(())  # it signs, whatever came of it
            async with house(sites, "a", shelf) as again:
                await at_rest(survivor, again)
                tokens += [again.token(), survivor.token()]
                check_one_set(again, survivor, tokens)
                if kind is KeyKind.LOG_KEY and len(again.books.keys.ring.history.in_force) > 1:
                    await again.room.retire(ADMIN)
            if not mortal.is_dead:
                break
        assert next(steps) > 12
        assert survivor.books.verify().findings == []


@pytest.mark.parametrize("kind", KINDS)
async def test_who_takes_a_key_may_be_killed_at_any_step(sites: Sites, kind: KeyKind) -> None:
    """The one that replaces goes on without it, and it comes back with the same keys."""
    shelf, tokens = FakeShelf(), list[str]()
    async with house(sites, "a", shelf) as one:
        tokens.append(one.token())
        for at in count():
            mortal = Mortal(at)
            with suppress(KilledError):
                async with house(sites, "b", shelf, is_watched=False) as victim:
                    mortal.seize(victim)
                    await asyncio.gather(one.rotate(kind), until_it_has_it(victim, kind))
            await until(lambda: not one.sharing._mine)
            async with house(sites, "b", shelf) as again:
                await at_rest(one, again)
                tokens += [again.token(), one.token()]
                check_one_set(again, one, tokens)
                if kind is KeyKind.LOG_KEY and len(one.books.keys.ring.history.in_force) > 1:
                    await one.room.retire(ADMIN)
                await again.books.ledger.append(())
            if not mortal.is_dead:
                break
        assert one.books.verify().findings == []


async def until_it_has_it(one: House, kind: KeyKind) -> None:
    """Look again and again, as rounds do, until what is offered is in force and done with."""
    before = len(actions(one))
    while (said := actions(one)[before:]).count("agreed") + said.count("withdrawn") == 0:
        await one.sharing.look()
    await one.sharing.look()


def check_one_set(one: House, other: House, tokens: Sequence[str]) -> None:
    """Both have the same private halves and nothing that is left over, and take every token there ever was."""
    agree(one, other)
    for token in tokens:
        assert {gateway.identity.verify(token).user for gateway in (one, other)} == {"dora"}
    for gateway in (one, other):
        assert not [name for name in gateway.names() if "next" in name or name.endswith(".new")]


async def test_what_the_vault_has_must_be_what_was_announced(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key, sealed by somebody else or for another name, or no such thing at all: it is not taken."""
    monkeypatch.setattr("gateway.adapters.ledger.key_sharing._PATIENCE_S", 0.3)
    shelf = FakeShelf()
    async with houses(sites, shelf) as (one, other):
        before = other.private()
        public = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        for wrong in (
            seal(one.books.keys, bytes(32), public),
            seal(replace(one.books.keys, pseudonym=Mac(bytes(32))), bytes(32), public),
            "no base64!",
            "",
        ):

            def change(step: str, wrong: str = wrong) -> None:
                if step == "get":
                    shelf.kept.update(dict.fromkeys(shelf.kept, wrong))

            shelf.before = change
            with pytest.raises(Unavailable, match="did not take it"):
                await one.rotate(KeyKind.ISSUER_KEY)
            await at_rest(one, other)
            assert other.private() == before


async def test_an_offer_that_nobody_here_signed_for_is_not_taken(
    sites: Sites, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can write the database can write records: their key, sealed or not, is no key of ours."""
    shelf = FakeShelf()
    async with houses(sites, shelf) as (one, other):
        thief = Ed25519PrivateKey.generate()
        bare = Offer(KeyKind.ISSUER_KEY, thief.public_key().public_bytes_raw(), thief.public_key().public_bytes_raw())
        signed = replace(bare, signature=thief.sign(offer_message(one.books.keys.name.text, bare)))
        scribe = Scribe(one.books.clock, one.books.keys)
        shelf.kept[signed.public] = seal(one.books.keys, thief.private_bytes_raw(), signed.public)
        before = other.private()
        await one.books.ledger.append(
            [scribe.draft(EventType.ROTATION_SHARED, Subject(), offered_body(signed, "0" * 16))]
        )
        await other.sharing.look()
        assert other.private() == before
        assert "it is not taken" in caplog.text
        forged = LocalIssuer(one.books.clock, TRUST, thief)
        with pytest.raises(Unauthenticated):
            other.identity.verify(forged.issue(forged.principal(Grant("mallory", ttl_s=60))))


async def test_the_copy_goes_when_all_have_it_or_its_time_is_over(sites: Sites) -> None:
    """A gateway that is down finds it within that time; later it is told what to copy, and starts once that is done."""
    shelf, clock = FakeShelf(), StepClock()
    async with house(sites, "a", shelf, clock), house(sites, "b", shelf, clock):
        pass
    async with house(sites, "a", shelf, clock) as one:
        await one.rotate(KeyKind.ISSUER_KEY)
        await one.sharing.look()
        assert len(shelf.kept) == 1
        async with house(sites, "b", shelf, clock) as back:
            await at_rest(one, back)
            agree(one, back)
        await one.rotate(KeyKind.ISSUER_KEY)
        clock.advance(24 * 3600)
        await at_rest(one)
        with pytest.raises(Unavailable, match=r"copy issuer\.pem and issuer-old from the folder keys"):
            async with house(sites, "b", shelf, clock):
                raise AssertionError("it started")
        keys = one.books.folder / "keys"
        shutil.copytree(keys, sites.folder / "b" / "keys", dirs_exist_ok=True)
        async with house(sites, "b", shelf, clock) as back:
            agree(one, back)


async def test_a_vault_that_is_away_keeps_the_old_key_in_force(sites: Sites) -> None:
    """At the replacing gateway, and at one that starts meanwhile; then it is taken and removed."""
    shelf = FakeShelf()
    async with houses(sites, shelf) as (one, other):
        before = one.private()
        shelf.is_down = True
        with pytest.raises(Unavailable, match="cannot be reached"):
            await one.rotate(KeyKind.ISSUER_KEY)
        shelf.is_down = False
        await at_rest(one, other)
        assert (one.private(), other.private()) == (before, before)
    async with house(sites, "a", shelf) as one:
        await one.rotate(KeyKind.ISSUER_KEY)
        shelf.is_down = True
        async with house(sites, "b", shelf) as back:
            old = back.token()
            shelf.is_down = False
            await at_rest(one, back)
            agree(one, back)
            assert one.identity.verify(old).user == "dora"


async def test_a_running_gateway_whose_session_broke_gets_the_key_it_missed(sites: Sites) -> None:
    """While it has no session it does not count as living; it writes again once it has taken the key."""
    shelf = FakeShelf()
    async with house(sites, "a", shelf) as one, house(sites, "b", shelf, is_watched=False) as other:
        sites.cut(other.books)
        await one.rotate(KeyKind.LOG_KEY)
        with pytest.raises(Unavailable):
            await other.books.ledger.append(())
        await other.sharing._taken(*await looked(other))
        await other.books.ledger.append(())
        agree(one, other)
        assert other.books.verify().findings == []


async def looked(one: House) -> tuple[SharedKey, tuple[Share, ...]]:
    """What a round of it begins with."""
    return one.sharing._holders[KeyKind.LOG_KEY], await one.books.reader.ask(shares_of)


async def test_only_one_key_of_a_kind_is_handed_over_at_a_time(sites: Sites) -> None:
    """Two gateways that begin at once: one goes through, the other is refused, and nothing of its is left."""
    shelf = FakeShelf()
    async with houses(sites, shelf) as (one, other):
        done = await asyncio.gather(
            one.rotate(KeyKind.ISSUER_KEY), other.rotate(KeyKind.ISSUER_KEY), return_exceptions=True
        )
        assert [type(each) for each in done if each is not None] in ([], [Conflict])
        await at_rest(one, other)
        agree(one, other)


async def test_without_the_vaults_copy_a_log_key_that_is_missing_keeps_a_gateway_from_starting(sites: Sites) -> None:
    """Its own folder lacks it: what to copy, and nothing is written."""
    shelf = FakeShelf()
    async with house(sites, "a", shelf), house(sites, "b", shelf):
        pass
    async with house(sites, "a", shelf, keep_h=0) as one:  # the copy goes as soon as all that live have it
        await one.rotate(KeyKind.LOG_KEY)
        await at_rest(one)
    with pytest.raises(Unavailable, match=r"copy log-[0-9a-f]{8}\.pem from the folder keys of another gateway"):
        async with house(sites, "b", shelf):
            raise AssertionError("it started")

"""Keys handed over between gateways on one real PostgreSQL: in force once all that live have them, and not before."""

import asyncio
import shutil
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.clock import SystemClock
from gateway.adapters.identity import Grant, LocalIssuer
from gateway.adapters.ledger.books.key_sharing import seal
from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.mac import Mac
from gateway.adapters.ledger.storage.share_records import shares_of
from gateway.core.errors import Conflict, Unauthenticated, Unavailable
from gateway.core.key_sharing import Offer, Share, SharedKey, offer_message, offered_body
from gateway.core.records import EventType
from gateway.core.rotation import KeyKind
from tests.clock import StepClock
from tests.fakes.shelf import FakeShelf
from tests.ledgers import open_books
from tests.replicas import Sites, sites
from tests.sharing import ADMIN, KINDS, TRUST, House, actions, agree, at_rest, house, houses, quick
from tests.waiting import until

__all__ = ["quick", "sites"]


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
            hasty.setattr("gateway.adapters.ledger.books.key_sharing._PATIENCE_S", 0.3)
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


async def test_what_the_vault_has_must_be_what_was_announced(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another key, sealed by somebody else or for another name, or no such thing at all: it is not taken."""
    monkeypatch.setattr("gateway.adapters.ledger.books.key_sharing._PATIENCE_S", 0.3)
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


@pytest.mark.parametrize("is_away", [False, True])
async def test_a_replaced_key_ends_at_gateways_that_were_down_longer_than_its_tokens_count(
    sites: Sites, *, is_away: bool
) -> None:
    """Whoever has it, an old folder or a thief, is nobody there from the start on, also while the vault is away."""
    shelf, clock = FakeShelf(), StepClock()
    async with house(sites, "a", shelf, clock), house(sites, "b", shelf, clock):
        pass
    async with house(sites, "a", shelf, clock) as one:
        old = one.token()
        await one.rotate(KeyKind.ISSUER_KEY)
        clock.advance(2 * 3600)  # tokens of the old key count for an hour
        shelf.is_down = is_away
        async with house(sites, "b", shelf, clock) as back:
            for gateway in (one, back):
                with pytest.raises(Unauthenticated):
                    gateway.identity.verify(old)
            shelf.is_down = False
            await back.sharing.look()
            agree(one, back)


async def test_what_is_long_over_is_no_alarm(sites: Sites, caplog: pytest.LogCaptureFixture) -> None:
    """Keys replaced one after the other, the first of them long forgotten: nobody is told of a strange key."""
    shelf, clock = FakeShelf(), StepClock()
    for _ in range(3):
        async with house(sites, "a", shelf, clock) as one:
            await one.rotate(KeyKind.ISSUER_KEY)
            clock.advance(48 * 3600)
            await one.sharing.look()
    async with house(sites, "a", shelf, clock) as one:
        await one.sharing.look()
        assert one.identity.verify(one.token()).user == "dora"
    assert "it is not taken" not in caplog.text


async def test_a_key_that_is_agreed_upon_is_not_lost_to_the_next_one(sites: Sites) -> None:
    """A gateway that finds one in force and another offered in one look keeps the first, also where no second comes."""
    shelf = FakeShelf()
    async with house(sites, "a", shelf) as one, house(sites, "b", shelf, is_watched=False) as slow:
        await looking(slow, asyncio.create_task(one.rotate(KeyKind.ISSUER_KEY)), 1)
        async with open_books(sites.site("c"), SystemClock()):
            second = asyncio.create_task(one.rotate(KeyKind.ISSUER_KEY))
            await until(lambda: len(shelf.kept) == 1)
            await looking(slow, None, 2)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
        await at_rest(one, slow)
        agree(one, slow)


async def looking(slow: House, rotation: asyncio.Task[None] | None, times: int) -> None:
    """Look until it has said so many times that it has a key, then no more; the rotation ends without."""
    while actions(slow).count("taken") < times:
        await slow.sharing.look()
    if rotation is not None:
        await rotation

"""A gateway that is started without ``shared_keys`` on a log whose keys were handed over, on one real PostgreSQL."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.clock import SystemClock
from gateway.adapters.identity import (
    Grant,
    IssuerKeyRotation,
    IssuerTerms,
    LocalIssuer,
    SharedIssuerKey,
    Signing,
    create_key,
    load_key,
)
from gateway.adapters.ledger.books.unshared import UnsharedKeys
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.core.errors import Conflict, Unauthenticated, Unavailable
from gateway.core.key_sharing import Handing, Offer, ShareAction, offer_message, offered_body, share_body
from gateway.core.ports import Clock
from gateway.core.records import EventType
from gateway.core.rotation import KeyKind
from tests.clock import StepClock
from tests.fakes.shelf import FakeShelf
from tests.replicas import Sites, sites
from tests.sharing import TRUST, House, actions, agree, at_rest, house, quick
from tests.waiting import until

__all__ = ["quick", "sites"]
KIND = KeyKind.ISSUER_KEY


@asynccontextmanager
async def alone(sites: Sites, name: str, clock: Clock | None = None) -> AsyncIterator[House]:
    """A gateway without ``shared_keys``, as the composition root starts it."""
    async with house(sites, name, FakeShelf(is_down=True), clock, is_watched=False) as one:
        unshared = UnsharedKeys(one.kept)
        signing = Signing(one.issuer, one.identity, one.books.clock, one.learnt.append)
        one.key = SharedIssuerKey(one.books.folder / "keys", signing, IssuerTerms(0, 1, _nobody), unshared)
        await unshared.settle(one.key, one.key.in_force)
        await one.key.settle()
        yield one


async def _nobody() -> frozenset[str]:
    return frozenset()


async def begun(sites: Sites, shelf: FakeShelf, clock: Clock | None = None) -> None:
    """Both gateways have been there, with the same keys."""
    async with house(sites, "a", shelf, clock), house(sites, "b", shelf, clock):
        pass


async def test_a_key_that_was_replaced_meanwhile_keeps_it_from_starting(sites: Sites) -> None:
    """It would sign what the others take no more; it says both ways out, and either works. Nothing is changed."""
    shelf = FakeShelf()
    await begun(sites, shelf)
    async with house(sites, "a", shelf) as one:
        for _ in range(2):
            await one.rotate(KIND)
        said = actions(one)
        before = (sites.folder / "b" / "keys" / "issuer.pem").read_bytes()
        fix = r"shared_keys and \[vault\] .* or copy issuer\.pem and issuer-old from the folder keys of another one"
        with pytest.raises(Unavailable, match=f"was replaced while it was down: set .rotation. {fix}"):
            async with alone(sites, "b"):
                raise AssertionError("it started")
        assert (actions(one), (sites.folder / "b" / "keys" / "issuer.pem").read_bytes()) == (said, before)
        async with house(sites, "b", shelf) as back:
            await at_rest(one, back)
            agree(one, back)
        shutil.copytree(one.books.folder / "keys", sites.folder / "b" / "keys", dirs_exist_ok=True)
        async with alone(sites, "b") as back:
            agree(one, back)


async def test_a_key_it_has_and_that_was_agreed_upon_signs(sites: Sites) -> None:
    """Killed before the new key was in its place: it is not thrown away, and what it replaced ends in its time."""
    shelf, clock = FakeShelf(), StepClock()
    await begun(sites, shelf, clock)
    async with house(sites, "a", shelf, clock) as one:
        old = one.token()
        async with house(sites, "b", shelf, clock, is_watched=False) as slow:
            rotation = asyncio.create_task(one.rotate(KIND))
            while "taken" not in actions(slow):
                await slow.sharing.look()
            await rotation
        assert (sites.folder / "b" / "keys" / "issuer-next.pem").exists()
        async with alone(sites, "b", clock) as back:
            agree(one, back)
            assert back.identity.verify(old).user == "dora"
            assert back.names() == one.names()
            clock.advance(2 * 3600)
        async with alone(sites, "b", clock) as back:
            for gateway in (one, back):
                with pytest.raises(Unauthenticated):
                    gateway.identity.verify(old)


async def test_a_key_it_said_it_has_is_not_agreed_upon_without_it(sites: Sites) -> None:
    """It keeps no key that is being handed over: the offer is withdrawn, and the old key stays in force everywhere."""
    shelf = FakeShelf()
    await begun(sites, shelf)
    async with house(sites, "a", shelf) as one, house(sites, "c", shelf, is_watched=False):
        before = one.private()
        async with house(sites, "b", shelf) as other:
            rotation = asyncio.create_task(one.rotate(KIND))
            await until(lambda: "taken" in actions(other))
        async with alone(sites, "b") as back:
            with pytest.raises((Unavailable, Conflict)):
                await rotation
            assert "agreed" not in actions(one)
            assert (one.private(), back.private()) == (before, before)
            agree(one, back)


async def test_its_own_later_key_and_strangers_records_are_left_alone(sites: Sites) -> None:
    """A key replaced alone since, without ``shared_keys``; and without any record that its own key has signed."""
    shelf = FakeShelf()
    async with house(sites, "a", shelf) as one:
        await one.rotate(KIND)
        await at_rest(one)
    async with alone(sites, "a") as one:
        terms = IssuerTerms(0, 1, _nobody)
        await IssuerKeyRotation(one.books.folder / "keys", SystemClock(), one.issuer, one.identity, terms).rotate()
        own = one.private()
    async with alone(sites, "a") as one:
        assert one.private() == own
        await announced(one, Ed25519PrivateKey.generate())
    async with alone(sites, "a") as one:
        assert one.private() == own
        public = Ed25519PrivateKey.generate()
        offer = Offer(KIND, public.public_key().public_bytes_raw(), one.key.in_force)
        with pytest.raises(Conflict, match=r"set \[rotation\] shared_keys"):
            await UnsharedKeys(one.kept).hand_over(Handing(offer, public.private_bytes_raw(), public.sign))


async def announced(one: House, thief: Ed25519PrivateKey) -> None:
    """Whoever can write the database says that the key in force was replaced by theirs."""
    bare = Offer(KIND, thief.public_key().public_bytes_raw(), one.key.in_force)
    signed = replace(bare, signature=thief.sign(offer_message(one.books.keys.name.text, bare)))
    scribe = Scribe(one.books.clock, one.books.keys)
    for body in (offered_body(signed, "0" * 16), share_body(ShareAction.AGREED, signed, "0" * 16)):
        await one.books.ledger.append([scribe.draft(EventType.ROTATION_SHARED, Subject(), body)])


async def test_a_key_of_no_record_is_forgotten(sites: Sites) -> None:
    """Left of a rotation that was broken off: its file goes, and its tokens are nobody's."""
    async with alone(sites, "a") as one:
        own = one.private()
    folder = sites.folder / "a" / "keys"
    create_key(folder / "issuer-next.pem")
    stray = LocalIssuer(SystemClock(), TRUST, load_key(folder / "issuer-next.pem"))
    async with alone(sites, "a") as one:
        assert (one.private(), one.names().count("issuer-next.pem")) == (own, 0)
        assert one.identity.verify(one.token()).user == "dora"
        with pytest.raises(Unauthenticated):
            one.identity.verify(stray.issue(stray.principal(Grant("mallory", ttl_s=60))))

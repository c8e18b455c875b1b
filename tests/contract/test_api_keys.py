"""API keys on the log, in both stores, and on two gateways: what is kept, what counts, and for how long."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from gateway.adapters.identity import ApiKeyIdentity, LocalIdentity, Trust
from gateway.adapters.identity.oidc import Identities
from gateway.adapters.ledger.books.api_keys import ApiKeyRegistry
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.storage.site import Site
from gateway.core.api_keys import AUTH_METHOD, KeyWish, digest_of, is_sound, text_of
from gateway.core.call import Call, Live
from gateway.core.custody import Target
from gateway.core.errors import Conflict, Forbidden, NotFound, Unauthenticated, Unavailable
from tests.clock import StepClock
from tests.evidence import make_call, make_principal
from tests.ledgers import Books, open_books
from tests.replicas import Sites, both, sites
from tests.stores import real_postgres, site
from tests.waiting import until

__all__ = ["both", "real_postgres", "site", "sites"]

ISSUER = "urn:ostiary:local"
ADMIN = make_principal(agent=None, user="vera", scopes=frozenset({"admin", "tools"}))
WISH = KeyWish("nightly", "dora", "sap-agent", frozenset({"desk"}), frozenset({"tools"}), 3600)


@asynccontextmanager
async def registry(books: Books, *, is_shared: bool = False) -> AsyncIterator[ApiKeyRegistry]:
    """The keys of these books."""
    scribe = Scribe(books.clock, books.keys)
    async with ApiKeyRegistry(books.ledger, books.reader, scribe, ISSUER, is_shared=is_shared) as found:
        yield found


def door(books: Books, keys: ApiKeyRegistry) -> Identities:
    """What checks credentials."""
    local = LocalIdentity(books.clock, Trust(ISSUER, frozenset({"x"})), [])
    return Identities(local, [], ApiKeyIdentity(books.clock, ISSUER, keys))


def coming_with(text: str) -> Call:
    """A call with that credential."""
    return structs.replace(make_call(), origin=Live(text))


async def refusal(identity: Identities, text: str) -> str:
    """Why a credential is not taken."""
    with pytest.raises(Unauthenticated) as caught:
        await identity.authenticate(coming_with(text))
    assert text not in str(caught.value) + caught.value.detail
    return caught.value.cause_code


@pytest.mark.requirement("INTAKE-1")
async def test_a_key_counts_until_it_is_revoked_also_after_a_restart(site: Site) -> None:
    """It says who comes, and from the revocation on nobody does; the next process knows both."""
    async with open_books(site) as books, registry(books) as keys:
        key, text = await keys.create(ADMIN, WISH)
        other, kept = await keys.create(ADMIN, replace(WISH, name="other"))
        who = await door(books, keys).authenticate(coming_with(text))
        assert (who.user, who.agent, who.scopes, who.groups) == ("dora", "sap-agent", WISH.scopes, WISH.groups)
        assert (who.auth_method, who.jti, who.issuer, who.expires_us) == (AUTH_METHOD, key.id, ISSUER, key.expires_us)
        assert (await keys.revoke(ADMIN, key.id)).revoked
        assert await refusal(door(books, keys), text) == "revoked"
        with pytest.raises(Conflict):
            await keys.revoke(ADMIN, key.id)
        with pytest.raises(NotFound):
            await keys.revoke(ADMIN, "nobody")
    async with open_books(site) as books, registry(books) as keys:
        assert await refusal(door(books, keys), text) == "revoked"
        assert (await door(books, keys).authenticate(coming_with(kept))).jti == other.id
        assert [one.name for one in keys.all()] == ["nightly", "other"]
        assert books.types()[-3:] == ["key.created", "key.created", "key.revoked"]
        assert books.verify().findings == []


async def test_a_key_ends_by_itself(site: Site) -> None:
    """At the very second."""
    clock = StepClock()
    async with open_books(site, clock) as books, registry(books) as keys:
        key, text = await keys.create(ADMIN, replace(WISH, ttl_s=10))
        clock.advance((key.expires_us - clock.now_us()) / 1_000_000 - 0.001)
        await door(books, keys).authenticate(coming_with(text))
        clock.advance(0.002)
        assert await refusal(door(books, keys), text) == "expired"


async def test_neither_the_key_nor_its_hash_is_readable_on_disk(site: Site) -> None:
    """Leaves hold an id, scopes and pseudonyms; hash, name and user are sealed."""
    async with open_books(site) as books, registry(books) as keys:
        _, text = await keys.create(ADMIN, WISH)
        (leaf,) = [record for record in books.records() if record["type"] == "key.created"]
        assert set(leaf["body"]) == {"agent", "expires_us", "key", "scopes", "user"}
        said = b"".join(path.read_bytes() for path in site.folder.rglob("*") if path.is_file())
        for secret in (text.encode(), text[5:69].encode(), digest_of(text), digest_of(text).hex().encode(), b"nightly"):
            assert secret not in said + str(books.records()).encode()


@pytest.mark.parametrize(
    ("by", "wish", "words"),
    [
        ({}, {"scopes": frozenset({"tools", "audit"})}, "audit"),
        ({"scopes": frozenset({"admin"})}, {}, "tools"),
        ({"auth_method": AUTH_METHOD}, {}, "a key makes no keys"),
    ],
)
async def test_nobody_makes_a_key_that_can_do_more_than_they(
    site: Site, by: dict[str, Any], wish: dict[str, Any], words: str
) -> None:
    """Neither with a scope they lack, nor with a key themselves; nothing is recorded."""
    async with open_books(site) as books, registry(books) as keys:
        with pytest.raises(Forbidden, match=words):
            await keys.create(replace(ADMIN, **by), replace(WISH, **wish))
        assert (keys.all(), books.records("key.created")) == ((), [])


async def test_a_slip_is_told_from_a_guess(site: Site) -> None:
    """One digit wrong fails the checksum; a key of good form that nobody made is not known."""
    async with open_books(site) as books, registry(books) as keys:
        _, text = await keys.create(ADMIN, WISH)
        identity, guess = door(books, keys), text_of(bytes(32))
        assert is_sound(guess)
        slip = text[:10] + ("0" if text[10] != "0" else "1") + text[11:]
        assert await refusal(identity, slip) == await refusal(identity, text[:-1]) == "malformed"
        assert await refusal(identity, text.upper()) == "malformed"
        assert await refusal(identity, guess) == "unknown_key"


async def test_the_day_of_the_last_use_is_recorded_once(site: Site) -> None:
    """However often it is used that day; a restart knows it."""
    async with open_books(site) as books, registry(books) as keys:
        key, text = await keys.create(ADMIN, WISH)
        for _ in range(5):
            await door(books, keys).authenticate(coming_with(text))
        await keys.look()
        await keys.look()
        assert [one["body"]["key"] for one in books.records("key.used")] == [key.id]
    async with open_books(site) as books, registry(books) as keys:
        assert [one.used_day for one in keys.all()] == [books.clock.now_us() // 86_400_000_000]


async def test_erasing_a_user_ends_their_keys(site: Site) -> None:
    """Hash and name are gone with the user's data; another user's key goes on."""
    async with open_books(site) as books, registry(books) as keys:
        _, text = await keys.create(ADMIN, WISH)
        _, other = await keys.create(ADMIN, replace(WISH, user="paul"))
        await books.custodian.erase(ADMIN, Target(subject=(ISSUER, "dora")), "she left")
        await keys.look()
        assert await refusal(door(books, keys), text) == "unknown_key"
        assert (await door(books, keys).authenticate(coming_with(other))).user == "paul"


async def test_what_was_parked_with_a_key_is_carried_out_only_while_it_counts(site: Site) -> None:
    """Whoever revokes a key means the calls that wait with it, too."""
    async with open_books(site) as books, registry(books) as keys:
        key, text = await keys.create(ADMIN, WISH)
        identity = door(books, keys)
        who = await identity.authenticate(coming_with(text))
        assert identity.vouches(who)
        await keys.revoke(ADMIN, key.id)
        assert not identity.vouches(who)
        assert not Identities(LocalIdentity(books.clock, Trust(ISSUER, frozenset({"x"})), []), []).vouches(who)


async def test_a_revocation_reaches_the_other_gateway(both: tuple[Books, Books]) -> None:
    """A key made at one is taken by the other, and no more once it was revoked there, without anybody's doing."""
    first, second = both
    async with registry(first, is_shared=True) as here, registry(second, is_shared=True) as there:
        key, text = await here.create(ADMIN, WISH)
        await until(lambda: there.find(digest_of(text)) is not None)
        await there.revoke(ADMIN, key.id)
        await until(lambda: not here.is_good(key.id))
        assert await refusal(door(first, here), text) == "revoked"
        with pytest.raises(Conflict):
            await here.revoke(ADMIN, key.id)


async def test_who_cannot_learn_of_revocations_takes_no_key(sites: Sites) -> None:
    """Ten seconds without a look at the shared log: 503, not the last that was heard."""
    clock = StepClock()
    async with open_books(sites.site("a"), clock) as books, registry(books, is_shared=True) as keys:
        key, text = await keys.create(ADMIN, WISH)
        clock.advance(9)
        assert keys.is_good(key.id)
        clock.advance(2)
        assert not keys.is_good(key.id)
        with pytest.raises(Unavailable):
            await door(books, keys).authenticate(coming_with(text))
        await keys.look()
        await door(books, keys).authenticate(coming_with(text))

"""The keys of foreign issuers: found, kept, replaced, and what an issuer that is down does."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from anyio import fail_after

from gateway.core.call import Principal
from tests.issuer_world import SECOND, World, world
from tests.waiting import until

__all__ = ["world"]


async def test_a_new_key_is_found_as_soon_as_a_token_names_it(world: World) -> None:
    """And what was verified with a key that is gone is no longer good, at the latest when the set is fetched again."""
    old = world.issuer.token()
    assert (await world.principal(old)).user == "corp:dora"
    world.issuer.keys = [("k2", SECOND)]
    world.clock.advance(31)
    assert (await world.principal(world.issuer.token())).user == "corp:dora"
    assert await world.cause(old) == "signature"


async def test_a_flood_of_unknown_key_ids_asks_the_issuer_once_in_half_a_minute(world: World) -> None:
    """However many there are, and however many come at once."""
    assert (await world.principal(world.issuer.token())).user == "corp:dora"
    flood = [world.issuer.token({"kid": f"x{number}"}) for number in range(50)]
    for _ in range(3):
        before = world.issuer.asked
        world.clock.advance(31)
        causes = await asyncio.gather(*(world.cause(token) for token in flood))
        assert (set(causes), world.issuer.asked - before) == ({"signature"}, 1)
        assert await world.cause(flood[0]) == "signature"
        assert world.issuer.asked - before == 1


async def test_callers_who_come_while_keys_are_fetched_share_the_fetch(world: World) -> None:
    """Who gives up does not end it for the others."""
    world.issuer.gate.clear()
    token = world.issuer.token()
    waiting = [asyncio.create_task(world.principal(token)) for _ in range(20)]
    await until(lambda: world.issuer.asked == 1)
    with fail_after(20):
        waiting[0].cancel()
        world.issuer.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {one.user for one in found[1:] if isinstance(one, Principal)} == {"corp:dora"}
    assert world.issuer.asked == 1


BROKEN = [
    web.Response(status=500),
    web.Response(status=404),
    web.Response(status=302, headers={"location": "/elsewhere"}),
    web.Response(body=b"no json"),
    web.Response(body=b"[]"),
    web.Response(body=b'{"keys": 7}'),
    web.Response(body=b'{"keys": [' + b"{}," * 64 + b"{}]}"),
    web.Response(body=b'{"keys": [], "pad": "' + b"x" * 300_000 + b'"}'),
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_an_issuer_that_is_down_at_first_is_said_to_be(world: World, broken: web.Response) -> None:
    """Nobody is let in, the cause names the issuer, and after a while it is asked again."""
    world.issuer.broken = broken
    assert await world.cause(world.issuer.token()) == "idp_unavailable"
    assert await world.cause(world.issuer.token()) == "idp_unavailable"
    assert world.issuer.asked == 1
    world.issuer.broken = None
    world.clock.advance(31)
    assert (await world.principal(world.issuer.token())).user == "corp:dora"


@pytest.mark.parametrize("broken", BROKEN[:4])
async def test_an_issuer_that_goes_down_is_believed_for_a_day(world: World, broken: web.Response) -> None:
    """By the keys at hand; then nobody is let in, not even those who were."""
    token = world.issuer.token(exp=world.clock.now_us() // 1_000_000 + 86_400)
    assert (await world.principal(token)).user == "corp:dora"
    world.issuer.broken = broken
    world.clock.advance(24 * 3600 - 1)
    fresh = world.issuer.token()
    assert (await world.principal(fresh)).user == "corp:dora"
    assert (await world.principal(token)).user == "corp:dora"
    world.clock.advance(1)
    assert await world.cause(fresh) == "idp_unavailable"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.test"},
        {"jwks_uri": None},
        {"jwks_uri": "http://192.0.2.7/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": 7},
    ],
)
async def test_metadata_that_leads_elsewhere_is_not_followed(world: World, metadata: dict[str, Any]) -> None:
    """Another issuer's, and key sets that anybody on the way could change."""
    world.issuer.metadata = metadata
    assert await world.cause(world.issuer.token()) == "idp_unavailable"
    assert world.issuer.asked == 0


async def test_a_readiness_check_says_whether_the_keys_are_at_hand(world: World) -> None:
    """It fetches them where they are not."""
    (foreign,) = world.port._foreign.values()
    await foreign.keys.ping()
    assert world.issuer.asked == 1
    world.issuer.broken = web.Response(status=500)
    world.clock.advance(400)
    with pytest.raises(Exception, match="answers 500"):
        await foreign.keys.ping()

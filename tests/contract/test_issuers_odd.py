"""Issuers that answer oddly, keys that are taken back, and names and groups on the edge of what fits."""

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from aiohttp import web

from gateway.adapters.identity.jwks import Address, IssuerKeys
from gateway.core.call import Principal
from gateway.core.errors import InvalidArguments, Unavailable
from gateway.edge.asgi import build
from gateway.settings.identity import IdentitySection
from tests.edge_world import Edge
from tests.evidence import make_principal
from tests.fakes.desk import FakeRunDesk
from tests.issuer_world import FIRST, SECOND, World, call_with, trusting, world
from tests.waiting import until

__all__ = ["world"]


def of(issuer: str) -> Principal:
    """Somebody of that issuer."""
    return make_principal(issuer=issuer)


@pytest.mark.parametrize("odd", [{"alg": []}, {"alg": {}}, {"kty": []}, {"use": []}, {"kid": {}}, {"key_ops": {}}])
async def test_one_odd_key_does_not_spoil_the_others(world: World, odd: dict[str, Any]) -> None:
    """Whatever stands in a member of one key, the good ones beside it are used."""
    good = FIRST.as_dict(private=False) | {"kid": "k1"}
    document = {"keys": [SECOND.as_dict(private=False) | {"kid": "k2"} | odd, good]}
    world.issuer.broken = web.Response(body=json.dumps(document).encode())
    assert (await world.principal(world.issuer.token())).user == "corp:dora"


@pytest.mark.parametrize("address", ["https://[", "https://[::1", "http://[::1]x/", "https://a:b/", "https:///x"])
async def test_a_key_set_at_no_address_is_an_issuer_that_cannot_be_asked(world: World, address: str) -> None:
    """Callers hear which part is missing, not that the gateway failed."""
    world.issuer.metadata = {"jwks_uri": address}
    assert await world.cause(world.issuer.token()) == "idp_unavailable"


async def test_a_key_that_was_taken_back_ends_its_tokens_though_nobody_brings_a_new_one(world: World) -> None:
    """Remembered tokens ask for fresh keys, too: who steals a key and gets one token in is not believed for long."""
    token = world.issuer.token()
    assert (await world.principal(token)).user == "corp:dora"
    world.issuer.keys = [("k2", SECOND)]
    world.clock.advance(301)
    assert (await world.principal(token)).user == "corp:dora"  # by the keys at hand, while they are fetched
    (foreign,) = world.port._foreign.values()
    await until(lambda: foreign.keys.generation == 2)
    assert await world.cause(token) == "signature"


async def test_a_run_token_holds_all_groups_that_a_person_may_come_with(world: World) -> None:
    """What opens a run is as much as its token can say."""
    person = await world.principal(world.issuer.token(client_id="cli", groups=[f"g{at}" for at in range(200)]))
    agent = replace(person, agent="planner", run="0190-r", auth_method="local")
    issuer, own = world.vouching(world.issuer.url)
    assert await own.authenticate(call_with(issuer.issue(agent))) == agent


async def test_a_token_that_nobody_would_take_is_not_issued(world: World) -> None:
    """More groups than fit into a header are said when the token is asked for."""
    person = await world.principal(world.issuer.token(client_id="cli"))
    groups = frozenset(f"corp:{at:0100d}" for at in range(200))
    issuer, _ = world.vouching(world.issuer.url)
    with pytest.raises(InvalidArguments, match="too long"):
        issuer.issue(replace(person, agent="planner", run="0190-r", auth_method="local", groups=groups))
    with pytest.raises(InvalidArguments, match="groups"):
        issuer.issue(replace(person, agent="planner", run="r", groups=frozenset(f"g{at}" for at in range(257))))


async def test_an_issuer_without_a_prefix_cannot_say_the_names_of_one_that_has_one(world: World) -> None:
    """Its ``b:dora`` would be the ``dora`` of the issuer whose names begin with ``b:``."""
    async with trusting(world.issuer, world.own, prefix="", reserved=("b:",)) as port:
        world.port = port
        for claims in ({"sub": "b:dora"}, {"client_id": "b:planner"}, {"groups": ["b:finance"]}):
            assert await world.cause(world.issuer.token(**claims)) == "claims"
        assert (await world.principal(world.issuer.token(sub="bb:dora"))).user == "bb:dora"


def test_what_an_issuer_without_a_prefix_may_not_say_comes_from_the_settings() -> None:
    """All prefixes of the others; one that has its own cannot leave it."""
    one = {"audience": ["gw"]}
    issuers = {name: {**one, "issuer": f"https://{name}.test"} for name in ("a", "b", "c")}
    issuers["a"]["prefix"] = ""
    section = IdentitySection.model_validate({"issuers": issuers})
    assert [section.reserved_for(name) for name in "abc"] == [("b:", "c:"), (), ()]


async def test_whatever_breaks_while_keys_are_fetched_is_the_issuers_failure(world: World) -> None:
    """Callers are told so, and the next half minute has another try."""

    def session() -> Any:
        raise RuntimeError("odd")

    keys = IssuerKeys(Address(world.issuer.url, None, session), world.clock)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await keys.find("k1", "RS256")
        world.clock.advance(31)
    with pytest.raises(Unavailable, match="cannot be used"):
        await keys.ping()


async def test_only_issuers_in_the_settings_are_vouched_for(world: World) -> None:
    """The local one and the named ones; what was parked for anybody else's is not carried out."""
    assert [world.port.vouches(of(one)) for one in (world.issuer.url, "urn:ostiary:local")] == [True, True]
    assert [world.port.vouches(of(one)) for one in (world.issuer.url + "/", "https://other.test", "")] == [False] * 3
    assert not world.own.vouches(of(world.issuer.url))


async def test_a_run_that_nobody_can_work_in_is_not_left_open() -> None:
    """Where its token would be too long, the person is told, and the run has ended."""

    class Refusing:
        def issue(self, _: Principal) -> str:
            raise InvalidArguments("the token would be too long to be taken", cause_code="size")

    edge = Edge()
    app = build(edge.world.ports(), replace(edge.desk, issuer=Refusing()), edge.options)
    headers = {"authorization": "Bearer person"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=edge.url, headers=headers) as client:
        answer = await client.post("/v1/runs", json={"goal": "x", "agent": "planner"})
    assert answer.json()["cause"] == "size"
    assert isinstance(edge.desk.runs, FakeRunDesk)
    assert list(edge.desk.runs.ended.values()) == ["closed"]

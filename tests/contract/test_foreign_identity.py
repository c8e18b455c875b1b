"""Access tokens of foreign issuers: what is taken, and what is refused."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gateway.adapters.identity import Grant
from gateway.core.call import Principal
from gateway.core.errors import InvalidArguments
from tests.issuer_world import AUDIENCE, FIRST, SECOND, World, call_with, signed, trusting, world

__all__ = ["world"]

P256, P384 = ECKey.import_key(generate_private_key(SECP256R1())), ECKey.import_key(generate_private_key(SECP384R1()))
ED = OKPKey.import_key(Ed25519PrivateKey.generate())


@pytest.mark.requirement("INTAKE-1")
async def test_an_agents_token_speaks_of_its_client_its_user_and_their_groups(world: World) -> None:
    """All names are the issuer's own: they stand behind its prefix."""
    found = await world.principal(world.issuer.token())
    assert found == Principal(
        issuer=world.issuer.url,
        user="corp:dora",
        agent="corp:planner",
        groups=frozenset({"corp:finance"}),
        scopes=frozenset({"tools"}),
        auth_method="oidc",
        jti="t-1",
        expires_us=world.clock.now_us() + 600_000_000,
    )


async def test_a_persons_own_software_speaks_for_nobody_but_the_person(world: World) -> None:
    """Which clients these are is the operator's word, not the token's."""
    assert (await world.principal(world.issuer.token(client_id="cli"))).agent is None


async def test_a_chain_of_actors_is_kept_the_present_one_first(world: World) -> None:
    """The present actor is the agent."""
    act = {"sub": "booker", "act": {"sub": "planner", "iss": world.issuer.url, "act": {"sub": "front desk"}}}
    found = await world.principal(world.issuer.token(act=act))
    assert (found.agent, found.user) == ("corp:booker", "corp:dora")
    assert found.delegation == ("corp:booker", "corp:planner", "corp:front+20desk")


async def test_the_local_issuer_goes_on_beside_it(world: World) -> None:
    """And the same name of both issuers is two people."""
    mine = world.local.principal(Grant("dora", "planner"))
    assert await world.principal(world.local.issue(mine)) == mine
    foreign = await world.principal(world.issuer.token())
    assert foreign.user != mine.user
    assert foreign.key != mine.key


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"aud": "https://other.test"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": [AUDIENCE] * 17}, "audience"),
        ({"aud": [7]}, "audience"),
        ({"iss": "http://127.0.0.1:1"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": 7}, "issuer"),
        ({"exp": 1}, "expired"),
        ({"exp": None}, "claims"),
        ({"exp": "9999999999"}, "claims"),
        ({"exp": True}, "claims"),
        ({"exp": 10**12}, "claims"),
        ({"iat": None}, "claims"),
        ({"sub": None}, "claims"),
        ({"sub": ""}, "claims"),
        ({"sub": 7}, "claims"),
        ({"sub": "x" * 200}, "claims"),
        ({"client_id": None}, "claims"),
        ({"client_id": ""}, "claims"),
        ({"client_id": ["planner"]}, "claims"),
        ({"cnf": {"jkt": "x"}}, "claims"),
        ({"cnf": {}}, "claims"),
        ({"act": {}}, "claims"),
        ({"act": "booker"}, "claims"),
        ({"act": {"sub": "booker", "iss": "https://other.test"}}, "claims"),
        ({"act": {"sub": "booker", "cnf": {"jkt": "x"}}}, "claims"),
        ({"groups": "finance"}, "claims"),
        ({"groups": [1]}, "claims"),
        ({"groups": ["g"] * 257}, "claims"),
        ({"scope": 7}, "claims"),
        ({"scope": ["tools", 7]}, "claims"),
        ({"jti": 7}, "claims"),
    ],
)
async def test_claims_that_prove_nothing_are_refused(world: World, claims: dict[str, Any], cause: str) -> None:
    """Each by its cause; a token of an unknown issuer is not one of the local issuer either."""
    found = await world.cause(world.issuer.token(**claims))
    assert found == (cause if cause != "issuer" else "malformed")


@pytest.mark.parametrize(("ahead_s", "is_good"), [(30, True), (31, False)])
async def test_a_token_of_the_future_is_good_within_the_skew_only(world: World, ahead_s: int, is_good: bool) -> None:
    """Clocks differ by some seconds; an end is an end."""
    now_s = world.clock.now_us() // 1_000_000
    token = world.issuer.token(iat=now_s + ahead_s, exp=now_s + 600)
    assert (await world.principal(token)).user if is_good else await world.cause(token) == "claims"
    late = world.issuer.token(nbf=now_s + ahead_s)
    assert (await world.principal(late)).user if is_good else await world.cause(late) == "claims"


async def test_a_token_lives_no_longer_than_is_believed(world: World) -> None:
    """Also one that ends before it begins is nobody's."""
    now_s = world.clock.now_us() // 1_000_000
    assert await world.cause(world.issuer.token(exp=now_s + 86_401)) == "claims"
    assert await world.cause(world.issuer.token(iat=now_s + 20, exp=now_s + 10)) == "claims"
    assert (await world.principal(world.issuer.token(exp=now_s + 0.5 + 600))).expires_us == (now_s + 600) * 1_000_000


async def test_a_remembered_token_ends_with_its_time(world: World) -> None:
    """The memory is no way around the end."""
    token = world.issuer.token()
    assert (await world.principal(token)).user == "corp:dora"
    world.clock.advance(601)
    assert await world.cause(token) == "expired"


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        ({"typ": "JWT"}, "type"),
        ({"typ": "id_token"}, "type"),
        ({"typ": None}, "malformed"),
        ({"alg": "none"}, "signature"),
        ({"alg": "HS256"}, "signature"),
        ({"alg": "RS512"}, "signature"),
        ({"alg": "XX"}, "signature"),
        ({"kid": "k9"}, "signature"),
        ({"kid": 7}, "malformed"),
        ({"crit": ["exp"]}, "malformed"),
        ({"jku": "https://evil.test/keys"}, "malformed"),
        ({"jwk": SECOND.as_dict(private=False)}, "malformed"),
        ({"x5c": ["MII"]}, "malformed"),
        ({"x5u": "https://evil.test"}, "malformed"),
        ({"b64": False}, "malformed"),
        ({"zip": "DEF"}, "malformed"),
        ({"cty": "JWT"}, "malformed"),
    ],
)
async def test_headers_that_change_what_is_checked_are_refused(
    world: World, header: dict[str, Any], cause: str
) -> None:
    """Type and algorithm are pinned, keys come from the issuer alone."""
    head = {"alg": "RS256", "typ": "at+jwt", "kid": "k1"} | header
    payload = json.dumps(world.issuer.claims()).encode()
    token = signed({name: value for name, value in head.items() if value is not None}, payload, FIRST)
    assert await world.cause(token) == cause


async def test_the_public_key_is_no_shared_secret(world: World) -> None:
    """The old confusion: an HMAC keyed with the bytes of the public key."""
    async with trusting(world.issuer, world.own, algorithms=frozenset({"RS256"})) as port:
        world.port = port
        for secret in (FIRST.as_pem(private=False), json.dumps(FIRST.as_dict(private=False)).encode()):
            header = {"alg": "HS256", "typ": "at+jwt", "kid": "k1"}
            forged = signed(header, json.dumps(world.issuer.claims()).encode(), secret)
            assert await world.cause(forged) == "signature"


async def test_a_signature_is_of_the_issuers_own_key_and_of_every_byte(world: World) -> None:
    """Another's key, and each part changed."""
    assert await world.cause(world.issuer.token(key=SECOND)) == "signature"
    good, other = world.issuer.token(), world.issuer.token(sub="mallory")
    head, body, signature = good.split(".")
    assert await world.cause(f"{head}.{other.split('.')[1]}.{signature}") == "signature"
    assert await world.cause(f"{head}.{body}.{signature[:-4]}AAAA") in {"signature", "malformed"}
    assert await world.cause(f"{head}.{body}.") == "malformed"
    assert await world.cause(f"{head}.{body}.{signature}.x") == "malformed"


async def test_two_claims_of_one_name_are_nobodys_word(world: World) -> None:
    """Whoever reads the other one sees another caller."""
    payload = json.dumps(world.issuer.claims())[:-1] + ', "sub": "mallory"}'
    token = signed({"alg": "RS256", "typ": "at+jwt", "kid": "k1"}, payload.encode(), FIRST)
    assert await world.cause(token) == "malformed"


@pytest.mark.parametrize(
    ("algorithm", "key"), [("PS256", FIRST), ("ES256", P256), ("ES384", P384), ("EdDSA", ED), ("Ed25519", ED)]
)
async def test_each_algorithm_that_is_trusted_is_taken_with_its_kind_of_key(
    world: World, algorithm: str, key: RSAKey | ECKey | OKPKey
) -> None:
    """And with no other kind: of all keys in the set, only those that fit are tried."""
    world.issuer.keys = [("k1", FIRST), ("k2", P256), ("k3", P384), ("k4", ED)]
    kid = next(name for name, one in world.issuer.keys if one is key)
    async with trusting(world.issuer, world.own, algorithms=frozenset({algorithm})) as port:
        world.port = port
        found = await world.principal(world.issuer.token({"alg": algorithm, "kid": kid}, key))
        assert found.user == "corp:dora"
        others = [name for name, one in world.issuer.keys if one is not key]
        for other in others:
            assert await world.cause(world.issuer.token({"alg": algorithm, "kid": other}, key)) == "signature"


@pytest.mark.parametrize(
    "spoilt",
    [
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"alg": "RS512"},
        {"alg": "none"},
        {"d": "AQAB"},
        {"n": "AQAB"},
        {"kty": "oct", "k": "AAAA"},
        {"kid": 7},
    ],
)
async def test_keys_that_are_not_for_this_are_not_used(world: World, spoilt: dict[str, Any]) -> None:
    """Keys for encryption, weak keys, keys whose private half is shown, shared secrets."""
    keys = {"keys": [FIRST.as_dict(private=False) | {"kid": "k1"} | spoilt]}
    world.issuer.broken = web.Response(body=json.dumps(keys).encode())
    assert await world.cause(world.issuer.token()) == "signature"


async def test_a_short_rsa_key_is_not_used(world: World) -> None:
    """1,024 bits can be broken."""
    with pytest.warns(SecurityWarning):
        weak = RSAKey.import_key(generate_rsa(65537, 1024))
    world.issuer.keys = [("k1", weak)]
    assert await world.cause(world.issuer.token()) == "signature"


async def test_a_token_without_a_key_id_is_good_for_the_only_key(world: World) -> None:
    """Where there are two, which one is meant is a guess."""
    assert (await world.principal(world.issuer.token({"kid": None}))).user == "corp:dora"
    world.issuer.keys = [("k1", FIRST), ("k2", SECOND)]
    async with trusting(world.issuer, world.own) as port:
        world.port = port
        assert await world.cause(world.issuer.token({"kid": None})) == "signature"


async def test_scopes_are_what_the_operator_lets_the_issuer_give(world: World) -> None:
    """By the names it has for them; all others give nothing."""
    trust = {"scopes": {"gw.use": "tools", "gw.audit": "audit"}}
    async with trusting(world.issuer, world.own, **trust) as port:
        world.port = port
        for claims, scopes in (
            ({"scope": "gw.use openid admin tools"}, {"tools"}),
            ({"scope": "gw.use gw.audit"}, {"tools", "audit"}),
            ({"scope": None, "scp": ["gw.audit"]}, {"audit"}),
            ({"scope": ""}, set()),
            ({"scope": None}, set()),
        ):
            assert (await world.principal(world.issuer.token(**claims))).scopes == scopes


@pytest.mark.parametrize("jti", ["-x", "_x", "x y", "ä", "", "x" * 300, None])
async def test_the_id_of_a_token_may_be_anything(world: World, jti: str | None) -> None:
    """It names the token only: one that cannot stand here is replaced by a digest of the token."""
    found = (await world.principal(world.issuer.token(jti=jti))).jti
    assert re.fullmatch("[0-9a-f]{64}", found)
    assert (await world.principal(world.issuer.token(jti="A-1_b"))).jti == "A-1_b"


async def test_names_stay_apart_however_they_are_written(world: World) -> None:
    """What a name here cannot hold is written out, and nothing becomes the same as something else."""
    names = ["auth0|7c", "auth0+7C7c", "a b", "a+20b", "a+b", "ä", "a\u0308", "x@y.z", "A", "a", "\u202edora"]
    found = [(await world.principal(world.issuer.token(sub=name, jti=f"t{at}"))).user for at, name in enumerate(names)]
    assert len(set(found)) == len(names)
    assert all(user.startswith("corp:") and user.isascii() and "|" not in user for user in found)
    for name in ("\ud800", "d\0", "", "x" * 124):
        assert await world.cause(world.issuer.token(sub=name)) in {"claims", "malformed"}


async def test_a_run_that_a_foreign_person_opened_has_a_token_of_the_local_issuer(world: World) -> None:
    """It speaks for that very person; only run tokens do, and only while their issuer is trusted."""
    person = await world.principal(world.issuer.token(client_id="cli"))
    agent = replace(person, agent="planner", run="0190-r", auth_method="local", groups=frozenset())
    issuer, own = world.vouching(world.issuer.url)
    token = issuer.issue(agent)
    assert await own.authenticate(call_with(token)) == agent
    assert await world.cause(token) == "issuer"
    for other in (replace(agent, run=None), replace(agent, agent=None), replace(agent, issuer="https://other.test")):
        with pytest.raises(InvalidArguments):
            issuer.issue(other)

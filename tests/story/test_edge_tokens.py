"""Tokens and runs: the operator makes them for anybody, others for nobody and nothing beyond their own token."""

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.edge.asgi import Options
from tests.edge_world import ADMIN, PERSON, Edge, Raw
from tests.fakes.callers import FAR_US

OWN = replace(ADMIN, scopes=frozenset({"admin", "tools"}), groups=frozenset({"ops"}))
WISH = {"user": "root", "agent": "bot", "groups": ["ops"], "scopes": ["tools"], "ttl_s": 5}


def edge() -> Edge:
    """One with an administrator who may also use tools, for another minute."""
    made = Edge(options=Options(issuer=ADMIN.issuer))
    made.world.identity.tokens["own"] = replace(OWN, expires_us=made.world.clock.now_us() + 60_000_000)
    return made


async def test_a_token_stands_for_whom_it_was_asked_for() -> None:
    """For themselves, or an agent of theirs; who asked is recorded first."""
    world = edge()
    async with world.client("own") as admin:
        said = (await admin.post("/v1/tokens", json=WISH)).json()
    made = world.world.identity.tokens[said["token"]]
    assert (made.user, made.agent, made.scopes) == ("root", "bot", frozenset({"tools"}))
    assert made.expires_us == world.world.clock.now_us() + 5_000_000
    assert world.changes.recorded == [("root", "token.issued", {**WISH, "jti": made.jti})]


async def test_a_token_without_a_time_lives_as_long_as_the_one_it_is_asked_for_with() -> None:
    """Or an hour, where that lives longer."""
    world = edge()
    wish = {"user": "root", "scopes": ["admin"]}
    async with world.client("own") as admin:
        said = (await admin.post("/v1/tokens", json=wish)).json()
    assert said["expires_us"] == world.world.clock.now_us() + 60_000_000
    long = replace(OWN, expires_us=world.world.clock.now_us() + 7_200_000_000)
    world.world.identity.tokens["own"] = long
    async with world.client("own") as admin:
        said = (await admin.post("/v1/tokens", json=wish)).json()
    assert said["expires_us"] == world.world.clock.now_us() + 3_600_000_000


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"scopes": ["tools", "audit"]}, "scope"),
        ({"scopes": ["review"]}, "scope"),
        ({"ttl_s": 61}, "ttl"),
        ({"ttl_s": 366 * 86_400}, "ttl"),
        ({"groups": ["ops", "finance"]}, "group"),
        ({"user": "vera"}, "user"),
        ({"user": "vera", "agent": None}, "user"),
        ({"user": "Root"}, "user"),
    ],
)
async def test_nobody_makes_a_token_beyond_their_own(more: dict[str, Any], cause: str) -> None:
    """More scopes, a longer life, other groups, another person: 403 as problem+json; nothing is made or recorded."""
    world = edge()
    known = set(world.world.identity.tokens)
    async with world.client("own") as admin:
        answer = await admin.post("/v1/tokens", json=WISH | more)
    assert (answer.status_code, answer.json()["cause"]) == (403, cause)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (set(world.world.identity.tokens), world.changes.recorded) == (known, [])


@pytest.mark.parametrize(
    "more",
    [
        {"scopes": ["root"]},
        {"scopes": []},
        {"scopes": "tools"},
        {"ttl_s": 0},
        {"ttl_s": -1},
        {"ttl_s": 10**12},
        {"ttl_s": "5"},
        {"ttl_s": 1.5},
        {"user": ""},
        {"user": "a b"},
        {"agent": "\u202e"},
        {"groups": ["x"] * 65},
        {"auth_method": "unix_socket"},
        {"expires_us": 1},
    ],
)
async def test_bad_wishes_are_refused(more: dict[str, Any]) -> None:
    """Each as problem+json that names the member; nothing is made or recorded."""
    world = edge()
    async with world.client("own") as admin:
        answer = await admin.post("/v1/tokens", json=WISH | more)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert next(iter(more)) in answer.text
    assert world.changes.recorded == []


@pytest.mark.parametrize("change", [{"auth_method": "api_key"}, {"agent": "bot"}, {"run": "r", "agent": "bot"}])
async def test_no_key_and_no_agent_issues_tokens(change: dict[str, Any]) -> None:
    """Whoever finds a key could otherwise go on after it was revoked; an agent's scopes do not make it a person."""
    world = edge()
    own = world.world.identity.tokens["own"]
    world.world.identity.tokens["own"] = replace(own, **change)
    async with world.client("own") as client:
        answer = await client.post("/v1/tokens", json=WISH)
    assert (answer.status_code, answer.json()["cause"]) == (403, "person" if "agent" in change else "api_key")
    assert world.changes.recorded == []


async def test_a_person_of_another_issuer_gets_no_token_of_this_one() -> None:
    """Of the same name or not: it would be another person here."""
    world = edge()
    own = world.world.identity.tokens["own"]
    world.world.identity.tokens["own"] = replace(own, issuer="https://login.example.org")
    async with world.client("own") as client:
        answer = await client.post("/v1/tokens", json=WISH)
    assert (answer.status_code, answer.json()["cause"]) == (403, "user")


RUN_OF = {"goal": "pay the invoice", "agent": "ap-agent"}


async def opening(opener: dict[str, Any], wish: dict[str, Any], run_max_s: int = 86_400) -> tuple[int, str | None, int]:
    """Status, cause, and how many seconds the run's token lives, where a person opens one; both ends are the same."""
    world = Edge(options=Options(run_max_s=run_max_s))
    now_us = world.world.clock.now_us()
    ten_minutes = replace(PERSON, expires_us=now_us + 600_000_000)
    world.world.identity.tokens["short"] = replace(ten_minutes, **opener)
    async with world.client("short") as person:
        answer = await person.post("/v1/runs", json=RUN_OF | wish)
    said = answer.json()
    if answer.status_code != 201:
        assert world.world.runs.opened == {}
        return answer.status_code, said["cause"], 0
    ends_us = world.world.identity.tokens[said["token"]].expires_us
    assert ends_us == said["expires_us"] == said["run"]["expires_us"]
    assert ends_us <= world.world.identity.tokens["short"].expires_us
    return answer.status_code, None, (ends_us - now_us) // 1_000_000


@pytest.mark.requirement("INTAKE-1")
@pytest.mark.parametrize("ttl_s", [601, 3600, 8 * 3600])
@pytest.mark.parametrize("method", ["local", "oidc", "api_key"])
async def test_no_run_outlives_the_credential_that_opened_it(method: str, ttl_s: int) -> None:
    """Ten minutes are worth ten minutes, whatever is asked for and whoever vouches: 403, and no run is opened."""
    opener = {"auth_method": method, "issuer": "https://login.example.org" if method == "oidc" else PERSON.issuer}
    assert await opening(opener, {"ttl_s": ttl_s}) == (403, "ttl", 0)
    assert await opening(opener, {"ttl_s": 600}) == (201, None, 600)


async def test_a_run_without_a_time_lasts_as_long_as_it_may() -> None:
    """What is left of the opener's token, the gateway's bound, or an hour: whatever ends first."""
    assert await opening({}, {}) == (201, None, 600)
    assert await opening({}, {}, run_max_s=60) == (201, None, 60)
    assert await opening({"expires_us": FAR_US}, {}) == (201, None, 3600)


async def test_a_token_in_its_last_second_opens_no_run() -> None:
    """There is no whole second left that the run could have."""
    now_us = Edge().world.clock.now_us()
    assert await opening({"expires_us": now_us + 999_999}, {}) == (403, "ttl", 0)


async def test_the_operators_runs_are_bounded_by_the_gateway_alone() -> None:
    """By the admin socket there is no token that ends."""
    world = Edge(options=Options(operator_socket="/run/ostiary.sock", run_max_s=7200))
    body = json.dumps(RUN_OF | {"ttl_s": 7200}).encode()
    head = {"headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "client": None}
    asked = Raw(world.app, [{"type": "http.request", "body": body}])
    assert await asked.run(method="POST", path="/v1/runs", server=("/run/ostiary.sock", None), **head) == 201
    (run,) = world.world.runs.opened.values()
    assert run.expires_us == world.world.clock.now_us() + 7_200_000_000

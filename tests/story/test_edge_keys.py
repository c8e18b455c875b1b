"""Making API keys: the operator for anybody, an administrator for nobody and nothing beyond their own token."""

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.edge.asgi import Options
from tests.edge_world import ADMIN, Edge, Raw

OWN = replace(ADMIN, scopes=frozenset({"admin", "tools"}), groups=frozenset({"ops"}))
WISH = {"name": "nightly", "user": "root", "agent": "bot", "groups": ["ops"], "scopes": ["tools"], "ttl_s": 5}


def edge(**change: Any) -> Edge:
    """One with an administrator who may also use tools, for another minute."""
    made = Edge(options=Options(issuer=ADMIN.issuer))
    ends_us = made.world.clock.now_us() + 60_000_000
    made.world.identity.tokens["own"] = replace(replace(OWN, expires_us=ends_us), **change)
    return made


async def test_a_key_without_a_time_lives_as_long_as_the_token_it_is_asked_for_with() -> None:
    """For themselves, or an agent of theirs."""
    world = edge()
    async with world.client("own") as admin:
        for wish in (WISH, WISH | {"agent": None, "ttl_s": None}):
            assert (await admin.post("/v1/api-keys", json=wish)).status_code == 201
    assert [(wish.user, wish.agent, wish.ttl_s) for wish in world.api_keys.wishes] == [
        ("root", "bot", 5),
        ("root", None, 60),
    ]


@pytest.mark.requirement("INTAKE-1")
@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"scopes": ["tools", "audit"]}, "scope"),
        ({"ttl_s": 61}, "ttl"),
        ({"ttl_s": 366 * 86_400}, "ttl"),
        ({"groups": ["ops", "finance"]}, "group"),
        ({"user": "vera"}, "user"),
        ({"user": "vera", "agent": None}, "user"),
    ],
)
async def test_nobody_makes_a_key_beyond_their_own_token(more: dict[str, Any], cause: str) -> None:
    """More scopes, a longer life, other groups, another person: 403, and nothing is made.

    Whoever finds an administrator's token would otherwise be everybody for a year.
    """
    world = edge()
    async with world.client("own") as admin:
        answer = await admin.post("/v1/api-keys", json=WISH | more)
    assert (answer.status_code, answer.json()["cause"]) == (403, cause)
    assert world.api_keys.wishes == []


@pytest.mark.parametrize(
    ("change", "cause"), [({"issuer": "https://login.example.org"}, "user"), ({"auth_method": "api_key"}, "api_key")]
)
async def test_neither_strangers_of_that_name_nor_keys_make_keys(change: dict[str, Any], cause: str) -> None:
    """Of another issuer it would be another person here; of a key there would be no end."""
    world = edge(**change)
    async with world.client("own") as admin:
        answer = await admin.post("/v1/api-keys", json=WISH)
    assert (answer.status_code, answer.json()["cause"]) == (403, cause)
    assert world.api_keys.wishes == []


async def test_the_machines_operator_makes_keys_for_anybody() -> None:
    """By the admin socket; for 90 days where nothing else is said."""
    world = Edge(options=Options(operator_socket="/run/ostiary.sock"))
    body = json.dumps({"name": "nightly", "user": "dora", "agent": "bot", "scopes": ["tools"]}).encode()
    head = {"headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "client": None}
    asked = Raw(world.app, [{"type": "http.request", "body": body}])
    assert await asked.run(method="POST", path="/v1/api-keys", server=("/run/ostiary.sock", None), **head) == 201
    assert [(wish.user, wish.ttl_s) for wish in world.api_keys.wishes] == [("dora", 90 * 86_400)]

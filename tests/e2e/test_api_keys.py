"""API keys at a running gateway: the command, every surface, guesses, and where the secret must not be."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.core.api_keys import text_of
from tests.gateways import Gateway, ostiary, serving
from tests.ledgers import content

_SETTINGS = """
state = "state"
[listen]
port = 0
[policy]
deadline_ms = 1000 # the machine of a test is busy
"""
_INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway without upstreams."""
    assert ostiary("init", str(tmp_path)).returncode == 0
    (tmp_path / "gateway.toml").write_text(_SETTINGS)
    with serving(tmp_path) as found:
        yield found


def asked(gateway: Gateway, path: str, token: str) -> httpx.Response:
    """A request with a credential."""
    with gateway.client(token) as http:
        return http.get(path)


def initialized(gateway: Gateway, token: str) -> int:
    """The status of an MCP client's first request."""
    with gateway.client(token) as http:
        headers = {"accept": "application/json, text/event-stream"}
        return http.post("/mcp", json=_INITIALIZE, headers=headers).status_code


@pytest.mark.requirement("INTAKE-1")
def test_a_key_from_the_command_line_opens_every_surface_until_it_is_revoked(gateway: Gateway) -> None:
    """REST, MCP, the commands and the metrics, as far as its scopes go; 401 that says why from the revocation on."""
    made = gateway.ask("key", "create", "nightly", "--user", "dora", "--scope", "tools,audit")
    text = made["key"]
    assert asked(gateway, "/v1/tools", text).status_code == 200
    assert initialized(gateway, text) == 200
    assert asked(gateway, "/metrics", text).status_code == 200
    assert asked(gateway, "/v1/audit/keys", text).status_code == 200
    listed = asked(gateway, "/v1/api-keys", text)
    assert text not in listed.text
    with gateway.client(text) as http:
        body = {"name": "more", "user": "dora"}
        assert http.post("/v1/api-keys", json=body).status_code == 403
    (shown,) = gateway.ask("key", "list")["keys"]
    assert (shown["name"], shown["scopes"], shown["revoked"]) == ("nightly", ["audit", "tools"], False)
    assert "used_day" in shown
    assert text not in content(gateway.folder).decode("latin-1") + gateway.words()
    gateway.ask("key", "revoke", made["id"])
    refused = asked(gateway, "/v1/tools", text)
    assert (refused.status_code, refused.json()["detail"]) == (401, "the API key was revoked")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert initialized(gateway, text) == 401
    assert [record["type"] for record in gateway.records() if record["type"].startswith("key.")][-1] == "key.revoked"
    assert "no such key" in ostiary("key", "revoke", "x", OSTIARY_STATE=str(gateway.state)).stderr
    assert ostiary("audit", "verify", "--state", str(gateway.state)).returncode == 0


def test_guessing_is_held_back_and_costs_good_keys_nothing(gateway: Gateway) -> None:
    """A flood of well-formed guesses from one address meets 429 soon; a key that has proven good goes on."""
    text = gateway.ask("key", "create", "nightly", "--user", "dora")["key"]
    assert asked(gateway, "/v1/tools", text).status_code == 200
    seen = set[int]()
    for at in range(300):
        seen.add(asked(gateway, "/v1/tools", text_of(at.to_bytes(32, "big"))).status_code)
        if 429 in seen:
            break
    assert seen == {401, 429}
    assert asked(gateway, "/v1/tools", text).status_code == 200

"""A gateway that trusts a real OpenID provider, and one that signs whatever it is told to."""

import base64
import html
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.foreign.issuers import RealIssuer, running
from tests.gateways import NO_TLS, OSTIARY, ROOT, Gateway, ostiary, serving

AUDIENCE = "https://gateway.test/mcp"
CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
deadline_ms = 2000

[upstreams.erp]
kind = "sql"
database = "erp.sqlite"

[identity.issuers.corp]
issuer = "{corp}"
audience = ["{audience}"]
person_clients = ["ostiary-cli"]
scopes = {{ tools = "tools", runs = "runs" }}

[identity.issuers.odd]
issuer = "{odd}"
audience = ["{audience}"]

[policy.data.gateway.scope.agents."corp:planner"]
allow = ["erp.*"]

[policy.data.gateway.scope.agents.helper]
allow = ["erp.*"]

[policy.data.gateway.scope.groups."corp:desk"]
allow = ["erp.*"]
"""
CATALOGUE = """
[[tool]]
server = "erp"
name = "stock"
effect = "read"
description = "What is in stock."
input_schema = { type = "object", additionalProperties = false }

[tool.sql]
statement = "SELECT 7 AS pieces"
"""


@dataclass(frozen=True)
class House:
    """The gateway and its two foreign issuers."""

    gateway: Gateway
    corp: RealIssuer
    odd: RealIssuer

    def call(self, token: str) -> httpx.Response:
        """Call the one tool."""
        return self.gateway.call(token, "erp.stock")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """All of them running."""
    folder = tmp_path_factory.mktemp("house")
    nodes = tmp_path_factory.mktemp("nodes")
    with running(nodes, "provider.mjs", AUDIENCE) as corp, running(nodes, "hostile.mjs") as odd:
        (folder / "gateway.toml").write_text(CONFIG.format(corp=corp.url, odd=odd.url, audience=AUDIENCE), "utf-8")
        (folder / "catalogue.toml").write_text(CATALOGUE, "utf-8")
        (folder / "erp.sqlite").touch()
        with serving(folder) as gateway:
            yield House(gateway, corp, odd)


@pytest.mark.requirement("INTAKE-1")
def test_an_agent_calls_with_a_token_of_its_companys_provider(house: House) -> None:
    """The log says by whom it was vouched for; the provider's names stand behind its prefix."""
    answer = house.call(house.corp.token(resource=AUDIENCE))
    assert answer.status_code == 200, answer.text
    (asked,) = house.gateway.records(call_id=answer.json()["call_id"], type="tool.requested")
    assert (asked["actor"]["agent"], asked["actor"]["authn"]) == ("corp:planner", "oidc")


def test_a_caller_without_a_token_is_told_where_to_get_one(house: House) -> None:
    """The challenge leads to metadata that names the issuers, for each MCP endpoint and whether or not it exists."""
    with house.gateway.client(None) as client:
        for path in ("/mcp", "/servers/erp/mcp", "/servers/none/mcp"):
            refused = client.post(path, json={})
            assert refused.status_code == 401
            pointer = re.search(r'resource_metadata="([^"]+)"', refused.headers["www-authenticate"])
            assert pointer is not None
            said = client.get(pointer[1]).json()
            assert said["resource"] == house.gateway.url + path
            assert said["authorization_servers"] == [house.corp.url, house.odd.url]
            assert said["scopes_supported"] == ["runs", "tools"]
            assert 'scope="tools"' in refused.headers["www-authenticate"]
        assert client.get("/.well-known/oauth-protected-resource/elsewhere").status_code in {401, 404}


def test_a_token_without_the_scope_is_told_which_one_is_missing(house: House) -> None:
    """RFC 6750: insufficient_scope."""
    with house.gateway.client(house.corp.token(resource=AUDIENCE)) as client:
        refused = client.get("/v1/audit/records")
    assert refused.status_code == 403, refused.text
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_a_token_for_somebody_else_is_not_taken(house: House) -> None:
    """It would be passed on from another server."""
    refused = house.call(house.odd.mutated({"typ": "at+jwt"}, {"aud": "https://other.test", "client_id": "x"}))
    assert (refused.status_code, refused.json()["cause"]) == (401, "audience")


GOOD: dict[str, Any] = {"aud": AUDIENCE, "client_id": "x", "sub": "mallory", "scope": "tools"}
HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an id token": ({"typ": "JWT"}, {}, "type"),
    "no type": ({"typ": None}, {}, "type"),
    "expired": ({}, {"exp": 1_700_000_000}, "expired"),
    "of the future": ({}, {"nbf": 4_000_000_000, "exp": 4_000_000_100}, "claims"),
    "issued in the future": ({}, {"iat": 4_000_000_000, "exp": 4_000_000_100}, "claims"),
    "for ever": ({}, {"exp": 4_000_000_000}, "claims"),
    "in the name of another issuer": ({}, {"iss": "https://accounts.test"}, "malformed"),
    "an unknown key": ({"kid": "nobody"}, {}, "signature"),
    "its own key": ({"jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}}, {}, "malformed"),
    "a key elsewhere": ({"jku": "https://evil.test/keys"}, {}, "malformed"),
    "bound to a key": ({}, {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, "claims"),
    "a chain of nobody": ({}, {"act": {"act": {}}}, "claims"),
    "no user": ({}, {"sub": None}, "claims"),
    "no client": ({}, {"client_id": None}, "claims"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_trusted_issuer_signs_wrongly_is_refused(house: House, name: str) -> None:
    """With its own good key; nothing is executed, and the cause is said."""
    header, payload, cause = HOSTILE[name]
    before = house.gateway.size()
    refused = house.call(house.odd.mutated({"typ": "at+jwt"} | header, GOOD | payload))
    assert (refused.status_code, refused.json()["cause"]) == (401, cause)
    assert house.gateway.size() == before


def test_one_issuer_cannot_speak_for_another(house: House) -> None:
    """Its signature under the other's name is none of the other's; under its own, its people stay its own."""
    forged = house.odd.mutated({"typ": "at+jwt"}, GOOD | {"iss": house.corp.url, "client_id": "planner"})
    refused = house.call(forged)
    assert (refused.status_code, refused.json()["cause"]) == (401, "signature")
    own = house.call(house.odd.mutated({"typ": "at+jwt"}, GOOD | {"client_id": "planner", "groups": ["desk"]}))
    assert own.status_code == 404  # odd:planner is not corp:planner, and may know of nothing


def test_an_unsigned_token_is_nobodys(house: House) -> None:
    """Algorithm ``none``, and the public key as a shared secret."""
    claims = jwt.decode(house.odd.mutated({"typ": "at+jwt"}, GOOD), _any_key(house.odd)).claims
    for header in ({"alg": "none", "typ": "at+jwt"}, {"alg": "HS256", "typ": "at+jwt"}):
        parts = [json.dumps(header).encode(), json.dumps(claims).encode()]
        for signature in ("", ".", ".AAAA"):
            refused = house.call(".".join(_base64(part) for part in parts) + signature)
            assert refused.status_code == 401


def test_a_person_logs_in_with_a_browser_and_opens_a_run(house: House, tmp_path: Path) -> None:
    """The device grant: ``ostiary login`` here, a browser anywhere; the run's agent works for that very person."""
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    words = ["login", "--url", house.gateway.url, "--issuer", house.corp.url, "--json"]
    login = subprocess.Popen(
        [*OSTIARY, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )
    with login:
        assert login.stderr is not None
        where = re.search(r"Open (\S+) and confirm", login.stderr.readline())
        assert where is not None, login.stderr.read()
        confirm(where[1], "dora")
        out, err = login.communicate(timeout=60)
    assert login.returncode == 0, err
    kept = Path(json.loads(out.splitlines()[-1])["file"])
    assert kept.stat().st_mode & 0o077 == 0
    own = json.loads(kept.read_text())[house.gateway.url]["token"]
    assert own not in out

    wish = ["run", "open", "--url", house.gateway.url, "--goal", "count", "--agent", "helper", "--json"]
    opened = ostiary(*wish, XDG_CONFIG_HOME=str(tmp_path))
    assert opened.returncode == 0, opened.stderr
    run = json.loads(opened.stdout.splitlines()[-1])
    # The access token's end is what counts, whatever the provider would refresh.
    assert run["expires_us"] <= claims(own)["exp"] * 1_000_000
    longer = ostiary(*wish, "--ttl", "86400", XDG_CONFIG_HOME=str(tmp_path))
    assert longer.returncode != 0
    assert "may not outlive" in longer.stderr
    answer = house.call(run["token"])
    assert answer.status_code == 200, answer.text
    (asked,) = house.gateway.records(call_id=answer.json()["call_id"], type="tool.requested")
    (started,) = house.gateway.records(run_id=run["run_id"], type="run.started")
    assert asked["run_id"] == run["run_id"]
    assert asked["actor"]["user"] == started["actor"]["user"]


def test_new_keys_of_a_provider_are_found_and_old_tokens_end(house: House) -> None:
    """Rotation without a restart; last, as the keys of before are gone."""
    assert house.call(house.corp.token(resource=AUDIENCE)).status_code == 200
    house.corp.process.send_signal(signal.SIGUSR2)
    assert house.corp.line() == {"rotated": True}
    token = house.corp.token(resource=AUDIENCE)
    # Unknown key ids are asked after once in half a minute.
    wait = house.gateway.http.get("/readyz").json()
    assert wait["status"] in {"ready", "degraded"}
    seen = house.call(token)
    assert (seen.status_code, seen.json().get("cause")) in {(200, None), (401, "signature")}


def claims(token: str) -> dict[str, Any]:
    """What a token says."""
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def confirm(url: str, user: str) -> None:
    """What a person does in a browser: confirm the code, log in, consent."""
    with httpx.Client(follow_redirects=True, verify=NO_TLS, timeout=30) as browser:
        page = browser.get(url)
        for _ in range(6):
            action = re.search(r'<form[^>]*action="([^"]*)"', page.text)
            if action is None:
                break
            fields = dict(re.findall(r'name="(\w+)"[^>]*value="([^"]*)"', page.text))
            fields |= {"login": user, "password": "x"} if 'name="login"' in page.text else {}
            page = browser.post(urljoin(str(page.url), html.unescape(action[1])), data=fields)
        assert "Sign-in Success" in page.text or page.status_code == 200, page.text


def _any_key(issuer: RealIssuer) -> Any:
    return KeySet.import_key_set(httpx.get(f"{issuer.url}/jwks", verify=NO_TLS).json())


def _base64(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

"""Persons' own accounts end to end: a real service with rotated refresh tokens, a real OpenBao, one gateway or two."""

import hashlib
import html
import json
import os
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from deploy.servers import vault_accounts
from deploy.servers.openbao import OpenBao, Request, openbao
from deploy.servers.process import short_folder
from deploy.servers.vault_setup import Entry
from tests.fakes.relay import Relay, relaying
from tests.foreign.issuers import RealIssuer, running
from tests.gateways import NO_TLS, OSTIARY, ROOT, Gateway, ostiary, serving, types, until
from tests.ledgers import content
from tests.servers import PERIOD_S

_AGENT = "ap-agent"
_ENTRY = Entry("ostiary-gateway", "the-gateways-own-secret", PERIOD_S)
_ENVIRONMENT = {"ACC_VAULT_SECRET_ID": _ENTRY.secret_id, "HUB_SECRET": "the-clients-own-s3cret"}
_READER = '{"path": {"secret/*": {"capabilities": ["read", "list", "create", "update"]}}}'
_CATALOGUE = """
[[tool]]
server = "hub"
name = "me"
effect = "read"
description = "Who you are there."
input_schema = { type = "object", additionalProperties = false }
[tool.http]
method = "GET"
path = "/me"
"""
_SETTINGS = """
state = "state"
catalogue = ["tools.toml"]
[listen]
port = 0
[policy]
deadline_ms = 1000 # the machine of a test is busy
[policy.data.gateway.scope.agents.ap-agent]
allow = ["hub.*"]
[policy.data.gateway.scope.users."*"]
allow = ["hub.*"]
[vault]
address = "@VAULT@"
role_id = "ostiary-gateway"
secret_id = { env = "ACC_VAULT_SECRET_ID" }
[connections.hub]
issuer = "@HUB@"
client_id = "ostiary"
client_secret = { env = "HUB_SECRET" }
scopes = ["offline_access", "repo:read"]
token_role = "hub-accounts"
[leases.hub-me]
provider = "oauth_user"
connection = "hub"
scopes = ["openid"]
[upstreams.hub]
kind = "http"
origin = "@HUB@"
allow_networks = ["127.0.0.0/8"]
credential = "hub-me"
"""


@dataclass(frozen=True)
class Place:
    """A gateway's folder, the service and the vault."""

    folder: Path
    hub: RealIssuer
    bao: OpenBao
    relay: Relay

    def asked(self) -> list[dict[str, Any]]:
        """What the service did so far."""
        said: list[dict[str, Any]] = httpx.get(f"{self.hub.url}/journal", verify=NO_TLS).json()
        return said

    def kept(self) -> list[dict[str, Any]]:
        """What the vault keeps, looked at past the gateway."""
        found = self._vault("LIST", "secret/metadata/ostiary/connections/hub")
        names = found["data"]["keys"] if found.get("data") else []
        return [self._vault("GET", f"secret/data/ostiary/connections/hub/{name}")["data"]["data"] for name in names]

    def put(self, owner: str, secret: dict[str, Any]) -> None:
        """Write past the gateway, over whatever version there is."""
        path = f"secret/data/ostiary/connections/hub/{owner}"
        version = self._vault("GET", path)["data"]["metadata"]["version"]
        assert self._vault("POST", path, {"options": {"cas": version}, "data": secret})["data"]

    def _vault(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        transport = httpx.HTTPTransport(uds=str(self.bao.socket), verify=NO_TLS)
        with httpx.Client(transport=transport, base_url="http://localhost") as http:
            entry = {"role_id": "looker", "secret_id": "the-lookers-secret"}
            token = http.post("/v1/auth/approle/login", json=entry).json()["auth"]["client_token"]
            answer = http.request(method, f"/v1/{path}", json=body, headers={"X-Vault-Token": token})
        said: dict[str, Any] = answer.json()
        return said


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Settings and servers for all tests here."""
    folder, nodes = tmp_path_factory.mktemp("accounts"), tmp_path_factory.mktemp("nodes")
    assert ostiary("init", str(folder)).returncode == 0
    looker = [
        Request("looker-policy", "sys/policies/acl/looker", {"policy": _READER}),
        Request("looker", "auth/approle/role/looker", {"token_policies": ["looker"]}),
        Request("looker-id", "auth/approle/role/looker/role-id", {"role_id": "looker"}),
        Request("looker-key", "auth/approle/role/looker/custom-secret-id", {"secret_id": "the-lookers-secret"}),
    ]
    with (
        running(nodes, "accounts.mjs", "alone") as hub,
        openbao([*vault_accounts.requests(["hub"], _ENTRY), *looker]) as bao,
        short_folder("ostiary-relay-") as between,
        relaying(between / "bao.sock", bao.socket) as relay,
    ):
        (folder / "tools.toml").write_text(_CATALOGUE)
        settings = _SETTINGS.replace("@VAULT@", f"unix://{relay.path}").replace("@HUB@", hub.url)
        (folder / "gateway.toml").write_text(settings)
        yield Place(folder, hub, bao, relay)


@pytest.fixture(scope="module")
def door(place: Place) -> Iterator[Gateway]:
    """The gateway."""
    with serving(place.folder, **_ENVIRONMENT) as found:
        yield found


def browse(url: str, account: str) -> httpx.Response:
    """What a person does in a browser: log in as ``account``, consent, go where they are sent."""
    with httpx.Client(follow_redirects=True, verify=NO_TLS, timeout=30) as browser:
        page = browser.get(url)
        for _ in range(6):
            action = re.search(r'<form[^>]*action="([^"]*)"', page.text)
            if action is None:
                break
            fields = dict(re.findall(r'name="(\w+)"[^>]*value="([^"]*)"', page.text))
            fields |= {"login": account, "password": "x"} if 'name="login"' in page.text else {}
            page = browser.post(urljoin(str(page.url), html.unescape(action[1])), data=fields)
    return page


@contextmanager
def connecting(door: Gateway, user: str) -> Iterator["subprocess.Popen[str]"]:
    """``ostiary connect hub`` of ``user``."""
    environment = {**os.environ, "OSTIARY_URL": door.url, "OSTIARY_TOKEN": door.token(user, scopes=["tools", "runs"])}
    words = [*OSTIARY, "connect", "hub", "--json"]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        yield process


def connect(door: Gateway, user: str, account: str) -> dict[str, Any]:
    """``user`` connects ``account`` by the command, to its end."""
    with connecting(door, user) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        where = re.search(r"Open (\S+)", line)
        assert where is not None, line + process.stderr.read()
        assert "close this window" in browse(where[1], account).text
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    return said


def who(door: Gateway, user: str) -> httpx.Response:
    """A call of the agent for ``user``."""
    return door.call(door.token(user, agent=_AGENT), "hub.me")


@pytest.mark.requirement("CRED-1")
def test_a_call_uses_the_account_of_the_person_it_is_made_for(place: Place, door: Gateway) -> None:
    """Connected once by each; asked with the template's scope only; revoked after the call; two persons never mixed."""
    before = who(door, "dora")
    assert (before.status_code, before.json()["type"]) == (403, "urn:ostiary:problem:connection_required")
    assert "`ostiary connect hub`" in before.json()["detail"]
    assert types(door.records(call_id=before.json()["call_id"]))[-1] == "tool.not_sent"
    assert place.asked() == []
    for user, account in (("dora", "dora-at-hub"), ("emil", "emil-at-hub")):
        assert connect(door, user, account)["state"] == "open"
    with ThreadPoolExecutor(8) as pool:
        users = ["dora", "emil"] * 8
        for user, answer in zip(users, pool.map(lambda one: who(door, one), users), strict=True):
            assert answer.status_code == 200, answer.text
            assert answer.json()["result"]["structuredContent"]["sub"] == f"{user}-at-hub"
    asked = place.asked()
    minted = [one for one in asked if one["did"] == "issued" and one["scope"] == "openid"]
    assert len(minted) == 16
    assert not [one for one in asked if one["did"] in {"refused", "grant revoked"}]
    until(lambda: len([one for one in place.asked() if one["did"] == "revoked"]) == 18)  # two of connecting
    records = door.records(call_id=answer.json()["call_id"])
    leased = next(one["body"] for one in records if one["type"] == "credential.leased")
    assert (leased["kind"], leased["provider"], leased["role"], leased["scopes"]) == (
        "access",
        "oauth_user",
        "hub",
        ["openid"],
    )
    assert [one["body"]["cause"] for one in records if one["type"] == "credential.revoked"] == ["ended"]
    opened = door.records(type="connection.opened")
    assert [one["body"]["connection"] for one in opened] == ["hub", "hub"]
    assert len({one["actor"]["user"] for one in opened}) == 2


@pytest.mark.requirement("CRED-3")
def test_no_refresh_token_is_anywhere_but_in_the_vault(place: Place, door: Gateway) -> None:
    """In none of the gateway's files, words, records or listings."""
    connect(door, "dora", "dora-at-hub")
    assert who(door, "dora").status_code == 200
    kept = place.kept()
    said = json.dumps([door.records(), door.ask("lease", "list")]) + door.words() + door.http.get("/metrics").text
    files = content(place.folder)
    for secret in [one["refresh_token"] for one in kept] + ["the-clients-own-s3cret"]:
        assert len(secret) > 20
        for spelling in (secret, secret[::-1], secret.encode().hex()):
            assert spelling not in said
            assert spelling.encode() not in files


def test_a_secret_laid_into_another_persons_place_is_not_used(place: Place, door: Gateway) -> None:
    """The vault's own administrator may copy: who calls for Fritz does not get Dora's account by it."""
    connect(door, "dora", "dora-at-hub")
    connect(door, "fritz", "fritz-at-hub")
    assert who(door, "fritz").status_code == 200
    dora = next(one for one in place.kept() if one["owner"] == mark("dora"))
    place.put(mark("fritz"), dora)
    asked = len(place.asked())
    answer = who(door, "fritz")
    assert answer.status_code == 503, answer.text
    assert len(place.asked()) == asked


def mark(user: str) -> str:
    """Where connections of the local issuer's ``user`` are kept."""
    parts = (b"urn:ostiary:local", user.encode())
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hexdigest()


def test_two_gateways_at_a_time_never_use_a_refresh_token_twice(place: Place, door: Gateway, tmp_path: Path) -> None:
    """The service takes a second use for theft: all calls through both go well, and it complains of none."""
    connect(door, "gerda", "gerda-at-hub")
    second = tmp_path / "second"
    assert ostiary("init", str(second)).returncode == 0
    for name in ("tools.toml", "gateway.toml"):
        (second / name).write_text((place.folder / name).read_text())
    with serving(second, **_ENVIRONMENT) as other, ThreadPoolExecutor(8) as pool:
        calls = [door, other] * 8
        for answer in pool.map(lambda one: who(one, "gerda"), calls):
            assert answer.status_code == 200, answer.text
            assert answer.json()["result"]["structuredContent"]["sub"] == "gerda-at-hub"
    assert not [one for one in place.asked() if one["did"] in {"refused", "grant revoked"}]


def test_disconnecting_revokes_and_erases(place: Place, door: Gateway) -> None:
    """The next call is told to connect; the vault has nothing, the service has revoked the grant, the log says so."""
    connect(door, "hanna", "hanna-at-hub")
    assert who(door, "hanna").status_code == 200
    token = door.token("hanna", scopes=["tools", "runs"])
    assert door.ask("connect", token=token)["connections"][0]["state"] == "open"
    assert door.ask("connect", "hub", "--end", token=token) == {"revoked": True}
    assert door.ask("connect", token=token)["connections"] == [{"name": "hub", "state": "none", "scopes": []}]
    assert mark("hanna") not in [one["owner"] for one in place.kept()]
    assert place.asked()[-1] == {"did": "grant revoked"}
    assert who(door, "hanna").json()["type"].endswith("connection_required")
    asked, done = door.records(type="connection.closing")[-1], door.records(type="connection.closed")[-1]
    assert (asked["body"], done["body"]) == ({"connection": "hub"}, {"cause": "asked", "connection": "hub"})
    assert asked["actor"] == done["actor"]
    assert door.ask("connect", "hub", "--end", token=token, code=1)["status"] == 404


def test_a_connection_the_service_refuses_is_broken_until_it_is_made_anew(place: Place, door: Gateway) -> None:
    """The person took it back at the service: one refusal, and no call tries the token again."""
    connect(door, "ida", "ida-at-hub")
    kept = next(one for one in place.kept() if one["owner"] == mark("ida"))
    gone = {"token": kept["refresh_token"], "token_type_hint": "refresh_token"}
    auth = ("ostiary", "the-clients-own-s3cret")
    assert httpx.post(f"{place.hub.url}/token/revocation", data=gone, auth=auth, verify=NO_TLS).status_code == 200
    for _ in range(2):
        answer = who(door, "ida")
        assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (403, "connection_required")
    assert len([one for one in place.asked() if one["did"] == "refused"]) == 1
    closed = door.records(type="connection.closed")[-1]
    assert (closed["body"]["cause"], closed["call_id"] is not None) == ("refused", True)
    assert next(one for one in place.kept() if one["owner"] == mark("ida"))["refresh_token"] is None
    assert connect(door, "ida", "ida-at-hub")["state"] == "open"
    assert who(door, "ida").status_code == 200


def test_a_vault_that_is_gone_keeps_the_call_from_being_made(place: Place, door: Gateway) -> None:
    """503; nobody asked the service for a token; the same call goes well when the vault is back."""
    connect(door, "jan", "jan-at-hub")
    asked = len(place.asked())
    place.relay.cut = b"secret/data/ostiary"
    assert who(door, "jan").status_code == 503
    place.relay.cut = None
    assert len(place.asked()) == asked
    until(lambda: who(door, "jan").status_code == 200)


def test_who_is_no_person_connects_nothing(door: Gateway) -> None:
    """Neither the operator by the admin socket, nor an agent, nor a run, nor without a verifier of one's own."""
    wish = {
        "code_challenge": "A" * 43,
        "state": "s" * 43,
        "redirect_uri": "http://127.0.0.1:7/callback/hub",
    }
    assert door.http.post("/v1/connections/hub/page", json=wish).status_code == 403
    for token in (door.token("dora", agent=_AGENT), door.run(_AGENT)[1]):
        with door.client(token) as agent:
            assert agent.post("/v1/connections/hub/page", json=wish).status_code == 403
    with door.client(door.token("dora")) as person:
        odds = (
            "https://evil.test",
            "http://127.0.0.1:7@evil.test",
            "http://127.0.0.1/x",
            "http://127.0.0.1:7/callback",
        )
        for odd in (
            *(f"{one}/callback/hub" for one in odds),
            "http://127.0.0.1:7/callback",
            "http://127.0.0.1:7/callback/other",
        ):
            assert person.post("/v1/connections/hub/page", json=wish | {"redirect_uri": odd}).status_code == 400
        none = wish | {"redirect_uri": "http://127.0.0.1:7/callback/none"}
        assert person.post("/v1/connections/none/page", json=none).status_code == 404
        page = person.post("/v1/connections/hub/page", json=wish).json()["url"]
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(page).query))
        assert (query["code_challenge_method"], query["scope"]) == ("S256", "offline_access repo:read openid")
        given = {"code": "stolen", "code_verifier": "v" * 43, "redirect_uri": wish["redirect_uri"]}
        # A code that came to another service's place is not sent to this one.
        mixed = given | {"redirect_uri": none["redirect_uri"]}
        assert person.post("/v1/connections/hub/open", json=mixed).status_code == 400
        assert person.post("/v1/connections/hub/open", json=given).status_code == 403


def test_check_tries_service_and_vault_without_anybodys_account(place: Place, tmp_path: Path) -> None:
    """And names the line of the policy that is missing, or the place that is wrong."""
    assert ostiary("init", str(tmp_path)).returncode == 0
    (tmp_path / "tools.toml").write_text(_CATALOGUE)
    config, text = tmp_path / "gateway.toml", (place.folder / "gateway.toml").read_text()

    def checked(old: str = "", new: str = "") -> tuple[int, str]:
        assert old in text
        config.write_text(text.replace(old, new))
        done = ostiary("check", "--config", str(config), **_ENVIRONMENT)
        return done.returncode, done.stdout

    code, said = checked()
    assert code == 0, said
    assert "each person connects an account of their own" in said
    own = 'client_id = "ostiary"'
    wrongs = {
        ('token_role = "hub-accounts"', 'token_role = "nobody"'): 'path "auth/token/create/nobody"',
        (own, f'{own}\nmount = "other"'): 'path "other/data/ostiary/connections/hub/+"',
        (f'issuer = "{place.hub.url}"', 'issuer = "http://127.0.0.1:1"'): "the service cannot be reached",
    }
    for (old, new), words in wrongs.items():
        code, said = checked(old, new)
        assert code == 1, said
        assert words in said

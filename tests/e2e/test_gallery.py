"""Packages of the gallery before real tools: reached within bounds, never outside of them, and people are asked."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.house import SECRETS, Api, api_server
from tests.gateways import Gateway, ostiary, serving, until

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]
region = "eu"

[listen]
port = 0

[policy]
deadline_ms = 1000
bundles = ["policies"]

[approvals]
hold_s = 0.2

[upstreams.infra]
kind = "http"
origin = "{api}"
credential = "api"
allow_networks = ["127.0.0.0/8"]

[upstreams.iam]
kind = "sql"
database = "iam.sqlite"

[credentials.api]
prefix = "Bearer "
env = "API_KEY"

[policy.data.gateway.scope.groups.desk]
allow = ["infra.*", "iam.*"]

[policy.data.gateway.scope.agents."*"]
allow = ["infra.*", "iam.*"]
"""
CATALOGUE = """\

[[tool]]
server = "infra"
name = "scale"
effect = "write"
description = "Scale something."
[tool.input_schema]
type = "object"
required = ["what", "environment"]
additionalProperties = false
properties.what = { type = "string" }
properties.environment = { type = "string" }
properties.count = { type = "integer" }
properties.ticket = { type = "string" }
[tool.http]
method = "POST"
path = "/tools/things"
body = "rest"

[[tool]]
server = "iam"
name = "grant"
effect = "write"
description = "Give somebody a role."
[tool.input_schema]
type = "object"
required = ["user", "role", "days"]
additionalProperties = false
properties.user = { type = "string" }
properties.role = { type = "string" }
properties.days = { type = "integer" }
[tool.sql]
statement = "INSERT INTO grants (user, role, days) VALUES (:user, :role, :days)"
parameters = ["user", "role", "days"]
mode = "write"

[[tool]]
server = "iam"
name = "find"
effect = "read"
description = "The roles of somebody."
input_schema = { type = "object", required = ["user"], properties = { user = { type = "string" } }, \
additionalProperties = false }
[tool.sql]
statement = "SELECT role, days FROM grants WHERE user = :user"
parameters = ["user"]

[[tool]]
server = "iam"
name = "revoke"
effect = "write"
description = "Take all roles from somebody."
input_schema = { type = "object", required = ["user"], properties = { user = { type = "string" } }, \
additionalProperties = false }
[tool.sql]
statement = "DELETE FROM grants WHERE user = :user"
parameters = ["user"]
mode = "write"
"""
# The other packages are in force with the settings that are copied along.
EVIDENCE = {"rules": {"revoking": {"tools": ["iam.revoke"], "needs": {"the roles were looked up": ["iam.find"]}}}}
DOUBT = {
    "tools": ["iam.revoke"],
    "effects": ["write"],
    "silent": "deny",
    "people": {},
    "deny_below": 50,
    "ask_below": 50,
    "ask_above_risk": 90,
    "deny_above_risk": 90,
}


@dataclass(frozen=True)
class Site:
    """A gateway with four packages of the gallery, and what stands behind it."""

    gateway: Gateway
    api: Api
    key: str

    def rows(self, user: str) -> list[tuple[Any, ...]]:
        """What the database says of a user, read past the gateway."""
        with contextlib.closing(sqlite3.connect(self.gateway.folder / "iam.sqlite")) as database:
            return database.execute("SELECT role, days FROM grants WHERE user = ?", (user,)).fetchall()

    def post(self, token: str, tool: str, body: dict[str, Any]) -> httpx.Response:
        """A call with whatever stands beside its arguments."""
        with self.gateway.client(token) as client:
            return client.post(f"/v1/tools/{tool}/call", json=body)

    def approved(self, token: str, tool: str, arguments: dict[str, Any], answer: httpx.Response) -> httpx.Response:
        """What became of a parked call once Vera has signed it."""
        assert answer.status_code == 202, answer.text
        self.gateway.ask("approve", answer.json()["approval_id"], "--yes", "--key", self.key)
        (done,) = until(lambda: [one for one in (self.gateway.call(token, tool, arguments),) if one.status_code == 200])
        return done


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One gateway for all tests of this file."""
    folder = tmp_path_factory.mktemp("gallery")
    for name in ("infrastructure", "access", "evidence", "confidence"):
        assert ostiary("policy", "new", name, str(folder / "policies")).returncode == 0
    for name, settings in {"evidence": EVIDENCE, "confidence": DOUBT}.items():
        (folder / "policies" / "house" / name / "data.json").write_text(json.dumps(settings), "utf-8")
    with contextlib.closing(sqlite3.connect(folder / "iam.sqlite")) as database, database:
        database.execute("CREATE TABLE grants (user TEXT, role TEXT, days INT)")
    (folder / "catalogue.toml").write_text(CATALOGUE, "utf-8")
    with api_server() as api:
        (folder / "gateway.toml").write_text(CONFIG.format(api=api.origin), "utf-8")
        with serving(folder, **SECRETS) as gateway:
            key = str(folder / "vera.pem")
            assert ostiary("reviewer", "keygen", "--key", key).returncode == 0
            roles = ("--role", "operations", "--role", "owner")
            gateway.ask("reviewer", "enrol", "--person", "vera", "--key", key, *roles)
            yield Site(gateway, api, key)


def reasons(answer: httpx.Response) -> list[str]:
    """Ids of the reasons of a denial."""
    assert answer.status_code == 403, answer.text
    return [reason["id"] for reason in answer.json()["reasons"]]


def test_infrastructure_change_before_an_http_api(site: Site) -> None:
    """Staging goes alone; production without ticket or for too many is refused; within bounds a person signs it."""
    _, token = site.gateway.run("ops-agent")
    assert site.gateway.call(token, "infra.scale", {"what": "s1", "environment": "staging", "count": 5}).is_success
    assert [line["body"]["what"] for line in site.api.journal("s1")] == ["s1"]
    change = {"what": "p1", "environment": "production", "count": 3, "ticket": "CHG-42"}
    refused: list[tuple[dict[str, Any], str]] = [
        ({"environment": "prod"}, "infrastructure.environment"),
        ({"count": 4}, "infrastructure.most"),
        ({"ticket": "later"}, "infrastructure.ticket"),
    ]
    for other, reason in refused:
        assert reasons(site.gateway.call(token, "infra.scale", change | other)) == [reason]
    waiting = site.gateway.call(token, "infra.scale", change)
    assert site.api.journal("p1") == []
    assert site.approved(token, "infra.scale", change, waiting).json()["replayed"]
    assert [line["body"] for line in site.api.journal("p1")] == [change]


def test_access_change_before_a_database(site: Site) -> None:
    """A small role goes alone; one's own, an unlisted one or too long is refused; editing needs its owner's word."""
    _, token = site.gateway.run("helpdesk")
    assert site.gateway.call(token, "iam.grant", {"user": "ben", "role": "reader", "days": 90}).is_success
    assert site.rows("ben") == [("reader", 90)]
    refused: list[tuple[dict[str, Any], str]] = [
        ({"user": "Dora"}, "access.own"),
        ({"role": "owner"}, "access.role"),
        ({"days": 31}, "access.days"),
        ({"user": "cаrl"}, "access.user"),  # noqa: RUF001 - the second letter is Cyrillic
    ]
    grant = {"user": "carl", "role": "editor", "days": 30}
    for other, reason in refused:
        assert reasons(site.gateway.call(token, "iam.grant", grant | other)) == [reason]
    waiting = site.gateway.call(token, "iam.grant", grant)
    assert site.rows("carl") == []
    assert site.approved(token, "iam.grant", grant, waiting).json()["replayed"]
    assert site.rows("carl") == [("editor", 30)]


def test_evidence_and_confidence_from_the_agents_mouth(site: Site) -> None:
    """A call is made only with an earlier one of its own run that succeeded, and by an agent that is sure of it."""
    _, token = site.gateway.run("helpdesk")
    _, other = site.gateway.run("helpdesk")
    assert site.gateway.call(token, "iam.grant", {"user": "eve", "role": "reader", "days": 1}).is_success
    found = site.gateway.call(token, "iam.find", {"user": "eve"}).json()["call_id"]
    elsewhere = site.gateway.call(other, "iam.find", {"user": "eve"}).json()["call_id"]
    arguments, sure = {"arguments": {"user": "eve"}}, {"risk": {"confidence_pct": 50}}
    no_proof: list[dict[str, Any]] = [{}, {"evidence": []}, {"evidence": [elsewhere]}]
    for named in no_proof:
        assert reasons(site.post(token, "iam.revoke", arguments | sure | named)) == ["evidence.missing"]
    proof = {"evidence": [elsewhere, found]}
    assert reasons(site.post(token, "iam.revoke", arguments | proof)) == ["confidence.silent"]
    doubt = {"risk": {"confidence_pct": 49}}
    assert "confidence.too_low" in reasons(site.post(token, "iam.revoke", arguments | proof | doubt))
    assert site.rows("eve") == [("reader", 1)]
    words = ("tool", "call", "iam.revoke", "--arg", "user=eve", "--confidence", "50", "--evidence")
    assert "result" in site.gateway.ask(*words, found, token=token)
    assert site.rows("eve") == []

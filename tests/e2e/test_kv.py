"""Values of kv end to end: a gateway process before an HTTP API that checks the key a real OpenBao keeps."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.servers import vault_kv
from deploy.servers.openbao import OpenBao, openbao
from deploy.servers.process import short_folder
from deploy.servers.vault_kv import Secret
from deploy.servers.vault_setup import Entry
from tests.e2e.house import API_KEY, Api, api_server
from tests.fakes.relay import Relay, relaying
from tests.gateways import Gateway, ostiary, serving, types, until
from tests.ledgers import content
from tests.servers import PERIOD_S

_AGENT = "ap-agent"
_ENTRY = Entry("ostiary-gateway", "the-gateways-own-secret", PERIOD_S)
_ENVIRONMENT = {"KV_VAULT_SECRET_ID": _ENTRY.secret_id}
_SECRET = Secret("api-key", "erp/api", {"key": API_KEY})
_CATALOGUE = """
[[tool]]
server = "api"
name = "leak"
effect = "read"
description = "A careless answer."
input_schema = { type = "object", additionalProperties = false }
[tool.http]
method = "GET"
path = "/tools/leak"
"""
_SETTINGS = """
state = "state"
catalogue = ["tools.toml"]
[listen]
port = 0
[policy]
deadline_ms = 1000 # the machine of a test is busy
[policy.data.gateway.scope.agents.ap-agent]
allow = ["api.*"]
[policy.data.gateway.scope.users.dora]
allow = ["api.*"]
[vault]
address = "@VAULT@"
role_id = "ostiary-gateway"
secret_id = { env = "KV_VAULT_SECRET_ID" }
[leases.api-key]
provider = "kv"
path = "erp/api"
member = "key"
token_role = "api-key"
header = "Authorization"
prefix = "Bearer "
[upstreams.api]
kind = "http"
origin = "@ORIGIN@"
allow_networks = ["127.0.0.0/8"]
credential = "api-key"
"""


@dataclass(frozen=True)
class Place:
    """A gateway's folder, and the servers it is to stand before."""

    folder: Path
    bao: OpenBao
    api: Api
    relay: Relay

    @property
    def config(self) -> Path:
        """The settings."""
        return self.folder / "gateway.toml"

    def check(self, old: str = "", new: str = "") -> tuple[int, str]:
        """Exit code and words of ``ostiary check`` on the settings with ``old`` replaced."""
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))
        done = ostiary("check", "--config", str(self.config), **_ENVIRONMENT)
        self.config.write_text(text)
        assert API_KEY not in done.stdout + done.stderr
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Settings and servers for all tests here."""
    folder = tmp_path_factory.mktemp("kv")
    assert ostiary("init", str(folder)).returncode == 0
    with (
        openbao(vault_kv.requests([_SECRET], _ENTRY)) as bao,
        api_server() as api,
        short_folder("ostiary-relay-") as between,
        relaying(between / "bao.sock", bao.socket) as relay,
    ):
        (folder / "tools.toml").write_text(_CATALOGUE)
        settings = _SETTINGS.replace("@VAULT@", f"unix://{relay.path}").replace("@ORIGIN@", api.origin)
        (folder / "gateway.toml").write_text(settings)
        yield Place(folder, bao, api, relay)


@contextmanager
def gateway(place: Place) -> Iterator[Gateway]:
    """The gateway."""
    with serving(place.folder, **_ENVIRONMENT) as found:
        yield found


@pytest.mark.requirement("CRED-3")
def test_the_upstream_gets_the_key_and_nobody_else_does(place: Place) -> None:
    """An upstream that echoes it in three spellings: redacted; log, listings, metrics, words and files have it not."""
    with gateway(place) as door:
        answer = door.call(door.token(agent=_AGENT), "api.leak")
        assert answer.status_code == 200, answer.text
        assert answer.json()["result"]["structuredContent"]["knew_the_key"] is True
        records = door.records(call_id=answer.json()["call_id"])
        assert types(records)[:4] == ["decision", "tool.requested", "credential.leased", "credential.revoked"]
        bodies = {record["type"]: record["body"] for record in records}
        leased, revoked = bodies["credential.leased"], bodies["credential.revoked"]
        assert (leased["kind"], leased["provider"], leased["role"]) == ("read", "kv", "erp/api")
        assert (revoked["kind"], revoked["cause"], revoked["mark"]) == ("read", "ended", leased["mark"])
        assert leased["request"] in place.bao.audit_log.read_text()
        until(lambda: [one["body"]["kind"] for one in door.records(type="credential.revoked")] == ["read", "token"])
        tokens = [one["body"] for one in door.records(type="credential.leased") if one["body"]["kind"] == "token"]
        assert [one["mark"] for one in tokens] == [leased["token"]]
        listed = json.dumps(door.ask("lease", "list"))
        said = [answer.text, listed, json.dumps(door.records()), door.http.get("/metrics").text, door.words()]
    assert API_KEY.encode() in bytes(place.relay.answers)
    assert API_KEY.encode() not in content(place.folder)
    for spelling in (API_KEY, API_KEY.encode().hex(), API_KEY[::-1]):
        assert spelling not in "".join(said)
    done = ostiary("audit", "verify", "--state", str(place.folder / "state"))
    assert done.returncode == 0, done.stdout


def test_check_reads_it_once_and_names_what_is_wrong(place: Place) -> None:
    """The place, the member, the capability with the line of the policy, the token role; never the value."""
    code, said = place.check()
    assert code == 0, said
    assert "the value was read and its token ended; the secret itself is static" in said
    wrongs = {
        ('member = "key"', 'member = "pass"'): "secret/erp/api has no member 'pass'",
        ('path = "erp/api"', 'path = "erp/other"'): 'path "secret/data/erp/other" { capabilities = ["read"] }',
        ('provider = "kv"', 'provider = "kv"\nmount = "kv2"'): "or correct mount and path of [leases.api-key]",
        ('token_role = "api-key"', 'token_role = "nobody"'): 'path "auth/token/create/nobody"',
    }
    for (old, new), words in wrongs.items():
        code, said = place.check(old, new)
        assert code == 1, said
        assert words in said


def test_a_vault_that_is_gone_stops_the_call_before_it_is_made(place: Place) -> None:
    """503, nothing reached the upstream, and the next call works once the vault is back."""
    with gateway(place) as door:
        token = door.token(agent=_AGENT)
        before = len(place.api.journal("leak"))
        place.relay.down = True
        assert door.call(token, "api.leak").status_code == 503
        assert len(place.api.journal("leak")) == before
        place.relay.down = False
        until(lambda: door.call(token, "api.leak").status_code == 200)

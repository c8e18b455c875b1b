"""Keys replaced while agents call, at a real gateway, OpenBao and PostgreSQL: no call is lost, a kill is survived."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.servers.erp import Erp, erp
from gateway.core import vault_policy
from gateway.core.vault_plan import Needs
from gateway.core.vault_policy import Duties
from tests.fakes.leases import READ, WRITE
from tests.gateways import NO_TLS, ostiary, serving, until
from tests.rotating import AGENT, SETTINGS, calling, requests

DUTIES = Duties(
    vault_policy.Transit("transit", "payloads"),
    rewraps=True,
    secret_id="approle/role/ostiary",
    roots=("database/ostiary",),
)
NEEDS = Needs((READ, WRITE), DUTIES, role_id="ostiary-gateway", period_s=30)
_SETTINGS = f"""{SETTINGS}
[audit]
vault_key = "payloads"
[rotation]
secret_id_h = 24
payload_key_h = 24
databases = ["database/ostiary"]
"""
KINDS = ("secret_id", "database", "log_key", "payload_key", "issuer_key")


@pytest.fixture(scope="module")
def servers() -> Iterator[Erp]:
    """Both servers."""
    with erp(30, requests(NEEDS)) as both:
        yield both


def furnish(folder: Path, servers: Erp) -> None:
    """A gateway whose secret id is in a file."""
    assert ostiary("init", str(folder)).returncode == 0
    text = _SETTINGS + servers.gateway_toml().replace('env = "ERP_VAULT_SECRET_ID"', 'file = "secret-id"')
    (folder / "gateway.toml").write_text(text)
    with os.fdopen(os.open(folder / "secret-id", os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        # Its own: the one that the tests share is destroyed by the first rotation.
        file.write(own_secret_id(servers))


def own_secret_id(servers: Erp) -> str:
    """A new secret id, got with the shared one's rights."""
    role = {"role_id": "ostiary-gateway", "secret_id": servers.entry.secret_id}
    token = vault(servers, "auth/approle/login", role).json()["auth"]["client_token"]
    headers = {"X-Vault-Token": token, "X-Vault-Wrap-TTL": "60s"}
    wrapped = vault(servers, "auth/approle/role/ostiary/secret-id", {}, headers).json()["wrap_info"]["token"]
    found = vault(servers, "sys/wrapping/unwrap", {}, {"X-Vault-Token": wrapped}).json()
    return str(found["data"]["secret_id"])


def vault(servers: Erp, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> httpx.Response:
    """One request to the vault."""
    transport = httpx.HTTPTransport(uds=str(servers.openbao.socket), verify=NO_TLS)
    with httpx.Client(transport=transport, base_url="http://localhost/v1/") as http:
        return http.post(path, json=body, headers=headers or {})


def lets_in(servers: Erp, secret_id: str) -> bool:
    """Whether the vault lets the gateway in by that secret id."""
    body = {"role_id": "ostiary-gateway", "secret_id": secret_id}
    return vault(servers, "auth/approle/login", body).status_code == 200


@pytest.fixture
def folder(servers: Erp, tmp_path: Path) -> Path:
    """Of a gateway before the servers."""
    furnish(tmp_path, servers)
    return tmp_path


def test_no_call_is_lost_while_every_key_is_replaced(folder: Path, servers: Erp) -> None:
    """Each kind twice, under constant calls: all succeed; the old secret id is dead, old tokens are good."""
    first = (folder / "secret-id").read_text()
    with serving(folder) as gateway:
        old = gateway.token(agent=AGENT)
        with calling(gateway, old) as caller:
            for kind in KINDS:
                found = gateway.ask("rotate", kind)["keys"]
                assert [(one["kind"], one.get("failed")) for one in found] == [(kind, None)]
                caller.go_on()
            for kind in ("secret_id", "database", "payload_key", "issuer_key"):
                gateway.ask("rotate", kind)
            assert gateway.call(gateway.token(agent=AGENT), "erp.find_order", {"number": "PO-1001"}).status_code == 200
        assert [one for one in caller.seen if one[0] != 200] == []
        second = (folder / "secret-id").read_text()
        assert (lets_in(servers, first), lets_in(servers, second)) == (False, True)
        assert sorted(path.name for path in folder.glob("secret-id*")) == ["secret-id"]
        done = [record["body"]["kind"] for record in gateway.records(type="rotation.done")]
        assert sorted(done) == sorted([*KINDS, "secret_id", "database", "payload_key", "issuer_key"])
        assert gateway.records(type="rotation.failed") == []
        page = gateway.http.get("/metrics").text
        assert 'ostiary_key_age_seconds{kind="database",subject="database/ostiary"}' in page
        said = json.dumps(gateway.records()) + page + gateway.words()
        assert first not in said
        assert second not in said
        assert gateway.ask("rotate", "log_key", code=1)["status"] == 409  # the last one is still in its overlap
    with serving(folder) as gateway:
        # What was replaced is what the next process has: tokens of both former issuer's keys, the payloads' key.
        assert gateway.call(old, "erp.find_order", {"number": "PO-1001"}).status_code == 200
        assert len(gateway.ask("rotate")["keys"]) == len(KINDS)
    assert ostiary("audit", "verify", "--state", str(folder / "state")).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_gateway_killed_in_the_middle_of_a_rotation_starts_and_goes_on(folder: Path, servers: Erp, kind: str) -> None:
    """Wherever it was: the next one starts, is let in, takes the old token, and replaces the key."""
    # The secret id takes several steps in files and at the vault; the others are one record or one request.
    for delay_s in (0.001, 0.01, 0.03) if kind == "secret_id" else (0.01,):
        with serving(folder) as gateway:
            token = gateway.token(agent=AGENT)
            killer = threading.Timer(delay_s, gateway.process.kill)
            killer.start()
            with suppress(httpx.HTTPError):  # it may be killed before it can answer
                gateway.http.post(f"/v1/rotations/{kind}", json={})
            killer.join()
            gateway.process.wait()
        with serving(folder) as gateway:
            answer = gateway.call(token, "erp.find_order", {"number": "PO-1001"})
            assert answer.status_code == 200, answer.text
            if kind != "log_key":
                assert gateway.ask("rotate", kind)["keys"][0].get("failed") is None
            until(lambda: [path.name for path in folder.glob("secret-id*")] == ["secret-id"])
    assert lets_in(servers, (folder / "secret-id").read_text())
    assert ostiary("audit", "verify", "--state", str(folder / "state")).returncode == 0


def test_the_payloads_key_in_its_file(tmp_path: Path) -> None:
    """No vault at all: replaced while runs begin, killed on the way, ended by the next start; every payload opens."""
    assert ostiary("init", str(tmp_path)).returncode == 0
    (tmp_path / "gateway.toml").write_text('state = "state"\n[listen]\nport = 0\n[rotation]\npayload_key_h = 2160\n')
    keys = tmp_path / "state" / "keys"
    with serving(tmp_path) as gateway:
        first = (keys / "payload.kek").read_bytes()
        for _ in range(20):
            gateway.run(AGENT)
        assert gateway.ask("rotate", "payload_key")["keys"][0].get("failed") is None
        second = (keys / "payload.kek").read_bytes()
        assert second != first
        killer = threading.Timer(0.01, gateway.process.kill)
        killer.start()
        with suppress(httpx.HTTPError):  # it may be killed before it can answer
            gateway.http.post("/v1/rotations/payload_key", json={})
        killer.join()
        gateway.process.wait()
    with serving(tmp_path) as gateway:
        until(lambda: not (keys / "payload.kek.next").exists())
        gateway.run(AGENT)
        assert gateway.ask("rotate", "payload_key")["keys"][0].get("failed") is None
    done = ostiary("audit", "verify", "--state", str(tmp_path / "state"), "--payloads", "--json")
    said = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, said["findings"]) == (0, [])
    assert [path.name for path in keys.glob("payload*")] == ["payload.kek"]


def test_a_rotation_that_fails_is_told_and_changes_nothing(folder: Path, servers: Erp) -> None:
    """A connection that is not there: the command says so, the log has it, and calls go on."""
    config = folder / "gateway.toml"
    config.write_text(config.read_text().replace('"database/ostiary"', '"database/none"'))
    with serving(folder) as gateway:
        assert gateway.ask("rotate", "database", code=1)["status"] == 503
        (failed,) = gateway.records(type="rotation.failed")
        assert (failed["body"]["kind"], failed["body"]["cause"]) == ("database", "vault_denied")
        (standing,) = [one for one in gateway.ask("rotate")["keys"] if one["kind"] == "database"]
        assert standing["failed"] == "vault_denied"
        doctor = ostiary("doctor", "--state", str(gateway.state), "--json")
        found = {one["part"]: one["ok"] for one in json.loads(doctor.stdout.splitlines()[-1])["findings"]}
        assert (found["key database database/none"], found["key issuer_key"]) == (False, True)
        token = gateway.token(agent=AGENT)
        assert gateway.call(token, "erp.find_order", {"number": "PO-1001"}).status_code == 200

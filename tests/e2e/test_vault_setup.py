"""A vault set up from nothing as docs/vault.md says: the shipped configuration, the shipped commands, no root token."""

import json
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.servers.openbao import binary
from deploy.servers.process import Server, ServerError, running, short_folder
from tests.gateways import ROOT, ostiary
from tests.mutual_tls import own_certificate

_SECRET = "the-admins-own-secret-id"
_SETTINGS = """
state = "state"
[listen]
port = 0
[policy]
deadline_ms = 1000 # the machine of a test is busy
[audit]
vault_key = "payloads"
[rotation]
secret_id_h = 24
payload_key_h = 24
[vault]
address = "{url}"
role_id = "ostiary-gateway"
secret_id = {{ file = "secret-id" }}
ca_certificate = "club.pem"
[leases.api-key]
provider = "kv"
path = "erp/api"
member = "key"
token_role = "api-key"
header = "Authorization"
[upstreams.api]
kind = "http"
origin = "http://127.0.0.1:1"
allow_networks = ["127.0.0.0/8"]
credential = "api-key"
"""
# What an operator has besides: the secret itself, and who hands the gateway its first secret id.
_OWN = """
initialize "own" {{
  request "kv" {{
    operation = "update"
    path = "sys/mounts/secret"
    data = {{ type = "kv", options = {{ version = "2" }} }}
  }}
  request "secret" {{
    operation = "update"
    path = "secret/data/erp/api"
    data = {{ data = {{ key = "ak-real-5f2d9c81b7e3" }} }}
  }}
  request "introducer-policy" {{
    operation = "update"
    path = "sys/policies/acl/introducer"
    data = {{ policy = {{ eval_type = "string", eval_source = "file", path = "{introducer}" }} }}
  }}
  request "introducer" {{
    operation = "update"
    path = "auth/approle/role/introducer"
    data = {{ token_policies = ["introducer"], token_no_default_policy = true }}
  }}
  request "introducer-id" {{
    operation = "update"
    path = "auth/approle/role/introducer/role-id"
    data = {{ role_id = "introducer" }}
  }}
  request "introducer-secret" {{
    operation = "update"
    path = "auth/approle/role/introducer/custom-secret-id"
    data = {{ secret_id = "{secret}" }}
  }}
}}
"""


@dataclass(frozen=True)
class Site:
    """A running vault and the configuration it is for."""

    folder: Path
    http: httpx.Client
    audit: Path
    admin: str

    def vault(self, *words: str, code: int = 0) -> Any:
        """The JSON of ``ostiary vault WORDS``."""
        where = ["--config", str(self.folder / "gateway.toml")]
        done = ostiary("vault", *words, *where, "--json", OSTIARY_VAULT_TOKEN=self.admin)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def token(self, role: str) -> str:
        """A token of an AppRole."""
        return str(login(self.http, role).json()["auth"]["client_token"])

    def write(self, path: str, token: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        """One request."""
        return self.http.post(path, json=body, headers={"X-Vault-Token": token, **headers})

    def rewrite(self, old: str, new: str) -> None:
        """Change the configuration."""
        config = self.folder / "gateway.toml"
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))


def free_port() -> int:
    """A port nobody listens at."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def printed(config: Path, which: str) -> str:
    """A policy as the command prints it, without any vault."""
    done = ostiary("vault", "policy", which, "--config", str(config))
    assert done.returncode == 0, done.stderr
    return done.stdout


def furnish(folder: Path, vault: Path) -> int:
    """Configuration of a gateway in ``folder``, and of its vault in ``vault``; the vault's port."""
    assert ostiary("init", str(folder)).returncode == 0
    port = free_port()
    (folder / "gateway.toml").write_text(_SETTINGS.format(url=f"https://127.0.0.1:{port}"))
    own_certificate(folder)
    (vault / "seal").write_text("5f" * 32)
    (vault / "data").mkdir()
    for name in ("admin", "introducer"):
        (vault / f"{name}.hcl").write_text(printed(folder / "gateway.toml", name))
    words = {
        "DATA": vault / "data",
        "HOST": "127.0.0.1",
        "PORT": port,
        "CLUSTER_PORT": free_port(),
        "TLS_CERTIFICATE": folder / "club.pem",
        "TLS_KEY": folder / "club-key.pem",
        "SEAL_KEY_ID": "2026-01",
        "SEAL_KEY": vault / "seal",
        "AUDIT_LOG": vault / "audit.log",
        "ADMIN_POLICY": vault / "admin.hcl",
    }
    text = (ROOT / "deploy" / "vault" / "openbao.hcl").read_text()
    for word, value in words.items():
        text = text.replace(f"@{word}@", str(value))
    (vault / "openbao.hcl").write_text(text + _OWN.format(introducer=vault / "introducer.hcl", secret=_SECRET))
    return port


@contextmanager
def opened(folder: Path) -> Iterator[Site]:
    """A vault after its first start."""
    folder.mkdir()
    with short_folder("ostiary-site-") as vault:
        port = furnish(folder, vault)
        command = [str(binary()), "server", f"-config={vault / 'openbao.hcl'}"]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(vault), "OSTIARY_ADMIN_SECRET_ID": _SECRET}
        trusted = ssl.create_default_context(cafile=str(folder / "club.pem"))
        with (
            running(Server("OpenBao", command, vault / "log", environment=environment)) as process,
            httpx.Client(base_url=f"https://127.0.0.1:{port}/v1/", verify=trusted, timeout=20) as http,
        ):
            process.wait_until(lambda: is_up(http), 60)
            admin = str(login(http, "ostiary-admin").json()["auth"]["client_token"])
            yield Site(folder, http, vault / "audit.log", admin)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """The vault after its first start, made again where it ended at once: nobody keeps a port that was free."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(opened(tmp_path / "first"))
        except ServerError as error:
            sys.stderr.write(f"again: {error}\n")
            found = stack.enter_context(opened(tmp_path / "again"))
        yield found


def login(http: httpx.Client, role: str) -> httpx.Response:
    """What an AppRole's secret id opens."""
    return http.post("auth/approle/login", json={"role_id": role, "secret_id": _SECRET})


def is_up(http: httpx.Client) -> bool:
    """Whether the vault answers as the active one."""
    try:
        return http.get("sys/health").status_code == 200
    except httpx.HTTPError:
        return False


def introduce(site: Site) -> None:
    """Hand the gateway its first secret id."""
    path = "auth/approle/role/ostiary/secret-id"
    wrapped = site.write(path, site.token("introducer"), {}, **{"X-Vault-Wrap-TTL": "60s"}).json()
    found = site.write("sys/wrapping/unwrap", wrapped["wrap_info"]["token"], {}).json()
    file = site.folder / "secret-id"
    file.touch(0o600)
    file.write_text(found["data"]["secret_id"])


def _gives_admin(entry: dict[str, Any]) -> bool:
    path = "auth/approle/role/ostiary-admin/custom-secret-id"
    return (entry["type"], entry["request"]["path"]) == ("response", path)


def test_one_command_sets_a_vault_up_and_says_what_differs(site: Site) -> None:
    """Nothing but its plan is written; then nothing differs; what drifts is shown, and never widened unasked."""
    before = site.vault("plan", code=1)
    created = {one["path"] for one in before["changes"]}
    assert {one["effect"] for one in before["changes"]} == {"create"}
    assert {"sys/policies/acl/ostiary-gateway", "auth/token/roles/api-key", "transit/keys/payloads"} <= created
    assert {"sys/quotas/rate-limit/ostiary-logins", "sys/policies/acl/ostiary-break-glass"} <= created
    done = site.vault("apply", "--yes")
    assert set(done["written"]) == created
    assert site.vault("plan") == {"changes": [], "problems": [], "held": len(created) + 2}
    assert site.vault("apply")["written"] == []
    assert login(site.http, "ostiary-admin").status_code == 400  # its secret id has let in once
    introduce(site)
    checked = ostiary("check", "--config", str(site.folder / "gateway.toml"), "--json")
    findings = json.loads(checked.stdout.splitlines()[-1])["findings"]
    bad = [one["part"] for one in findings if not one["ok"]]
    assert [part for part in bad if part not in {"upstream:api", "catalogue"}] == [], findings
    asked = [json.loads(line) for line in site.audit.read_text().splitlines()]
    (given,) = [one["response"]["data"] for one in asked if _gives_admin(one)]
    assert (given["secret_id_ttl"], given["secret_id_num_uses"]) == (3600, 1)
    first = next(at for at, line in enumerate(asked) if line["request"]["path"] == "auth/approle/login")
    # The first start carries its requests out with a token of its own that nobody gets to see, and ends it.
    assert not [one for one in asked[first:] if "root" in (one.get("auth", {}).get("policies") or ())]
    assert [one["request"]["path"] for one in asked[:first]][-1] == "auth/token/revoke-self"

    site.rewrite('token_role = "api-key"', 'token_role = "other"')
    refused = ostiary(
        "vault", "apply", "--yes", "--config", str(site.folder / "gateway.toml"),
        OSTIARY_VAULT_TOKEN=site.admin,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "ostiary vault policy admin" in refused.stderr

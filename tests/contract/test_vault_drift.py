"""What `ostiary vault` says of a real OpenBao that is not as planned: each kind of difference, and widening."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.servers import vault_kv, vault_setup
from deploy.servers.openbao import OpenBao, Request, openbao
from deploy.servers.vault_kv import Secret
from deploy.servers.vault_setup import Entry
from tests.gateways import NO_TLS, ostiary

_SECRET = "the-operators-own-secret"
_ALL = 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }'
_ENTRY = Entry("ostiary-gateway", "the-gateways-own-secret")
_SETTINGS = """
state = "state"
[vault]
address = "{address}"
role_id = "ostiary-gateway"
secret_id = {{ env = "NONE" }}
[leases.api-key]
provider = "kv"
path = "erp/api"
member = "key"
token_role = "api-key"
header = "Authorization"
"""
GATEWAY = "sys/policies/acl/ostiary-gateway"


@dataclass(frozen=True)
class Site:
    """A vault that is as planned, and an operator who may do anything there."""

    folder: Path
    http: httpx.Client

    def vault(self, *words: str, code: int) -> Any:
        """The JSON of ``ostiary vault WORDS``."""
        body = {"role_id": "operator", "secret_id": _SECRET}
        token = self.http.post("auth/approle/login", json=body).json()["auth"]["client_token"]
        where = ["--config", str(self.folder / "gateway.toml"), "--json"]
        done = ostiary("vault", *words, *where, OSTIARY_VAULT_TOKEN=token)
        assert done.returncode == code, done.stdout + done.stderr
        assert token not in done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def write(self, path: str, **body: Any) -> None:
        """Let something drift."""
        token = self.http.post("auth/approle/login", json={"role_id": "operator", "secret_id": _SECRET}).json()
        headers = {"X-Vault-Token": token["auth"]["client_token"]}
        assert self.http.post(path, json=body, headers=headers).status_code < 300


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """One vault for all tests here."""
    operator = {"token_policies": ["operator"]}
    more = [
        Request("operator-policy", "sys/policies/acl/operator", {"policy": _ALL}),
        Request("operator", "auth/approle/role/operator", operator),
        Request("operator-id", "auth/approle/role/operator/role-id", {"role_id": "operator"}),
        vault_setup.secret_id("operator", _SECRET),
        Request("database", "sys/mounts/database", {"type": "database"}),
        Request("pki", "sys/mounts/pki", {"type": "pki"}),
        Request("pki-role", "pki/roles/wide", {"allow_any_name": True}),
    ]
    with openbao([*vault_kv.requests([Secret("api-key", "erp/api", {"key": "x"})], _ENTRY), *more]) as found:
        yield found


@pytest.fixture
def site(bao: OpenBao, tmp_path: Path) -> Iterator[Site]:
    """It, and a configuration."""
    (tmp_path / "gateway.toml").write_text(_SETTINGS.format(address=bao.address))
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(bao.socket), verify=NO_TLS), base_url="http://localhost/v1/"
    ) as http:
        yield Site(tmp_path, http)


def rule(site: Site, path: str) -> str:
    """The policy at ``path`` as planned."""
    done = ostiary("vault", "policy", path, "--config", str(site.folder / "gateway.toml"))
    return done.stdout.rstrip("\n") + "\n"


def test_a_policy_that_came_to_allow_more_is_put_back(site: Site) -> None:
    """It is shown line by line, it is no widening to take it back, and then nothing differs."""
    assert site.vault("plan", code=0)["changes"] == []
    more = 'path "sys/mounts" {\n  capabilities = ["read"]\n}\n'
    site.write(GATEWAY, policy=rule(site, "gateway") + "\n" + more)
    (change,) = site.vault("plan", code=1)["changes"]
    assert (change["path"], change["effect"]) == (GATEWAY, "narrow")
    assert '-path "sys/mounts" {' in change["diff"]
    assert site.vault("apply", "--yes", code=0)["written"] == [GATEWAY]
    assert site.vault("plan", code=0)["changes"] == []


@pytest.mark.parametrize(
    "now",
    [
        'path "auth/token/revoke-self" {\n  capabilities = ["update"]\n}\n',
        'path "auth/token/*" { capabilities = ["update"] }',
        "",
    ],
)
def test_a_policy_that_allows_less_or_cannot_be_read_is_not_widened_unasked(site: Site, now: str) -> None:
    """Nothing is written, and what would come to be allowed is said; with --widen it is."""
    site.write(GATEWAY, policy=now or 'path "x" { capabilities = ["deny"] }')
    refused = site.vault("apply", "--yes", code=1)
    assert "nothing was written" in refused["error"]
    assert site.vault("plan", code=1)["changes"][0]["effect"] == "widen"
    assert site.vault("apply", "--yes", "--widen", code=0)["written"] == [GATEWAY]


@pytest.mark.parametrize(
    ("change", "effect"),
    [
        ({"token_period": "3600s"}, "narrow"),
        ({"token_period": "5s"}, "widen"),
        ({"token_period": "0s"}, "narrow"),
        ({"allowed_policies": "api-key,other"}, "narrow"),
        ({"allowed_policies": "other"}, "widen"),
        ({"allowed_policies_glob": "*"}, "narrow"),
        ({"allowed_entity_aliases": "an-administrator"}, "narrow"),
        ({"orphan": False}, "widen"),
    ],
)
def test_a_token_role_that_drifted_is_named_member_by_member(site: Site, change: dict[str, Any], effect: str) -> None:
    """Also powers that the plan has not: a glob of policies; what is not plainly less counts as more."""
    site.write("auth/token/roles/api-key", **change)
    (found,) = site.vault("plan", code=1)["changes"]
    assert (found["path"], found["effect"]) == ("auth/token/roles/api-key", effect)
    (name,) = change
    assert [line.split(" = ")[0] for line in found["diff"]] == [f"- {name}", f"+ {name}"]
    assert site.vault("apply", "--yes", "--widen", code=0)["written"] == ["auth/token/roles/api-key"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('path = "erp/api"', 'path = "erp/none"', "secret/ has no secret erp/none: bao kv put"),
        ('path = "erp/api"', 'mount = "database"\npath = "erp/api"', "sys/mounts/database"),
        (
            'provider = "kv"\npath = "erp/api"\nmember = "key"\ntoken_role = "api-key"\nheader = "Authorization"',
            'role = "erp"',
            "database/ has no role erp: bao write database/roles/erp",
        ),
        (
            'provider = "kv"\npath = "erp/api"\nmember = "key"\ntoken_role = "api-key"\nheader = "Authorization"',
            'provider = "pki"\nrole = "wide"\ncommon_name = "a.test"',
            "allow_any_name",
        ),
    ],
)
def test_what_is_the_operators_own_is_named_and_not_touched(site: Site, old: str, new: str, words: str) -> None:
    """A secret, a role, another engine at the mount, an authority's role that is too wide."""
    config = site.folder / "gateway.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))
    found = site.vault("plan", code=1)
    assert words in json.dumps(found)
    if "mounts" in words:
        assert "something else is there" in json.dumps(found)
        assert "nothing was written" in site.vault("apply", "--yes", code=1)["error"]


def test_two_templates_with_one_token_role_are_refused(site: Site) -> None:
    """Each could do what the other may; and no template may be named like the gateway's own policies."""
    config = site.folder / "gateway.toml"
    text = config.read_text()
    config.write_text(text + '[leases.other]\nrole = "erp"\ntoken_role = "api-key"\n')
    assert "two templates have the token role api-key" in json.dumps(site.vault("plan", code=2))
    config.write_text(text.replace('token_role = "api-key"', 'token_role = "ostiary-admin"'))
    assert "keeps for itself" in json.dumps(site.vault("plan", code=2))


def test_nobody_is_asked_by_a_machine_and_nothing_is_written_without_a_yes(site: Site) -> None:
    """--json without --yes is wrong usage; a person who says no changes nothing; a token that is not there is named."""
    site.write("auth/token/roles/api-key", token_period="3600s")
    site.vault("apply", code=2)
    assert len(site.vault("plan", code=1)["changes"]) == 1
    missing = ostiary("vault", "plan", "--config", str(site.folder / "gateway.toml"))
    assert missing.returncode == 2
    assert "OSTIARY_VAULT_TOKEN" in missing.stderr
    site.vault("apply", "--yes", code=0)

"""Templates that cannot work, at a real OpenBao: `ostiary check` names each before anything is served, with its fix."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.servers import vault_setup
from deploy.servers.erp import Erp, erp
from deploy.servers.openbao import Request
from gateway.core import vault_policy
from gateway.core.vault_policy import Duties
from tests.e2e.test_leases import furnish
from tests.fakes.leases import READ, WRITE
from tests.gateways import ostiary

_WIDE = "".join(f'path "{path}" {{ capabilities = ["read"] }}\n' for path in ("database/creds/*", "nowhere/creds/*"))
_RULES = vault_policy.gateway((READ, WRITE), Duties())
_WIDE_TOKENS = vault_policy.Rule("auth/token/create/wide", ("create", "update"))
_LACKING = {
    "no-revoke": tuple(rule for rule in _RULES if rule.path != "sys/leases/revoke"),
    "no-look": tuple(rule for rule in _RULES if rule.path != "sys/capabilities-self"),
    "too-much": (*_RULES, vault_policy.Rule("sys/mounts", ("read",))),
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Erp]:
    """Servers with AppRoles whose policies are not as they should be, and a token role that may read any role."""
    more = list(vault_setup.tokens("wide", _WIDE, 30))
    more.append(_policy("ostiary-gateway", (*_RULES, _WIDE_TOKENS)))
    for name, rules in _LACKING.items():
        role = {"token_policies": [name], "token_no_default_policy": True}
        more += [
            _policy(name, rules),
            Request(f"role-{name}", f"auth/approle/role/{name}", role),
            Request(f"id-{name}", f"auth/approle/role/{name}/role-id", {"role_id": name}),
            vault_setup.secret_id(name, f"the-secret-id-of-{name}"),
        ]
    with erp(30, more) as both:
        yield both


def _policy(name: str, rules: tuple[vault_policy.Rule, ...]) -> Request:
    return Request(f"policy-of-{name}", f"sys/policies/acl/{name}", {"policy": vault_policy.text(rules)})


def checked(folder: Path, servers: Erp, **environment: str) -> tuple[int, str]:
    """Exit code and bad findings of ``ostiary check``, text and fix of each."""
    config = str(folder / "gateway.toml")
    done = ostiary("check", "--config", config, "--json", **{**servers.environment, **environment})
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])["findings"]
    return done.returncode, "\n".join(f"{one['part']}: {one['text']}; {one['fix']}" for one in found if not one["ok"])


def change(folder: Path, servers: Erp, old: str, new: str) -> None:
    """Settings with ``old`` replaced."""
    furnish(folder, servers)
    config = folder / "gateway.toml"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


def test_settings_that_fit_are_found_to_be_right(servers: Erp, tmp_path: Path) -> None:
    """Nothing is missed, and that nothing else is allowed is said."""
    furnish(tmp_path, servers)
    assert checked(tmp_path, servers) == (0, "")


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ('role = "nobody"\ntoken_role = "wide"', "bao read database/roles/nobody must show a database role"),
        ('role = "nobody"\ntoken_role = "erp-read"', 'policy erp-read: path "database/creds/nobody" { capabilities'),
        (
            'mount = "nowhere"\nrole = "erp-read"\ntoken_role = "wide"',
            "nothing is mounted at nowhere/: correct `mount`",
        ),
        ('mount = "nowhere"\nrole = "erp-read"', "or correct mount and role of [leases.erp-read]"),
        ('role = "erp-read"\ntoken_role = "nobody"', 'path "auth/token/create/nobody" { capabilities = ["create", "up'),
        (
            'role = "erp-read"\npolicy = "another"',
            "auth/token/roles/erp-read must be there and allow the policy another",
        ),
    ],
)
def test_a_template_that_cannot_work_is_named_with_its_fix(servers: Erp, tmp_path: Path, new: str, words: str) -> None:
    """An unknown role, a wrong mount, a token role or policy that is not there: the setting or the policy line."""
    change(tmp_path, servers, 'role = "erp-read"', new)
    code, said = checked(tmp_path, servers)
    assert code == 1
    assert words in said, said


def test_a_life_over_the_templates_longest_is_named(servers: Erp, tmp_path: Path) -> None:
    """The vault's role mints for 60 s, the template allows 40: which key of which role must be lower."""
    change(tmp_path, servers, 'role = "erp-read"\nttl_s = 120', 'role = "erp-read"\nttl_s = 40')
    code, said = checked(tmp_path, servers)
    assert code == 1
    assert "database/roles/erp-read: default_ttl must be between" in said, said


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("no-revoke", 'allow it: path "sys/leases/revoke" { capabilities = ["update"] allowed_parameters'),
        ("no-look", 'allow it: path "sys/capabilities-self" { capabilities = ["update"] }'),
        ("too-much", "the gateway's token can do more than it needs: sys/mounts"),
    ],
)
def test_a_gateway_that_may_do_too_little_or_too_much_is_named(
    servers: Erp, tmp_path: Path, role: str, words: str
) -> None:
    """Also a line that is needed only at the end of a call, and a path that is nobody's business."""
    change(tmp_path, servers, 'role_id = "ostiary-gateway"', f'role_id = "{role}"')
    code, said = checked(tmp_path, servers, ERP_VAULT_SECRET_ID=f"the-secret-id-of-{role}")
    assert code == 1
    assert words in said, said

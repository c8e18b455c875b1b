"""Least privilege both ways, on a real OpenBao: each line is needed, and nothing else is allowed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

import httpx
import pytest

from deploy.servers import vault_setup
from deploy.servers.erp import TEMPLATES, Erp, erp
from deploy.servers.openbao import OpenBao, Request
from gateway.adapters.clock import SystemClock
from gateway.adapters.vault import Access, Address, VaultClient
from gateway.adapters.vault.shelf import VaultShelf
from gateway.adapters.vault.transit import Transit
from gateway.core import vault_policy
from gateway.core.known import KnownValues
from gateway.core.leasing import Provider, Template, VaultFault
from gateway.core.vault_plan import Needs, admin_policy, pieces
from gateway.core.vault_policy import Duties, Rule
from tests.fakes.leases import READ, WRITE
from tests.gateways import NO_TLS
from tests.servers import PERIOD_S

KEY = Template("api-key", "secret", "erp/api", "api-key", 120, provider=Provider.KV, member="key")
DUTIES = Duties(
    vault_policy.Transit("transit", "payloads"),
    rewraps=True,
    secret_id="approle/role/ostiary",
    roots=("database/ostiary",),
    shelf="keys/ostiary/log",
)
LEASED = (READ, WRITE, KEY)
NEEDS = Needs(LEASED, DUTIES, role_id="ostiary-gateway", period_s=PERIOD_S)
RULES = vault_policy.gateway(LEASED, DUTIES)
# What rotations ask, besides the wrapped secret id.
ROTATIONS: tuple[tuple[str, dict[str, object]], ...] = (
    ("transit/keys/payloads/rotate", {}),
    ("database/rotate-root/ostiary", {}),
    ("auth/approle/role/ostiary/secret-id/destroy", {"secret_id": "nobody-has-this-one"}),
)
VALUE = "ak-real-5f2d9c81b7e3"


def approle(name: str, rules: tuple[Rule, ...]) -> list[Request]:
    """An AppRole whose tokens have these rules and no other."""
    role = {"token_policies": [name], "token_no_default_policy": True, "token_period": "60s"}
    return [
        Request(f"policy-{name}", f"sys/policies/acl/{name}", {"policy": vault_policy.text(rules)}),
        Request(f"role-{name}", f"auth/approle/role/{name}", role),
        Request(f"id-{name}", f"auth/approle/role/{name}/role-id", {"role_id": name}),
        vault_setup.secret_id(name, f"the-secret-id-of-{name}"),
    ]


def lacking(which: int) -> str:
    """Name of the AppRole that has all rules of the gateway but one."""
    return f"without-{which}"


@dataclass(frozen=True)
class Raw:
    """Requests past the adapter."""

    bao: OpenBao

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        """One request."""
        headers = ({} if token is None else {"X-Vault-Token": token}) | more.pop("headers", {})
        transport = httpx.HTTPTransport(uds=str(self.bao.socket), verify=NO_TLS)
        with httpx.Client(transport=transport, base_url="http://localhost/v1/") as http:
            return http.request(method, path, headers=headers, **more)

    def token(self, role: str) -> str:
        """A token of an AppRole."""
        body = {"role_id": role, "secret_id": f"the-secret-id-of-{role}"}
        return str(self.ask("POST", "auth/approle/login", json=body).json()["auth"]["client_token"])


@pytest.fixture(scope="module")
def site() -> Iterator[Erp]:
    """A vault that holds the whole plan, and an AppRole for each way of lacking one line."""
    more: list[Request] = [one for one in vault_setup.held(NEEDS) if "database" not in one.name]
    known = {"sys-auth-approle", "sys-policies-password-ostiary-alnum"}
    first = {one.path for one in vault_setup.held(Needs(tuple(map(as_template, TEMPLATES)), period_s=PERIOD_S))}
    more = [replace(one, name=f"more-{one.name}") for one in more if one.path not in first and one.name not in known]
    policy = {"policy": vault_policy.text(RULES)}
    more += [
        Request("whole-policy", f"sys/policies/acl/{NEEDS.gateway_policy}", policy),
        Request("the-value", "secret/data/erp/api", {"data": {"key": VALUE}}),
        *approle("whole", RULES),
        *approle("break-glass-test", vault_policy.break_glass(LEASED)),
        *approle("admin", admin_policy(NEEDS)),
        *approle("introducer", vault_policy.introducer("approle/role/ostiary")),
    ]
    for which in range(len(RULES)):
        more += approle(lacking(which), RULES[:which] + RULES[which + 1 :])
    with erp(PERIOD_S, more) as both:
        yield both


def as_template(given: vault_setup.Template) -> Template:
    """As the gateway calls it."""
    return Template(given.name, vault_setup.MOUNT, given.name, given.name, given.ttl_s)


def client(site: Erp, role: str) -> VaultClient:
    """The gateway's own adapter, with that AppRole's rights."""
    access = Access(lambda: f"the-secret-id-of-{role}", role)
    return VaultClient(Address(site.openbao.address), access, KnownValues(), SystemClock())


async def everything(site: Erp, role: str) -> str:
    """All that a gateway ever asks of its vault, once; returns the token it did it with."""
    async with client(site, role) as vault:
        await vault.ping()
        for template in LEASED:
            await minted(vault, template)
        transit = Transit(vault, "transit", "payloads")
        wrapped = await transit.wrap(bytes(32), "log")
        assert await transit.unwrap(wrapped, "log") == bytes(32)
        assert await vault.update("sys/capabilities-self", {"paths": ["sys/seal"]})
        for path, body in ROTATIONS:
            await vault.update(path, body)
        await VaultShelf(vault, "keys/ostiary/log").prove()
        answer = Raw(site.openbao).ask(
            "POST",
            "auth/approle/role/ostiary/secret-id",
            await vault._own_token(),
            json={},
            headers={"X-Vault-Wrap-TTL": "60s"},
        )
        if answer.status_code != 200:
            raise RefusedError
        return await vault._own_token()


class RefusedError(Exception):
    """The raw request was refused."""


async def minted(vault: VaultClient, template: Template) -> None:
    """One credential from its token to its end, ended in both ways."""
    token = await vault.open_token(template)
    await vault.renew_token(token.accessor)
    login = await vault.mint(template, token)
    if template is not KEY:
        assert await vault.login_exists(login.lease_id)
        await vault.revoke_login(login.lease_id, wait=True)
        await vault.revoke_login((await vault.mint(template, token)).lease_id, wait=False)
    await vault.revoke_token(token.accessor)


async def test_these_lines_are_enough_for_all_the_gateway_asks(site: Erp) -> None:
    """Every request of the adapter, leases and rotations, and the token that made them is gone at the end."""
    token = await everything(site, "whole")
    assert Raw(site.openbao).ask("POST", "auth/token/revoke-self", token, json={}).status_code == 403


@pytest.mark.parametrize("which", range(len(RULES)), ids=[rule.path.replace("/", "-") for rule in RULES])
async def test_each_line_is_needed(site: Erp, which: int) -> None:
    """Without it something the gateway does is refused, or its token outlives it."""
    rule, role = RULES[which], lacking(which)
    if rule.path == "auth/token/revoke-self":
        token = await everything(site, role)
        assert Raw(site.openbao).ask("POST", "sys/capabilities-self", token, json={"paths": ["x"]}).status_code == 200
        return
    with pytest.raises((VaultFault, RefusedError)) as caught:
        await everything(site, role)
    if isinstance(caught.value, VaultFault):
        assert f'path "{rule.path}"' in caught.value.fix


@pytest.mark.requirement("CRED-2")
@pytest.mark.parametrize("path", vault_policy.forbidden(LEASED, "ostiary"))
@pytest.mark.parametrize("method", ["GET", "POST", "LIST", "DELETE"])
async def test_the_gateway_is_refused_all_else(site: Erp, path: str, method: str) -> None:
    """Minting by itself, reading secrets, other policies, other tokens, sealing: 403 for each way of asking."""
    token = Raw(site.openbao).token("whole")
    body: dict[str, Any] = {"json": {}} if method == "POST" else {}
    answer = Raw(site.openbao).ask(method, path, token, **body)
    # 405: the vault has no such request, whoever asks.
    assert answer.status_code in {403, 405}, answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("sys/leases/revoke", {"lease_id": "pki/issue/other/1"}),
        ("sys/leases/lookup", {"lease_id": "database/creds/other/1"}),
        ("sys/leases/lookup", {"lease_id": "database/creds/erp-read-too/1"}),
        ("transit/decrypt/payloads", {"ciphertext": "x", "batch_input": []}),
        ("transit/keys/payloads/rotate", {"managed_key_name": "x"}),
        ("auth/approle/role/ostiary/secret-id", {}),
        ("auth/approle/role/ostiary/secret-id", {"metadata": "{}"}),
        ("auth/approle/role/ostiary/secret-id/destroy", {"secret_id_accessor": "x"}),
        ("auth/approle/role/ostiary/custom-secret-id", {"secret_id": "mine"}),
        ("auth/approle/role/ostiary-break-glass/secret-id", {}),
        ("database/rotate-root/other", {}),
        ("database/config/ostiary", {}),
        ("keys/data/ostiary/other/x", {"data": {}}),
        ("keys/data/ostiary/log/x/y", {"data": {}}),
        ("keys/metadata/ostiary/log/x", {"max_versions": 9}),
        ("keys/undelete/ostiary/log/x", {"versions": [1]}),
    ],
)
def test_what_is_allowed_is_allowed_for_its_own_things_only(site: Erp, path: str, body: dict[str, Any]) -> None:
    """Other leases, other members, an answer that is not wrapped, another AppRole's secret id, another connection."""
    token = Raw(site.openbao).token("whole")
    assert Raw(site.openbao).ask("POST", path, token, json=body).status_code == 403


@pytest.mark.parametrize("template", LEASED, ids=lambda one: one.name)
async def test_minting_tokens_do_one_thing(site: Erp, template: Template) -> None:
    """Their own role or secret, and what a lost one left; not another's, their own end, a look at themselves."""
    async with client(site, "whole") as vault:
        token = await vault.open_token(template, token_hex(10))
        for other in LEASED:
            for rule in vault_policy.minting(other):
                status = Raw(site.openbao).ask("GET", rule.path, token.secret).status_code
                assert (status == 200) is (other is template), rule.path
        for path in ("auth/token/lookup-self", "sys/mounts", "auth/token/accessors"):
            assert Raw(site.openbao).ask("GET", path, token.secret).status_code == 403
        await vault.revoke_token(token.accessor)


async def test_a_key_that_is_handed_over_is_written_once_and_gone_at_the_end(site: Erp) -> None:
    """No second version, no listing; what is removed leaves no metadata; another engine or none is told by name."""
    name = b"one" * 11
    async with client(site, "whole") as vault:
        shelf, raw, token = VaultShelf(vault, "keys/ostiary/log"), Raw(site.openbao), await vault._own_token()
        await shelf.put(name, "sealed")
        assert await shelf.get(name) == "sealed"
        with pytest.raises(VaultFault):
            await shelf.put(name, "another")
        assert raw.ask("LIST", "keys/metadata/ostiary/log", token).status_code == 403
        await shelf.clear(name)
        await shelf.clear(name)
        assert await shelf.get(name) is None
        await shelf.put(name, "again")
        await shelf.clear(name)
        for place in ("transit/ostiary/log", "nothing/ostiary/log"):
            with pytest.raises(VaultFault) as caught:
                await VaultShelf(vault, place).put(name, "sealed")
            assert "[rotation] shared_keys" in caught.value.fix


async def test_who_breaks_the_glass_ends_all_leases_and_can_do_nothing_else(site: Erp) -> None:
    """It lists the leases of a template and ends them at once; it mints nothing, and ends nothing of other paths."""
    raw = Raw(site.openbao)
    async with client(site, "whole") as vault:
        token = await vault.open_token(READ)
        await vault.mint(READ, token)
        glass = raw.token("break-glass-test")
        listed = raw.ask("LIST", "sys/leases/lookup/database/creds/erp-read", glass)
        assert listed.json()["data"]["keys"]
        assert raw.ask("POST", "sys/leases/revoke-prefix/database/creds/erp-read", glass, json={}).status_code < 300
        assert raw.ask("LIST", "sys/leases/lookup/database/creds/erp-read", glass).status_code == 404
        await vault.revoke_token(token.accessor)
    assert site.minted() == []
    for path in ("database/creds/erp-read", "auth/token/create/erp-read", "sys/leases/revoke-force/database"):
        assert raw.ask("POST", path, glass, json={}).status_code == 403
    for path in ("sys/leases/revoke-prefix/database", "sys/leases/revoke-prefix/auth", "sys/leases/tidy"):
        assert raw.ask("POST", path, glass, json={}).status_code == 403


def test_who_sets_up_writes_these_very_values_and_no_other(site: Erp) -> None:
    """Each piece as it is planned; one letter more in a policy, or one member more, is refused."""
    raw, refused = Raw(site.openbao), list[str]()
    admin = raw.token("admin")
    for piece in pieces(NEEDS):
        assert raw.ask("GET", piece.path, admin).status_code == 200, piece.path
        if not piece.is_fixed:
            assert raw.ask("POST", piece.path, admin, json=piece.body).status_code < 300, piece.path
        for name, value in piece.body.items():
            odd = {**piece.body, name: f"9{value}" if isinstance(value, str) else not value}
            refused.append(f"{piece.path} {name} {raw.ask('POST', piece.path, admin, json=odd).status_code}")
        more = {**piece.body, "description": "x"}
        refused.append(f"{piece.path} + {raw.ask('POST', piece.path, admin, json=more).status_code}")
    assert [one for one in refused if not one.endswith(" 403")] == []
    for path in ("auth/approle/role/ostiary/secret-id", "auth/token/create", "sys/policies/acl/other"):
        assert raw.ask("POST", path, admin, json={}).status_code == 403


def test_the_introducer_gets_a_wrapped_secret_id_only(site: Erp) -> None:
    """Unwrapped by whoever has the wrapping first, and once; it is no login by itself."""
    raw = Raw(site.openbao)
    token, path = raw.token("introducer"), "auth/approle/role/ostiary/secret-id"
    assert raw.ask("POST", path, token, json={}).status_code in {400, 403}
    answer = raw.ask("POST", path, token, json={}, headers={"X-Vault-Wrap-TTL": "60s"}).json()
    wrapping = answer["wrap_info"]["token"]
    assert answer["data"] is None
    found = raw.ask("POST", "sys/wrapping/unwrap", wrapping, json={}).json()["data"]["secret_id"]
    assert raw.ask("POST", "sys/wrapping/unwrap", wrapping, json={}).status_code in {400, 403}
    body = {"role_id": "ostiary-gateway", "secret_id": found}
    assert raw.ask("POST", "auth/approle/login", json=body).status_code == 200


def test_the_demo_and_the_tests_have_the_same_policies_as_everybody(site: Erp) -> None:
    """What the servers of the lease tests are set up with is what ``ostiary vault`` writes, to the letter."""
    templates = tuple(map(as_template, TEMPLATES))
    planned = {piece.path: dict(piece.body) for piece in pieces(Needs(templates, role_id=site.entry.role_id))}
    keeper = vault_setup.Keeper("k", "/nowhere", "postgres", "x")
    set_up = {
        one.path: dict(one.data) for one in vault_setup.requests(TEMPLATES, keeper, replace(site.entry, period_s=30))
    }
    assert planned.items() <= set_up.items()

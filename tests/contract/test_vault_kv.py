"""Reading a value for one call from a real OpenBao, and every way the place may be wrong: named for the operator."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from deploy.servers import vault_kv
from deploy.servers.openbao import OpenBao, Request, openbao
from deploy.servers.vault_kv import Secret
from deploy.servers.vault_setup import Entry, tokens
from gateway.adapters.clock import SystemClock
from gateway.adapters.vault import Access, Address, VaultClient
from gateway.core.known import KnownValues
from gateway.core.leasing import VaultCause, VaultFault
from tests.fakes.leases import KEY
from tests.servers import PERIOD_S

VALUE = "ak-real-5f2d9c81b7e3"
ENTRY = Entry("ostiary-gateway", "the-gateways-own-secret", PERIOD_S)
_SECRETS = (
    Secret(
        "api-key", "erp/api", {"key": VALUE, "number": 12345678, "lines": "two\nlines", "strange": "sch\u00f6n-und-gut"}
    ),
    Secret("odd", "erp/odd", {"key": VALUE}),
)
# What the token may ask for though it is not there: a policy that is right and a place that is not.
_WIDE = "".join(
    f'path "{path}" {{ capabilities = ["read"] }}\n'
    for path in ("secret/data/erp/none", "secret/data/erp/gone", "nowhere/data/erp/api", "old/data/erp/api")
)
_MORE = (
    Request("old", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}}),
    Request("old-secret", "old/data/erp/api", {"key": VALUE}),
    Request("gone", "secret/data/erp/gone", {"data": {"key": VALUE}}),
    Request("gone-now", "secret/delete/erp/gone", {"versions": [1]}),
    *tokens("wide", _WIDE, PERIOD_S),
)


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """One vault for all tests here."""
    with openbao([*vault_kv.requests(_SECRETS, ENTRY), *_MORE, _allowed()]) as found:
        yield found


def _allowed() -> Request:
    policy = vault_kv.gateway_policy([*_SECRETS, Secret("wide", "", {})])
    return Request("gateway-policy-too", "sys/policies/acl/ostiary-gateway", {"policy": policy})


def client(bao: OpenBao) -> VaultClient:
    """The real adapter, let in as the gateway is."""
    access = Access(lambda: ENTRY.secret_id, ENTRY.role_id)
    return VaultClient(Address(bao.address), access, KnownValues(), SystemClock())


async def wrong(bao: OpenBao, **change: Any) -> VaultFault:
    """Why a template that is not quite the right one reads nothing; the token that tried is ended again."""
    template = replace(KEY, **change)
    async with client(bao) as vault:
        token = await vault.open_token(template)
        with pytest.raises(VaultFault) as caught:
            await vault.mint(template, token)
        await vault.revoke_token(token.accessor)
    assert VALUE not in caught.value.detail + caught.value.fix
    assert caught.value.undone or caught.value.cause_code == VaultCause.NO_ROLE
    return caught.value


async def test_a_value_is_read_by_a_token_that_can_read_nothing_else(bao: OpenBao) -> None:
    """It is in no representation; the vault's own audit log has the request; afterwards the token reads nothing."""
    async with client(bao) as vault:
        token = await vault.open_token(KEY)
        minted = await vault.mint(KEY, token)
        assert (minted.login.password, minted.login.user, minted.accessor) == (VALUE, "", token.accessor)
        assert (minted.ttl_s, VALUE in repr(minted), VALUE in minted.lease_id) == (PERIOD_S, False, False)
        said = bao.audit_log.read_text()
        assert minted.request_id in said
        assert VALUE not in said
        with pytest.raises(VaultFault):
            await vault.mint(replace(KEY, role="erp/odd"), token)
        await vault.revoke_token(token.accessor)
        with pytest.raises(VaultFault) as caught:
            await vault.mint(KEY, token)
        assert caught.value.cause_code == VaultCause.DENIED


async def test_the_gateway_itself_cannot_read_it(bao: OpenBao) -> None:
    """Its own token makes and ends the tokens that can."""
    async with client(bao) as vault:
        own = await vault._own_token()
        token = await vault.open_token(KEY)
        with pytest.raises(VaultFault) as caught:
            await vault.mint(KEY, replace(token, secret=own))
        assert caught.value.cause_code == VaultCause.DENIED
        await vault.revoke_token(token.accessor)


async def test_a_missing_capability_is_named_with_the_line_and_the_policy(bao: OpenBao) -> None:
    """The token's policy says nothing of the path."""
    fault = await wrong(bao, token_role="odd")
    assert fault.cause_code == VaultCause.DENIED
    assert 'in the policy odd: path "secret/data/erp/api" { capabilities = ["read"] }' in fault.fix


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mount": "nowhere"}, "nothing is mounted at nowhere/: correct `mount` of [leases.api-key]"),
        ({"mount": "old"}, "must be a kv engine of version 2"),
        ({"role": "erp/none"}, "secret/ has no erp/none"),
        ({"role": "erp/gone"}, "its newest version was deleted"),
    ],
)
async def test_a_place_that_is_wrong_is_named(bao: OpenBao, change: dict[str, Any], words: str) -> None:
    """A mount, an engine, a path, a deleted version: each by its own words, with the setting to correct."""
    fault = await wrong(bao, token_role="wide", **change)
    assert fault.cause_code == VaultCause.NO_ROLE
    assert words in fault.fix


async def test_a_missing_member_is_named(bao: OpenBao) -> None:
    """The secret is there and has no such member."""
    fault = await wrong(bao, member="token")
    assert (fault.cause_code, "secret/erp/api has no member 'token'" in fault.fix) == (VaultCause.NO_ROLE, True)


@pytest.mark.parametrize("member", ["number", "lines", "strange"])
async def test_a_member_that_fits_no_header_field_is_not_used(bao: OpenBao, member: str) -> None:
    """A number, several lines, letters beyond ASCII: refused, and shown nowhere."""
    fault = await wrong(bao, member=member)
    assert fault.cause_code == VaultCause.UNFIT
    assert "printable ASCII" in fault.fix
    for shown in ("12345678", "two", "sch\u00f6n"):
        assert shown not in fault.fix + fault.detail

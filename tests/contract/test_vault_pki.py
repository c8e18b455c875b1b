"""Client certificates of a real OpenBao: issued for one call, presented by the HTTP connector, revoked after it."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from msgspec import structs

from connectors.http import HttpApi, HttpApiOptions
from deploy.servers import vault_pki
from deploy.servers.openbao import OpenBao, Request, openbao
from deploy.servers.vault_pki import Issuing
from deploy.servers.vault_setup import Entry
from gateway.adapters.clock import SystemClock
from gateway.adapters.credentials import CredentialBroker, Leases, StaticCredentials
from gateway.adapters.credentials.leases import LeaseParts
from gateway.adapters.vault import Access, Address, VaultClient
from gateway.core.call import Intent, Login, Resolved
from gateway.core.desk import Whose
from gateway.core.errors import NotSent
from gateway.core.known import KnownValues
from gateway.core.leasing import Holder, Provider, Template, VaultCause, VaultFault
from gateway.core.tool import ConnectorKind, EffectClass
from tests.evidence import lease, make_call, make_caller, make_intent, make_permit, make_tool
from tests.fakes.journal import Journal
from tests.fakes.leases import FakeLeaseJournal, FakeLeaseMeter
from tests.http_tools import LOOPBACK
from tests.mutual_tls import Club, authority, club, revoked
from tests.servers import PERIOD_S
from tests.waiting import until

NAME = "gateway.ostiary.test"
CLIENT = Template("client", "pki", "client", "client", 120, provider=Provider.PKI, common_name=NAME)
LASTING = replace(CLIENT, name="lasting", role="lasting", token_role="lasting", must_revoke=False)
TEMPLATES = {template.name: template for template in (CLIENT, LASTING)}
ENTRY = Entry("ostiary-gateway", "the-gateways-own-secret", PERIOD_S)
_ROLES = (Issuing("client", NAME), Issuing("lasting", NAME, leased=False), Issuing("wide", NAME))
# A policy that is right and a place that is not.
_WIDE = "".join(f'path "{path}" {{ capabilities = ["update"] }}\n' for path in ("pki/issue/*", "nowhere/issue/client"))


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    """One vault for all tests here."""
    wide = Request("policy-wider", "sys/policies/acl/wide", {"policy": _WIDE})
    with openbao([*vault_pki.requests(_ROLES, ENTRY), wide]) as found:
        yield found


@pytest.fixture
def place(bao: OpenBao, tmp_path: Path) -> Iterator[Club]:
    """An API that lets in whom the vault certifies."""
    with club(tmp_path, authority(bao)) as found:
        yield found


def client(bao: OpenBao, known: KnownValues | None = None) -> VaultClient:
    """The real adapter, let in as the gateway is."""
    access = Access(lambda: ENTRY.secret_id, ENTRY.role_id)
    return VaultClient(Address(bao.address), access, known or KnownValues(), SystemClock())


@dataclass(frozen=True)
class Desk:
    """Leases on the real vault, and the connector of the API."""

    leases: Leases
    broker: CredentialBroker
    api: HttpApi
    lines: FakeLeaseJournal
    known: KnownValues

    async def call(self, template: str, effect: EffectClass = EffectClass.READ) -> None:
        """One call, from credential to answer."""
        async with self.broker.lease(intent(template, effect)) as lent:
            assert lent.headers == {}
            assert (await self.api.invoke(lent)).value["structuredContent"] == {"hello": NAME}


@asynccontextmanager
async def desk(bao: OpenBao, place: Club) -> AsyncIterator[Desk]:
    """All of it, closed again."""
    known, journal = KnownValues(), FakeLeaseJournal(Journal())
    fresh = partial(ssl.create_default_context, cafile=place.certificate)
    options = HttpApiOptions(LOOPBACK, tls=fresh(), fresh_tls=fresh)
    async with client(bao, known) as vault, HttpApi(place.origin, options) as api:
        parts = LeaseParts(vault, journal, known, SystemClock(), FakeLeaseMeter())
        async with Leases(TEMPLATES, parts) as leases:
            broker = CredentialBroker(StaticCredentials({}, known), leases)
            yield Desk(leases, broker, api, journal, known)


def intent(credential: str, effect: EffectClass) -> Intent:
    """The intent of an HTTP tool that presents a certificate."""
    tool = make_tool(
        "http",
        connector=ConnectorKind.HTTP,
        effect=effect,
        binding={"method": "GET" if effect is EffectClass.READ else "POST", "path": "/orders"},
        credential=credential,
    )
    return make_intent(make_permit(Resolved(make_caller(make_call(tool.fqn)), tool, None)))


@pytest.mark.requirement("CRED-1")
async def test_each_call_has_a_certificate_and_a_connection_of_its_own(bao: OpenBao, place: Club) -> None:
    """Reads, too, whose connections are kept open otherwise; one after the other and at a time; all revoked after."""
    async with desk(bao, place) as house:
        for effect in (EffectClass.READ, EffectClass.READ, EffectClass.WRITE):
            await house.call("client", effect)
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(house.call, "client")
        assert {visit.name for visit in place.visits} == {NAME}
        serials = {visit.serial for visit in place.visits}
        assert (len(serials), len({visit.connection for visit in place.visits})) == (8, 8)
        assert serials <= revoked(bao)
        assert sorted(set(house.lines.words())) == ["leased", "opened", "revoked"]
        assert house.lines.words().count("revoked") == 8


async def test_during_the_call_it_is_good_and_its_key_is_known_to_the_redactor(bao: OpenBao, place: Club) -> None:
    """In one line, and in the lines of a file of keys; in no representation."""
    async with desk(bao, place) as house, house.broker.lease(intent("client", EffectClass.READ)) as lent:
        login = lent.login
        assert login is not None
        assert login.chain is not None
        key, at = login.password, range(0, len(login.password), 64)
        for text in (key, "\n".join(key[start : start + 64] for start in at)):
            assert any(part.spans(text.encode()) for part in house.known.segments)
        assert key not in repr(lent)
        assert (await house.api.invoke(lent)).value["structuredContent"] == {"hello": NAME}
        assert place.visits[-1].serial not in revoked(bao)


async def test_a_cut_certificate_is_revoked_at_once(bao: OpenBao, place: Club) -> None:
    """While its call still runs."""
    async with desk(bao, place) as house, house.broker.lease(intent("client", EffectClass.READ)) as lent:
        await house.api.invoke(lent)
        assert await house.leases.revoke(Whose(run=lent.intent.quota.permit.target.caller.run.id)) == (1, 0)
        assert place.visits[-1].serial in revoked(bao)


async def test_certificates_end_with_their_token(bao: OpenBao) -> None:
    """What a killed gateway leaves is revoked when the token ends, as nothing but its accessor is known then."""
    async with client(bao) as vault:
        token = await vault.open_token(CLIENT)
        minted = await vault.mint(CLIENT, token)
        assert minted.serial is not None
        serial = int(minted.serial.replace(":", ""), 16)
        assert (minted.accessor, 0 < minted.ttl_s <= 120, serial in revoked(bao)) == (None, True, False)
        await vault.revoke_token(token.accessor)
        await until(lambda: serial in revoked(bao))


@pytest.mark.requirement("CRED-2")
async def test_what_a_request_that_was_cut_off_leaves_is_over_soon(bao: OpenBao) -> None:
    """Whatever the role would allow: the request itself says how long. Nobody was told its key."""
    brief = replace(CLIENT, longest_s=PERIOD_S)
    async with client(bao) as vault:
        token = await vault.open_token(brief)
        minted = await vault.mint(brief, token)
        await vault.revoke_token(token.accessor)
    assert minted.login.chain is not None
    found = x509.load_pem_x509_certificate(minted.login.chain.encode())
    lasts_s = (found.not_valid_after_utc - datetime.now(UTC)).total_seconds()
    assert 0 < lasts_s <= PERIOD_S


async def test_one_that_cannot_be_revoked_is_used_only_where_the_template_says_so(bao: OpenBao, place: Club) -> None:
    """Its token is its own and ends with the call; a revocation is not claimed while the call runs."""
    async with desk(bao, place) as house:
        async with house.broker.lease(intent("lasting", EffectClass.READ)) as lent:
            await house.api.invoke(lent)
            assert await house.leases.revoke(Whose(run=lent.intent.quota.permit.target.caller.run.id)) == (0, 1)
        await house.call("lasting")
        assert len(place.visits) == 2
        assert not {visit.serial for visit in place.visits} & revoked(bao)
        assert house.lines.words().count("opened") == 2
    fault = await wrong(bao, role="lasting", token_role="lasting", name="lasting")
    assert fault.cause_code == VaultCause.UNFIT
    assert "generate_lease=true, or set revoke = false in [leases.lasting]" in fault.fix


async def wrong(bao: OpenBao, **change: Any) -> VaultFault:
    """Why a template that is not quite the right one issues nothing; the token that tried is ended again."""
    template = replace(CLIENT, **change)
    async with client(bao) as vault:
        token = await vault.open_token(template)
        with pytest.raises(VaultFault) as caught:
            await vault.mint(template, token)
        await vault.revoke_token(token.accessor)
    return caught.value


@pytest.mark.parametrize(
    ("change", "cause", "words"),
    [
        (
            {"token_role": "lasting"},
            "vault_denied",
            'lasting: path "pki/issue/client" { capabilities = ["update"] }',
        ),
        ({"token_role": "wide", "mount": "nowhere"}, "vault_no_role", "nothing is mounted at nowhere/"),
        ({"token_role": "wide", "role": "nobody"}, "vault_no_role", "pki/roles/nobody must be a role"),
        ({"common_name": "else.test"}, "vault_no_role", "a role that allows the name else.test"),
    ],
)
async def test_a_place_that_is_wrong_is_named(bao: OpenBao, change: dict[str, Any], cause: str, words: str) -> None:
    """A capability with its line, a mount, a role, a name: each with the setting to correct."""
    fault = await wrong(bao, **change)
    assert (fault.cause_code, fault.undone) == (cause, True)
    assert words in fault.fix


async def test_one_that_ends_before_its_call_is_not_used(bao: OpenBao, place: Club) -> None:
    """It would last two minutes: a tool that may take longer gets none, and what was issued is revoked."""
    async with desk(bao, place) as house:
        with pytest.raises(VaultFault, match=r"of 'client' last 1\d\d s") as caught:
            async with house.leases.login("client", Holder(), 125):
                raise AssertionError("the call was carried out")
        assert "pki/roles/client: max_ttl must be between 125 s" in caught.value.fix
        assert house.lines.words() == ["opened", "leased", "revoked"]


async def test_a_certificate_goes_over_tls_only_and_must_be_one(place: Club) -> None:
    """Otherwise nothing is sent, and the key is in no error."""
    login = Login(NAME, "bm8ga2V5IGF0IGFsbA==", "no certificate")
    for origin in ("http://127.0.0.1:1", place.origin):
        async with HttpApi(origin, HttpApiOptions(LOOPBACK)) as api:
            with pytest.raises(NotSent) as caught:
                await api.invoke(structs.replace(lease(intent("client", EffectClass.READ).tool), login=login))
            assert caught.value.cause_code == "tls"
            assert login.password not in str(caught.value)
    assert place.visits == []

"""What the vault adapter makes of answers that a healthy OpenBao does not give: played by a small web server."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.vault import Access, Address, VaultClient
from gateway.core.fleeting import MAX_LIVE
from gateway.core.known import KnownValues
from gateway.core.leasing import MintingToken, VaultCause, VaultFault
from tests.clock import StepClock
from tests.fakes.leases import READ
from tests.fakes.web import Exchange, Web, serving
from tests.waiting import until

TOKEN = MintingToken("accessor-1", "s.minting-token", 30, "request-1")
LOGIN = {"auth": {"client_token": "s.gateways-own-token", "accessor": "own", "lease_duration": 60}}
OPENED = {
    "auth": {
        "client_token": "s.minting-token",
        "accessor": "accessor-1",
        "lease_duration": 30,
        "token_policies": ["erp-read"],
        "token_type": "service",
        "orphan": True,
        "renewable": True,
    }
}
MINTED = {"lease_id": "database/creds/erp-read/x", "lease_duration": 60, "data": {"username": "v-1", "password": "p"}}
Answer = tuple[str, Mapping[str, Any]]


@dataclass(slots=True)
class Played:
    """A vault that answers by path; ``answers`` may be changed at any time."""

    web: Web
    answers: dict[str, Answer] = field(default_factory=dict)

    async def play(self, exchange: Exchange) -> None:
        """Answer one request."""
        status, body = self.answers.get(_path(exchange), ("204 No Content", {}))
        await exchange.answer(status, json.dumps(body).encode() if body else b"")

    def asked(self, path: str) -> list[Any]:
        """The bodies that came to a path."""
        return [json.loads(one.body) for one in self.web.exchanges if _path(one) == path]

    def client(self) -> VaultClient:
        """The adapter on it, let in by AppRole."""
        access = Access(lambda: "the-secret-id-of-it", "role")
        return VaultClient(Address(self.web.origin), access, KnownValues(), SystemClock())


def _path(exchange: Exchange) -> str:
    return exchange.line.split()[1].removeprefix("/v1/")


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    """A vault that lets the gateway in and mints."""
    async with serving() as web:
        found = Played(web)
        found.answers |= {
            "auth/approle/login": ("200 OK", LOGIN),
            "auth/token/create/erp-read": ("200 OK", OPENED),
            "database/creds/erp-read": ("200 OK", MINTED),
        }
        web.play = found.play
        yield found


def tokens_of(played: Played) -> list[str]:
    """The tokens that came with the requests."""
    return [one.field("X-Vault-Token")[0] for one in played.web.exchanges]


async def test_a_token_that_was_rotated_is_used_from_the_next_request_on(played: Played) -> None:
    """Somebody else keeps it renewed and may replace it; both are known to the redactor, the old one for a while."""
    given, known = ["s.first-token-of-it"], KnownValues()
    access = Access(lambda: given[-1])
    async with VaultClient(Address(played.web.origin), access, known, SystemClock()) as vault:
        await vault.open_token(READ)
        given.append("s.second-token-of-it")
        await vault.open_token(READ)
        for token in given:
            assert any(part.spans(token.encode()) for part in known.segments)
        room = known.room
        for number in range(3):
            given.append(f"s.next-token-of-it-{number}")
            await vault.open_token(READ)
        assert known.room == room
    assert tokens_of(played) == given
    assert played.asked("auth/token/revoke-self") == []


async def test_a_rotated_secret_id_is_used_at_the_next_login(played: Played) -> None:
    """And the places of the secrets that are not in use any more are given back."""
    given, known = ["the-first-secret-id"], KnownValues()
    access = Access(lambda: given[-1], "role")
    played.answers["auth/token/create/erp-read"] = ("403 Forbidden", {})
    async with VaultClient(Address(played.web.origin), access, known, SystemClock()) as vault:
        for _ in range(3):
            with pytest.raises(VaultFault):
                await vault.open_token(READ)  # refused, so it logs in anew
            given.append(f"the-secret-id-{len(given)}")
        assert known.room == MAX_LIVE - 2
    secrets = [body["secret_id"] for body in played.asked("auth/approle/login")]
    assert secrets == [given[0], given[0], given[1], given[2]]


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden"])
async def test_a_refused_secret_id_is_not_tried_until_the_role_is_locked(played: Played, status: str) -> None:
    """Vaults lock a role after a few refusals; a new secret id is tried at once, the same one after 15 minutes."""
    given, clock = ["the-wrong-secret-id"], StepClock()
    access = Access(lambda: given[-1], "role")
    played.answers["auth/approle/login"] = (status, {})
    async with VaultClient(Address(played.web.origin), access, KnownValues(), clock) as vault:
        for _ in range(3):
            with pytest.raises(VaultFault) as caught:
                await vault.open_token(READ)
            assert caught.value.cause_code == VaultCause.DENIED
        given.append("the-next-secret-id")
        for seconds in (0, 899, 1):
            clock.advance(seconds)
            with pytest.raises(VaultFault):
                await vault.open_token(READ)
        played.answers["auth/approle/login"] = ("200 OK", LOGIN)
        given.append("the-right-secret-id")
        await vault.open_token(READ)
    tried = [body["secret_id"] for body in played.asked("auth/approle/login")]
    assert tried == ["the-wrong-secret-id", "the-next-secret-id", "the-next-secret-id", "the-right-secret-id"]


@pytest.mark.parametrize(
    ("status", "cause"),
    [("429 Too Many Requests", VaultCause.BUSY), ("500 Internal Server Error", VaultCause.FAILED)],
)
async def test_a_login_that_was_not_refused_is_tried_again(played: Played, status: str, cause: VaultCause) -> None:
    """It says nothing about the secret id."""
    played.answers["auth/approle/login"] = (status, {})
    async with played.client() as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.open_token(READ)
        assert caught.value.cause_code == cause
        played.answers["auth/approle/login"] = ("200 OK", LOGIN)
        await vault.open_token(READ)


async def mint_fault(played: Played) -> VaultFault:
    """How minting fails."""
    async with played.client() as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.mint(READ, TOKEN)
    return caught.value


async def test_nothing_of_the_environment_counts(
    played: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No proxy gets to see the secrets, and neither netrc nor VAULT_ variables say who the gateway is."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    async with serving() as proxy:
        proxy.json(b"{}")
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NETRC", str(netrc))
        for name in ("VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE"):
            monkeypatch.setenv(name, proxy.origin)
        async with played.client() as vault:
            await vault.open_token(READ)
        assert proxy.exchanges == []
    login, opened, _ = played.web.exchanges
    assert login.field("X-Vault-Token") == []
    for name, found in (("X-Vault-Token", ["s.gateways-own-token"]), ("X-Vault-Namespace", []), ("Authorization", [])):
        assert opened.field(name) == found


async def test_no_redirect_is_followed(played: Played) -> None:
    """The token goes to the vault that is configured, and nowhere else."""
    async with serving() as elsewhere:
        elsewhere.json(json.dumps(MINTED).encode())

        async def play(exchange: Exchange) -> None:
            await exchange.answer("307 Temporary Redirect", b"", f"Location: {elsewhere.origin}/v1/x")

        played.web.play = play
        async with played.client() as vault:
            with pytest.raises(VaultFault):
                await vault.mint(READ, TOKEN)
        assert elsewhere.exchanges == []


async def cut(exchange: Exchange) -> None:
    """End the connection without an answer."""
    exchange.writer.close()


async def garbage(exchange: Exchange) -> None:
    """Answer as no vault does."""
    await exchange.answer("200 OK", b"<html>")


async def test_a_vault_is_asked_again_after_an_attempt_that_told_nothing(played: Played) -> None:
    """After a pause one request is let through; where it ends without a word, or its caller leaves, so is the next."""
    clock, known = StepClock(), KnownValues()
    access = Access(lambda: "s.the-token-of-it")
    async with VaultClient(Address(played.web.origin, timeout_s=20), access, known, clock) as vault:
        played.web.play = cut
        for _ in range(3):
            with pytest.raises(VaultFault, match="cannot be reached"):
                await vault.mint(READ, TOKEN)
        with pytest.raises(VaultFault, match="a moment ago"):
            await vault.mint(READ, TOKEN)
        clock.advance(1)
        played.web.play = garbage
        with pytest.raises(VaultFault, match="cannot be read"):
            await vault.mint(READ, TOKEN)
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def hold(exchange: Exchange) -> None:
            arrived.set()
            await go_on.wait()
            await played.play(exchange)

        played.web.play = hold
        leaving = asyncio.create_task(vault.mint(READ, TOKEN))
        await until(lambda: arrived.is_set() or leaving.done())
        assert not leaving.done(), "it was not let through"
        with pytest.raises(VaultFault, match="a moment ago"):
            await vault.mint(READ, TOKEN)  # one at a time
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        go_on.set()
        played.web.play = played.play
        assert (await vault.mint(READ, TOKEN)).lease_id == MINTED["lease_id"]


@pytest.mark.parametrize("data", [{"username": "v-1", "rsa_private_key": "k"}, {"password": "p"}, None])
async def test_what_was_minted_and_is_no_login_is_ended_at_once(played: Played, data: Any) -> None:
    """A key or certificate of a role that is not as agreed works for somebody: it does not wait for its token's end."""
    played.answers["database/creds/erp-read"] = ("200 OK", MINTED | {"data": data})
    fault = await mint_fault(played)
    assert (fault.cause_code, fault.undone) == (VaultCause.NO_ROLE, False)
    assert played.asked("sys/leases/revoke") == [{"lease_id": MINTED["lease_id"], "sync": True}]


async def test_where_no_lease_was_minted_nothing_is_ended(played: Played) -> None:
    """A path that gives a secret of another kind, without a lease."""
    played.answers["database/creds/erp-read"] = ("200 OK", MINTED | {"lease_id": ""})
    assert (await mint_fault(played)).cause_code == VaultCause.NO_ROLE
    assert played.asked("sys/leases/revoke") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token_type": "batch"}, "of type service, and orphans"),
        ({"orphan": False}, "of type service, and orphans"),
        ({"token_policies": ["root"]}, "root or default"),
        ({"token_policies": ["erp-read", "default"]}, "root or default"),
        ({"token_policies": ["admin"]}, "the policy erp-read and no other"),
        ({"token_policies": ["erp-read", "admin"]}, "the policy erp-read and no other"),
        ({"token_policies": []}, "the policy erp-read and no other"),
        ({"renewable": False}, "renewable, with a period of at most 120 s"),
        ({"lease_duration": 0}, "renewable, with a period of at most 120 s"),
        ({"lease_duration": 121}, "renewable, with a period of at most 120 s"),
    ],
)
async def test_a_token_that_can_do_more_or_lives_longer_is_ended(
    played: Played, change: dict[str, Any], words: str
) -> None:
    """Also where no policy is configured: then it is the one named like the token role. The operator is told which."""
    played.answers["auth/token/create/erp-read"] = ("200 OK", {"auth": OPENED["auth"] | change})
    async with played.client() as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.open_token(READ)
    assert caught.value.cause_code == VaultCause.UNFIT
    assert words in caught.value.fix
    assert played.asked("auth/token/revoke-accessor") == [{"accessor": "accessor-1"}]


@pytest.mark.parametrize("policy", [None, "another"])
async def test_a_token_is_asked_for_with_its_one_policy(played: Played, policy: str | None) -> None:
    """Named by the template, or like its token role."""
    name = policy or "erp-read"
    played.answers["auth/token/create/erp-read"] = ("200 OK", {"auth": OPENED["auth"] | {"token_policies": [name]}})
    async with played.client() as vault:
        assert (await vault.open_token(replace(READ, policy=policy))).accessor == "accessor-1"
    assert [body["policies"] for body in played.asked("auth/token/create/erp-read")] == [[name]]
    assert played.asked("auth/token/revoke-accessor") == []


@pytest.mark.parametrize(
    ("status", "cause", "words"),
    [
        ("400 Bad Request", VaultCause.NO_ROLE, "make database/roles/erp-read-reap"),
        ("404 Not Found", VaultCause.NO_ROLE, "make database/roles/erp-read-reap"),
        ("403 Forbidden", VaultCause.DENIED, 'path "database/creds/erp-read-reap" { capabilities = ["read"] }'),
        ("500 Internal Server Error", VaultCause.FAILED, "its log says why"),
        ("429 Too Many Requests", VaultCause.BUSY, "quota"),
    ],
)
async def test_what_is_missing_for_reaping_is_told_from_what_may_pass(
    played: Played, status: str, cause: VaultCause, words: str
) -> None:
    """No role and no line of the policy are the operator's to mend; a failing database is asked again."""
    played.answers["database/creds/erp-read-reap"] = (status, {})
    async with played.client() as vault:
        with pytest.raises(VaultFault) as caught:
            await vault.reap(READ, TOKEN)
    assert caught.value.cause_code == cause
    assert words in caught.value.fix


@pytest.mark.parametrize(
    ("status", "undone", "cause"),
    [
        ("400 Bad Request", False, VaultCause.NO_ROLE),  # it is read as an answer without a lease
        ("403 Forbidden", True, VaultCause.DENIED),
        ("412 Precondition Failed", True, VaultCause.FAILED),
        ("429 Too Many Requests", True, VaultCause.BUSY),
        ("500 Internal Server Error", False, VaultCause.FAILED),
        ("501 Not Implemented", False, VaultCause.SEALED),
        ("502 Bad Gateway", False, VaultCause.FAILED),
        ("503 Service Unavailable", False, VaultCause.SEALED),
    ],
)
async def test_only_a_refusal_says_that_nothing_was_minted(
    played: Played, status: str, undone: bool, cause: VaultCause
) -> None:
    """A server error may come after the minting, as from a proxy in between, so its token is used no more."""
    played.answers["database/creds/erp-read"] = (status, {})
    fault = await mint_fault(played)
    assert (fault.cause_code, fault.undone) == (cause, undone)

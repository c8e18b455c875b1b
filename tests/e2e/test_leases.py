"""Leased logins end to end: a gateway process before a real PostgreSQL whose users a real OpenBao mints."""

import json
import re
import sqlite3
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from deploy.servers.erp import CATALOGUE, Erp, erp
from deploy.servers.process import short_folder
from tests.fakes.relay import Relay, relaying
from tests.gateways import NO_TLS, Gateway, ostiary, serving, types, until
from tests.ledgers import content
from tests.servers import PERIOD_S, sealer

_HERE = Path(__file__).parent
_AGENT = "ap-agent"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(%' AND usename LIKE 'v-%'"
_SECRETS = re.compile(rb'"(?:password|client_token)":"([^"]+)"')
INVOICE = {"order": "PO-1001", "invoice": "R-1", "amount": "10.00"}


def furnish(folder: Path, both: Erp, address: str | None = None, database: Path | None = None) -> None:
    """Keys, settings and catalogues of a gateway in ``folder``."""
    assert ostiary("init", str(folder)).returncode == 0
    with closing(sqlite3.connect(folder / "books.db")) as books:
        books.execute("CREATE TABLE words (a)")
    erp_sections = both.gateway_toml(address)
    if database is not None:
        erp_sections = erp_sections.replace(str(both.postgres.folder), str(database))
    (folder / "gateway.toml").write_text(
        f"""
state = "state"
catalogue = ["{CATALOGUE}", "{_HERE / "leases.toml"}"]
[listen]
port = 0
[policy]
deadline_ms = 1000 # the machine of a test is busy
[policy.data.gateway.scope.agents.{_AGENT}]
allow = ["erp.*", "books.*"]
[policy.data.gateway.scope.users.dora]
allow = ["erp.*", "books.*"]
[upstreams.books]
kind = "sql"
database = "books.db"
"""
        + erp_sections
    )


@dataclass(frozen=True)
class Desk:
    """A gateway before the two servers.

    Attributes:
        relay: stands between gateway and vault.
        since: index of the last record that was there before.
    """

    gateway: Gateway
    erp: Erp
    relay: Relay
    token: str
    threads: ThreadPoolExecutor
    since: int = -1

    def records(self, **query: Any) -> list[dict[str, Any]]:
        """Records of the log since the test began."""
        return self.gateway.records(after=self.since, **query)

    def call(self, tool: str, **arguments: Any) -> httpx.Response:
        """Call a tool."""
        return self.gateway.call(self.token, tool, arguments)

    def begin(self, tool: str, **arguments: Any) -> "Future[httpx.Response]":
        """Call a tool in the background."""
        return self.threads.submit(self.call, tool, **arguments)

    def waiting(self) -> bool:
        """Whether a minted user is in the middle of its statement."""
        return bool(self.erp.postgres.run(_WAITING)[0][0][0])

    def revocations(self) -> list[str]:
        """How logins ended, in order."""
        records = self.records(type="credential.revoked")
        return [record["body"]["cause"] for record in records if record["body"]["kind"] == "login"]


@contextmanager
def opened(folder: Path, both: Erp) -> Iterator[Desk]:
    """A gateway of its own in ``folder``."""
    with short_folder("ostiary-relay-") as place, relaying(place / "bao.sock", both.openbao.socket) as relay:
        furnish(folder, both, f"unix://{relay.path}")
        with ThreadPoolExecutor(32) as threads, serving(folder, **both.environment) as gateway:
            try:
                yield Desk(gateway, both, relay, gateway.token(agent=_AGENT), threads)
            finally:
                relay.let_go.set()


@pytest.fixture(scope="module")
def shared(real_erp: Erp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One gateway before the shared servers, for all tests that leave it as it is."""
    with opened(tmp_path_factory.mktemp("desk"), real_erp) as found:
        yield found


@pytest.fixture
def desk(shared: Desk) -> Desk:
    """That gateway, with a run of its own."""
    shared.relay.hold = None
    shared.relay.let_go.clear()
    return replace(shared, token=shared.gateway.token(agent=_AGENT), since=shared.gateway.size() - 1)


@pytest.fixture
def own_desk(tmp_path: Path) -> Iterator[Desk]:
    """A gateway before servers that the test may end; what a killed gateway leaves lasts a minute."""
    with erp(60, sealer("the-sealers-own-secret")) as both, opened(tmp_path, both) as found:
        yield found


@pytest.mark.requirement("INC-1")
def test_one_command_ends_an_agents_credentials(desk: Desk) -> None:
    """In the middle of its statement the user is gone and the session thrown out; another agent's goes on."""
    pending = desk.begin("erp.wait", seconds=20)
    (user,) = until(desk.erp.minted)
    until(desk.waiting)
    listed = desk.gateway.ask("lease", "list")["leases"]
    assert [(one["agent"], one["tool"]) for one in listed] == [(_AGENT, "erp.wait")]
    assert desk.gateway.ask("lease", "revoke", "--agent", "somebody-else") == {"revoked": 0, "pending": 0}
    assert desk.erp.minted() == [user]
    started = monotonic()
    assert desk.gateway.ask("lease", "revoke", "--agent", _AGENT) == {"revoked": 1, "pending": 0}
    assert desk.erp.minted() == []
    answer = pending.result()
    assert (answer.status_code, answer.json()["type"]) == (502, "urn:ostiary:problem:tool_failed")
    assert monotonic() - started < 10
    assert desk.gateway.ask("lease", "list")["leases"] == []
    (change,) = desk.records(type="admin.change")[-1:]
    assert change["body"]["action"] == "leases.revoked"
    assert desk.call("erp.find_order", number="PO-1001").status_code == 200


@pytest.mark.requirement("CRED-1")
def test_a_user_exists_for_the_call_and_is_gone_after_it(desk: Desk) -> None:
    """While the statement runs its user is in pg_roles; with the answer it is gone, and the log says both."""
    pending = desk.begin("erp.wait", seconds=1)
    (user,) = until(desk.erp.minted)
    answer = pending.result().json()
    assert answer["result"]["structuredContent"]["rows"] == [{"me": user}]
    assert desk.erp.minted() == []
    records = desk.gateway.records(call_id=answer["call_id"])
    assert types(records) == [
        "decision",
        "tool.requested",
        "credential.leased",
        "credential.revoked",
        "tool.completed",
    ]
    (leased,) = [record for record in records if record["type"] == "credential.leased"]
    assert leased["body"]["request"] in desk.erp.openbao.audit_log.read_text()


def test_a_call_longer_than_the_period_keeps_its_user(desk: Desk) -> None:
    """The token is renewed while a call uses it, so only what nobody renews ends with the period."""
    answer = desk.call("erp.wait", seconds=PERIOD_S + 2)
    assert answer.status_code == 200, answer.text


def test_reads_and_writes_have_users_of_their_own_kind(desk: Desk) -> None:
    """A write is committed by a user of the writers' group; a violated constraint is a result; a read cannot write."""
    staged = desk.call("erp.stage_invoice", **INVOICE).json()["result"]["structuredContent"]
    assert (staged["changed"], staged["rows"][0]["amount"]) == (1, "10.00")
    again = desk.call("erp.stage_invoice", **INVOICE).json()["result"]
    assert again["isError"] is True
    found = desk.call("erp.find_order", number="PO-1001").json()["result"]["structuredContent"]
    assert found["rows"][0]["total"] == "1200.00"
    leased = desk.records(type="credential.leased")
    roles = [record["body"]["role"] for record in leased if record["body"]["kind"] == "login"]
    assert roles == ["erp-write", "erp-write", "erp-read"]
    desk.erp.postgres.run("DELETE FROM staged_invoices")


def test_twenty_calls_at_a_time_leave_nothing(desk: Desk) -> None:
    """Twenty users, one minting token, all gone; the log is sound."""
    calls = [desk.begin("erp.find_order", number="PO-1001") for _ in range(20)]
    assert {call.result().status_code for call in calls} == {200}
    assert desk.erp.minted() == []
    leased = desk.records(type="credential.leased")
    assert sorted(record["body"]["kind"] for record in leased) == ["login"] * 20 + ["token"]
    assert desk.revocations() == ["ended"] * 20
    page = desk.gateway.http.get("/metrics").text
    assert 'ostiary_leases{state="live"} 0.0' in page
    assert ostiary("audit", "verify", "--state", str(desk.gateway.state)).returncode == 0


@pytest.mark.requirement("CRED-3")
def test_no_secret_of_the_run_stands_anywhere(desk: Desk) -> None:
    """Every password and token the vault handed out, looked for in answers, log, metrics, words and state folder."""
    answers = [desk.call("erp.find_order", number="PO-1001").text, desk.call("erp.stage_invoice", **INVOICE).text]
    desk.erp.postgres.run("DELETE FROM staged_invoices")
    answers += [json.dumps(desk.gateway.records()), desk.gateway.http.get("/metrics").text, desk.gateway.words()]
    secrets = {found.decode() for found in _SECRETS.findall(bytes(desk.relay.answers))}
    assert len(secrets) >= 5  # the gateway's token, two minting tokens, two passwords
    files = content(desk.gateway.folder)
    for secret in secrets | {desk.erp.entry.secret_id}:
        assert secret not in "".join(answers)
        assert secret.encode() not in files


@pytest.mark.requirement("CRED-1")
def test_a_killed_gateway_leaves_nothing_after_the_token_period(real_erp: Erp, tmp_path: Path) -> None:
    """Kill -9 in the middle of a call: nobody renews the token, so the vault ends it and its users."""
    with opened(tmp_path, real_erp) as desk:
        pending = desk.begin("erp.wait", seconds=25)
        until(desk.waiting)
        desk.gateway.process.kill()
        began = monotonic()
        until(lambda: desk.erp.minted() == [], seconds=PERIOD_S * 4)
        took = monotonic() - began
        assert took < PERIOD_S + 3, took  # the vault needs a moment, a busy machine some more
        assert isinstance(pending.exception(), httpx.HTTPError)


def test_the_next_start_ends_what_a_killed_gateway_left(own_desk: Desk) -> None:
    """Long before the period is over: by the journal, and the log says so."""
    pending = own_desk.begin("erp.wait", seconds=25)
    until(own_desk.waiting)
    own_desk.gateway.process.kill()
    own_desk.gateway.process.wait()
    assert isinstance(pending.exception(), httpx.HTTPError)
    assert len(own_desk.erp.minted()) == 1
    with serving(own_desk.gateway.folder, **own_desk.erp.environment) as second:
        until(lambda: own_desk.erp.minted() == [])
        until(lambda: _causes(second)[-1:] == ["swept"])
        assert _causes(second)[-2:] == ["reaped", "swept"]  # what it may have been minting is looked for, too
        assert "ended 1 minting tokens of an earlier process" in second.words()
        token = second.token(agent=_AGENT)
        assert second.call(token, "erp.find_order", {"number": "PO-1001"}).status_code == 200
    assert ostiary("audit", "verify", "--state", str(own_desk.gateway.state)).returncode == 0


def _causes(gateway: Gateway) -> list[str]:
    return [one["body"]["cause"] for one in gateway.records(type="credential.revoked")]


def test_an_orderly_stop_ends_everything(own_desk: Desk) -> None:
    """No token and no user is left for the period to end."""
    assert own_desk.call("erp.find_order", number="PO-1001").status_code == 200
    own_desk.gateway.process.terminate()
    own_desk.gateway.process.wait()
    said = own_desk.erp.openbao.audit_log.read_text()
    assert "auth/token/revoke-accessor" in said
    assert "auth/token/revoke-self" in said
    assert own_desk.erp.minted() == []


def _refused(answer: httpx.Response) -> str:
    assert answer.status_code == 503, answer.text
    return str(answer.json()["type"]).rpartition(":")[2]


def _why(desk: Desk, call_id: str) -> str:
    ending = desk.gateway.records(call_id=call_id)[-1]
    assert ending["type"] == "tool.not_sent"
    return str(ending["body"]["cause"])


def test_a_vault_that_is_gone_stops_credentialed_tools_only(own_desk: Desk) -> None:
    """503 for them, 200 for the others; readiness degrades and names it; it is one line in `ostiary check`."""
    own_desk.erp.openbao.process.kill()
    own_desk.relay.down = True
    for answer in [own_desk.call("erp.find_order", number="PO-1001") for _ in range(4)]:
        assert _refused(answer) == "unavailable"
        assert _why(own_desk, answer.json()["call_id"]) == "vault_unreachable"
    assert own_desk.call("books.count").status_code == 200
    ready = own_desk.gateway.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert ready.json()["parts"]["upstream:erp"] == "vault_unreachable"
    own_desk.gateway.process.terminate()
    own_desk.gateway.process.wait()
    said = ostiary("check", "--config", str(own_desk.gateway.folder / "gateway.toml"), **own_desk.erp.environment)
    assert said.returncode == 1
    lines = [line for line in said.stdout.splitlines() if "lease:erp-read" in line]
    assert len(lines) == 1
    assert "the vault" in lines[0]
    assert "[vault] address" in said.stdout


def test_a_sealed_vault_stops_minting_and_the_next_one_works(own_desk: Desk) -> None:
    """Sealed while a call runs: the answer is kept, its login is pending; new calls get 503 that says sealed."""
    pending = own_desk.begin("erp.wait", seconds=2)
    until(own_desk.waiting)
    _seal(own_desk.erp)
    answer = pending.result()
    assert answer.status_code == 200
    call_id = answer.json()["call_id"]
    assert types(own_desk.gateway.records(call_id=call_id))[-2:] == ["credential.revoke_pending", "tool.completed"]
    refused = own_desk.call("erp.find_order", number="PO-1001")
    assert _refused(refused) == "unavailable"
    assert _why(own_desk, refused.json()["call_id"]) in {"vault_sealed", "vault_unreachable"}
    assert 'ostiary_leases{state="pending"} 1.0' in own_desk.gateway.http.get("/metrics").text


def _seal(both: Erp) -> None:
    transport = httpx.HTTPTransport(uds=str(both.openbao.socket), verify=NO_TLS)
    with httpx.Client(transport=transport, base_url="http://localhost") as vault:
        login = vault.post("/v1/auth/approle/login", json={"role_id": "sealer", "secret_id": "the-sealers-own-secret"})
        token = login.json()["auth"]["client_token"]
        assert vault.post("/v1/sys/seal", headers={"x-vault-token": token}).status_code == 204


def test_a_vault_that_is_slow_at_minting_gives_503_and_leaves_nothing(desk: Desk) -> None:
    """The request is held on its way; what it mints when it arrives at last ends with its token."""
    assert desk.call("erp.find_order", number="PO-1001").status_code == 200
    desk.relay.hold = b"/v1/database/creds/"
    answer = desk.call("erp.find_order", number="PO-1001")
    assert _refused(answer) == "unavailable"
    assert _why(desk, answer.json()["call_id"]) == "vault_slow"
    desk.relay.hold = None
    desk.relay.let_go.set()
    until(lambda: desk.erp.minted() == [], seconds=PERIOD_S * 4)
    assert until(lambda: desk.call("erp.find_order", number="PO-1001").status_code == 200)
    assert desk.erp.minted() == []


def test_a_vault_that_is_slow_at_revoking_never_costs_the_answer(desk: Desk) -> None:
    """The agent has its answer; the log says pending, and later that the login is gone."""
    desk.relay.hold = b"/v1/sys/leases/revoke"
    answer = desk.call("erp.find_order", number="PO-1001")
    assert answer.status_code == 200
    words = types(desk.gateway.records(call_id=answer.json()["call_id"]))
    assert words[-2:] == ["credential.revoke_pending", "tool.completed"]
    desk.relay.hold = None
    desk.relay.let_go.set()
    until(lambda: desk.revocations() == ["reconciled"])
    assert desk.erp.minted() == []
    assert 'ostiary_leases{state="pending"} 0.0' in desk.gateway.http.get("/metrics").text


def test_a_database_that_dies_is_said_and_costs_nothing_else(own_desk: Desk) -> None:
    """In the middle of a call it failed; afterwards nothing can be minted; the other tools go on."""
    pending = own_desk.begin("erp.wait", seconds=25)
    until(own_desk.waiting)
    own_desk.erp.postgres.process.kill()
    answer = pending.result()
    assert (answer.status_code, answer.json()["cause"]) == (502, "connection_lost")
    refused = own_desk.call("erp.find_order", number="PO-1001")
    assert _refused(refused) == "unavailable"
    assert _why(own_desk, refused.json()["call_id"]) in {"vault_failed", "vault_slow", "vault_unreachable"}
    assert own_desk.call("books.count").status_code == 200
    assert own_desk.gateway.http.get("/readyz").json()["status"] == "degraded"


def test_check_mints_a_login_and_plans_every_statement(real_erp: Erp, tmp_path: Path) -> None:
    """Each lease template is tried; a policy that lacks a line is named with the line; a secret that is wrong is."""
    furnish(tmp_path, real_erp)
    config = ("--config", str(tmp_path / "gateway.toml"))
    said = ostiary("check", *config, **real_erp.environment)
    assert said.returncode == 0, said.stdout
    assert re.search(r"ok +lease:erp-write +a login was minted and ended; 1 statements were planned", said.stdout)
    assert real_erp.minted() == []
    text = (tmp_path / "gateway.toml").read_text()
    (tmp_path / "gateway.toml").write_text(
        text.replace('role = "erp-read"', 'role = "erp-read"\ntoken_role = "nobody"')
    )
    said = ostiary("check", *config, **real_erp.environment)
    assert said.returncode == 1
    assert 'path "auth/token/create/nobody" { capabilities = ["create", "update"] }' in said.stdout
    (tmp_path / "gateway.toml").write_text(text)
    said = ostiary("check", *config, ERP_VAULT_SECRET_ID="a-wrong-secret-id-0000")
    assert said.returncode == 1
    assert "role_id and secret_id" in said.stdout
    assert "a-wrong-secret-id-0000" not in said.stdout + said.stderr

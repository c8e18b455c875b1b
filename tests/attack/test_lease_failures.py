"""Every way minting and ending can fail, brought about for real: what is said, counted, recorded, and what is left.

``docs/credentials.md`` has the same table for operators. Nothing here is simulated but the lost answers, which a relay
loses: the vault is sealed, stopped and killed, its quota refuses, its tokens end, the database behind it turns it away.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.servers.erp import READ, WRITE
from tests.gateways import NO_TLS, until
from tests.lease_desk import AGENT, Desk, Said, nothing_is_left, opened

SURFACES = ("rest", "mcp")
_UNAVAILABLE = {"rest": 503, "mcp": 0}
_FAILED = {"rest": 502, "mcp": 0}
INVOICE = {"order": "PO-1001", "amount": "10.00"}
_KEEPERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ostiary_keeper'"
Strike = Callable[[Desk], Iterator[None]]


# What fails, and how; each takes it back where it can be taken back.


def sealed(desk: Desk) -> Iterator[None]:
    """An operator seals the vault."""
    desk.warden.seal()
    yield


def killed(desk: Desk) -> Iterator[None]:
    """The vault is killed, and its socket with it."""
    desk.erp.openbao.process.kill()
    desk.relay.down = True
    yield


def frozen(desk: Desk) -> Iterator[None]:
    """The vault is stopped: it takes connections and says nothing."""
    process = desk.erp.openbao.process.process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


def held(word: bytes) -> Strike:
    """Requests with this word take longer than the gateway waits."""

    def strike(desk: Desk) -> Iterator[None]:
        desk.relay.hold = word
        try:
            yield
        finally:
            desk.relay.hold = None
            desk.relay.let_go.set()

    return strike


def lost_before(word: bytes) -> Strike:
    """The connection breaks before such a request reaches the vault."""

    def strike(desk: Desk) -> Iterator[None]:
        desk.relay.drop = word
        try:
            yield
        finally:
            desk.relay.drop = None

    return strike


def lost_after(word: bytes) -> Strike:
    """The vault does what it is asked, and its answer is lost."""

    def strike(desk: Desk) -> Iterator[None]:
        desk.relay.cut = word
        try:
            yield
        finally:
            desk.relay.cut = None

    return strike


def limited(path: str) -> Strike:
    """The vault's own rate limit quota refuses, as if others had used it up."""

    def strike(desk: Desk) -> Iterator[None]:
        desk.warden.limit(path, 0.001)
        until(lambda: httpx.get(f"{desk.vault}/v1/{path}", verify=NO_TLS).status_code == HTTPStatus.TOO_MANY_REQUESTS)
        try:
            yield
        finally:
            desk.warden.unlimit()

    return strike


def expired(policy: str) -> Strike:
    """Tokens of this policy are gone."""

    def strike(desk: Desk) -> Iterator[None]:
        assert desk.warden.end(policy)
        yield

    return strike


def shut_out(desk: Desk) -> Iterator[None]:
    """The gateway's token is gone, and its secret id is good for no other."""
    desk.warden.shut_out(desk.erp.entry.secret_id)
    desk.warden.end("ostiary-gateway")
    yield


def turned_away(desk: Desk) -> Iterator[None]:
    """The database does not let the vault in, and has thrown it out; it goes on with everybody else."""
    desk.erp.postgres.run("ALTER ROLE ostiary_keeper NOLOGIN", _KEEPERS)
    try:
        yield
    finally:
        desk.erp.postgres.run("ALTER ROLE ostiary_keeper LOGIN")


def database_killed(desk: Desk) -> Iterator[None]:
    """The database dies."""
    desk.erp.postgres.process.kill()
    yield


def ended(desk: Desk) -> Iterator[None]:
    """The logins are over before their time, as when their ttl ends: the vault drops the users."""
    for lease in desk.warden.leases(READ, WRITE):
        desk.warden.revoke(lease)
    yield


def _both(desk: Desk) -> Iterator[None]:
    assert desk.warden.end(READ)
    assert desk.warden.end(WRITE)
    yield


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        cause: ``cause_code`` in answer, record and metric; None = the call goes well.
        ends: the servers do not survive it.
        tcp: the vault must see the gateway's address.
        fresh: each call has a run of its own, that has no minting token yet.
    """

    name: str
    strike: Strike
    cause: str | None
    ends: bool = False
    tcp: bool = False
    fresh: bool = False


MINTING = (
    Row("sealed", sealed, "vault_sealed", ends=True),
    Row("unreachable", killed, "vault_unreachable", ends=True),
    Row("frozen", frozen, "vault_slow"),
    Row("slow at the token", held(b"/v1/auth/token/create/"), "vault_slow", fresh=True),
    Row("slow at the login", held(b"/v1/database/creds/"), "vault_slow"),
    Row("rate limited at the token", limited("auth/token/"), "vault_busy", tcp=True, fresh=True),
    Row("rate limited at the login", limited("database/"), "vault_busy", tcp=True),
    Row("request for the login lost", lost_before(b"/v1/database/creds/"), "vault_unreachable"),
    Row("answer with the login lost", lost_after(b"/v1/database/creds/"), "vault_unreachable"),
    Row("answer with the token lost", lost_after(b"/v1/auth/token/create/"), "vault_unreachable", fresh=True),
    Row("database turns the vault away", turned_away, "vault_failed"),
    Row("database killed", database_killed, "vault_failed", ends=True),
    Row("gateway's token expired", expired("ostiary-gateway"), None),
    Row("minting token expired", expired(WRITE), None),
    Row("gateway's token expired, its secret id gone", shut_out, "vault_denied", ends=True, fresh=True),
)
MID_CALL = (
    Row("login over", ended, "connection_lost"),
    Row("minting tokens expired", _both, "connection_lost"),
    Row("database killed", database_killed, "connection_lost", ends=True),
)
REVOKING = (
    Row("sealed", sealed, "vault_sealed", ends=True),
    Row("unreachable", killed, "vault_unreachable", ends=True),
    Row("frozen", frozen, "vault_slow"),
    Row("slow", held(b"/v1/sys/leases/revoke"), "vault_slow"),
    Row("request lost", lost_before(b"/v1/sys/leases/revoke"), "vault_unreachable"),
    Row("answer lost", lost_after(b"/v1/sys/leases/revoke"), "vault_unreachable"),
    Row("rate limited", limited("sys/leases/revoke"), "vault_busy", tcp=True),
    Row("database turns the vault away", turned_away, "vault_failed"),
    Row("gateway's token expired", expired("ostiary-gateway"), None),
)


def named(rows: tuple[Row, ...]) -> pytest.MarkDecorator:
    """The table as parameters."""
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Desk]]:
    """Two gateways for all rows that leave the servers alive, by whether the vault sees their address."""
    with ExitStack() as stack:
        yield {tcp: stack.enter_context(opened(tmp_path_factory.mktemp("desk"), over_tcp=tcp)) for tcp in (False, True)}


@pytest.fixture
def desk(row: Row, shared: dict[bool, Desk], tmp_path: Path) -> Iterator[Desk]:
    """A desk for the row, with a run of its own and nothing left of the row before."""
    with ExitStack() as stack:
        found = stack.enter_context(opened(tmp_path)) if row.ends else shared[row.tcp]
        found.relay.let_go.clear()
        found.erp.postgres.run("DELETE FROM staged_invoices")
        until(lambda: found.call("rest", "erp.find_order", number="PO-1001").status == 200)
        yield replace(found, token=found.gateway.token(agent=AGENT), since=found.gateway.size() - 1)


@pytest.mark.requirement("CRED-1")
@named(MINTING)
def test_what_cannot_be_minted_is_said_counted_and_recorded_and_nothing_happens(row: Row, desk: Desk) -> None:
    """Over REST and MCP: 503 with the cause; not sent; no write; other tools go on; then it works again."""
    warm = desk.call("rest", "erp.stage_invoice", invoice="before", **INVOICE)
    assert warm.status == 200, warm.text
    faults = f'ostiary_lease_faults_total{{cause="{row.cause}",step="mint"}}'
    before = desk.metric(faults)
    with contextmanager(row.strike)(desk):
        for surface in SURFACES:
            caller = replace(desk, token=desk.gateway.token(agent=AGENT)) if row.fresh else desk
            said = caller.call(surface, "erp.stage_invoice", invoice=surface, **INVOICE)
            _is_said(said, row)
            _is_recorded(desk, said, row)
            assert desk.call(surface, "books.count").code == "completed"
        if row.cause is not None:
            assert desk.metric(faults) >= before + 2
    _leaves_nothing(desk, row, dict.fromkeys(SURFACES, row.cause is None))


@pytest.mark.requirement("CRED-1")
@named(MID_CALL)
def test_a_login_that_ends_in_the_middle_fails_the_call_and_undoes_its_write(row: Row, desk: Desk) -> None:
    """Both sessions are thrown out: the write was not done, the record says failed, and the login counts as gone."""
    calls = _under_way(desk, 25)
    with contextmanager(row.strike)(desk):
        for said in (call.result() for call in calls):
            assert (said.status, said.code, said.cause) == (_FAILED[said.surface], "tool_failed", row.cause), said.text
            assert desk.of_call(said)[-1]["type"] == "tool.failed"
            assert desk.of_call(said)[-1]["body"]["cause"] == row.cause
    _leaves_nothing(desk, row, dict.fromkeys(SURFACES, False))


@pytest.mark.requirement("CRED-1")
@named(REVOKING)
def test_what_cannot_be_revoked_costs_no_answer_and_is_ended_later(row: Row, desk: Desk) -> None:
    """The answer is the call's own; the record says pending and why; it is counted; what is left ends by itself."""
    faults = f'ostiary_lease_faults_total{{cause="{row.cause}",step="revoke"}}'
    before = desk.metric(faults)
    calls = _under_way(desk, 3)
    with contextmanager(row.strike)(desk):
        heard = [call.result() for call in calls]
        for said in heard:
            assert (said.status, said.code) == (200, "completed"), said.text
            word = "credential.revoked" if row.cause is None else "credential.revoke_pending"
            assert desk.story(said)[-2:] == [word, "tool.completed"]
        assert desk.sessions() == []  # whatever becomes of the login, the gateway has left
        if row.cause is not None:
            assert desk.metric(faults) == before + len(heard)
            assert {_ending(desk, said)["cause"] for said in heard} == {row.cause}
        if row.ends:
            assert desk.metric('ostiary_leases{state="pending"}') == len(heard)
    _leaves_nothing(desk, row, dict.fromkeys(SURFACES, True))
    if not row.ends:
        until(lambda: all(_ending(desk, said, "credential.revoked") for said in heard))
        until(lambda: desk.metric('ostiary_leases{state="pending"}') == 0)


def _under_way(desk: Desk, seconds: int) -> list["Future[Said]"]:
    # Over each surface, in the middle of a write.
    calls = [desk.begin(surface, "erp.slow_stage", invoice=surface, seconds=seconds) for surface in SURFACES]
    until(lambda: desk.asleep() == len(calls))
    return calls


def _is_said(said: Said, row: Row) -> None:
    if row.cause is None:
        assert (said.status, said.code) == (200, "completed"), said.text
        return
    assert (said.code, said.cause) == ("unavailable", row.cause), said.text
    assert said.status == _UNAVAILABLE[said.surface]


def _is_recorded(desk: Desk, said: Said, row: Row) -> None:
    last = desk.of_call(said)[-1]
    if row.cause is None:
        assert last["type"] == "tool.completed"
        return
    assert (last["type"], last["body"]["cause"]) == ("tool.not_sent", row.cause)
    assert "credential.leased" not in desk.story(said)


def _ending(desk: Desk, said: Said, word: str = "credential.revoke_pending") -> dict[str, Any]:
    found = [record["body"] for record in desk.of_call(said) if record["type"] == word]
    return dict(found[0]) if found else {}


def _leaves_nothing(desk: Desk, row: Row, staged: dict[str, bool]) -> None:
    if row.ends:
        return
    assert {surface: desk.staged(surface) == 1 for surface in staged} == staged
    # Then it works again, and the run's tokens end with the run.
    until(lambda: desk.call("rest", "erp.find_order", number="PO-1001").status == 200)
    for run in {record["run_id"] for record in desk.records(type="tool.requested")}:
        desk.gateway.ask("run", "end", run)
    nothing_is_left(desk)

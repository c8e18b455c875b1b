"""Two logs tell one story: each record of a lease is one request in the vault's own audit log, and back."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.servers.erp import READ, WRITE
from tests.gateways import ostiary, until
from tests.lease_desk import AGENT, Desk, opened
from tests.ledgers import read_records

_MINTS = {
    **{f"auth/token/create/{role}": ("token", role) for role in (READ, WRITE)},
    **{f"database/creds/{role}": ("login", role) for role in (READ, WRITE)},
}
_ENDS = {"auth/token/revoke-accessor": "token", "sys/leases/revoke": "login"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A gateway before servers of its own, whose logs hold nothing else."""
    with opened(tmp_path) as found:
        yield found


def answered(desk: Desk) -> list[dict[str, Any]]:
    """The requests that OpenBao carried out, as its file audit device has them."""
    entries = [json.loads(line) for line in desk.erp.openbao.audit_log.read_text().splitlines()]
    return [one["request"] for one in entries if one["type"] == "response" and not one.get("error")]


@pytest.mark.requirement("CRED-2")
def test_each_record_is_one_request_of_the_vault_and_back(desk: Desk) -> None:
    """Token, login, their ends: joined by the vault's request id and by the correlation id; none is alone."""
    run_id, token = desk.gateway.run(AGENT)
    for surface in ("rest", "mcp"):
        caller = Desk(desk.gateway, desk.erp, desk.relay, desk.warden, token, desk.threads)
        assert caller.call(surface, "erp.find_order", number="PO-1001").status == 200
        staged = caller.call(surface, "erp.stage_invoice", order="PO-1001", invoice=surface, amount="1.00")
        assert staged.status == 200
    _is_shown(desk, run_id)
    desk.gateway.process.terminate()
    desk.gateway.process.wait()
    records = read_records(desk.gateway.state)
    assert {one["run_id"] for one in records if one["type"].startswith("credential.")} == {run_id}
    requests = answered(desk)
    minted = Counter(
        (one["body"]["request"], one["body"]["kind"], one["body"]["role"])
        for one in records
        if one["type"] == "credential.leased"
    )
    asked = Counter((one["id"], *_MINTS[one["path"]]) for one in requests if one["path"] in _MINTS)
    assert minted == asked
    assert set(minted.values()) == {1}
    assert Counter(kind for _, kind, _ in minted) == {"token": 2, "login": 4}
    ended = Counter(
        (one["body"]["correlation"], one["body"]["kind"]) for one in records if one["type"] == "credential.revoked"
    )
    told = Counter((one["headers"]["x-correlation-id"][0], _ENDS[one["path"]]) for one in requests if _is_end(one))
    assert ended == told
    assert set(ended.values()) == {1}
    assert Counter(kind for _, kind in ended) == {"token": 2, "login": 4}


def _is_end(request: dict[str, Any]) -> bool:
    return request["path"] in _ENDS


def _is_shown(desk: Desk, run_id: str) -> None:
    # On a busy machine the tokens, which nobody uses any more, may have ended by then, too.
    until(lambda: _ended(_credentials(desk, run_id)) == 4)
    found = _credentials(desk, run_id)
    assert sorted((one["kind"], one["role"], one["ttl_s"]) for one in found if one["kind"] == "login") == [
        *[("login", READ, 60)] * 2,
        *[("login", WRITE, 60)] * 2,
    ]
    assert all(one["revoked_us"] >= one["leased_us"] for one in found if one["kind"] == "login")
    said = ostiary("audit", "run", run_id, OSTIARY_STATE=str(desk.gateway.state)).stdout
    head, *rows = said[said.index("LEASE ") :].splitlines()
    for word in ("LEASE", "ROLE", "TTL", "LEASED", "REVOKED", "HOW", "VAULT REQUEST"):
        assert word in head
    (one, *_) = [one for one in found if one["kind"] == "login"]
    (row,) = [line for line in rows if one["request"] in line]
    assert one["lease"][:16] in row
    assert f"{one['role']} 60 s" in " ".join(row.split())
    assert "ended" in row.split()


def _ended(credentials: Sequence[Mapping[str, Any]]) -> int:
    return sum(one["kind"] == "login" and one["revoked_us"] is not None for one in credentials)


def _credentials(desk: Desk, run_id: str) -> list[dict[str, Any]]:
    return list(desk.gateway.ask("audit", "run", run_id)["credentials"])


def test_only_what_both_person_and_agent_may_is_minted(desk: Desk) -> None:
    """User without agent, agent without user: refused by policy, and the vault was asked for nothing."""
    for user, agent in (("dora", "nobodys-agent"), ("nobody", AGENT)):
        token = desk.gateway.token(user, agent)
        answer = desk.gateway.call(token, "erp.find_order", {"number": "PO-1001"})
        assert answer.status_code in {403, 404}, answer.text
    assert [one for one in answered(desk) if one["path"] in _MINTS] == []
    assert desk.records(type="credential.leased") == []
    assert desk.call("rest", "erp.find_order", number="PO-1001").status == 200
    assert {one["path"] for one in answered(desk) if one["path"] in _MINTS} == {
        f"auth/token/create/{READ}",
        f"database/creds/{READ}",
    }

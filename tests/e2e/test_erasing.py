"""Erasure and legal hold at the command line, on a running gateway."""

import json
import sqlite3
from contextlib import closing

import pytest

from gateway.adapters.ledger.storage.files import DATABASE
from tests.e2e.house import House
from tests.gateways import ostiary
from tests.ledgers import content


def key_of(house: House, run: str) -> bytes:
    """The wrapped data key of a run."""
    with closing(sqlite3.connect(house.gateway.state / DATABASE)) as db:
        ((wrapped,),) = db.execute("select wrapped from deks where id = ?", (run,)).fetchall()
    return bytes(wrapped)


@pytest.mark.requirement("AUDIT-4")
def test_a_run_is_held_released_and_erased(house: House) -> None:
    """Open: refused. Held: refused. Then gone from every file; the call's records stay, and the log verifies."""
    gateway = house.gateway
    run, token = gateway.run("erased-agent", goal="a goal that is to be forgotten")
    called = gateway.call(token, "api.thing", {"id": "1"})
    assert called.status_code == 200
    call = called.json()["call_id"]
    erase = ("audit", "erase", "--run", run, "--why", "case 1")
    assert gateway.ask(*erase, code=1)["cause"] == "run_in_use"
    gateway.ask("run", "end", run)
    assert gateway.ask("audit", "hold", "set", "--run", run, "--why", "a suit")["target"] == f"run:{run}"
    assert gateway.ask(*erase, code=1)["cause"] == "held"
    assert "a suit" in ostiary("audit", "hold", "list", OSTIARY_STATE=str(gateway.state)).stdout
    gateway.ask("audit", "hold", "release", "--run", run, "--why", "settled")
    assert gateway.http.get(f"/v1/calls/{call}").json()["payloads"]
    key = key_of(house, run)
    assert gateway.ask(*erase) == {"runs": 1, "keys": 1, "complete": True}
    assert key not in content(gateway.state)
    assert gateway.http.get(f"/v1/runs/{run}").status_code == 404
    assert gateway.http.get(f"/v1/calls/{call}").json()["payloads"] == {}
    assert [record["type"] for record in gateway.records(run_id=run)][-1] == "run.ended"
    report = gateway.ask("audit", "verify", "--payloads", "--state", str(gateway.state))
    assert report["ok"], report["findings"]
    assert report["erased"] > 0
    viewed = gateway.records(type="payload.viewed")
    assert {"call", "roles", "view"} <= {name for record in viewed for name in record["body"]}


def test_a_user_is_erased_whole(house: House) -> None:
    """By name; what is on record names a pseudonym only, and who looks for nobody is told so."""
    gateway = house.gateway
    runs = [gateway.run("agent-of-kim", user="kim") for _ in range(2)]
    for run, token in runs:
        assert gateway.call(token, "api.thing", {"id": "1"}).status_code == 200
        gateway.ask("run", "end", run)
    mark = gateway.ask("audit", "hash", "kim")["pseudonym"]
    found = gateway.ask("audit", "search", f"user:{mark} type:run.started")["records"]
    assert {record["run_id"] for record in found} == {run for run, _ in runs}
    assert mark != gateway.ask("audit", "hash", "kim", "--person")["pseudonym"]
    done = gateway.ask("audit", "erase", "--subject", "kim", "--why", "case 2")
    assert (done["runs"], done["complete"]) == (2, True)
    (record,) = [one for one in gateway.records(type="erasure") if one["body"]["cause"] == "subject"]
    assert {run for run, _ in runs} <= set(record["body"]["keys"])
    assert "kim" not in json.dumps(record["body"]["subject"])
    again = gateway.ask("audit", "erase", "--subject", "kim", "--why", "case 2", code=1)
    assert again["cause"] == "erasure"
    assert ostiary("audit", "erase", "--why", "x", OSTIARY_STATE=str(gateway.state)).returncode == 2

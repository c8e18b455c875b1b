"""Fifty calls at once against "3 a run, 5,000.00 a run": exactly what the rule allows is made, however they come.

The shipped limits package, the SQLite ledger, a real database behind the gateway. A run's calls are decided one after
another, each with those before it counted in, so that in whatever order they come: the count is exact; the sum is never
over; and as sums only grow while every call succeeds, no refused call would still fit at the end.
"""

import contextlib
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import read
from tests.gateways import ROOT, Gateway, ostiary, serving
from tests.processes import FIXTURES

LIMIT = 500_000
CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[limits]
edge_per_minute = 60000 # a refused request counts tenfold, and here nearly all are

[policy]
deadline_ms = 2000

[upstreams.erp]
kind = "sql"
database = "erp.sqlite"

[policy.data.gateway.scope.groups.desk]
allow = ["erp.*"]

[policy.data.gateway.scope.agents."*"]
allow = ["erp.*"]

[policy.data.gateway.approval]
unattended = ["erp.pay", "erp.refund"]

[policy.data.gateway.limits."erp.pay"]
calls_per_run = 3
sums_per_run = { "amount.EUR" = 500000 }

[policy.data.gateway.limits."erp.refund"]
sums_per_run = { "amount.EUR" = 500000 }
"""
TOOL = """
[[tool]]
server = "erp"
name = "@NAME@"
effect = "money"
description = "Pay. The amount is in cents."
measures = [{ name = "amount", pointer = "/amount", currency_pointer = "/currency" }]
limits = { per_minute = 6000, concurrency = 64 }

[tool.input_schema]
type = "object"
required = ["run", "amount", "currency"]
additionalProperties = false
properties.run = { type = "string" }
properties.amount = { type = "integer", minimum = 1 }
properties.currency = { enum = ["EUR"] }

[tool.sql]
statement = "INSERT INTO paid (run, amount, currency) VALUES (:run, :amount, :currency)"
parameters = ["run", "amount", "currency"]
mode = "write"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration, catalogue and database of a gateway that pays."""
    place = tmp_path_factory.mktemp("limits")
    (place / "gateway.toml").write_text(CONFIG, "utf-8")
    (place / "catalogue.toml").write_text("".join(TOOL.replace("@NAME@", name) for name in ("pay", "refund")), "utf-8")
    with contextlib.closing(sqlite3.connect(place / "erp.sqlite")) as database, database:
        database.execute("CREATE TABLE paid (run TEXT, amount INT, currency TEXT)")
    return place


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Gateway]:
    """That gateway."""
    with serving(folder) as running:
        yield running


def at_once(gateway: Gateway, token: str, tool: str, shares: Sequence[Sequence[dict[str, Any]]]) -> list[list[int]]:
    """The statuses of calls made at once, each share by a client process of its own."""
    environment = {"PATH": os.defpath, "OSTIARY_URL": gateway.url, "OSTIARY_TOKEN": token}
    with contextlib.ExitStack() as stack:
        clients = []
        for share in shares:
            command = [sys.executable, str(FIXTURES / "many_calls.py"), tool, json.dumps(list(share))]
            clients.append(
                stack.enter_context(
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, cwd=ROOT
                    )
                )
            )
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == "ready\n"
        for client in clients:
            assert client.stdin is not None
            client.stdin.write("go\n")
            client.stdin.flush()
        return [json.loads(client.communicate(timeout=60)[0]) for client in clients]


def paid(folder: Path, run: str) -> list[int]:
    """What really was paid for a run."""
    return [amount for (amount,) in read(folder, "SELECT amount FROM paid WHERE run = ?", run)]


def bills(run: str, amounts: Sequence[int]) -> list[dict[str, Any]]:
    """Arguments of as many calls."""
    return [{"run": run, "amount": amount, "currency": "EUR"} for amount in amounts]


@pytest.mark.parametrize("processes", [1, 2])
def test_fifty_small_payments(folder: Path, gateway: Gateway, processes: int) -> None:
    """Exactly three are made, whether one client process asks or two; the other 47 are denied and nothing is paid."""
    run, token = gateway.run(f"hasty-{processes}")
    shares = [bills(run, [10_000] * (50 // processes))] * processes
    said = Counter(status for share in at_once(gateway, token, "erp.pay", shares) for status in share)
    assert said == {200: 3, 403: 47}
    assert paid(folder, run) == [10_000] * 3


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("tool", "most"), [("erp.refund", 50), ("erp.pay", 3)])
def test_fifty_payments_of_all_sizes(folder: Path, gateway: Gateway, processes: int, tool: str, most: int) -> None:
    """The sum is never over the limit; what was refused was one too many or would not fit at the end either."""
    run, token = gateway.run(f"mixed-{processes}-{most}")
    amounts = random.Random(processes).choices((1, 999, 40_000, 125_000, 200_001, 499_999, 500_000, 500_001), k=50)
    share = 50 // processes
    shares = [bills(run, amounts[at : at + share]) for at in range(0, 50, share)]
    statuses = [status for share in at_once(gateway, token, tool, shares) for status in share]
    assert set(statuses) == {200, 403}
    made = [amount for amount, status in zip(amounts, statuses, strict=True) if status == 200]
    refused = [amount for amount, status in zip(amounts, statuses, strict=True) if status == 403]
    assert sorted(paid(folder, run)) == sorted(made)
    assert sum(made) <= LIMIT
    assert len(made) <= most
    assert len(made) == most or all(sum(made) + amount > LIMIT for amount in refused)


def test_a_second_gateway_on_the_same_state_is_refused(folder: Path, gateway: Gateway) -> None:
    """One process holds the ledger: another one does not start, says why, and disturbs nothing."""
    run, token = gateway.run("lonely")
    second = ostiary("serve", "--config", str(folder / "gateway.toml"), "--json")
    assert second.returncode != 0
    assert "already runs on" in second.stderr
    (said,) = at_once(gateway, token, "erp.pay", [bills(run, [10_000] * 50)])
    assert Counter(said) == {200: 3, 403: 47}


def test_the_next_process_goes_on_counting(folder: Path) -> None:
    """What a gateway that was killed let through counts for the one that is started after it."""
    other = folder / "killed"
    other.mkdir()
    for name in ("gateway.toml", "catalogue.toml"):
        (other / name).write_bytes((folder / name).read_bytes())
    with contextlib.closing(sqlite3.connect(other / "erp.sqlite")) as database, database:
        database.execute("CREATE TABLE paid (run TEXT, amount INT, currency TEXT)")
    with serving(other) as first:
        run, token = first.run("patient")
        assert at_once(first, token, "erp.pay", [bills(run, [200_000, 200_000])]) == [[200, 200]]
        first.process.kill()
    with serving(other) as second:
        (said,) = at_once(second, token, "erp.pay", [bills(run, [100_001] * 25 + [100_000] * 25)])
        assert Counter(said) == {200: 1, 403: 49}
        assert sorted(paid(other, run)) == [100_000, 200_000, 200_000]

"""A payment waits, is read and signed in ``ostiary watch``, and is made once: real gateway, real key, real terminal."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateways import OSTIARY, Gateway, ostiary, serving, until
from tests.terminals import sitting

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
deadline_ms = 1000

[upstreams.pay]
kind = "sql"
database = "pay.sqlite"

[policy.data.gateway.scope.agents."*"]
allow = ["pay.*"]

[policy.data.gateway.scope.groups.desk]
allow = ["pay.*"]
"""
CATALOGUE = """
[[tool]]
server = "pay"
name = "transfer"
effect = "money"
description = "Pay."

[tool.input_schema]
type = "object"
required = ["payee"]
properties = { payee = { type = "string" } }
additionalProperties = false

[tool.sql]
statement = "INSERT INTO paid (payee) VALUES (:payee)"
parameters = ["payee"]
mode = "write"
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway before a ledger of payments."""
    (tmp_path / "gateway.toml").write_text(CONFIG, "utf-8")
    (tmp_path / "catalogue.toml").write_text(CATALOGUE, "utf-8")
    with contextlib.closing(sqlite3.connect(tmp_path / "pay.sqlite")) as database, database:
        database.execute("CREATE TABLE paid (payee TEXT)")
    with serving(tmp_path) as running:
        yield running


def paid(gateway: Gateway) -> list[str]:
    """Who was paid, read past the gateway."""
    with contextlib.closing(sqlite3.connect(gateway.folder / "pay.sqlite")) as database:
        return [str(row[0]) for row in database.execute("SELECT payee FROM paid")]


def test_a_payment_is_signed_in_the_watch_and_made_once(gateway: Gateway) -> None:
    """It is pinned, shown whole with what imitates escaped, signed by y; a rejected one is never made."""
    key, state = gateway.folder / "reviewer.pem", str(gateway.state)
    assert ostiary("reviewer", "keygen", "--key", str(key)).returncode == 0
    enrolled = ostiary("reviewer", "enrol", "--person", "vera", "--key", str(key), OSTIARY_STATE=state)
    assert enrolled.returncode == 0, enrolled.stderr
    token = gateway.token(agent="payer")
    with sitting([*OSTIARY, "watch", "--key", str(key)], (110, 45), OSTIARY_STATE=state) as seat:
        seat.see("live")
        assert gateway.call(token, "pay.transfer", {"payee": "Alpin\u0435 Paper"}).status_code == 202
        seat.see("pay.transfer", "payer for dora", "needs 1 more signature", "needs approval", "pending")
        assert paid(gateway) == []
        seat.press("a")
        seat.see("sign pay.transfer", '"payee": "Alpin\\u0435 Paper"', "approval.required", "y sign this")
        seat.press("y")
        seat.see("approved pay.transfer", "approved")
        until(lambda: paid(gateway) == ["Alpin\u0435 Paper"])
        seat.see_when(lambda screen: "completed" in screen and "payer for dora" not in screen)
        assert gateway.call(token, "pay.transfer", {"payee": "Mallory"}).status_code == 202
        seat.see("payer for dora", "needs 1 more")
        seat.press("\x1b[Hrnot a vendor of ours\r")
        seat.see_when(lambda screen: "rejected" in screen and "payer for dora" not in screen)
        seat.press("q")
        assert seat.end() == 0
    told = gateway.call(token, "pay.transfer", {"payee": "Mallory"})
    assert told.status_code == 403
    assert "not a vendor of ours" in told.text
    assert paid(gateway) == ["Alpin\u0435 Paper"]

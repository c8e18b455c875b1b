"""The demo's own judge: it is content with what must happen, and with nothing else."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from deploy.demo.house import House
from deploy.demo.judge import EXPECTED, findings
from deploy.demo.people import Reviewer
from deploy.demo.screen import Machine
from deploy.demo.story import LEASE_STEPS, Play

PROBE = '{"files": [], "vault": "FileNotFoundError", "network": "OSError", "environment": [], "uid": 1000}'
Spoil = Callable[[Play], object]


def played(folder: Path) -> Play:
    """A demo on a machine without OpenBao in which all went well."""
    with closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        database.executescript(
            """
            CREATE TABLE transfers (iban text, amount int, reference text);
            CREATE TABLE invoices (invoice text, amount int);
            INSERT INTO transfers VALUES ('DE02120300000000202051', 400000, 'PO-1001');
            INSERT INTO invoices VALUES ('INV-1', 180000), ('INV-2', 220000);
            """
        )
    (folder / "gateway.err").write_text("")
    house = House(folder, 1, "vendor-key-of-the-test", box={"backend": "bwrap"}, skipped={"leases": "no wheel"})
    play = Play(house, Machine(), Reviewer("vera", folder, folder), "r-1", "token")
    play.steps = EXPECTED | dict.fromkeys(LEASE_STEPS, "SKIPPED")
    del play.steps["the call that was cut off"]
    play.said = {
        "pay the order": {"approval_id": "a-1"},
        "changed arguments after approval": {"approval_id": "a-2"},
        "SQL text in an argument": {"rows": [], "row_count": 0},
        "prompt-injected recipient": {"reasons": [{"id": "payees.unknown_account"}]},
        "reading the vault from the sandbox": {"stdout": PROBE},
    }
    return play


def test_a_demo_that_went_well(tmp_path: Path) -> None:
    """Nothing is found; what the machine cannot show is expected to be skipped."""
    assert list(findings(played(tmp_path))) == []


@pytest.mark.parametrize("step", sorted(EXPECTED.keys() - {*LEASE_STEPS, "the call that was cut off"}))
def test_each_step_that_ended_otherwise_is_found(tmp_path: Path, step: str) -> None:
    """Another end, or none at all."""
    play = played(tmp_path)
    play.steps[step] = "something else"
    assert [step in found for found in findings(play)] == [True]
    del play.steps[step]
    assert [step in found for found in findings(play)] == [True]


def _paid_twice(play: Play) -> object:
    with closing(sqlite3.connect(play.house.folder / "erp.sqlite")) as database, database:
        return database.execute("INSERT INTO transfers SELECT * FROM transfers")


def _staged_a_third(play: Play) -> object:
    with closing(sqlite3.connect(play.house.folder / "erp.sqlite")) as database, database:
        return database.execute("INSERT INTO invoices VALUES ('INV-3', 150000)")


SPOILT: dict[str, Spoil] = {
    "paid twice": _paid_twice,
    "a third invoice": _staged_a_third,
    "the key was shown": lambda play: play.said.update(x=play.house.vendor_key),
    "the key was shown in hex": lambda play: play.said.update(x=play.house.vendor_key.encode().hex()),
    "a login was shown": lambda play: play.said.update(x="v-erp-read-abcdef123456:ABCDEFGHIJKLMNOPQRST1234"),
    "the key was logged": lambda play: (play.house.folder / "gateway.err").write_text(play.house.vendor_key),
    "one approval for two actions": lambda play: play.said.update(
        {"changed arguments after approval": {"approval_id": "a-1"}}
    ),
    "SQL did something": lambda play: play.said.update({"SQL text in an argument": {"rows": [1], "row_count": 1}}),
    "another rule stopped it": lambda play: play.said.update({"prompt-injected recipient": {"reasons": []}}),
    "the box was silent": lambda play: play.said.update({"reading the vault from the sandbox": None}),
    "the box saw a file": lambda play: play.said.update(
        {"reading the vault from the sandbox": {"stdout": PROBE.replace("[]", '["/etc/shadow"]', 1)}}
    ),
    "the box was root": lambda play: play.said.update(
        {"reading the vault from the sandbox": {"stdout": PROBE.replace("1000", "0")}}
    ),
    "the box reached the vault": lambda play: play.said.update(
        {"reading the vault from the sandbox": {"stdout": PROBE.replace("FileNotFoundError", "connected")}}
    ),
    "a step nobody knows": lambda play: play.steps.update(surprise="completed"),
}


@pytest.mark.parametrize("name", sorted(SPOILT))
def test_what_must_not_be_is_found(tmp_path: Path, name: str) -> None:
    """In the world behind the gateway, in what was told, in the gateway's own words."""
    play = played(tmp_path)
    SPOILT[name](play)
    assert len(list(findings(play))) == 1

"""A layer that may only restrict, at a real gateway: checked, served, and refused when it tries to allow."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.test_policy_shadow import CATALOGUE
from tests.gateways import Gateway, ostiary, serving, until

CONFIG = """\
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
deadline_ms = 1000 # the machine of a test is busy
reload_s = 0.2
bundles = [{ path = "org", deny_only = true }]

[policy.data.gateway.scope.agents.clerk]
allow = ["erp.find_order"]
[policy.data.gateway.scope.users.dora]
allow = ["erp.find_order"]

[upstreams.erp]
kind = "sql"
database = "erp.sqlite"
"""
DENY = """\
package gateway.policies.org

deny contains {"id": "org.closed", "msg": "not this one"} if {
	input.phase == "call"
	input.args.number == "PO-2"
}
"""
ALLOW = """
allow contains {"id": "org.all", "msg": "everything"} if input
"""


@contextmanager
def held(folder: Path) -> Iterator[Gateway]:
    """A gateway whose operator holds the folder ``org`` to restrict."""
    (folder / "gateway.toml").write_text(CONFIG, "utf-8")
    (folder / "catalogue.toml").write_text(CATALOGUE, "utf-8")
    (folder / "org").mkdir()
    (folder / "org" / "org.rego").write_text(DENY, "utf-8")
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        database.execute("CREATE TABLE orders (number TEXT)")
    with serving(folder) as gateway:
        yield gateway
    assert gateway.process.returncode == 0


def status(gateway: Gateway) -> tuple[int, dict[str, Any]]:
    """What ``ostiary policy status`` says."""
    done = ostiary("policy", "status", "--state", str(gateway.state), "--json")
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_it_takes_away_and_never_gives(tmp_path: Path) -> None:
    """Its denial holds; a version that allows is not in force and is named by file and line; the denial still holds."""
    with held(tmp_path) as gateway:
        clerk, other = gateway.token(agent="clerk"), gateway.token(agent="other")

        def answers() -> list[int]:
            asked = ((clerk, "PO-1"), (clerk, "PO-2"), (other, "PO-1"))
            return [gateway.call(who, "erp.find_order", {"number": number}).status_code for who, number in asked]

        assert answers() == [200, 403, 404]
        code, before = status(gateway)
        assert (code, [one["said_by"] for one in before["deny_only"]]) == (0, [["gateway.toml"]])
        (tmp_path / "org" / "org.rego").write_text(DENY + ALLOW, "utf-8")
        until(lambda: status(gateway)[0] == 1)
        _, after = status(gateway)
        (problem,) = after["candidate"]["problems"]
        assert problem.startswith("org/org.rego:8: GW006 allow in a deny-only layer")
        assert (after["revision"], answers()) == (before["revision"], [200, 403, 404])
    # The operator's own check of all that would start says the same.
    done = ostiary("check", "--config", str(tmp_path / "gateway.toml"))
    assert (done.returncode, "org/org.rego:8: GW006" in done.stderr) == (2, True), done.stderr


def test_the_check_says_so_before(tmp_path: Path) -> None:
    """Of a folder and of one file; what is only denied there passes, and so does an allow that nobody forbids."""
    (tmp_path / "org").mkdir()
    file = tmp_path / "org" / "org.rego"
    for text, option, code in ((DENY, ["--deny-only"], 0), (DENY + ALLOW, [], 0), (DENY + ALLOW, ["--deny-only"], 1)):
        file.write_text(text, "utf-8")
        for path in (file.parent, file):
            done = ostiary("policy", "check", str(path), *option)
            assert done.returncode == code, done.stdout
            assert ("org/org.rego:8: GW006: allow in a deny-only layer" in done.stdout) == bool(code)

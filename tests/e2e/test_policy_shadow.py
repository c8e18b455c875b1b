"""A policy in the shadow of a real gateway: what it would change shows in the metrics, and nowhere else."""

import contextlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import Gateway, ostiary, serving, until

CONFIG = """\
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0
open_metrics = true

[policy]
deadline_ms = 1000 # the machine of a test is busy

[policy.shadow]
bundles = ["shadow"]
sample_pct = 100

[policy.data.gateway.scope.agents.clerk]
allow = ["erp.*"]
[policy.data.gateway.scope.users.dora]
allow = ["erp.*"]

[upstreams.erp]
kind = "sql"
database = "erp.sqlite"
"""
CATALOGUE = """\
[[tool]]
server = "erp"
name = "find_order"
effect = "read"
description = "A purchase order by its number."

[tool.input_schema]
type = "object"
required = ["number"]
additionalProperties = false
properties.number = { type = "string" }

[tool.sql]
statement = "SELECT number FROM orders WHERE number = :number"
parameters = ["number"]
"""
STRICT = """\
package gateway.policies.strict

deny contains {"id": "strict.no", "msg": "not this one"} if input.args.number == "PO-2"
"""
BROKEN = """\
package gateway.policies.strict

deny contains {"id": "strict.net", "msg": "asks the network"} if http.send({"method": "get", "url": "x"}).status_code
"""
HANGING = """\
package gateway.policies.strict

deny contains {"id": "strict.loop", "msg": "never ends"} if {
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	some c in numbers.range(1, 3000)
	a * b * c == -1
}
"""


@contextmanager
def shadowed(folder: Path, rules: str) -> Iterator[Gateway]:
    """A gateway with these rules in its shadow."""
    (folder / "gateway.toml").write_text(CONFIG, "utf-8")
    (folder / "catalogue.toml").write_text(CATALOGUE, "utf-8")
    (folder / "shadow").mkdir()
    (folder / "shadow" / "strict.rego").write_text(rules, "utf-8")
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        database.execute("CREATE TABLE orders (number TEXT)")
    with serving(folder) as gateway:
        yield gateway
    assert gateway.process.returncode == 0


def shown(gateway: Gateway, result: str) -> int:
    """How often this came of a comparison."""
    page = gateway.http.get("/metrics").text
    found = re.search(rf'^ostiary_policy_shadow_total{{result="{result}"}} (\S+)$', page, re.MULTILINE)
    return round(float(found[1])) if found else 0


def is_watching(gateway: Gateway) -> bool:
    """Whether the policy in the shadow is asked."""
    return "ostiary_policy_shadow_watching 1.0" in gateway.http.get("/metrics").text


def found(folder: Path, code: int = 0) -> Any:
    """What `ostiary check` finds about the shadow."""
    done = ostiary("check", "--config", str(folder / "gateway.toml"), "--json")
    assert done.returncode == code, done.stdout
    findings = json.loads(done.stdout.splitlines()[-1])["findings"]
    (shadow,) = [one for one in findings if one["part"] == "policy shadow"]
    return shadow


def test_what_a_candidate_would_change_shows_in_the_metrics(tmp_path: Path) -> None:
    """Two calls pass; the one that would not is counted, and logged without its arguments."""
    with shadowed(tmp_path, STRICT) as gateway:
        until(lambda: is_watching(gateway))
        token = gateway.token(agent="clerk")
        for number in ("PO-1", "PO-2"):
            assert gateway.call(token, "erp.find_order", {"number": number}).status_code == 200
        until(lambda: shown(gateway, "newly_denied") == 1)
        until(lambda: shown(gateway, "agree") == 5)  # each call asks about listing, then about listing and calling
        assert "strict.no" in gateway.words()
        assert "PO-2" not in gateway.words()
    assert found(tmp_path)["ok"]


@pytest.mark.parametrize(("rules", "words"), [(BROKEN, "GW002"), (HANGING, "hangs or crashes")])
def test_a_broken_candidate_stops_nothing(tmp_path: Path, rules: str, words: str) -> None:
    """The gateway starts and answers; the log says why, and so does `ostiary check`, with exit code 1."""
    with shadowed(tmp_path, rules) as gateway:
        assert gateway.call(gateway.token(agent="clerk"), "erp.find_order", {"number": "PO-1"}).status_code == 200
        until(lambda: words in gateway.words())
        assert not is_watching(gateway)
        assert gateway.call(gateway.token(agent="clerk"), "erp.find_order", {"number": "PO-1"}).status_code == 200
        assert shown(gateway, "dropped") > 0
    assert words in found(tmp_path, code=1)["text"]

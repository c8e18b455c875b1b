"""Approvals from end to end: an agent, a reviewer with a key of their own, a real gateway, and its death in between."""

import contextlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import SECRETS, Api, api_server
from tests.gateways import Gateway, ostiary, serving, types, until

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
deadline_ms = 1000

[approvals]
hold_s = 0.2

[upstreams.pay]
kind = "http"
origin = "{api}"
credential = "api"
allow_networks = ["127.0.0.0/8"]

[credentials.api]
prefix = "Bearer "
env = "API_KEY"

[policy.data.gateway.scope.groups.desk]
allow = ["pay.transfer"]

[policy.data.gateway.scope.agents."*"]
allow = ["pay.transfer"]
"""
CATALOGUE = """
[[tool]]
server = "pay"
name = "transfer"
effect = "money"
description = "Send money."
measures = [{ name = "amount", pointer = "/amount", currency_pointer = "/currency" }]

[tool.input_schema]
type = "object"
required = ["to", "amount", "currency"]
additionalProperties = false
properties.to = { type = "string" }
properties.amount = { type = "integer", minimum = 1 }
properties.currency = { type = "string" }

[tool.http]
method = "POST"
path = "/tools/things"
body = "rest"
"""
ROUNDS = 4


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """The bank, which outlives the gateway."""
    with api_server() as server:
        yield server


@contextlib.contextmanager
def started(folder: Path, api: Api) -> Iterator[Gateway]:
    """A gateway on ``folder`` before the bank."""
    (folder / "gateway.toml").write_text(CONFIG.format(api=api.origin), "utf-8")
    (folder / "catalogue.toml").write_text(CATALOGUE, "utf-8")
    with serving(folder, **SECRETS) as gateway:
        yield gateway


def transfer(to: str) -> dict[str, Any]:
    """Arguments of a payment."""
    return {"to": to, "amount": 12500, "currency": "EUR"}


def enrolled(gateway: Gateway, person: str, *words: str) -> str:
    """The key file of a reviewer who is enrolled now."""
    key = str(gateway.folder / f"{person}.pem")
    assert ostiary("reviewer", "keygen", "--key", key).returncode == 0
    gateway.ask("reviewer", "enrol", "--person", person, "--key", key, *words)
    return key


@pytest.mark.requirement("GATE-1")
def test_a_transfer_from_both_sides(tmp_path: Path, api: Api) -> None:
    """Parked, shown whole, refused to its requester, signed by another person, made once under twenty calls at once."""
    with started(tmp_path, api) as gateway:
        vera = enrolled(gateway, "vera")
        dora = enrolled(gateway, "dora", "--signed-by", vera)
        _, token = gateway.run("clerk")
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: gateway.call(token, "pay.transfer", transfer("V-7")), range(20)))
        waits = {answer.json()["approval_id"] for answer in answers}
        assert ({answer.status_code for answer in answers}, len(waits)) == ({202}, 1)
        (approval_id,) = waits
        shown = gateway.ask("approval", "show", approval_id)
        assert (json.loads(shown["arguments_json"]), shown["goal"]) == (transfer("V-7"), "a test")
        assert "own" in gateway.ask("approve", approval_id, "--yes", "--key", dora, code=1)["cause"]
        assert api.journal("V-7") == []
        with ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(gateway.call, token, "pay.transfer", transfer("V-7")) for _ in range(20)]
            assert gateway.ask("approve", approval_id, "--yes", "--key", vera)["state"] in {
                "approved",
                "executing",
                "ended",
            }
            for call in calls:
                assert call.result().status_code in {200, 202}
        until(lambda: gateway.call(token, "pay.transfer", transfer("V-7")).status_code == 200)
        told = gateway.call(token, "pay.transfer", transfer("V-7")).json()
        assert told["replayed"]
        assert len(api.journal("V-7")) == 1
        intents = gateway.records(type="tool.requested")
        assert [record["body"]["approval"] for record in intents] == [approval_id]
        other = gateway.call(token, "pay.transfer", transfer("V-8"))
        assert other.json()["approval_id"] != approval_id
        rejected = gateway.ask("reject", other.json()["approval_id"], "--reason", "unknown vendor", "--key", vera)
        assert rejected["state"] == "rejected"
        denied = gateway.call(token, "pay.transfer", transfer("V-8"))
        assert (denied.status_code, "unknown vendor" in denied.json()["detail"]) == (403, True)
        # What waited, and what was then allowed by signatures, comes out of a replay as it was recorded.
        words = ("--candidate", str(tmp_path / "gateway.toml"), "--fail-on", "any-change")
        done = gateway.ask("policy", "replay", *words)
        assert (done["fidelity"]["mismatches"], done["not_replayable"]) == ([], {})
        assert {cell["before"] for cell in done["matrix"]} == {"allow", "needs_approval"}
    assert json.loads(ostiary("audit", "verify", "--state", str(tmp_path / "state"), "--json").stdout)["ok"]


@pytest.mark.requirement("GATE-1")
def test_kills_between_signature_and_outcome(tmp_path: Path, api: Api) -> None:
    """Wherever kill -9 strikes after the signature, the payment is made at most once, and its end is known at last."""
    chance = random.Random(3)
    for number in range(ROUNDS):
        killed_in_between(tmp_path, api, f"K-{number}", late=chance.random() < 0.5)
    said = json.loads(ostiary("audit", "verify", "--state", str(tmp_path / "state"), "--json").stdout.splitlines()[-1])
    assert (said["ok"], said["open_calls"]) == (True, [])


def killed_in_between(folder: Path, api: Api, to: str, *, late: bool) -> None:
    """Kill the gateway after the signature, or (``late``) after the intent; see what came of the payment."""
    with started(folder, api) as gateway:
        key = folder / "vera.pem"
        if not key.exists():
            enrolled(gateway, "vera")
        run_id, token = gateway.run("clerk")
        waiting = gateway.call(token, "pay.transfer", transfer(to)).json()
        with ThreadPoolExecutor(1) as pool:
            signing = pool.submit(sign, gateway, waiting["approval_id"], str(key))
            until(lambda: gateway.records(run_id=run_id, type="approval.decided"))
            if late:
                until(lambda: gateway.records(run_id=run_id, type="tool.requested"))
            gateway.process.kill()
            signing.result()
    with started(folder, api) as gateway:
        until(lambda: gateway.call(token, "pay.transfer", transfer(to)).status_code != 202)
        ended = gateway.call(token, "pay.transfer", transfer(to))
        intents = gateway.records(run_id=run_id, type="tool.requested")
    made = len(api.journal(to))
    assert (len(intents), made <= 1) == (1, True), f"{to}: {len(intents)} intents, {made} payments"
    assert ended.status_code == 504 or made == 1, f"{to}: answered {ended.text} without a payment"


def sign(gateway: Gateway, approval_id: str, key: str) -> None:
    """Approve; the gateway may be killed meanwhile."""
    ostiary("approve", approval_id, "--yes", "--key", key, "--json", OSTIARY_STATE=str(gateway.state))


def test_the_wrong_key_is_told(tmp_path: Path, api: Api) -> None:
    """A key that is not there, that others can read, that is none, that is not enrolled: one line with its fix."""
    with started(tmp_path, api) as gateway:
        enrolled(gateway, "vera")
        _, token = gateway.run("clerk")
        approval_id = gateway.call(token, "pay.transfer", transfer("V-9")).json()["approval_id"]
        open_key, junk, stranger = tmp_path / "open.pem", tmp_path / "junk.pem", tmp_path / "stranger.pem"
        open_key.write_bytes((tmp_path / "vera.pem").read_bytes())
        open_key.chmod(0o644)
        junk.write_text("no key")
        junk.chmod(0o600)
        assert ostiary("reviewer", "keygen", "--key", str(stranger)).returncode == 0
        for file, part, code in (
            (tmp_path / "none.pem", "cannot be read", 2),
            (open_key, "chmod 600", 2),
            (junk, "no Ed25519 key", 2),
            (stranger, "not enrolled", 1),
        ):
            words = ("approve", approval_id, "--yes", "--key", str(file))
            done = ostiary(*words, OSTIARY_STATE=str(gateway.state))
            assert (done.returncode, part in done.stderr) == (code, True), done.stderr
        again = ostiary("reviewer", "keygen", "--key", str(stranger))
        assert (again.returncode, "there already" in again.stderr) == (1, True)
        assert types(gateway.records(type="approval.decided")) == []


def test_check_says_that_nobody_may_sign(tmp_path: Path, api: Api) -> None:
    """Before a reviewer is enrolled, and with the line that lets the tool go alone; afterwards it is content."""
    with started(tmp_path, api):
        pass  # makes keys and log
    config = ("check", "--config", str(tmp_path / "gateway.toml"))
    said = ostiary(*config, **SECRETS)
    assert said.returncode == 1
    assert 'unattended = ["pay.transfer"]' in said.stdout + said.stderr
    with started(tmp_path, api) as gateway:
        enrolled(gateway, "vera")
    assert ostiary(*config, **SECRETS).returncode == 0

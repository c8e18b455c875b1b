"""Two gateway processes on one PostgreSQL: one log, limits held exactly over both, and the death of either survived."""

import contextlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.servers.postgres import Postgres
from tests.e2e.house import SECRETS, Api, api_server
from tests.gateways import Gateway, ostiary, serving, until
from tests.stores import log_database

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[limits]
edge_per_minute = 60000

[audit.postgres]
url = "{url}"
password = {{ file = "password" }}

[policy]
deadline_ms = 2000

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
allow = ["pay.*"]

[policy.data.gateway.scope.agents."*"]
allow = ["pay.*"]

[policy.data.gateway.approval]
unattended = ["pay.transfer"]

[policy.data.gateway.limits."pay.transfer"]
calls_per_run = 3
sums_per_run = {{ "amount.EUR" = 500000 }}
"""
TOOL = """
[[tool]]
server = "pay"
name = "@NAME@"
effect = "money"
description = "Send money."
measures = [{ name = "amount", pointer = "/amount", currency_pointer = "/currency" }]
limits = { per_minute = 6000, concurrency = 64 }

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
SLOW = """
[[tool]]
server = "pay"
name = "slow"
effect = "write"
description = "A write that takes its time."

[tool.input_schema]
type = "object"
required = ["id"]
additionalProperties = false
properties.id = { type = "string" }

[tool.http]
method = "POST"
path = "/tools/slow/{id}"
"""


@dataclass(frozen=True)
class Pair:
    """Two gateways' folders on one database, before one bank."""

    folder: Path
    api: Api
    url: str
    password: str = field(repr=False)

    def home(self, name: str) -> Path:
        """The folder of a gateway; all have the keys of the first."""
        place = self.folder / name
        if not place.exists():
            place.mkdir()
            (place / "gateway.toml").write_text(CONFIG.format(api=self.api.origin, url=self.url), "utf-8")
            tools = [TOOL.replace("@NAME@", tool) for tool in ("transfer", "signed")]
            (place / "catalogue.toml").write_text("".join([*tools, SLOW]), "utf-8")
            (place / "password").write_text(self.password, "utf-8")
            if name != "a":
                (place / "state").mkdir(0o700)
                shutil.copytree(self.folder / "a" / "state" / "keys", place / "state" / "keys")
        return place

    @contextlib.contextmanager
    def serving(self, name: str) -> Iterator[Gateway]:
        """That gateway, running."""
        with serving(self.home(name), **SECRETS) as gateway:
            yield gateway

    def verified(self, name: str) -> dict[str, Any]:
        """What the offline verifier says, asked by the state folder of a gateway; it must be content."""
        state = str(self.home(name) / "state")
        done = ostiary("audit", "verify", "--state", state, "--payloads", "--json")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, said["findings"]) == (0, []), done.stderr
        return said


@pytest.fixture
def pair(tmp_path: Path, real_postgres: Postgres) -> Iterator[Pair]:
    """A database for one log, and a bank."""
    target = log_database(real_postgres, f"pair_{tmp_path.name}"[:60].lower())
    url = f"postgresql:///{target.database}?host={target.host}&user={target.user}"
    with api_server() as api:
        yield Pair(tmp_path, api, url, str(target.password))


def payment(to: str, amount: int = 10_000) -> dict[str, Any]:
    """Arguments of a payment."""
    return {"to": to, "amount": amount, "currency": "EUR"}


def asked(gateway: Gateway, token: str, arguments: dict[str, Any]) -> int:
    """The status of a payment; 0 where the gateway was not there to answer."""
    try:
        return gateway.call(token, "pay.transfer", arguments).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.requirement("AUDIT-1")
def test_limits_hold_over_both(pair: Pair) -> None:
    """Forty calls of one run at once, half by each gateway: three are made; of large ones as many as fit."""
    with pair.serving("a") as one, pair.serving("b") as other, ThreadPoolExecutor(40) as pool:
        for place, (amount, most) in enumerate([(10_000, 3), (200_000, 2), (500_000, 1), (500_001, 0)]):
            _, token = (one, other)[place % 2].run(f"hasty-{place}")
            to = f"V-{place}"
            calls = [pool.submit(asked, (one, other)[at % 2], token, payment(to, amount)) for at in range(40)]
            assert Counter(call.result() for call in calls) == Counter({200: most, 403: 40 - most})
            assert len(pair.api.journal(f'"{to}"')) == most
        assert one.size() == other.size()
    assert not pair.verified("b")["open_calls"]


@pytest.mark.requirement("AUDIT-1")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_of_one_under_load(pair: Pair, seed: int) -> None:
    """What was acknowledged is there, what was under way is outcome_unknown, each run was granted exactly its three."""
    chance = random.Random(seed)
    with pair.serving("a") as survivor, pair.serving("b") as victim:
        runs = [survivor.run(f"agent-{place}") for place in range(8)]
        _, token = victim.run("slow")
        answered: list[tuple[str, int]] = []

        def load(place: int) -> None:
            run, by = runs[place % 8]
            gateway = (survivor, victim)[place % 2]
            answered.append((run, asked(gateway, by, payment(f"{run}/{place}"))))

        with ThreadPoolExecutor(24) as pool:
            waits = pool.submit(asked_slowly, victim, token)
            until(lambda: pair.api.journal("/tools/slow/s-1"))
            list_of = [pool.submit(load, place) for place in range(160)]
            until(lambda: len(answered) > chance.randint(4, 30))
            victim.process.kill()
            for call in list_of:
                call.result()
            assert waits.result() == 0
            pair.api.release()
        settled(survivor)
        for run, by in runs:
            until(lambda run=run, by=by: exhausted(survivor, run, by))  # type: ignore[misc]
        records = survivor.records()
        intents = Counter(record["run_id"] for record in records if record["type"] == "tool.requested")
        completed = Counter(record["run_id"] for record in records if record["type"] == "tool.completed")
        acknowledged = Counter(run for run, status in answered if status == 200)
        assert {intents[run] for run, _ in runs} == {3}
        assert all(acknowledged[run] <= completed[run] for run, _ in runs)
        slow = [record for record in records if record["body"].get("tool") == "pay.slow"]
        assert slow[-1]["type"] == "tool.outcome_unknown"
        assert not pair.verified("a")["open_calls"]
        with pair.serving("b") as again:
            assert asked(again, runs[0][1], payment("once more")) == 403
    assert not pair.verified("b")["open_calls"]


def asked_slowly(gateway: Gateway, token: str) -> int:
    """The status of a call that takes its time."""
    try:
        return gateway.call(token, "pay.slow", {"id": "s-1"}).status_code
    except httpx.TransportError:
        return 0


def settled(gateway: Gateway) -> None:
    """Return once every intent in the log has an end."""

    def look() -> bool:
        records = gateway.records()
        begun = {record["call_id"] for record in records if record["type"] == "tool.requested"}
        ends = {"tool.completed", "tool.failed", "tool.not_sent", "tool.outcome_unknown"}
        return begun == {record["call_id"] for record in records if record["type"] in ends}

    until(look)


def exhausted(gateway: Gateway, run: str, token: str) -> bool:
    """Whether the run takes no further payment, now that nobody else calls in it."""
    return asked(gateway, token, payment(f"{run}/last")) == 403


@pytest.mark.requirement("GATE-1")
def test_an_approval_is_carried_out_once(pair: Pair) -> None:
    """Parked at one gateway, signed at the other; also where the one that heard the signature is killed at once."""
    with pair.serving("a") as one, pair.serving("b") as other:
        key = str(pair.folder / "vera.pem")
        assert ostiary("reviewer", "keygen", "--key", key).returncode == 0
        one.ask("reviewer", "enrol", "--person", "vera", "--key", key)
        _, token = one.run("clerk")
        first = one.call(token, "pay.signed", payment("V-1")).json()["approval_id"]
        assert other.call(token, "pay.signed", payment("V-1")).json()["approval_id"] == first
        other.ask("approve", first, "--yes", "--key", key)
        for gateway in (one, other):
            until(lambda at=gateway: at.call(token, "pay.signed", payment("V-1")).status_code == 200)  # type: ignore[misc]
        assert len(pair.api.journal('"V-1"')) == 1
        second = one.call(token, "pay.signed", payment("V-2")).json()["approval_id"]
        until(lambda: known(other, second))
        one.ask("approve", second, "--yes", "--key", key)
        one.process.kill()
        until(lambda: other.ask("approval", "show", second)["state"] == "ended")
        assert len(pair.api.journal('"V-2"')) <= 1
        claims = [record["body"].get("approval") for record in other.records(type="tool.requested")]
        assert Counter(claims) == {first: 1, second: 1}
        settled(other)
    assert not pair.verified("b")["open_calls"]


def known(gateway: Gateway, approval_id: str) -> bool:
    """Whether the gateway knows of the approval."""
    return gateway.http.get(f"/v1/approvals/{approval_id}").status_code == 200


def test_what_a_state_folder_must_have(pair: Pair) -> None:
    """Other keys, another gateway's name, a wrong password: refused in one line without any secret."""
    with pair.serving("a"):
        twin = pair.home("b")
        shutil.copy(pair.home("a") / "state" / "replica.id", twin / "state")
        refused(twin, "another gateway writes")
        (twin / "state" / "replica.id").unlink()
        (twin / "state" / "keys" / "payload.kek").write_bytes(bytes(32))
        refused(twin, "copy the folder keys")
        (twin / "password").write_text("wrong-password-1234")
        refused(twin, "password authentication failed")
        checked = ostiary("check", "--config", str(twin / "gateway.toml"), "--json")
        assert checked.returncode != 0
        assert "wrong-password-1234" not in checked.stdout + checked.stderr


def refused(folder: Path, words: str) -> None:
    """A gateway on the folder does not start, and says so."""
    done = ostiary("serve", "--config", str(folder / "gateway.toml"), "--json", **SECRETS)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr

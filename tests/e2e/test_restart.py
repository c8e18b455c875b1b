"""What a restart finds: a call that a kill cut off, the places that were used, a tool that has changed."""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import venvs
from tests.e2e.house import SECRETS, Api, api_server
from tests.gateways import Gateway, ostiary, serving, types, until

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
deadline_ms = 1000

[upstreams.api]
kind = "http"
origin = "{api}"
credential = "api"
allow_networks = ["127.0.0.0/8"]

[upstreams.time]
kind = "mcp"
command = ["{python}", "-m", "mcp_server_time"]
env = {{ TZ = "{zone}" }}
trust = "first_use"

[credentials.api]
prefix = "Bearer "
env = "API_KEY"

[policy.data.gateway.scope.groups.desk]
allow = ["api.*", "time.*"]

[policy.data.gateway.scope.agents."*"]
allow = ["api.*", "time.*"]

[policy.data.gateway.limits."api.slow"]
calls_per_run = 2
"""
CATALOGUE = """
[[tool]]
server = "api"
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

[[tool]]
server = "time"
name = "get_current_time"
effect = "read"

[[tool]]
server = "time"
name = "convert_time"
effect = "read"
"""


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """The HTTP API, which outlives the gateway."""
    with api_server() as server:
        yield server


@contextlib.contextmanager
def started(folder: Path, api: Api, zone: str = "Europe/Vienna") -> Iterator[Gateway]:
    """A gateway on ``folder`` before the API and a real MCP server whose words depend on its time zone."""
    config = CONFIG.format(api=api.origin, python=venvs.python("servers"), zone=zone)
    (folder / "gateway.toml").write_text(config, "utf-8")
    (folder / "catalogue.toml").write_text(CATALOGUE, "utf-8")
    with serving(folder, **SECRETS) as gateway:
        yield gateway


def verified(folder: Path) -> dict[str, Any]:
    """What verification of the log says, without a gateway."""
    done = ostiary("audit", "verify", "--state", str(folder / "state"), "--json")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["ok"] is (done.returncode == 0)
    return said


def flip(folder: Path, index: int) -> None:
    """Alter one bit of a record of a log that nobody writes."""
    with contextlib.closing(sqlite3.connect(folder / "state" / "log.db")) as database, database:
        (leaf,) = database.execute("SELECT leaf FROM records WHERE idx = ?", (index,)).fetchone()
        altered = leaf[:50] + bytes([leaf[50] ^ 1]) + leaf[51:]
        database.execute("UPDATE records SET leaf = ? WHERE idx = ?", (altered, index))


@pytest.mark.requirement("TEST-5", "AUDIT-1")
def test_a_kill_in_the_middle_of_a_write(tmp_path: Path, api: Api) -> None:
    """The intent is on disk; the next start ends it as unknown, counts it, and the log is sound all along."""
    with started(tmp_path, api) as gateway:
        run_id, token = gateway.run("worker")
        cut: list[BaseException] = []

        def work() -> None:
            try:
                gateway.call(token, "api.slow", {"id": "cut-off"})
            except httpx.HTTPError as error:
                cut.append(error)

        caller = threading.Thread(target=work)
        caller.start()
        until(lambda: api.journal("cut-off"))
        intent = gateway.records(run_id=run_id, type="tool.requested")[0]
        gateway.process.kill()
        caller.join()
        assert cut, "the caller got an answer"
    found = verified(tmp_path)
    assert (found["ok"], found["open_calls"]) == (True, [intent["call_id"]])
    with started(tmp_path, api) as gateway:
        said = gateway.ask("explain", intent["call_id"])
        assert said["outcome"] == "outcome_unknown"
        assert types(gateway.records(run_id=run_id)) == ["decision", "tool.requested", "tool.outcome_unknown"]
        api.release()
        until(lambda: [line for line in api.journal("cut-off") if line["what"] == "done"])
        second = threading.Thread(target=lambda: gateway.call(token, "api.slow", {"id": "second"}))
        second.start()
        until(lambda: api.journal("second"))
        third = gateway.call(token, "api.slow", {"id": "third"})
        assert third.json()["reasons"][0]["id"] == "limits.calls_per_run"
        api.release()
        second.join()
        assert types(gateway.records(run_id=run_id))[-1] == "tool.completed"
    found = verified(tmp_path)
    assert (found["ok"], found["open_calls"]) == (True, [])
    assert len([line for line in api.journal("cut-off") if line["what"] == "begun"]) == 1
    assert not api.journal("third")
    flip(tmp_path, 3)
    found = verified(tmp_path)
    assert (found["ok"], found["findings"][0]["index"]) == (False, 3)


def test_a_tool_that_changed_is_quarantined(tmp_path: Path, api: Api) -> None:
    """A server describes its tool otherwise than when it was pinned: no call passes, and nobody gets the new words."""
    now = ("time.get_current_time", {"timezone": "UTC"})
    with started(tmp_path, api) as gateway:
        assert gateway.call(gateway.token(agent="worker"), *now).status_code == 200
    with started(tmp_path, api, zone="Pacific/Fiji") as gateway:
        token = gateway.token(agent="worker")
        refused = gateway.call(token, *now)
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:ostiary:problem:quarantined")
        assert types(gateway.records(call_id=refused.json()["call_id"])) == ["request.refused"]
        with gateway.client(token) as client:
            shown = {tool["name"]: str(tool["definition"]) for tool in client.get("/v1/tools").json()["tools"]}
        assert "Pacific/Fiji" not in str(shown)
        assert gateway.http.get("/readyz").status_code == 200

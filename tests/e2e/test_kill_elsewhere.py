"""A kill at one gateway ends what runs at another one on the same PostgreSQL: calls of an API, of MCP, and code."""

import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import httpx
import pytest

from deploy.servers.postgres import Postgres
from gateway.core.sandbox import Capabilities
from sandbox.runner import BwrapRunner
from tests.boxes import marked, marking, require
from tests.e2e.house import SECRETS, Api, api_server
from tests.gateways import Gateway, ostiary, serving, until
from tests.processes import FIXTURES
from tests.stores import log_database

SETTINGS = """
state = "state"
catalogue = ["catalogue.toml"]
[listen]
port = 0
[audit.postgres]
url = "{url}"
password = {{ file = "password" }}
[policy]
deadline_ms = 2000
[policy.data.gateway.scope]
agents."*" = {{ allow = ["*"] }}
users."*" = {{ allow = ["*"] }}
[policy.data.gateway.sandbox]
accept_missing = {missing}
[upstreams.api]
kind = "http"
origin = "{api}"
credential = "api"
allow_networks = ["127.0.0.0/8"]
[credentials.api]
prefix = "Bearer "
env = "API_KEY"
[upstreams.mcp]
kind = "mcp"
command = {command}
trust = "first_use"
{sandbox}
"""
CATALOGUE = """
[[tool]]
server = "api"
name = "slow"
effect = "write"
description = "A write that takes its time."
http = { method = "POST", path = "/tools/slow/{id}" }
[tool.input_schema]
type = "object"
required = ["id"]
additionalProperties = false
properties.id = { type = "string" }
[[tool]]
server = "api"
name = "find"
effect = "read"
description = "A read."
http = { method = "GET", path = "/tools/things/{id}" }
[tool.input_schema]
type = "object"
required = ["id"]
additionalProperties = false
properties.id = { type = "string" }
[[tool]]
server = "mcp"
name = "wait"
effect = "read"
"""
CODE = """
[[tool]]
server = "code"
name = "run"
effect = "write"
description = "Runs a Python program."
input_schema = { type = "object", required = ["code"], properties = { code = { type = "string" } } }
[tool.code.limits]
memory_mb = 128
wall_s = 60
"""


@dataclass(frozen=True)
class Pair:
    """Two gateways on one log, and what is behind both."""

    one: Gateway
    other: Gateway
    api: Api
    called: Path
    box: Capabilities


async def _box() -> Capabilities:
    async with BwrapRunner() as runner:
        return await runner.probe()


@contextmanager
def one_of(folder: Path, text: str, catalogue: str, password: str) -> Iterator[Gateway]:
    """A gateway in a new folder; the second one has the keys of the first."""
    folder.mkdir()
    (folder / "gateway.toml").write_text(text)
    (folder / "catalogue.toml").write_text(catalogue)
    (folder / "password").write_text(password)
    keys = folder.parent / "one" / "state" / "keys"
    if keys.exists():
        (folder / "state").mkdir(0o700)
        shutil.copytree(keys, folder / "state" / "keys")
    with serving(folder, **SECRETS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, real_postgres: Postgres) -> Iterator[Pair]:
    """Both, for all tests of this module."""
    folder, box = tmp_path_factory.mktemp("elsewhere"), anyio.run(_box)
    target = log_database(real_postgres, "kill_elsewhere")
    command = [sys.executable, "-I", str(FIXTURES / "waiting_stdio.py"), str(folder / "called")]
    with api_server() as api:
        text = SETTINGS.format(
            url=f"postgresql:///{target.database}?host={target.host}&user={target.user}",
            api=api.origin,
            command=json.dumps(command),
            missing=json.dumps(list(box.missing) if box.usable else []),
            sandbox='[sandbox]\nslots = 2\n[upstreams.code]\nkind = "code"' if box.usable else "",
        )
        catalogue = CATALOGUE + (CODE if box.usable else "")
        password = str(target.password)
        with (
            one_of(folder / "one", text, catalogue, password) as one,
            one_of(folder / "other", text, catalogue, password) as other,
        ):
            yield Pair(one, other, api, folder / "called", box)


def verified(gateway: Gateway) -> None:
    """The offline verifier is content, and no call is open."""
    done = ostiary("audit", "verify", "--state", str(gateway.state), "--payloads", "--json")
    said = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, said["findings"], said["open_calls"]) == (0, [], [])


def ended(answer: httpx.Response) -> tuple[int, str]:
    """How a call ended."""
    return answer.status_code, str(answer.json().get("cause"))


def carried_out(gateway: Gateway, kill_id: str) -> list[int]:
    """How many calls each gateway broke off, once both have said so."""
    bodies = [one["body"] for one in gateway.records(type="kill.carried_out")]
    found = sorted(body["calls"] for body in bodies if body["kill"] == kill_id)
    return found if len(found) == 2 else []


@pytest.mark.requirement("INC-1", "INC-3")
def test_calls_at_the_other_gateway_end(pair: Pair) -> None:
    """A write of an API and an MCP tool are under way there; the kill here breaks both off, and a lift counts there."""
    token = pair.other.run("clerk")[1]
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(pair.other.call, token, "api.slow", {"id": "s-1"})
        reading = threads.submit(pair.other.call, token, "mcp.wait")
        until(lambda: pair.api.journal("/tools/slow/s-1") and pair.called.exists())
        kill_id = pair.one.ask("kill", "agent", "CLERK", "--reason", "a test")["kill_id"]
        assert ended(writing.result()) == (504, "kill.agent")
        assert ended(reading.result()) == (502, "kill.agent")
    for gateway in (pair.one, pair.other):
        assert ended(gateway.call(token, "mcp.wait")) == (403, "kill.agent")
    assert until(lambda: carried_out(pair.one, kill_id)) == [0, 2]
    ends = [one["type"] for one in pair.one.records() if one["body"].get("cause") == "kill.agent"]
    assert sorted(ends)[-2:] == ["tool.failed", "tool.outcome_unknown"]
    pair.api.release()
    pair.one.ask("kill", "lift", kill_id, "--reason", "looked into")
    with pair.other.client(pair.other.token("vera", scopes=["admin"])) as vera:
        lifted = vera.post(f"/v1/kills/{kill_id}/lift", json={"reason": "looked into, too"})
    assert (lifted.json()["votes"], lifted.json()["needed"]) == (2, 2)
    until(lambda: pair.one.call(token, "api.find", {"id": "t-1"}).status_code == 200)
    verified(pair.other)


@pytest.mark.requirement("INC-1", "INC-3")
def test_code_at_the_other_gateway_ends(pair: Pair) -> None:
    """Its processes are gone from the host when the call has ended; nobody knows what it did until then."""
    require(pair.box)
    mark = "kill-elsewhere"
    token = pair.other.run("coder", "emil")[1]
    with ThreadPoolExecutor(1) as threads:
        code = marking(mark) + "while True: pass"
        running = threads.submit(pair.other.call, token, "code.run", {"code": code})
        until(lambda: marked(mark))
        pair.one.ask("kill", "user", "emil", "--reason", "a test")
        assert ended(running.result()) == (504, "kill.user")
    until(lambda: marked(mark) == [])
    verified(pair.one)

"""Code tools through the whole gateway: allowed and recorded, refused on a host that cannot hold what policy asks."""

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from sandbox.runner import BwrapRunner
from tests.boxes import marked, marking, require
from tests.gateways import Gateway, ostiary, serving, until

SETTINGS = """
state = "state"
catalogue = ["catalogue.toml"]

[listen]
port = 0

[policy]
deadline_ms = 1000

[policy.data.gateway.scope]
agents.coder = {{ allow = ["code.*"] }}
users."*" = {{ allow = ["code.*"] }}

{policy}

[sandbox]
slots = 2
{sandbox}

[upstreams.code]
kind = "code"
"""
CATALOGUE = """
[[tool]]
server = "code"
name = "run"
effect = "write"
description = "Runs a Python program."
input_schema = { type = "object", required = ["code"], properties = { code = { type = "string" }, data = {} } }

[tool.code]
input = "data"

[tool.code.limits]
memory_mb = 128
wall_s = 15
"""
ACCEPTING = '[policy.data.gateway.sandbox]\naccept_missing = ["memory", "cpu", "inodes"]'


def furnish(folder: Path, *, policy: str = "", sandbox: str = "") -> Path:
    """A configuration with one code tool."""
    folder.mkdir(exist_ok=True)
    (folder / "gateway.toml").write_text(SETTINGS.format(policy=policy, sandbox=sandbox))
    (folder / "catalogue.toml").write_text(CATALOGUE)
    return folder


async def _seen() -> Any:
    async with BwrapRunner() as runner:
        return await runner.probe()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose policy accepts what this host lacks, if anything."""
    seen = anyio.run(_seen)
    require(seen)
    policy = f"[policy.data.gateway.sandbox]\naccept_missing = {json.dumps(list(seen.missing))}"
    with serving(furnish(tmp_path_factory.mktemp("code"), policy=policy)) as running:
        yield running


def run(gateway: Gateway, code: str, **more: Any) -> dict[str, Any]:
    """The result of ``code.run``."""
    answer = gateway.call(gateway.token(agent="coder"), "code.run", {"code": code, **more})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result


@pytest.mark.requirement("TOOL-3")
def test_an_agent_runs_code(gateway: Gateway) -> None:
    """Output, exit code and use come back; the log has intent and completion, and none of the code in the clear."""
    before = gateway.size()
    result = run(gateway, "import json, sys\nprint(sum(json.load(sys.stdin)))", data=[1, 2, 39])
    shown = result["structuredContent"]
    assert (shown["ended"], shown["exit_code"], shown["stdout"]) == ("exited", 0, "42\n")
    assert shown["usage"]["wall_ms"] > 0
    records = gateway.records(after=before - 1)
    assert [one["type"] for one in records][-3:] == ["decision", "tool.requested", "tool.completed"]
    assert "json.load" not in json.dumps(records)


@pytest.mark.requirement("SAND-1")
def test_code_that_reaches_out_is_told_no(gateway: Gateway) -> None:
    """The vault, the database and the admin socket of this machine are out of reach of code, as is the gateway."""
    state = gateway.folder / "state"
    code = f"""
import os, socket
for reach in (
    lambda: socket.create_connection(("127.0.0.1", {gateway.url.rpartition(":")[2]}), 2),
    lambda: socket.socket(socket.AF_UNIX).connect({str(state / "admin.sock")!r}),
    lambda: open({str(state / "keys" / "issuer.pem")!r}),
    lambda: os.kill({gateway.process.pid}, 9),
):
    try:
        reach()
        print("reached")
    except OSError as error:
        print("refused")
"""
    assert run(gateway, code)["structuredContent"]["stdout"] == "refused\n" * 4
    assert gateway.process.poll() is None


def test_a_cap_that_killed_is_an_error_for_the_model(gateway: Gateway) -> None:
    """The result says that the box was killed, and by which cap."""
    result = run(gateway, "while True: print('x' * 1000)")
    assert result["isError"] is True
    assert result["structuredContent"]["ended"] == "output"


def test_check_tells_how_the_sandbox_is(gateway: Gateway, tmp_path: Path) -> None:
    """`ostiary check` tries the sandbox and names backend and caps."""
    (furnish(tmp_path / "other") / "gateway.toml").write_text((gateway.folder / "gateway.toml").read_text())
    with serving(tmp_path / "other"):
        pass  # makes the state folder, which one process at a time holds
    done = ostiary("check", "--config", str(tmp_path / "other" / "gateway.toml"), "--json")
    found = {one["part"]: one for one in json.loads(done.stdout.splitlines()[-1])["findings"]}
    assert found["sandbox"]["ok"] is True
    assert found["sandbox"]["text"].startswith("bwrap ")
    assert all(one["ok"] for part, one in found.items() if part.startswith("sandbox:"))


def test_a_degraded_host_refuses_until_policy_accepts_it(tmp_path: Path) -> None:
    """Without control groups: 503 naming what is missing and nothing sent; the line that `check` prints lets it run."""
    require(anyio.run(_seen))
    folder = furnish(tmp_path / "strict", sandbox="groups = false")
    with serving(folder) as strict:
        answer = strict.call(strict.token(agent="coder"), "code.run", {"code": "print(1)"})
        assert answer.status_code == 503
        problem = answer.json()
        assert (problem["cause"], "memory, cpu, inodes" in problem["detail"]) == ("sandbox_degraded", True)
        ended = strict.records()[-1]
        assert (ended["type"], "sandbox_degraded" in json.dumps(ended["body"])) == ("tool.not_sent", True)
    done = ostiary("check", "--config", str(folder / "gateway.toml"), "--json")
    assert done.returncode == 1
    found = {one["part"]: one for one in json.loads(done.stdout.splitlines()[-1])["findings"]}
    for name in ("memory", "cpu", "inodes"):
        assert found[f"sandbox:{name}"]["ok"] is False
        assert "Delegate=yes" in found[f"sandbox:{name}"]["fix"]
        line = found[f"sandbox:{name}"]["fix"].rpartition("gateway.toml: ")[2]
        assert line == '[policy.data.gateway.sandbox] accept_missing = ["memory", "cpu", "inodes"]'
    accepting = furnish(tmp_path / "accepting", policy=ACCEPTING, sandbox="groups = false")
    with serving(accepting) as open_:
        shown = run(open_, "print(1)")["structuredContent"]
        assert (shown["stdout"], shown["box"]["missing"]) == ("1\n", ["memory", "cpu", "inodes"])


def test_no_sandbox_is_one_clear_line(tmp_path: Path) -> None:
    """Where no box can be started the gateway runs, code tools answer 503, and `check` says what to do."""
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho bwrap: setting up uid map: Permission denied >&2; exit 1\n")
    program.chmod(0o755)
    folder = furnish(tmp_path / "none", policy=ACCEPTING, sandbox=f"bwrap = {json.dumps(str(program))}")
    with serving(folder) as gateway:
        answer = gateway.call(gateway.token(agent="coder"), "code.run", {"code": "print(1)"})
        assert (answer.status_code, "no sandbox" in answer.json()["detail"]) == (503, True)
    done = ostiary("check", "--config", str(folder / "gateway.toml"))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    (at,) = [at for at, line in enumerate(lines) if line.startswith("FAIL  sandbox ")]
    assert "setting up uid map: Permission denied" in lines[at + 1]


def test_a_killed_gateway_leaves_no_box(gateway: Gateway, tmp_path: Path) -> None:
    """Kill -9 of a gateway in the middle of a call: the box is gone."""
    policy = (gateway.folder / "gateway.toml").read_text("utf-8")
    folder = furnish(tmp_path / "killed")
    (folder / "gateway.toml").write_text(policy)
    with ThreadPoolExecutor(1) as pool, serving(folder) as victim:
        code = marking("box-e2e") + "import time; time.sleep(300)"
        begun = pool.submit(victim.call, victim.token(agent="coder"), "code.run", {"code": code})
        until(lambda: begun.done() or marked("box-e2e"))
        os.kill(victim.process.pid, signal.SIGKILL)
        with pytest.raises(httpx.HTTPError):
            begun.result()
    until(lambda: not marked("box-e2e"))
    assert not marked("box-e2e")

"""``ostiary up`` as a process: what it prints, what its tokens may do, one gateway a state folder, a clean end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

OSTIARY = (sys.executable, "-m", "gateway")
END_S = 20


@dataclass(frozen=True)
class Gateway:
    """A running ``up`` and its first line."""

    process: "subprocess.Popen[bytes]"
    state: Path
    said: dict[str, str]

    def ask(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run another command on the same state folder."""
        environment = {**os.environ, "OSTIARY_STATE": str(self.state)}
        return subprocess.run([*OSTIARY, *words], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A development gateway without upstreams on a free port."""
    state = tmp_path_factory.mktemp("up") / "state"
    command = [*OSTIARY, "up", "--state", str(state), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "it said nothing"
            yield Gateway(process, state, json.loads(line))
        finally:
            process.kill()


def last(done: "subprocess.CompletedProcess[str]") -> Any:
    """The JSON of the last line of a command that went well."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_first_line_is_what_scripts_rely_on(gateway: Gateway) -> None:
    """Exactly four members, a loopback URL, and the MCP endpoint below it."""
    assert gateway.said.keys() == {"url", "mcp_url", "token", "admin_token"}
    assert gateway.said["url"].startswith("http://127.0.0.1:")
    assert gateway.said["mcp_url"] == gateway.said["url"] + "/mcp"
    assert httpx.get(gateway.said["url"] + "/livez").status_code == 200


def test_the_printed_tokens_do_what_they_are_for(gateway: Gateway) -> None:
    """The agent's token lists tools and opens no run; the person's opens runs and reads the log."""
    url, token, admin = (gateway.said[name] for name in ("url", "token", "admin_token"))
    with httpx.Client(base_url=url) as client:
        agent, person = ({"authorization": f"Bearer {one}"} for one in (token, admin))
        wish = {"goal": "try", "agent": "dev-agent"}
        assert client.get("/v1/tools", headers=agent).json() == {"tools": []}
        assert client.post("/v1/runs", json=wish, headers=agent).status_code == 403
        assert client.get("/v1/audit/records", headers=agent).status_code == 403
        assert client.post("/v1/runs", json=wish, headers=person).status_code == 201
        assert client.get("/v1/audit/records", headers=person).status_code == 200
        assert client.get("/v1/tools").status_code == 401


def test_commands_reach_it_by_its_socket(gateway: Gateway) -> None:
    """Opening a run, calling an unknown tool with the run's token, and asking why, without any URL."""
    opened = last(gateway.ask("run", "open", "--goal", "count", "--agent", "dev-agent", "--json"))
    refused = gateway.ask("tool", "call", "no.such", "--token", opened["token"], "--json")
    assert refused.returncode == 1
    problem = json.loads(refused.stdout.splitlines()[-1])
    assert problem["status"] == 404
    assert last(gateway.ask("explain", problem["call_id"], "--json"))["outcome"] != "pending"
    own = last(gateway.ask("explain", problem["call_id"], "--token", opened["token"], "--json"))
    assert (
        "reasons" not in own or own["reasons"] == []
    )  # whoever may not see a tool learns nothing about it here either
    types = [record["type"] for record in last(gateway.ask("audit", "run", opened["run_id"], "--json"))["records"]]
    assert types[0] == "run.started"


def test_a_token_issued_beside_it_is_good_at_once(gateway: Gateway) -> None:
    """``token issue`` needs the key file only, and the running gateway trusts that key."""
    token = last(gateway.ask("token", "issue", "--user", "alice", "--agent", "other", "--json"))["token"]
    assert last(gateway.ask("tool", "list", "--token", token, "--json")) == {"tools": []}


def test_a_second_gateway_on_the_same_state_is_refused(gateway: Gateway) -> None:
    """Exit code 2, the first one's process id, and the fix."""
    second = gateway.ask("up", "--port", "0")
    assert second.returncode == 2
    assert str(gateway.process.pid) in second.stderr
    assert "fix:" in second.stderr


def test_the_log_verifies_beside_the_running_gateway(gateway: Gateway) -> None:
    """Verification reads a snapshot."""
    assert last(gateway.ask("audit", "verify", "--json"))["ok"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_on_a_signal(tmp_path: Path, signum: signal.Signals) -> None:
    """Exit code 0, no socket left behind, the log sound; and the folder serves again."""
    command = [*OSTIARY, "up", "--state", str(tmp_path / "state"), "--port", "0", "--json"]
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.send_signal(signum)
            assert process.wait(END_S) == 0, process.stderr.read()
            assert b"Traceback" not in process.stderr.read()
    verified = subprocess.run([*OSTIARY, "audit", "verify", "--state", str(tmp_path / "state")], check=False)
    assert verified.returncode == 0

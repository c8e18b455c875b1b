"""An agent's hook installed by one command, and run by its shell before each tool, with a real gateway and without."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_client_bridge import environment, up
from tests.gateways import ostiary

POLICY = """
[policy.data.gateway.limits."claude-code.hooks/WebFetch"]
calls_per_run = 3
"""


@dataclass(frozen=True)
class Hooked:
    """An agent with the hook.

    Attributes:
        state: of its gateway.
        command: what its shell runs before each tool.
    """

    state: Path
    command: str

    def ask(self, tool: str, words: str | None = None, /, **arguments: Any) -> tuple[int, Any]:
        """What the agent's shell runs before ``tool``: how it ends, and what it says."""
        said = {
            "session_id": "5d2f",
            "cwd": "/",
            "hook_event_name": "PreToolUse",
            "tool_name": tool,
            "tool_input": arguments,
        }
        done = subprocess.run(
            words or self.command,
            shell=True,
            input=json.dumps(said).encode(),
            capture_output=True,
            env=environment(),
            cwd="/",
            check=False,
        )
        return done.returncode, json.loads(done.stdout)["hookSpecificOutput"] if done.stdout else None


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Hooked:
    """A home whose Claude Code had no hooks."""
    folder = tmp_path_factory.mktemp("hooked")
    home, state = folder / "home", folder / "state"
    home.mkdir()
    done = ostiary("client", "hook", "claude-code", "--state", str(state), "--yes", HOME=str(home))
    assert done.returncode == 0, done.stderr
    with (state / "gateway.toml").open("a", encoding="utf-8") as settings:
        settings.write(POLICY)
    hooks = json.loads((home / ".claude" / "settings.json").read_text("utf-8"))["hooks"]["PreToolUse"]
    return Hooked(state, hooks[0]["hooks"][0]["command"])


@pytest.fixture(scope="module")
def gateway(hooked: Hooked) -> Iterator[None]:
    """It runs."""
    with up(hooked.state):
        yield


@pytest.mark.usefixtures("gateway")
def test_yes_no_and_unknown(hooked: Hooked) -> None:
    """By the shipped policy; each answer is one advisory record of one run, and none says that anything was called."""
    assert hooked.ask("Bash", command="npm test", timeout=120000) == (0, None)
    code, said = hooked.ask("WebFetch", url="https://example.org/")
    assert (code, said["permissionDecision"]) == (0, "deny")
    assert "limits.uncounted" in said["permissionDecisionReason"]
    assert hooked.ask("mcp__other__pay", amount=1)[1]["permissionDecision"] == "deny"
    found = ostiary("audit", "search", "tool:claude-code.*", "--json", OSTIARY_STATE=str(hooked.state))
    records = json.loads(found.stdout.splitlines()[-1])["records"]
    assert [(one["type"], one["body"]["answer"]) for one in records] == [
        ("decision.advisory", "allow"),
        ("decision.advisory", "deny"),
    ]
    assert len({one["run_id"] for one in records}) == 1
    match = re.search(r"ostiary explain ([0-9a-f-]{36})", said["permissionDecisionReason"])
    assert match is not None
    why = ostiary("explain", match[1], OSTIARY_STATE=str(hooked.state))
    assert "limits.uncounted" in why.stdout
    verified = ostiary("audit", "verify", "--state", str(hooked.state))
    assert verified.returncode == 0, verified.stdout


def test_without_a_gateway_the_agent_can_do_nothing(hooked: Hooked, tmp_path: Path) -> None:
    """No gateway, another state folder, a program that is gone or killed: no, or the exit code that means no."""
    away = hooked.command.replace(str(hooked.state), str(tmp_path / "state"))
    code, said = hooked.ask("Bash", away, command="ls")
    assert (code, said["permissionDecision"]) == (0, "deny")
    gone = hooked.command.replace("client pre-tool", "client pre-tool-of-yesterday")
    assert hooked.ask("Bash", gone, command="ls") == (2, None)
    program = hooked.command.partition(" ")[0]
    assert hooked.ask("Bash", hooked.command.replace(program, "/nowhere/ostiary"), command="ls") == (2, None)
    killed = hooked.command.replace(f"{program} ", "sh -c 'kill -9 $$' ")
    assert hooked.ask("Bash", killed, command="ls") == (2, None)

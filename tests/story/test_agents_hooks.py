"""``ostiary client pre-tool``, driven as each agent drives its hooks: JSON on standard input, an answer on output."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.client.door import Door
from gateway.cli.hook import asking
from gateway.cli.hook.dialects import Wish
from gateway.cli.root import ostiary
from gateway.core import canonical
from gateway.core.tool import ConnectorKind, EffectClass, Tool
from tests.edge_world import Edge
from tests.fakes.rules import APPROVAL, DENY
from tests.served_edge import served

CLAUDE = {
    "session_id": "abc123",
    "transcript_path": "/home/vera/.claude/projects/x/abc123.jsonl",
    "cwd": "/home/vera/x",
    "permission_mode": "default",
    "hook_event_name": "PreToolUse",
    "tool_name": "Bash",
    "tool_input": {"command": "npm test", "description": "Run the tests", "timeout": 120000},
    "tool_use_id": "toolu_01ABC123",
}
CURSOR = {
    "conversation_id": "668320d2-2fd8-4888-b33c-2a466fec86e7",
    "generation_id": "490b90b7-a2ce-4c2c-bb76-cb77b125df2f",
    "model": "default",
    "hook_event_name": "preToolUse",
    "cursor_version": "3.9.16",
    "workspace_roots": ["/home/vera/x"],
    "user_email": None,
    "transcript_path": None,
    "tool_name": "Shell",
    "tool_input": {"command": "npm test", "cwd": "", "timeout": 30000},
    "tool_use_id": "d024a132-85b4-4c79-80f0-6b2e2fffc1fe",
    "cwd": "",
}


class Agent:
    """An agent whose hooks ask one gateway.

    Attributes:
        edge: the gateway.
        url: where it is.
        token: a file with a good token.
    """

    def __init__(self, edge: Edge, url: str, token: Path) -> None:
        self.edge, self.url, self.token = edge, url, token

    def hook(self, agent: str, said: dict[str, Any] | bytes, url: str | None = None) -> Result:
        """Run its hook before a tool."""
        words = ["client", "pre-tool", agent, "--server", "coder", "--url", url or self.url]
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return CliRunner().invoke(ostiary, [*words, "--token-file", str(self.token)], input=body)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """With a gateway that knows its shells."""
    folder = tmp_path_factory.mktemp("agent")
    edge, shelf = Edge(), []
    for name in ("Bash", "Shell", "Write", "Edit"):
        own = f"hooks/{name}"
        definition = {"name": own, "inputSchema": {"type": "object"}}
        binding = {"approval": "ask" if name in {"Edit", "Write"} else "deny"}
        shelf.append(Tool("coder", own, ConnectorKind.HOOK, definition, own, EffectClass.DESTRUCTIVE, binding=binding))
    edge.world.catalog.shelf = tuple(shelf)
    for phase_tool in ("Edit", "Write"):
        edge.world.policy.words[("call", f"coder.hooks/{phase_tool}")] = APPROVAL
    token = folder / "token"
    token.write_text("good\n", "utf-8")
    token.chmod(0o600)
    with served(edge, folder / "s") as url:
        yield Agent(edge, url, token)


def claude_says(done: Result) -> tuple[str, str]:
    """Claude Code's reading of a hook: its decision and the reason; an empty output is no decision."""
    assert done.exit_code == 0, done.output
    if not done.stdout:
        return "no decision", ""
    said = json.loads(done.stdout)["hookSpecificOutput"]
    assert said.keys() == {"hookEventName", "permissionDecision", "permissionDecisionReason"}
    assert said["hookEventName"] == "PreToolUse"
    return said["permissionDecision"], said["permissionDecisionReason"]


def cursor_says(done: Result) -> tuple[str, str]:
    """Cursor's reading of a hook: at the top level, and with `failClosed` always something."""
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said.get("user_message") == said.get("agent_message")
    return said["permission"], said.get("user_message", "")


def test_what_policy_allows_is_left_to_the_agents_own_rules(agent: Agent) -> None:
    """Claude Code gets no decision, so that its own prompts stay; the question holds tool, arguments and session."""
    before = len(agent.edge.world.policy.asked)
    assert claude_says(agent.hook("claude-code", CLAUDE)) == ("no decision", "")
    asked = agent.edge.world.policy.asked[before:][-1]
    assert (asked["tool"]["fqn"], asked["args"]) == ("coder.hooks/Bash", CLAUDE["tool_input"])
    assert cursor_says(agent.hook("cursor", CURSOR)) == ("allow", "")
    assert agent.edge.records()[-2:] == ["decision.advisory"] * 2
    assert agent.edge.world.connector.sent == []


@pytest.mark.parametrize(
    ("name", "said", "reads"), [("claude-code", CLAUDE, claude_says), ("cursor", CURSOR, cursor_says)]
)
def test_what_policy_denies_is_denied_with_the_reason(
    agent: Agent, name: str, said: dict[str, Any], reads: Any
) -> None:
    """The model hears the rule, its message, and how a person finds out more."""
    tool = f"coder.hooks/{said['tool_name']}"
    agent.edge.world.policy.words[("call", tool)] = DENY
    try:
        decision, reason = reads(agent.hook(name, said))
    finally:
        del agent.edge.world.policy.words[("call", tool)]
    assert decision == "deny"
    assert "test.deny: the test denies it" in reason
    assert "ostiary explain " in reason


def test_asking_the_person_there_is_claude_codes_only(agent: Agent) -> None:
    """Cursor has no such answer before a tool: it hears no."""
    assert claude_says(agent.hook("claude-code", CLAUDE | {"tool_name": "Edit"}))[0] == "ask"
    assert cursor_says(agent.hook("cursor", CURSOR | {"tool_name": "Write"}))[0] == "deny"


def test_a_tool_nobody_declared_is_denied(agent: Agent) -> None:
    """A new tool of the agent's, and an MCP server that goes past the gateway."""
    for tool in ("Teleport", "mcp__github__create_issue", "MCP:x", "mcp__ostiaryx__y"):
        decision, reason = claude_says(agent.hook("claude-code", CLAUDE | {"tool_name": tool}))
        assert decision == "deny", tool
        assert "no such hook" in reason


def test_the_gateways_own_tools_are_not_asked_about_twice(agent: Agent) -> None:
    """They are decided on when they are called."""
    before = len(agent.edge.records())
    assert (
        claude_says(agent.hook("claude-code", CLAUDE | {"tool_name": "mcp__ostiary__erp__stock"}))[0] == "no decision"
    )
    assert cursor_says(agent.hook("cursor", CURSOR | {"tool_name": "MCP:erp__stock"}))[0] == "allow"
    assert len(agent.edge.records()) == before


BAD = [
    b"",
    b"nonsense",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe",
    b"[" * 100_000,
    json.dumps({**CLAUDE, "hook_event_name": "PostToolUse"}).encode(),
    json.dumps({key: value for key, value in CLAUDE.items() if key != "hook_event_name"}).encode(),
    json.dumps({**CLAUDE, "tool_name": 7}).encode(),
    json.dumps({**CLAUDE, "tool_name": ""}).encode(),
    json.dumps({**CLAUDE, "tool_input": "rm -rf /"}).encode(),
    json.dumps({key: value for key, value in CLAUDE.items() if key != "tool_input"}).encode(),
    json.dumps(CLAUDE).replace('"tool_name": "Bash"', '"tool_name": "Bash", "tool_name": "Read"').encode(),
    json.dumps(CLAUDE).replace('"tool_name": "Bash"', '"tool_name": "Bash", "Tool_Name": "Read"').encode(),
    json.dumps({**CLAUDE, "tool_input": {"command": "x" * (9 * 1024 * 1024)}}).encode(),
    json.dumps({**CLAUDE, "tool_input": {"command": "x" * 200_000}}).encode(),
    json.dumps({**CLAUDE, "tool_name": "x" * 200}).encode(),
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_what_cannot_be_understood_is_denied(agent: Agent, body: bytes) -> None:
    """Whatever comes on standard input: never a crash, never silence."""
    decision, reason = claude_says(agent.hook("claude-code", body))
    assert decision == "deny"
    assert reason.startswith("Ostiary")


@contextmanager
def liar(status: int, body: bytes) -> Iterator[str]:
    """Something on loopback that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if status == 302:
                self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


LIES = [
    (200, b""),
    (200, b"<html>"),
    (200, b"{}"),
    (200, b"[]"),
    (200, b'"allow"'),
    (200, b'{"decision": true, "message": "", "call_id": "x"}'),
    (200, b'{"decision": "ALLOW", "message": "", "call_id": "x"}'),
    (200, b'{"decision": "allow"}'),
    (200, b'{"decision": "allow", "message": 7, "call_id": "x"}'),
    (200, b'{"decision": ["allow"], "message": "", "call_id": "x"}'),
    (200, b'{"decision": "allow", "message": "", "call_id": "x"}' + b" " * 300_000),
    (201, b'{"decision": "allow", "message": "", "call_id": "x"}'),
    (302, b'{"decision": "allow", "message": "", "call_id": "x"}'),
    (401, b'{"decision": "allow", "message": "", "call_id": "x"}'),
    (503, b'{"detail": "policy could not be evaluated"}'),
    (500, b"[" * 100_000),
]


@pytest.mark.parametrize(("status", "body"), LIES, ids=range(len(LIES)))
def test_what_is_no_clear_yes_is_a_no(agent: Agent, status: int, body: bytes) -> None:
    """Another status, another form, too long, or no JSON at all."""
    with liar(status, body) as url:
        decision, reason = claude_says(agent.hook("claude-code", CLAUDE, url))
        assert decision == "deny"
        assert "could not be asked" in reason
        assert cursor_says(agent.hook("cursor", CURSOR, url))[0] == "deny"


def test_a_clear_yes_is_one(agent: Agent) -> None:
    """So that the answers above are told from this one, and by nothing else."""
    with liar(200, b'{"decision": "allow", "message": "", "call_id": "x"}') as url:
        assert claude_says(agent.hook("claude-code", CLAUDE, url)) == ("no decision", "")


def test_a_gateway_that_says_nothing_is_none() -> None:
    """Whoever takes the connection and does not answer does not hold the agent for ever, and gets no yes out of it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        door = Door(f"http://127.0.0.1:{silent.getsockname()[1]}", asking.PATH, lambda _: "good")
        wish = Wish("Bash", canonical.parse(b'{"command": "ls"}'), None)
        said = asking.ruling(door, "coder", wish, within_s=0.2)
    assert said.word == "deny"
    assert "ReadTimeout" in said.message


def test_without_a_gateway_the_answer_is_no(agent: Agent, tmp_path: Path) -> None:
    """Nobody listens, the token cannot be read, the state folder is not there: each says what to do."""
    away = agent.hook("claude-code", CLAUDE, "http://127.0.0.1:1")
    assert claude_says(away)[0] == "deny"
    assert "no gateway answers" in claude_says(away)[1]
    agent.token.chmod(0o644)
    try:
        assert "chmod 600" in claude_says(agent.hook("claude-code", CLAUDE))[1]
    finally:
        agent.token.chmod(0o600)
    words = ["client", "pre-tool", "claude-code", "--state", str(tmp_path / "none")]
    done = CliRunner().invoke(ostiary, words, input=json.dumps(CLAUDE).encode())
    assert claude_says(done)[0] == "deny"
    (tmp_path / "gateway.toml").write_text("nonsense", "utf-8")
    words = ["client", "pre-tool", "claude-code", "--config", str(tmp_path / "gateway.toml")]
    assert claude_says(CliRunner().invoke(ostiary, words, input=json.dumps(CLAUDE).encode()))[0] == "deny"

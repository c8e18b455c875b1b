"""Real clients and agent frameworks at one gateway, their models scripted: listed, called, denied, pending, resumed."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import venvs
from tests.e2e.market_house import Market, npm_modules
from tests.e2e.tap import Tap, tapped
from tests.gateways import until

CLIENTS = Path(__file__).parent / "clients"
HANDSHAKE, STATELESS = "2025-11-25", "2026-07-28"
_PATIENCE_S = 120
_SILENT = {"MCP_USE_ANONYMIZED_TELEMETRY": "false"}


@dataclass(frozen=True)
class Kind:
    """A client.

    Attributes:
        script: in ``clients``; what it imports is installed in ``venv``.
        revision: what it speaks with the gateway.
        environment: what it is told besides.
        wrong: what its model reads after a call with an argument of the wrong type.
    """

    script: str
    venv: str
    revision: str
    environment: Mapping[str, str] = field(default_factory=dict)
    wrong: str = "invalid_arguments"

    def command(self) -> list[str]:
        """How it is started; skips the test where that cannot be."""
        script = str(CLIENTS / self.script)
        if not script.endswith(".cjs"):
            return [str(venvs.python(self.venv)), script]
        if (npm := npm_modules()) is None:
            pytest.skip("the npm packages are missing: TypeScript clients are not tried (Debian: apt install npm)")
        return [npm[0], script]


KINDS = {
    "sdk-1": Kind("steps_sdk1.py", "mcp1", HANDSHAKE),
    "sdk-2": Kind("steps_sdk2.py", "mcp2", STATELESS, {"MCP_MODE": "auto"}),
    "sdk-2-legacy": Kind("steps_sdk2.py", "mcp2", HANDSHAKE, {"MCP_MODE": "legacy"}),
    "typescript-1": Kind("sdk_typescript1.cjs", "typescript", HANDSHAKE),
    "typescript-2": Kind("sdk_typescript2.cjs", "typescript", STATELESS, {"MCP_MODE": "auto"}),
    "typescript-2-legacy": Kind("sdk_typescript2.cjs", "typescript", HANDSHAKE, {"MCP_MODE": "legacy"}),
    "pydantic-ai": Kind("agent_pydantic_ai.py", "mcp2", STATELESS),
    "openai-agents": Kind("agent_openai.py", "mcp2", STATELESS),
    "google-adk": Kind("agent_adk.py", "mcp2", HANDSHAKE),
    "google-adk-modern": Kind("agent_adk.py", "mcp2", STATELESS, {"ADK_ENABLE_MCP_MODERN_PROTOCOL": "1"}),
    "langchain": Kind("agent_langchain.py", "mcp1", HANDSHAKE),
    # It makes a model of each schema and holds arguments against that itself: such a call does not reach the gateway.
    "mcp-use": Kind("agent_mcp_use.py", "mcp1", HANDSHAKE, _SILENT, "Input should be a valid string"),
}


@contextmanager
def at_work(kind: Kind, market: Market, tap: Tap, token: str, calls: list[Any]) -> Iterator[Future[dict[str, Any]]]:
    """A client that makes ``calls`` through the tap; what it tells at its end."""
    command = [*kind.command(), json.dumps(calls)]
    environment = {"PATH": os.defpath, "OSTIARY_URL": tap.url, "OSTIARY_TOKEN": token, **kind.environment}
    if market.modules is not None:
        environment["NODE_PATH"] = str(market.modules)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:

        def told() -> dict[str, Any]:
            output, errors = process.communicate(timeout=_PATIENCE_S)
            assert process.returncode == 0, errors
            found: dict[str, Any] = json.loads(output.splitlines()[-1])
            return found

        with ThreadPoolExecutor(1) as pool:
            try:
                yield pool.submit(told)
            finally:
                process.kill()


@pytest.mark.requirement("TEST-3", "TOOL-7", "GATE-1")
@pytest.mark.parametrize("name", KINDS)
def test_a_client_lists_calls_is_denied_waits_and_resumes(market: Market, name: str) -> None:
    """Its model sees results, what to do instead of what was denied, that a call waits, and later what came of it.

    The call that waits is signed by a person over REST while the client waits; identical calls before and after attach
    to it: it is carried out once. The wire is of the client's own era.
    """
    kind = KINDS[name]
    title = f"by {name}"
    write = ["books__write_query", {"query": f"INSERT INTO books VALUES ('{title}')"}]
    calls = [
        ["time__get_current_time", {"timezone": "Asia/Tokyo"}],
        ["git__git_reset", {"repo_path": str(market.folder / "repository")}],
        ["time__get_current_time", {"timezone": 9}],
        write,
        write,
        ["gateway__wait_approval", {"approval_id": "@approval", "timeout_s": 60}],
        write,
    ]
    run_id, token = market.gateway.run(name)
    with tapped(market.gateway.url) as tap, at_work(kind, market, tap, token, calls) as ending:
        until(lambda: tap.heard(b"gateway__wait_approval") or ending.done(), seconds=_PATIENCE_S)
        if not ending.done():
            market.sign(*market.waiting(run_id))
        said = ending.result()
    assert {tool for tool, _ in calls} <= set(said["offered"])
    assert "git__git_checkout" not in said["offered"]
    clock, denied, wrong, *pending, waited, again = said["seen"]
    assert "+09:00" in clock
    assert "manners.instead" in denied
    assert "what is staged stays staged; commit it" in denied
    assert kind.wrong in wrong
    (approval_id,) = market.waiting(run_id)
    for word in pending:
        assert approval_id in word
        assert "A person must approve this exact call." in word
    assert "affected_rows" in waited
    assert "affected_rows" in again
    assert said["output"] == "finished"
    assert market.titles().count(title) == 1
    intents = market.gateway.records(run_id=run_id, type="tool.requested")
    assert [(record["body"]["tool"], record["body"].get("approval")) for record in intents] == [
        ("time.get_current_time", None),
        ("books.write_query", approval_id),
    ]
    assert tap.revisions() == {kind.revision}


@pytest.mark.requirement("TOOL-7", "GATE-1")
def test_a_client_with_a_session_for_each_call_needs_the_token_of_a_run(market: Market) -> None:
    """LangChain's adapters shake hands anew for each call: with a standing token each is a run, and waits by itself.

    So an identical call attaches to nothing. With the token of a run, as above, it does.
    """
    write = ["books__write_query", {"query": "INSERT INTO books VALUES ('twice')"}]
    token = market.gateway.token(agent="langchain-standing")
    with tapped(market.gateway.url) as tap, at_work(KINDS["langchain"], market, tap, token, [write, write]) as ending:
        first, second = (json.loads(text) for text in ending.result()["seen"])
    assert first["status"] == second["status"] == "pending"
    assert first["approval_id"] != second["approval_id"]
    assert "twice" not in market.titles()

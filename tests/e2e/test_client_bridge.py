"""A client's file connected, the gateway started, and the program in the file's entry spoken to as the client would."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import venvs
from tests.gateways import OSTIARY, ROOT, ostiary

CLIENTS = Path(__file__).parent / "clients"
TOKEN = "tok-9f8e7d6c5b4a"
NOON = {"timezone": "Europe/Vienna"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}


@dataclass(frozen=True)
class Connected:
    """A connected client.

    Attributes:
        state: of its gateway.
        entry: what its file says now.
    """

    state: Path
    entry: dict[str, Any]


@dataclass(frozen=True)
class Pipe:
    """The bridge, started as the client starts it."""

    process: "subprocess.Popen[bytes]"

    def say(self, line: bytes | dict[str, Any]) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the bridge ended"
        return json.loads(line)

    def ask(self, method: str, number: int, **params: Any) -> Any:
        """A request, and the answer to it."""
        self.say({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        answer = self.hear()
        assert answer["id"] == number
        return answer

    def shake_hands(self) -> Any:
        """The handshake of the older revisions."""
        client = {"name": "test", "version": "1"}
        answer = self.ask("initialize", 1, protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def hour(self, number: int) -> str:
        """Call the tool behind the gateway; its answer's text."""
        answer = self.ask("tools/call", number, name="time__get_current_time", arguments=NOON)
        return str(answer["result"]["content"][0]["text"])


def environment() -> dict[str, str]:
    """That of a client: this code, and nothing of a gateway."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@contextmanager
def pipe(entry: dict[str, Any]) -> Iterator[Pipe]:
    """The program of the entry; it ends by itself once its input ends."""
    command = [entry["command"], *entry["args"]]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), cwd="/"
    ) as process:
        yield Pipe(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


@contextmanager
def up(state: Path) -> Iterator[None]:
    """``ostiary up`` on the state folder."""
    command = [*OSTIARY, "up", "--state", str(state), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline(), "it said nothing"
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Connected:
    """A home whose Cursor knew one real MCP server."""
    folder = tmp_path_factory.mktemp("bridge")
    server = {"command": str(venvs.python("servers")), "args": ["-m", "mcp_server_time"], "env": {"API_TOKEN": TOKEN}}
    file = folder / "home" / ".cursor" / "mcp.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"mcpServers": {"time": server}}), "utf-8")
    words = ("--state", str(folder / "state"), "--project", str(folder), "--yes")
    done = ostiary("client", "connect", "cursor", *words, HOME=str(folder / "home"))
    assert done.returncode == 0, done.stderr
    return Connected(folder / "state", json.loads(file.read_text("utf-8"))["mcpServers"]["ostiary"])


@pytest.fixture(scope="module")
def gateway(connected: Connected) -> Iterator[None]:
    """It runs."""
    with up(connected.state):
        yield


@pytest.mark.usefixtures("gateway")
class TestTalking:
    """With a gateway."""

    def test_a_client_of_the_handshake_gets_its_server_back(self, connected: Connected) -> None:
        """Initialize, list, call: the upstream answers through the gateway; no secret is in any argument."""
        with pipe(connected.entry) as bridge:
            assert bridge.shake_hands()["result"]["protocolVersion"] == "2025-06-18"
            tools = bridge.ask("tools/list", 2)["result"]["tools"]
            assert "time__get_current_time" in [tool["name"] for tool in tools]
            assert json.loads(bridge.hour(3))["timezone"] == "Europe/Vienna"
            words = Path(f"/proc/{bridge.process.pid}/cmdline").read_bytes()
            assert b"eyJ" not in words
            assert TOKEN.encode() not in words

    def test_a_stateless_client_calls_without_any_word_before(self, connected: Connected) -> None:
        """The header fields of that era are made of the message, which is left as it is."""
        with pipe(connected.entry) as bridge:
            found = bridge.ask("server/discover", 1, _meta=META)["result"]
            assert found["supportedVersions"] == ["2026-07-28"]
            answer = bridge.ask("tools/call", 2, name="time__get_current_time", arguments=NOON, _meta=META)
            assert json.loads(answer["result"]["content"][0]["text"])["timezone"] == "Europe/Vienna"
            answer = bridge.ask("no/such/method", 3, _meta=META)
            assert answer["error"]["code"] == -32601

    def test_what_is_no_message_is_refused_by_the_gateway(self, connected: Connected) -> None:
        """Garbage, a batch and an unknown tool: each gets the gateway's own words, and the next call works."""
        with pipe(connected.entry) as bridge:
            bridge.shake_hands()
            bridge.say(b"{nonsense")
            assert bridge.hear()["error"]["code"] == -32700
            bridge.say(b'[{"jsonrpc": "2.0", "id": 9, "method": "ping"}]')
            assert "error" in bridge.hear()
            answer = bridge.ask("tools/call", 4, name="time__nothing", arguments={})
            assert answer["error"]["data"]["code"] == "unknown_tool"
            assert "Europe/Vienna" in bridge.hour(5)

    def test_requests_are_answered_side_by_side(self, connected: Connected) -> None:
        """Twenty at once, each answered under its own id."""
        with pipe(connected.entry) as bridge:
            bridge.shake_hands()
            for number in range(10, 30):
                params = {"name": "time__get_current_time", "arguments": NOON}
                bridge.say({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
            assert sorted(bridge.hear()["id"] for _ in range(20)) == list(range(10, 30))

    @pytest.mark.parametrize(("script", "venv", "version"), [("1", "mcp1", "2025-11-25"), ("2", "mcp2", "2026-07-28")])
    def test_the_official_sdk_speaks_through_it(
        self, connected: Connected, script: str, venv: str, version: str
    ) -> None:
        """Each SDK, in its own newest revision."""
        python, calls = venvs.python(venv), json.dumps([["time__get_current_time", NOON]])
        command = [str(python), str(CLIENTS / f"stdio_sdk{script}.py"), json.dumps(connected.entry), calls]
        # Its own packages must not be those of this code.
        started = {**connected.entry, "command": "env", "args": [f"PYTHONPATH={ROOT}", *_words(connected.entry)]}
        command[2] = json.dumps(started)
        whole = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, capture_output=True, text=True, env=whole, cwd="/", check=False)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert said["version"] == version
        assert "time__get_current_time" in said["tools"]
        assert "Europe/Vienna" in said["texts"][0][0]

    def test_header_fields_for_clients_that_ask_a_command(self, connected: Connected) -> None:
        """A JSON object with a bearer token that the gateway takes."""
        done = ostiary("client", "headers", "--state", str(connected.state))
        fields = json.loads(done.stdout)
        token = fields["Authorization"].removeprefix("Bearer ")
        listed = ostiary("tool", "list", "--json", OSTIARY_STATE=str(connected.state), OSTIARY_TOKEN=token)
        assert "time.get_current_time" in listed.stdout


def _words(entry: dict[str, Any]) -> list[str]:
    return [entry["command"], *entry["args"]]


def test_the_bridge_outlives_its_gateway(connected: Connected, tmp_path: Path) -> None:
    """Without one each request gets an error that says so; with a new one the same session's client goes on."""
    state = tmp_path / "state"
    moved = [str(state) if word == str(connected.state) else word for word in connected.entry["args"]]
    state.mkdir(mode=0o700)
    settings = (connected.state / "gateway.toml").read_text("utf-8")
    (state / "gateway.toml").write_text(settings, "utf-8")
    assert ostiary("token", "issue", "--user", "x", "--state", str(state)).returncode == 2  # no key yet
    with up(state):
        pass
    with pipe({**connected.entry, "args": moved}) as bridge:
        answer = bridge.ask("initialize", 1, protocolVersion="2025-06-18", capabilities={}, clientInfo={})
        assert "no gateway answers" in answer["error"]["message"]
        assert "ostiary up" in answer["error"]["data"]["fix"]
        with up(state):
            bridge.shake_hands()
            assert "Europe/Vienna" in bridge.hour(2)
        assert "nothing was done" in bridge.ask("tools/list", 3)["error"]["message"]
        with up(state):
            assert "Europe/Vienna" in bridge.hour(4)


def test_an_address_needs_a_token_nobody_else_can_read(tmp_path: Path) -> None:
    """A token file that others can read is refused, request by request, with the fix."""
    token = tmp_path / "token"
    token.write_text("secret-token-value", "utf-8")
    token.chmod(0o644)
    words = ["client", "bridge", "--url", "http://127.0.0.1:1", "--token-file", str(token)]
    with pipe({"command": sys.executable, "args": ["-m", "gateway", *words]}) as bridge:
        answer = bridge.ask("ping", 1)
        assert "can be read by others" in answer["error"]["message"]
        assert "secret-token-value" not in json.dumps(answer)
    refused = ostiary("client", "bridge", "--url", "http://gateway.example.org")
    assert refused.returncode == 2
    assert "beyond this machine" in refused.stderr

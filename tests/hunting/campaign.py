"""What is done in the manor and all that it leaves: calls of every kind, commands, each place that is looked at."""

import contextlib
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from cryptography.hazmat.primitives import serialization

from tests.gateways import Gateway, ostiary, until
from tests.hunting import leaky_api
from tests.hunting.leaky_api import CANARY
from tests.hunting.manor import AGENT, Manor
from tests.hunting.places import descendants, processes
from tests.hunting.search import Secret
from tests.hunting.spellings import SPELLINGS

_MINTED = re.compile(rb'"(password|client_token|private_key|value)":("(?:[^"\\]|\\.)*")')
_MCP = {"accept": "application/json, text/event-stream"}
_JSON = {"content-type": "application/json"}
_MCP_CALLS = (
    ("login__leak", "body"), ("login__leak", "failure"), ("server__leak", "refusal"), ("lentfile__leak", "result"),
    ("erp__confess", ""),
)  # fmt: skip
_HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": CANARY, "version": "1"}}


@dataclass(slots=True)
class Campaign:
    """A run of the gateway with everything in it.

    Attributes:
        places: what was collected so far, by name.
        tokens: what callers prove themselves with, by name.
        outcomes: how calls ended, by tool and way.
        lent: the processes of the calls in whose middle the gateway was killed.
    """

    manor: Manor
    gateway: Gateway
    places: dict[str, bytes] = field(default_factory=dict, repr=False)
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    outcomes: dict[str, set[int]] = field(default_factory=dict)
    lent: tuple[int, ...] = ()

    def keep(self, place: str, data: bytes | str) -> None:
        """Collect what stands in a place; the same place again is more of it."""
        more = data.encode() if isinstance(data, str) else data
        self.places[place] = self.places.get(place, b"") + more + b"\n"

    def let_in(self) -> None:
        """Tokens of every kind."""
        self.tokens["agent's token"] = self.gateway.token(agent=AGENT)
        self.tokens["person's token"] = self.gateway.token(scopes=["runs", "tools"])
        run_id, self.tokens["run's token"] = self.gateway.run(AGENT, goal=f"find the {CANARY}")
        self.keep("run id", run_id)
        made = self.command("key", "create", "hunter", "--user", "dora", "--agent", AGENT, "--scope", "tools", "--json")
        self.tokens["API key"] = json.loads(re.findall(r"^\{.*\}$", made, re.MULTILINE)[-1])["key"]

    def call_everything(self) -> None:
        """Each upstream, in each way it can fail, over REST; each spelling once; a few over MCP."""
        http, stdio = leaky_api.WAYS, leaky_api.STDIO_WAYS
        turns = [(server, way, "raw") for server in ("login", "crm", "old") for way in http]
        turns += [("server", way, "raw") for way in leaky_api.MCP_WAYS]
        turns += [("lentfile", way, "raw") for way in stdio]
        turns += [("lentenv", way, "raw") for way in ("result", "crash", "complaint")]
        turns += [("login", "body", spelling) for spelling in SPELLINGS]
        turns += [("server", "result", spelling) for spelling in SPELLINGS]
        token = self.tokens["run's token"]
        with ThreadPoolExecutor(6) as threads:
            answers = threads.map(lambda turn: (turn, self._leak(token, *turn)), turns)
        for (server, way, _), answer in answers:
            self._keep_answer(f"{server}/{way}", answer)
        for way in stdio:  # one after the other, as what one does to the process befalls all
            self._keep_answer(f"shared/{way}", self._leak(token, "shared", way))
        for name, token in self.tokens.items():
            if name != "person's token":
                self._keep_answer(f"erp/{name}", self.gateway.call(token, "erp.confess", {"note": CANARY}))
                self._keep_answer(f"erp/{name}", self.gateway.call(token, "erp.find_order", {"number": "PO-1001"}))
        self._keep_answer("club/enter", self.gateway.call(token, "club.enter"))
        self._keep_answer("erp/denied", self.gateway.call(token, "erp.stage_invoice", {"order": "x"}))

    def bring_secrets(self, secrets: list[Secret]) -> None:
        """The secrets themselves, brought by a caller who should not have them, wherever a request has room."""
        with self.gateway.client(self.tokens["run's token"]) as client:
            for secret in secrets:
                # What a caller sent comes back to that caller only where JSON-RPC or HTTP say so: not kept.
                for where, status in _bring(client, secret.value):
                    self.outcomes.setdefault(f"brought/{where}", set()).add(status)

    def speak_mcp(self) -> None:
        """As an agent of the older era: a session, the list, and calls of every server."""
        with self.gateway.client(self.tokens["agent's token"]) as client:
            hello = client.post("/mcp", json=_message("initialize", _HELLO), headers=_MCP)
            self.keep("answer/mcp/initialize", hello.text)
            session = {**_MCP, "mcp-session-id": hello.headers.get("mcp-session-id", "")}
            client.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
            self.keep("answer/mcp/list", client.post("/mcp", json=_message("tools/list", {}), headers=session).text)
            for tool, way in _MCP_CALLS:
                given = {"name": tool, "arguments": {"way": way} if way else {"note": CANARY}}
                answer = client.post("/mcp", json=_message("tools/call", given), headers=session)
                self.keep(f"answer/mcp/{tool}", f"{answer.headers} {answer.text}")

    def die(self) -> None:
        """Killed while calls hang in processes that serve only them; those are looked at before."""
        token = self.tokens["run's token"]
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(self._leak, token, server, "hang") for server in ("lentfile", "lentenv")]
            until(lambda: self._lent().keys() == {"LENT_FILE", "LENT_DSN"})
            for name, data in processes(self.gateway.process.pid).items():
                self.keep(name, data)
            self.keep("listing/leases", json.dumps(self.gateway.ask("lease", "list")))
            self.lent = tuple(self._lent().values())
            self.gateway.process.kill()
            self.gateway.process.wait()
            assert all(isinstance(call.exception(), httpx.HTTPError) for call in calls)

    def ask_commands(self) -> None:
        """The commands of an operator, each with all it says."""
        run = self.places["run id"].decode().strip()
        calls = [row["call_id"] for row in self.gateway.records(type="tool.failed")[:1]]
        commands: list[tuple[str, ...]] = [
            ("check", "--config", str(self.manor.folder / "gateway.toml")),
            ("doctor", "--state", str(self.gateway.state)),
            ("run", "show", run),
            ("audit", "search", "type:credential.*"),
            ("audit", "run", run),
            ("audit", "verify", "--state", str(self.gateway.state)),
            ("audit", "export", "--since", "1h", "--payloads", "-o", str(self.manor.folder / "exported")),
            *(("audit", "why", call) for call in calls),
        ]
        with ThreadPoolExecutor(3) as threads:
            for words, said in zip(commands, threads.map(self._said, commands), strict=True):
                self.keep(f"command/{' '.join(words[:2])}", said)
        for path in (
            "/metrics",
            "/readyz",
            "/healthz",
            "/openapi.json",
            "/v1/tools",
            "/v1/leases",
            "/v1/api-keys",
            "/v1/audit/decisions",
        ):
            self.keep(f"listing{path}", self.gateway.http.get(path).text)
        self.keep("records", json.dumps(self.gateway.records()))

    def command(self, *words: str) -> str:
        """Run a command, collect what it says, and give it back."""
        said = self._said(words)
        self.keep(f"command/{' '.join(words[:2])}", said)
        return said

    def payloads(self) -> None:
        """What is sealed beside the records of each call, opened."""
        called = {record["call_id"]: None for record in self.gateway.records() if record.get("call_id")}
        for call in list(called)[::5]:  # the export has all of them
            self.keep("payloads", self.gateway.http.get(f"/v1/calls/{call}").text)

    def _said(self, words: tuple[str, ...]) -> str:
        done = ostiary(*words, OSTIARY_STATE=str(self.gateway.state), **self.manor.environment)
        return f"{done.stdout}\n{done.stderr}"

    def _leak(self, token: str, server: str, way: str, spelling: str = "raw") -> httpx.Response:
        given = {"way": way, "spelling": spelling, "note": f"asked by {CANARY}"}
        return self.gateway.call(token, f"{server}.leak", given)

    def _keep_answer(self, name: str, answer: httpx.Response) -> None:
        self.outcomes.setdefault(name, set()).add(answer.status_code)
        self.keep(f"answer/{name}", f"{answer.status_code} {answer.headers} {answer.text}")

    def _lent(self) -> dict[str, int]:
        """The processes that serve one call each, by the variable they were lent."""
        found: dict[str, int] = {}
        for pid in descendants(self.gateway.process.pid):
            with contextlib.suppress(OSError):
                environment = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
                found |= {name: pid for name in ("LENT_FILE", "LENT_DSN") if f"\0{name}=".encode() in environment}
        return found


def minted(manor: Manor) -> Iterator[Secret]:
    """What the vault handed out so far, as the relay before it heard it."""
    seen: set[bytes] = set()
    for number, match in enumerate(_MINTED.finditer(bytes(manor.relay.answers))):
        kind, text = match[1].decode(), json.loads(match[2])
        if text.encode() in seen or len(text) < 8:
            continue
        seen.add(text.encode())
        if kind == "private_key":
            yield from _private(f"certificate's key {number}", text.encode())
        else:
            yield Secret(f"{kind.replace('_', ' ')} {number}", text.encode())


def keys(folder: Path) -> Iterator[Secret]:
    """The gateway's own keys, by file."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix in {".vkey", ".pub"}:
            continue
        data = path.read_bytes()
        if b"PRIVATE KEY" in data:
            yield from _private(path.name, data)
        else:
            yield Secret(path.name, data.strip() if data.strip().isascii() else data)


def _private(name: str, pem: bytes) -> Iterator[Secret]:
    body = b"".join(line for line in pem.splitlines() if b"-----" not in line)
    yield Secret(name, body)
    yield Secret(f"{name} in DER", b64decode(body))
    key = serialization.load_pem_private_key(pem, None)
    if hasattr(key, "private_bytes_raw"):
        yield Secret(f"{name} raw", key.private_bytes_raw())


def _bring(client: httpx.Client, secret: bytes) -> Iterator[tuple[str, int]]:
    text = secret.decode() if secret.isascii() else secret.hex()
    narrow = re.sub(r"[^!-~]", "-", text)[:2000]
    called, listed = "/v1/tools/login.leak/call", "/v1/tools"
    yield "arguments", _rest(client, "login.leak", {"note": text})
    yield "keys", _rest(client, "login.leak", {text: 1})
    yield "denied", _rest(client, "erp.stage_invoice", {"order": text})
    yield "tool", _rest(client, quote(f"erp.{narrow}", safe=""), {})
    yield "path", client.get(f"/v1/{quote(narrow, safe='')}").status_code
    yield "query", client.get(listed, params={"access_token": narrow}).status_code
    yield "field", client.get(listed, headers={"ostiary-run": narrow, "user-agent": narrow}).status_code
    yield "no json", client.post(called, content=b'{"arguments": {"x": "' + text.encode(), headers=_JSON).status_code
    yield "method", client.post("/mcp", json=_message(narrow, {}), headers=_MCP).status_code
    yield "name", client.post("/mcp", json=_message("tools/call", {"name": narrow}), headers=_MCP).status_code
    yield "token", client.get(listed, headers={"authorization": f"Bearer {narrow}"}).status_code
    yield "login", client.get(listed, headers={"authorization": f"Basic {narrow}"}).status_code


def _rest(client: httpx.Client, tool: str, arguments: dict[str, Any]) -> int:
    return client.post(f"/v1/tools/{tool}/call", json={"arguments": arguments}).status_code


def _message(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

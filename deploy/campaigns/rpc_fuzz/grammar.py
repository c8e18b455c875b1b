"""Requests that are as the specifications say, in both eras and at every endpoint, from a seed's chance."""

import base64
import json
import random
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from deploy.campaigns.rpc_fuzz.case import MAY_CALL, Case, Expect, Who, marker_of

STATELESS: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"
HANDSHAKES: Final = ("2024-11-05", "2025-03-26", "2025-06-18", HANDSHAKE)
META: Final[dict[str, Any]] = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "fuzz", "version": "1"},
}
ENDPOINTS: Final = {"/mcp": None, "/servers/box/mcp": "box", "/servers/attic/mcp": "attic"}
# Shares: of calls among requests, of the stateless era, of requests of the other era that name their version.
_OF_CALLS, _STATELESS, _VERSIONED = 0.7, 0.6, 0.7
# How often a stateless call is of the tool that wants its arguments in headers.
_REGIONS: Final = 0.25
_CALLS: Final = {"tools/call", "prompts/get"}
_TEXTS: Final = (
    "",
    "a",
    "grüße",
    "日本",
    "\u202e",
    "\u200b",
    "'; --",
    "../..",
    "\n",
    "=?base64?YQ==?=",
    "null",
    "🙂" * 9,
)
_NUMBERS: Final = (0, -1, 1.5, 2**31, 2**53 - 1, -0.25, 10**15)


@dataclass(frozen=True, slots=True)
class Session:
    """A session that the gateway opened for somebody."""

    id: str
    who: Who
    path: str


@dataclass(slots=True)
class Draft:
    """A request whose parts can still be changed one by one.

    Attributes:
        case: everything around the message.
        message: the JSON-RPC message.
        tool: ``server.name`` of the tool it calls; empty where it calls none.
        stateless: its era.
    """

    case: Case
    message: dict[str, Any]
    tool: str = ""
    stateless: bool = False

    def sealed(self) -> Case:
        """The case, with the message as its body and the headers that repeat it."""
        self.case.body = json.dumps(self.message, ensure_ascii=False).encode("utf-8")
        return self.case


class Grammar:
    """Makes requests of one conversation."""

    def __init__(self, chance: random.Random, name: str) -> None:
        """``name`` is that of the conversation."""
        self.chance = chance
        self._name = name
        self._step = 0

    def request(self, who: Who, session: Session | None) -> Draft:
        """A good request of an agent, in the session's era and at its endpoint where there is one."""
        stateless = session is None and self.chance.random() < _STATELESS
        path = self._path(who) if session is None else session.path
        case = self._case(who, path)
        if session is not None:
            case.set(b"mcp-session-id", session.id.encode())
        if self.chance.random() < _OF_CALLS:
            draft = self._call(case, stateless=stateless)
        else:
            draft = self._other(case, stateless=stateless)
        return self._dressed(draft)

    def hello(self, who: Who, path: str) -> Draft:
        """An ``initialize``."""
        case = self._case(who, path)
        case.expect = Expect.LISTED
        params = {"protocolVersion": self.chance.choice(HANDSHAKES), "capabilities": {}, "clientInfo": {"name": "f"}}
        return self._dressed(Draft(case, self._rpc("initialize", params)))

    def value(self, depth: int = 2) -> Any:
        """A JSON value of any kind."""
        match self.chance.randrange(8 if depth else 5):
            case 0:
                return None
            case 1:
                return self.chance.choice((True, False))
            case 2:
                return self.chance.choice(_NUMBERS)
            case 3 | 4:
                return self.chance.choice(_TEXTS)
            case 5:
                return [self.value(depth - 1) for _ in range(self.chance.randrange(3))]
            case _:
                return {f"k{n}": self.value(depth - 1) for n in range(self.chance.randrange(3))}

    def _path(self, who: Who) -> str:
        return self.chance.choice([path for path in ENDPOINTS if may_come(who, path)])

    def _case(self, who: Who, path: str) -> Case:
        self._step += 1
        case = Case(f"{self._name}/{self._step}", who, marker_of(who, self.chance.getrandbits(48)), path)
        case.headers = [
            (b"host", b"127.0.0.1"),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
        ]
        return case

    def _rpc(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        ids = (self.chance.randrange(3), self.chance.getrandbits(50), "a", "ü", "", f"{self.chance.getrandbits(32):x}")
        return {"jsonrpc": "2.0", "id": self.chance.choice(ids), "method": method, "params": dict(params)}

    def _call(self, case: Case, *, stateless: bool) -> Draft:
        server = ENDPOINTS[case.path]
        allowed = sorted(tool for tool in MAY_CALL[case.who] if server is None or tool.startswith(f"{server}."))
        tool = self.chance.choice(allowed)
        if stateless and "box.region" in allowed and self.chance.random() < _REGIONS:
            tool = "box.region"
        at, _, name = tool.partition(".")
        method = "prompts/get" if name.startswith("prompts/") else "tools/call"
        plain = name.removeprefix("prompts/")
        arguments: dict[str, Any] = {"marker": case.marker}
        if method == "tools/call" and plain == "region":
            arguments |= {"region": self.chance.choice(("eu", "日本", " x ")), "level": self.chance.randrange(-9, 99)}
        elif method == "tools/call":
            arguments |= {f"x{n}": self.value() for n in range(self.chance.randrange(3))}
        case.expect = Expect.CARRIED_OUT
        params = {"name": plain if server is not None else f"{at}__{plain}", "arguments": arguments}
        return Draft(case, self._rpc(method, params), tool, stateless)

    def _other(self, case: Case, *, stateless: bool) -> Draft:
        method = self.chance.choice(("tools/list", "prompts/list", "server/discover" if stateless else "ping"))
        case.expect = Expect.LISTED
        return Draft(case, self._rpc(method, {}), "", stateless)

    def _dressed(self, draft: Draft) -> Draft:
        case, message = draft.case, draft.message
        case.id = json.dumps(message["id"]).encode()
        if draft.stateless:
            message["params"]["_meta"] = deepcopy(META)  # it may be mutated
            case.set(b"mcp-protocol-version", STATELESS.encode())
            case.set(b"mcp-method", message["method"].encode())
            if message["method"] in _CALLS:
                case.set(b"mcp-name", wrapped(message["params"]["name"]))
            if draft.tool == "box.region":
                case.set(b"mcp-param-region", wrapped(message["params"]["arguments"]["region"]))
                case.set(b"mcp-param-level", b"%d" % message["params"]["arguments"]["level"])
        elif message["method"] != "initialize" and self.chance.random() < _VERSIONED:
            case.set(b"mcp-protocol-version", self.chance.choice(HANDSHAKES).encode())
        return draft


def may_come(who: Who, path: str) -> bool:
    """Whether the endpoint exists for this agent."""
    return who is not Who.BIRCH or ENDPOINTS[path] != "attic"


def wrapped(value: str) -> bytes:
    """``value`` as a header field of the 2026 revision."""
    if value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?base64?"):
        return value.encode()
    return b"=?base64?%b?=" % base64.b64encode(value.encode())

"""One gateway and a street of MCP servers of which all but one are hostile: the good one's callers notice nothing."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import httpx
import pytest

from gateway import app
from gateway.core.inquiry import Query
from gateway.core.mcpwire.eras import Era
from gateway.core.records import ENDINGS, EventType
from gateway.edge import asgi
from tests.evidence import make_principal
from tests.rawhttp import RawUpstream, Script, Seen, answer, error, http, running, says, stream
from tests.story.test_discovery import settings

ECHO: Final = {"name": "echo", "inputSchema": {"type": "object"}}
URL: Final = "http://gateway.test"
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM, JSON = HEAD % b"text/event-stream", HEAD % b"application/json"


def envelope(seen: Seen, **members: Any) -> dict[str, Any]:
    """A good answer as a dict; ``members`` replaces members."""
    return {"jsonrpc": "2.0", "id": seen.message.get("id"), "result": {"content": []}} | members


def endless(head: bytes, piece: bytes) -> Script:
    """A script that sends ``piece`` again and again as fast as it is taken, until its client leaves."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(head)
            while True:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()

    return script


async def drips(seen: Seen, writer: asyncio.StreamWriter) -> None:
    """One byte of a good answer, and the next only when everybody else has had a turn; it never ends."""
    with suppress(ConnectionError):
        for byte in JSON + b"fffffff\r\n" + b" " * 10_000_000:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)


async def silent(seen: Seen, writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await seen.client_gone()


def mute(until: anyio.Event) -> Script:
    """A script that says nothing ``until`` then, and hangs up."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await until.wait()
        writer.close()

    return script


NOTE = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}\n\n' * 500
ASKS = [{"jsonrpc": "2.0", "id": f"s{n}", "method": "elicitation/create", "params": {}} for n in range(40)]
ELSEWHERE = "location: http://127.0.0.1:1/mcp\r\n"
UNSURE, FAILED = "outcome_unknown", "tool_failed"
LOST, LONG, GARBAGE = (f"{UNSURE}:{cause}" for cause in ("connection_lost", "output_too_large", "garbage"))
# What each does to a call, and what its caller is told of it: code and cause. ``drips`` is ended by its call's time.
HOSTILE: Mapping[str, tuple[Script, str]] = {
    "drips": (drips, f"{UNSURE}:timeout"),
    "endless-events": (endless(STREAM, NOTE), LONG),
    "endless-comments": (endless(STREAM, b": ping\n" * 4000), LONG),
    "endless-event": (endless(STREAM, b"data: " + b"x" * 65536 + b"\n"), LONG),
    "endless-json": (endless(JSON, b" " * 65536), LONG),
    "huge": (says(lambda s: answer(s, {"content": ["x" * 6_000_000]})), LONG),
    "half": (says(lambda s: answer(s)[:-9], close=True), LOST),
    "nothing": (says(lambda s: b"", close=True), LOST),
    "no-session": (says(lambda s: http(b"", status="404 Not Found")), ""),
    "wrong-id": (says(lambda s: answer(s, id=999_999)), f"{UNSURE}:wrong_id"),
    "no-id": (says(lambda s: answer(s, id=None)), GARBAGE),
    "two-documents": (says(lambda s: http(json.dumps(envelope(s)).encode() * 2)), GARBAGE),
    "a-key-twice": (
        says(lambda s: http(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"content":[]}}' % s.message["id"])),
        GARBAGE,
    ),
    "deep": (
        says(lambda s: http(b'{"jsonrpc":"2.0","id":%d,"result":{"a":%b}}' % (s.message["id"], b"[" * 90_000))),
        GARBAGE,
    ),
    "asks": (says(lambda s: stream(*ASKS, envelope(s)), close=True), f"{UNSURE}:server_request"),
    "redirects": (says(lambda s: http(b"", status="307 Moved", extra=ELSEWHERE)), f"{FAILED}:redirect"),
    "other-era": (says(lambda s: error(s, -32022, "400 Bad Request")), f"{FAILED}:jsonrpc_-32022"),
    "refuses": (says(lambda s: error(s, -32603)), f"{FAILED}:jsonrpc_-32603"),
    "breaks": (says(lambda s: http(b"", status="500 Oops")), f"{FAILED}:http_500"),
}
FORGOTTEN: Final = {Era.HANDSHAKE: f"{UNSURE}:session_expired", Era.STATELESS: f"{FAILED}:http_404"}
TIMES: Final = {"drips": 2}
LISTS: Mapping[str, Script] = {
    "no-list": says(lambda s: answer(s, {"tools": {}})),
    "no-end": says(lambda s: answer(s, {"tools": [], "nextCursor": "again"})),
    "no-json": says(lambda s: http(b"<html>")),
    "lists-twice": says(lambda s: answer(s, {"tools": [ECHO, ECHO]})),
    "lists-half": says(lambda s: answer(s, {"tools": [ECHO]})[:-9], close=True),
    "lists-deep": says(lambda s: http(b'{"jsonrpc":"2.0","id":1,"result":{"tools":%b}}' % (b"[" * 90_000))),
    "lists-endless": endless(JSON, b" " * 65536),
    "lists-nothing": silent,
    "lists-drips": drips,
}


@dataclass(frozen=True, slots=True)
class Street:
    """The gateway and its upstreams by name, as a client sees them."""

    gateway: app.Gateway
    http: httpx.AsyncClient
    upstreams: Mapping[str, RawUpstream]

    async def call(self, server: str) -> str:
        """``done``, or code and cause of the error that the call of the server's ``echo`` ends with."""
        params = {"name": "echo", "arguments": {}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        said = (await self.http.post(f"/servers/{server}/mcp", json=body)).json()
        if "error" in said:
            return str(said["error"]["data"]["code"])
        result = said["result"]
        if not result.get("isError"):
            return "done"
        told = json.loads(result["content"][0]["text"])
        return f"{told['error']}:{told.get('cause')}"

    async def types(self) -> list[str]:
        """What the log holds of calls."""
        found = await self.gateway.parts.desk.reader.search(Query(limit=1000))
        return [str(record.body["type"]) for record in found]


@asynccontextmanager
async def street(folder: Path, scripts: Mapping[str, Mapping[str, Script]], era: Era) -> AsyncIterator[Street]:
    """A gateway before upstreams that list one tool and answer it, except for what ``scripts`` say, by server."""
    async with AsyncExitStack() as stack:
        ups = {}
        for name in (*scripts, "good"):
            ups[name] = await stack.enter_async_context(running(era))
            ups[name].scripts |= {
                "tools/list": says(lambda s: answer(s, {"tools": [ECHO]})),
                "tools/call": says(answer),
            }
            ups[name].scripts |= scripts.get(name, {})
        tools = [
            f'[[tool]]\nserver = "{name}"\nname = "echo"\nlimits = {{ timeout_s = {TIMES.get(name, 60)} }}'
            for name in ups
        ]
        (folder / "tools.toml").write_text("\n".join(tools))
        sections = [
            f'[upstreams.{name}]\nkind = "mcp"\nurl = "{up.url}"\ntrust = "first_use"' for name, up in ups.items()
        ]
        everything = '[policy.data.gateway.scope]\nagents.test-agent.allow = ["*"]\nusers.alice.allow = ["*"]'
        chosen = settings(folder, 'catalogue = ["tools.toml"]', everything, "[discovery]\nstart_s = 2", *sections)
        gateway = await stack.enter_async_context(app.opened(chosen, URL))
        parts = gateway.parts
        who = make_principal(issuer=chosen.identity.issuer, expires_us=parts.ports.clock.now_us() + 3_600_000_000)
        options = asgi.Options(issuer=chosen.identity.issuer)
        transport = httpx.ASGITransport(asgi.build(parts.ports, parts.desk, options))
        bearer = {"authorization": f"Bearer {parts.desk.issuer.issue(who)}"}
        client = httpx.AsyncClient(transport=transport, base_url=URL, headers=bearer, timeout=None)
        yield Street(gateway, await stack.enter_async_context(client), ups)


@pytest.mark.requirement("TOOL-8")
@pytest.mark.parametrize("era", list(Era))
async def test_hostile_answers_are_their_own_callers_trouble(era: Era, tmp_path: Path) -> None:
    """All at once, each is told of as what it is and sent once; the good server serves meanwhile, they serve again."""
    told: dict[str, str] = {}
    expected = {name: code for name, (_, code) in HOSTILE.items()} | {"mute": LOST, "no-session": FORGOTTEN[era]}
    released = anyio.Event()
    scripts = {name: {"tools/call": script} for name, (script, _) in HOSTILE.items()}
    async with street(tmp_path, scripts | {"mute": {"tools/call": mute(released)}}, era) as here:

        async def attack(name: str) -> None:
            told[name] = await here.call(name)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for name in expected:
                    tasks.start_soon(attack, name)
                assert [await here.call("good") for _ in range(10)] == ["done"] * 10
                assert "mute" not in told, "the good server's answers came while another was waited for"
                released.set()
        assert told == expected
        assert {name: len(here.upstreams[name].calls("tools/call")) for name in expected} == dict.fromkeys(expected, 1)
        types = await here.types()
        assert types.count(EventType.TOOL_REQUESTED) == sum(kind in ENDINGS for kind in types) == len(expected) + 10
        for name in expected:
            here.upstreams[name].scripts["tools/call"] = says(answer)
            assert await here.call(name) == "done", name


@pytest.mark.parametrize("era", list(Era))
async def test_hostile_listings_hide_nobody_elses_tools(era: Era, tmp_path: Path) -> None:
    """The start waits its own time for all of them once; who lists nothing usable has no tools, the good one has."""
    async with street(tmp_path, {name: {"tools/list": script} for name, script in LISTS.items()}, era) as here:
        assert [tool.fqn for tool in here.gateway.parts.ports.catalog.tools()] == ["good.echo"]
        assert await here.call("good") == "done"
        for name in LISTS:
            assert await here.call(name) in {"unknown_tool", "server_not_found"}
            assert here.upstreams[name].calls("tools/call") == []


async def test_a_session_that_expires_again_and_again_is_opened_once_a_call(tmp_path: Path) -> None:
    """Each call in an expired session is sent once and fails; the next one begins in one new session."""
    expired = says(lambda _: http(b"", status="404 Not Found"))
    async with street(tmp_path, {"up": {"tools/call": expired}}, Era.HANDSHAKE) as here:
        up = here.upstreams["up"]
        for number in range(1, 4):
            assert await here.call("up") == FORGOTTEN[Era.HANDSHAKE]
            assert (len(up.calls("tools/call")), up.sessions) == (number, 1 + number)  # one is the gateway's own
        up.scripts["tools/call"] = says(answer)
        assert [await here.call("up") for _ in range(3)] == ["done"] * 3
        assert (len(up.calls("tools/call")), up.sessions) == (6, 5)

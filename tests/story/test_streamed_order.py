"""What an upstream says reaches its client before the upstream says the next thing: proven by order, not by time.

Everything between the two is real: sockets, server, pipeline, policy workers, log, connection upstream. The upstream
says its next thing only when the client has heard the one before, so that whoever holds one back is waited for in vain.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest
from anyio import fail_after

from gateway import app
from gateway.core.mcpwire import sse
from gateway.core.mcpwire.eras import Era
from gateway.serving import listening
from tests.edge_world import META, NEWEST
from tests.evidence import make_principal
from tests.gateways import NO_TLS
from tests.rawhttp import RESULT, RawUpstream, Seen, answer, running, says
from tests.story.test_discovery import settings

EVENTS: Final = 6
TOOLS: Final = [{"name": name, "inputSchema": {"type": "object"}} for name in ("count", "checked")]
VERIFY: Final = """package gateway.policies.held

import rego.v1

oblige contains {"id": "held.verify", "kind": "verify"} if {
	input.phase == "call"
	endswith(input.tool.fqn, ".checked")
}
"""
NAMES: Final = {Era.HANDSHAKE: "old", Era.STATELESS: "new"}


@dataclass(slots=True)
class Speaker:
    """Speaks in step with its listener, and keeps what happened in order."""

    happened: list[str] = field(default_factory=list)
    heard: asyncio.Queue[int] = field(default_factory=asyncio.Queue)

    async def __call__(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """A script: progress and log messages in turn, each when the one before was heard, then the answer."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        token = seen.message["params"]["_meta"]["progressToken"]
        for number in range(1, EVENTS + 1):
            self.happened.append(f"sent {number}")
            if number % 2:
                said: dict[str, Any] = {"progressToken": token, "progress": number}
                message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": said}
            else:
                said = {"level": "error", "data": number}
                message = {"jsonrpc": "2.0", "method": "notifications/message", "params": said}
            await _say(writer, message)
            assert await self.heard.get() == number
        await _say(writer, {"jsonrpc": "2.0", "id": seen.message["id"], "result": _result(seen)})
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _say(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    event = sse.encode(json.dumps(message).encode())
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
    await writer.drain()


def _result(seen: Seen) -> dict[str, Any]:
    return RESULT if "mcp-method" not in seen.headers else {**RESULT, "resultType": "complete"}


@dataclass(frozen=True, slots=True)
class Line:
    """A gateway that listens, its upstreams by era, and a client of it."""

    ups: dict[Era, RawUpstream]
    http: httpx.AsyncClient

    def call(self, client: Era, upstream: Era, tool: str = "count") -> Any:
        """The answer to a call, as it comes."""
        params: dict[str, Any] = {"name": f"{NAMES[upstream]}__{tool}", "_meta": {"progressToken": "mine"}}
        headers = {"accept": "application/json, text/event-stream"}
        if client is Era.STATELESS:
            params["_meta"] |= {**META, "io.modelcontextprotocol/logLevel": "info"}
            headers |= {"mcp-protocol-version": NEWEST, "mcp-method": "tools/call", "mcp-name": params["name"]}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return self.http.stream("POST", "/mcp", json=body, headers=headers)


@pytest.fixture(scope="module")
async def line(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Line]:
    """A gateway on a real socket before an upstream of each era; a package of its wants one tool's output verified."""
    folder = tmp_path_factory.mktemp("line")
    (folder / "held").mkdir()
    (folder / "held" / "held.rego").write_text(VERIFY)
    async with running(Era.HANDSHAKE) as old, running(Era.STATELESS) as new:
        ups = {Era.HANDSHAKE: old, Era.STATELESS: new}
        for up in ups.values():
            up.scripts["tools/list"] = says(lambda seen: answer(seen, {**_result(seen), "tools": TOOLS}))
        chosen = settings(
            folder,
            "[listen]\nport = 0",
            '[policy]\nbundles = ["held"]\ndeadline_ms = 5000',
            '[policy.data.gateway.scope]\nagents.test-agent.allow = ["*"]\nusers.alice.allow = ["*"]',
            *(
                f'[upstreams.{NAMES[era]}]\nkind = "mcp"\nurl = "{up.url}"\ntrust = "first_use"'
                for era, up in ups.items()
            ),
        )
        with listening.sockets(chosen) as (tcp, unix):
            url = listening.url(chosen, tcp)
            async with (
                app.opened(chosen, url) as gateway,
                listening.Server(chosen, gateway.app).running([tcp, unix]),
                httpx.AsyncClient(base_url=url, headers=_bearer(chosen, gateway), timeout=30, verify=NO_TLS) as http,
            ):
                yield Line(ups, http)


def _bearer(chosen: Any, gateway: app.Gateway) -> dict[str, str]:
    desk, clock = gateway.parts.desk, gateway.parts.ports.clock
    who = make_principal(issuer=chosen.identity.issuer, expires_us=clock.now_us() + 3_600_000_000)
    return {"authorization": f"Bearer {desk.issuer.issue(who)}"}


@pytest.mark.parametrize(("client", "upstream"), list(itertools.product(Era, Era)))
async def test_each_event_arrives_before_the_next_is_sent(client: Era, upstream: Era, line: Line) -> None:
    """Progress and log messages, in both eras on either side; the answer is the last."""
    speaker, last = Speaker(), None
    line.ups[upstream].scripts["tools/call"] = speaker
    with fail_after(30):
        async with line.call(client, upstream) as response:
            assert response.headers["content-type"] == "text/event-stream"
            decoder = sse.Decoder(1 << 20)
            async for chunk in response.aiter_bytes():
                for event in decoder.feed(chunk):
                    last = json.loads(event.data)
                    if "method" in last:
                        number = last["params"].get("progress", last["params"].get("data"))
                        speaker.happened.append(f"heard {number}")
                        speaker.heard.put_nowait(number)
    assert speaker.happened == [f"{what} {number}" for number in range(1, EVENTS + 1) for what in ("sent", "heard")]
    assert last is not None
    assert last["result"]["content"] == RESULT["content"]


@pytest.mark.parametrize("client", list(Era))
async def test_nothing_is_streamed_where_the_output_has_to_be_verified_first(client: Era, line: Line) -> None:
    """This gateway cannot verify yet: it refuses before anything is sent, so nothing unverified ever arrives."""
    line.ups[Era.HANDSHAKE].scripts["tools/call"] = Speaker()
    before = len(line.ups[Era.HANDSHAKE].calls("tools/call"))
    with fail_after(30):
        async with line.call(client, Era.HANDSHAKE, "checked") as response:
            refused = json.loads(await response.aread())
    assert response.headers["content-type"] == "application/json"
    told = json.loads(refused["result"]["content"][0]["text"])
    assert (told["error"], told["reasons"][0]["id"]) == ("denied", "obligation.unsupported")
    assert len(line.ups[Era.HANDSHAKE].calls("tools/call")) == before

"""The MCP connector over HTTP against upstreams that lie, break off, stall or changed: callers are told the truth."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anyio import fail_after, move_on_after

from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.pool import Pool
from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, ToolFailed, Unavailable
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import ToolLimits
from tests.evidence import lease, make_tool
from tests.rawhttp import RESULT, Seen, answer, error, http, running, says, stream

ERAS = pytest.mark.parametrize("era", list(Era))
SMALL = make_tool(limits=ToolLimits(max_output_bytes=1000))


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[Pool]:
    """The shared connections."""
    async with Pool() as opened:
        yield opened


async def failing(connector: HttpConnector, tool: Any = SMALL, **other: Any) -> GatewayError:
    """The error a call ends with; it must come by itself."""
    with pytest.raises(GatewayError) as caught, fail_after(5):
        await connector.invoke(lease(tool, **other))
    return caught.value


def envelope(seen: Seen, **members: Any) -> dict[str, Any]:
    """A good answer as a dict; ``members`` replaces members."""
    return {"jsonrpc": "2.0", "id": seen.message["id"], "result": RESULT} | members


def deep(seen: Seen, levels: int) -> bytes:
    """An answer nested so deep."""
    return http(b'{"jsonrpc":"2.0","id":%d,"result":{"a":%b}}' % (seen.message["id"], b"[" * levels + b"]" * levels))


def twice(seen: Seen) -> bytes:
    """An answer with the same key twice in its result."""
    return http(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"content":["secret"]}}' % seen.message["id"])


def chunked(seen: Seen) -> bytes:
    """An answer without a length that does not end within the cap."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"4000\r\n" + b" " * 0x4000 + b"\r\n0\r\n\r\n"


def packed(seen: Seen) -> bytes:
    """A compressed answer, though none was asked for."""
    return http(gzip.compress(json.dumps(envelope(seen)).encode()), extra="content-encoding: gzip\r\n")


def asking(seen: Seen) -> bytes:
    """A result that wants input first."""
    return answer(seen, {"resultType": "input_required", "inputRequests": {}})


UNKNOWN: dict[str, tuple[Callable[[Seen], bytes], str]] = {
    "another id": (lambda s: answer(s, id=s.message["id"] + 1), "wrong_id"),
    "the id as text": (lambda s: answer(s, id=str(s.message["id"])), "wrong_id"),
    "no id": (lambda s: answer(s, id=None), "garbage"),
    "an error for another id": (lambda s: error(s, -32602, id=999), "wrong_id"),
    "no JSON": (lambda s: http(b"<html>"), "garbage"),
    "two documents": (lambda s: http(json.dumps(envelope(s)).encode() * 2), "garbage"),
    "a batch": (lambda s: http(json.dumps([envelope(s)]).encode()), "garbage"),
    "no object": (lambda s: answer(s, "text"), "garbage"),
    "result and error": (lambda s: answer(s, error={"code": -1, "message": "x"}), "garbage"),
    "a notification": (lambda s: http(b'{"jsonrpc":"2.0","method":"x"}'), "garbage"),
    "a key twice": (twice, "garbage"),
    "not UTF-8": (lambda s: http(b'{"jsonrpc":"2.0","id":%d,"result":{"a":"\xff"}}' % s.message["id"]), "garbage"),
    "NaN": (lambda s: answer(s, {"content": [float("nan")]}), "garbage"),
    "another type": (lambda s: http(b"hello", kind="text/html"), "no_answer"),
    "accepted": (lambda s: http(b"", status="202 Accepted"), "no_answer"),
    "compressed": (packed, "content_encoding"),
    "too long": (lambda s: answer(s, {"content": ["x" * 9000]}), "output_too_large"),
    "a little too long": (lambda s: answer(s, {"content": ["x" * 1000]}), "output_too_large"),
    "endless": (chunked, "output_too_large"),
    "proxy lost it": (lambda s: http(b"", status="504 Gateway Timeout"), "http_504"),
    "proxy lost it, in the server's words": (lambda s: error(s, -32603, "502 Bad Gateway", id=None), "http_502"),
    "stream: another id": (lambda s: stream(envelope(s, id=999)), "wrong_id"),
    "stream: no JSON": (lambda s: stream(b"hello"), "garbage"),
    "stream: no answer": (lambda s: stream({"jsonrpc": "2.0", "method": "notifications/progress"}), "stream_ended"),
    "stream: too long": (lambda s: stream(b"x" * 9000), "output_too_large"),
    "stream: lines without end": (lambda s: stream() + b"\n" * 600_000 + stream(envelope(s)), "output_too_large"),
    "stream: half": (lambda s: stream(envelope(s))[:-2], "stream_ended"),
}


@ERAS
@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unusable_answer_is_an_unknown_outcome(name: str, era: Era, pool: Pool) -> None:
    """Whatever is no answer to this call leaves its outcome unknown, and the call was sent once."""
    reply, cause = UNKNOWN[name]
    close = name.startswith("stream")
    async with running(era, call=says(reply, close=close)) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector)
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, cause)
        assert len(up.calls("tools/call")) == 1


async def test_a_result_too_deep_to_parse_is_an_unknown_outcome(pool: Pool) -> None:
    """Nesting is bounded by the parser, which must not take the gateway down with it."""
    async with running(Era.STATELESS) as up, HttpConnector(up.url, pool) as connector:
        up.scripts["tools/call"] = says(lambda s: deep(s, 100))
        assert (await connector.invoke(lease(make_tool()))).value["a"]
        up.scripts["tools/call"] = says(lambda s: deep(s, 100_000))
        caught = await failing(connector, make_tool())
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "garbage")


REFUSED: dict[str, tuple[Callable[[Seen], bytes], str]] = {
    "JSON-RPC error": (lambda s: error(s, -32602), "jsonrpc_-32602"),
    "JSON-RPC error as 400": (lambda s: error(s, -32602, "400 Bad Request"), "jsonrpc_-32602"),
    "JSON-RPC error without id": (lambda s: error(s, -32700, id=None), "jsonrpc_-32700"),
    "JSON-RPC error in a stream": (
        lambda s: stream(
            {"jsonrpc": "2.0", "id": s.message["id"], "error": {"code": -1, "message": "upstream's words"}}
        ),
        "jsonrpc_-1",
    ),
    "unauthorised": (lambda s: http(b"upstream's words", status="401 Unauthorized"), "http_401"),
    "broken": (lambda s: http(b"upstream's words", status="500 Oops", kind="text/plain"), "http_500"),
    "wants input": (asking, "input_required_unsupported"),
    "a task": (lambda s: answer(s, {"resultType": "task"}), "result_type_unsupported"),
}


@ERAS
@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_is_a_failed_tool(name: str, era: Era, pool: Pool) -> None:
    """An upstream that says no is reported as that, without its words, and the call was sent once."""
    reply, cause = REFUSED[name]
    close = name.endswith("stream")
    async with running(era, call=says(reply, close=close)) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector)
        assert (type(caught), caught.cause_code) == (ToolFailed, cause)
        assert "words" not in caught.detail + str(caught) + str(caught.__cause__)
        assert len(up.calls("tools/call")) == 1


@ERAS
async def test_a_redirect_is_not_followed(era: Era, pool: Pool) -> None:
    """A call goes to the address the operator named and to no other."""
    async with running(era) as elsewhere:
        moved = says(lambda s: http(b"", status="307 Moved", extra=f"location: {elsewhere.url}\r\n"))
        async with running(era, call=moved) as up, HttpConnector(up.url, pool) as connector:
            caught = await failing(connector)
            assert (type(caught), caught.cause_code) == (ToolFailed, "redirect")
        assert elsewhere.seen == []


@ERAS
@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\n", http(b'{"jsonrpc":"2.0"')[:-4]])
async def test_a_connection_that_breaks_off_is_an_unknown_outcome(part: bytes, era: Era, pool: Pool) -> None:
    """The call had left, on a connection that worked before: it is neither sent again nor called unsent."""
    script = says(answer)
    async with running(era, call=script) as up, HttpConnector(up.url, pool) as connector:
        await connector.invoke(lease(SMALL))
        up.scripts["tools/call"] = says(lambda _: part, close=True)
        caught = await failing(connector)
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "connection_lost")
        assert len(up.calls("tools/call")) == 2


async def test_an_answer_before_the_question_is_over(pool: Pool) -> None:
    """A server that refuses a large call without reading it is reported truly, whichever end the client sees first."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        found = {"supportedVersions": ["2026-07-28"]}
        if b"server/discover" in head:
            body = json.loads(await reader.read(65536))
            writer.write(http(json.dumps({"jsonrpc": "2.0", "id": body["id"], "result": found}).encode()))
        else:
            writer.write(http(b"", status="413 Too Large"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    async with server, HttpConnector(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", pool) as connector:
        caught = await failing(connector, arguments={"text": "x" * 4_000_000})
        assert (type(caught), caught.cause_code) in {(ToolFailed, "http_413"), (OutcomeUnknown, "connection_lost")}


@ERAS
async def test_an_abandoned_call_is_given_up_upstream_too(era: Era, pool: Pool) -> None:
    """A call cancelled by its time-out closes its connection; a handshake-era server is told besides."""
    async with running(era) as up, HttpConnector(up.url, pool) as connector:
        up.scripts["tools/call"] = up.hang
        await connector.ping()
        with move_on_after(0.2) as scope:
            await connector.invoke(lease(SMALL))
        assert scope.cancelled_caught
        with fail_after(5):
            await up.closed.wait()
        notes = [seen.message["params"]["requestId"] for seen in up.calls("notifications/cancelled")]
        assert notes == ([up.calls("tools/call")[0].message["id"]] if era is Era.HANDSHAKE else [])


async def test_nothing_listens(pool: Pool) -> None:
    """A refused connection, a name that does not resolve and a silent TLS peer all mean that nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for url in ("http://127.0.0.1:1/mcp", "http://nowhere.invalid/mcp", f"https://127.0.0.1:{port}/mcp"):
            connector = HttpConnector(url, pool, HttpOptions(setup_timeout_s=0.3, ping_timeout_s=0.3))
            assert type(await failing(connector)) is NotSent
            with pytest.raises(Unavailable):
                await connector.ping()
            with pytest.raises(Unavailable):
                await connector.discover()


@ERAS
async def test_an_upstream_that_went_down_between_calls(era: Era, pool: Pool) -> None:
    """With the session already open, a refused connection still is a call that was not sent."""
    async with running(era, call=says(answer, close=True)) as up:
        connector = HttpConnector(up.url, pool)
        await connector.invoke(lease(SMALL))
    with fail_after(5):
        while type(caught := await failing(connector)) is not NotSent:
            assert type(caught) is OutcomeUnknown  # a kept connection that the end of the server had not yet closed
    assert caught.cause_code == "connect"


@ERAS
async def test_arguments_travel_byte_for_byte(era: Era, pool: Pool) -> None:
    """What was decided on is what is sent, number lexemes included; the result's bytes come back untouched."""
    result = b'{ "content" : [ ] , "n" : 1.10e1 }'

    def spaced(seen: Seen) -> bytes:
        return http(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (seen.message["id"], result))

    async with running(era, call=says(spaced)) as up, HttpConnector(up.url, pool) as connector:
        raw = await connector.invoke(lease(SMALL, b'{"b": 1.10, "a": [12345678901234567890123, "\\u00e9"]}'))
        assert (raw.body, raw.value) == (result, {"content": [], "n": 11.0})
        sent = up.calls("tools/call")[0]
        assert '"arguments":{"a":[12345678901234567890123,"é"],"b":1.10}'.encode() in sent.body


@ERAS
async def test_large_arguments_arrive_whole(era: Era, pool: Pool) -> None:
    """Arguments too large for one piece are sent whole, and the connection serves on."""
    text = "é" * 1_000_000
    async with running(era, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        for _ in range(2):
            await connector.invoke(lease(SMALL, {"text": text}))
        assert [seen.message["params"]["arguments"]["text"] == text for seen in up.calls("tools/call")] == [True, True]


async def test_stateless_requests_describe_themselves(pool: Pool) -> None:
    """Each stateless request carries version, method, name and annotated arguments in headers that equal its body."""
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    tool = make_tool("zählen", schema=schema)
    async with running(Era.STATELESS, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        await connector.invoke(lease(tool, {"region": "eu"}))
        sent = up.calls("tools/call")[0]
        fields = {name: value for name, value in sent.headers.items() if name.startswith("mcp-")}
        assert fields == {
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": "=?base64?esOkaGxlbg==?=",
            "mcp-param-region": "eu",
        }
        assert sent.message["params"]["_meta"] == {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "ostiary", "version": "0"},
        }


async def test_a_stream_cut_at_every_byte(pool: Pool) -> None:
    """Progress, a comment, an answer and a second answer, one byte at a time: the first answer counts."""

    async def trickle(seen: Seen, writer: asyncio.StreamWriter) -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1}}
        text = stream(note, envelope(seen), envelope(seen, result={"content": ["second"]}))
        for byte in text.replace(b"\r\n\r\nevent", b"\r\n\r\n: ping\r\n\r\nevent", 1):
            writer.write(bytes([byte]))
            await writer.drain()
        writer.close()

    async with running(Era.HANDSHAKE, call=trickle) as up, HttpConnector(up.url, pool) as connector:
        assert (await connector.invoke(lease(SMALL))).value == RESULT


@ERAS
async def test_an_answer_is_not_held_back_by_a_stream_that_stays_open(era: Era, pool: Pool) -> None:
    """The answer is returned when it is there, though the server never closes its stream."""

    async def open_ended(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(stream(envelope(seen)))
        await seen.client_gone()

    async with running(era, call=open_ended) as up, HttpConnector(up.url, pool) as connector:
        with fail_after(5):
            assert (await connector.invoke(lease(SMALL))).value == RESULT


def requests(seen: Seen, how_many: int) -> bytes:
    """A stream in which the server asks for sampling so often, asks whether we are there, and then answers."""
    asked = [
        {"jsonrpc": "2.0", "id": f"s{n}", "method": "sampling/createMessage", "params": {}} for n in range(how_many)
    ]
    return stream(*asked, {"jsonrpc": "2.0", "id": "p", "method": "ping"}, envelope(seen))


async def test_what_a_server_asks_is_declined(pool: Pool) -> None:
    """No capability was declared: sampling is refused, a ping is answered, the call goes on."""
    script = says(lambda s: requests(s, 2), close=True)
    async with running(Era.HANDSHAKE, call=script) as up, HttpConnector(up.url, pool) as connector:
        assert (await connector.invoke(lease(SMALL))).value == RESULT
        answers = [seen.message for seen in up.seen if seen.method == "POST"]
        assert [(a["id"], a.get("error", {}).get("code"), a.get("result")) for a in answers] == [
            ("s0", -32601, None),
            ("s1", -32601, None),
            ("p", None, {}),
        ]


@pytest.mark.parametrize(("era", "how_many"), [(Era.HANDSHAKE, 100), (Era.STATELESS, 1)])
async def test_a_server_may_not_ask_without_end(era: Era, how_many: int, pool: Pool) -> None:
    """A flood of requests, or any request where the era has none, ends the call."""
    script = says(lambda s: requests(s, how_many), close=True)
    async with running(era, call=script) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector)
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "server_request")
        assert len([seen for seen in up.seen if seen.method == "POST"]) <= 16

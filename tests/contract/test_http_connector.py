"""The HTTP connector against a real server on loopback, friendly and hostile."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from connectors.http import HttpApi
from gateway.core.errors import NotSent, OutcomeUnknown, ToolFailed
from gateway.core.tool import EffectClass
from tests.fakes.web import Exchange, Play, Web, serving
from tests.http_tools import CREATE, OPEN, call, fault, tool


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    """A server that answers with an empty object until told otherwise."""
    async with serving() as running:
        running.json(b"{}")
        yield running


@pytest.fixture
async def api(web: Web) -> AsyncIterator[HttpApi]:
    """The connector to it."""
    async with HttpApi(web.origin, OPEN) as connector:
        yield connector


async def test_a_json_object_becomes_structured_content(api: HttpApi, web: Web) -> None:
    """Number lexemes survive, and the text says the same as the structure."""
    web.json(b'{"total": 1.10, "id": 12345678901234567890, "big": 1e2}')
    found = await call(api)
    text = '{"total":1.10,"id":12345678901234567890,"big":1e2}'
    assert found.value["content"] == [{"type": "text", "text": text}]
    assert b'"structuredContent":' + text.encode() in found.body


@pytest.mark.parametrize(
    ("body", "result"), [(b"[1, 2]", [1, 2]), (b'"x"', "x"), (b"null", None), (b" ", None), (b"", None)]
)
async def test_other_json_is_wrapped(api: HttpApi, web: Web, body: bytes, result: Any) -> None:
    """Arrays, scalars and nothing are the member ``result``; a JSON string is not taken for plain text."""
    web.json(body)
    assert (await call(api)).value["structuredContent"] == {"result": result}


async def test_text_is_text(api: HttpApi, web: Web) -> None:
    """What is not JSON is a text block, in the character set the upstream names."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer("200 OK", "Zürich".encode("latin-1"), "Content-Type: text/plain; charset=ISO-8859-1")

    web.play = play
    assert (await call(api)).value == {"content": [{"type": "text", "text": "Zürich"}]}


@pytest.mark.requirement("TOOL-2")
async def test_the_request_is_what_was_declared(api: HttpApi, web: Web) -> None:
    """Path, query and body from arguments; the host is ours, the credential is added, nothing else is sent."""
    binding = {"method": "post", "path": "/a/{id}/b.{kind}", "query": ["q", "page", "tag"], "body": "rest",
               "idempotency_header": "Idempotency-Key"}  # fmt: skip
    arguments = b'{"id":"x y%&?#","kind":7,"q":"a&b=c d","page":2,"tag":["m","n"],"amount":1.10,"deep":{"k":[1E2]}}'
    await call(api, tool(binding, EffectClass.WRITE), arguments, {"Authorization": "Bearer s3cr3t"})
    sent = web.exchanges[0]
    assert sent.line == "POST /a/x%20y%25%26%3F%23/b.7?q=a%26b%3Dc%20d&page=2&tag=m&tag=n HTTP/1.1"
    assert sent.body == b'{"amount":1.10,"deep":{"k":[1E2]}}'
    assert sent.field("Host") == [f"127.0.0.1:{web.port}"]
    assert sent.field("Authorization") == ["Bearer s3cr3t"]
    assert sent.field("Content-Type") == ["application/json"]
    assert sent.field("Accept-Encoding") == ["identity"]
    assert sent.field("Idempotency-Key") == ["018f0000-0000-7000-8000-0000000000ca"]
    names = {line.partition(":")[0].lower() for line in sent.head.split("\r\n")[1:] if line}
    assert names - {"connection"} == {
        "host", "authorization", "content-type", "accept-encoding", "idempotency-key", "accept", "user-agent",
        "content-length",
    }  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "b\r\nX-Evil: 1"}, {"X-A": "b\x00"}, {"X A": "b"}, {"X-A\r\nB": "b"}, {"Host": "evil"},
     {"X-A": "caf\u00e9"}, {"transfer-encoding": "chunked"}, {"Content-Length": "0"}, {"Connection": "upgrade"},
     {"": "b"}],
)  # fmt: skip
async def test_header_fields_cannot_be_injected(api: HttpApi, web: Web, headers: dict[str, str]) -> None:
    """Line breaks, odd names and fields that frame the message are not sent."""
    with pytest.raises(NotSent) as caught:
        await call(api, headers=headers)
    assert caught.value.cause_code == "header"
    assert web.exchanges == []


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "404 Not Found", "409 Conflict", "422 X", "429 X", "403 Forbidden"]
)
async def test_a_refusal_is_a_result_the_model_can_act_on(api: HttpApi, web: Web, status: str) -> None:
    """4xx: text-only ``isError`` with status and body."""
    web.json(b'{"why": "no such order"}', status)
    value = (await call(api)).value
    assert value["isError"] is True
    assert "structuredContent" not in value
    assert json.loads(value["content"][0]["text"]) == {"status": int(status[:3]), "body": {"why": "no such order"}}


@pytest.mark.parametrize(
    ("status", "error", "cause"),
    [
        ("500 X", ToolFailed, "upstream_status"),
        ("503 X", ToolFailed, "upstream_status"),
        ("502 X", OutcomeUnknown, "upstream_gateway"),
        ("504 X", OutcomeUnknown, "upstream_gateway"),
        ("401 X", ToolFailed, "upstream_credential"),
        ("407 X", ToolFailed, "upstream_credential"),
        ("301 X", ToolFailed, "redirect"),
        ("999 X", ToolFailed, "upstream_status"),
    ],
)
async def test_failures_of_the_upstream(api: HttpApi, web: Web, status: str, error: type, cause: str) -> None:
    """5xx and what concerns only the gateway are failures; the upstream's words are not repeated."""
    web.json(b'{"stack": "s3cr3t trace"}', status)
    found = await fault(api, CREATE)
    assert (type(found), found.cause_code) == (error, cause)
    assert "s3cr3t" not in found.detail


async def test_declared_statuses_decide_what_success_is(api: HttpApi, web: Web) -> None:
    """404 may be an answer, 200 may not be one."""
    which = tool({"method": "GET", "path": "/x", "success": [404]})
    web.json(b'{"found": false}', "404 Not Found")
    assert (await call(api, which)).value["structuredContent"] == {"found": False}
    web.json(b"{}")
    assert (await fault(api, which)).cause_code == "upstream_status"


@pytest.mark.requirement("TOOL-2")
@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "/elsewhere", "//evil.example/"])
async def test_redirects_are_never_followed(api: HttpApi, web: Web, target: str) -> None:
    """Neither to metadata nor on the same host: one request, one failure."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer("302 Found", b"", f"Location: {target}", "Set-Cookie: a=b")

    web.play = play
    assert (await fault(api)).cause_code == "redirect"
    assert len(web.exchanges) == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_huge_body_is_cut_off(api: HttpApi, web: Web, chunked: bool) -> None:
    """Announced or not, reading stops at the tool's cap."""

    async def play(exchange: Exchange) -> None:
        if not chunked:
            await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        else:
            await exchange.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await exchange.write(b"x" * 4096 if not chunked else b"1000\r\n" + b"x" * 4096 + b"\r\n")

    web.play = play
    with anyio.fail_after(5):
        assert (await fault(api, tool(max_output_bytes=50_000))).cause_code == "output_size"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nContent-Type: application/json\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"not http at all\r\n\r\n",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_half_answers_are_never_asked_for_again(api: HttpApi, web: Web, answer: bytes, method: str) -> None:
    """A connection that breaks after the request left is unknown, whatever the method; there is no second request."""
    web.play = _once(answer)
    effect = EffectClass.READ if method == "GET" else EffectClass.WRITE
    found = await fault(api, tool({"method": method, "path": "/x"}, effect))
    assert (type(found), found.cause_code) == (OutcomeUnknown, "lost")
    assert len(web.exchanges) == 1


async def test_a_body_longer_than_announced_is_not_the_next_answer(api: HttpApi, web: Web) -> None:
    """What follows the announced length is thrown away with its connection."""
    wrong = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    smuggled = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{"evil": 1}'

    async def play(exchange: Exchange) -> None:
        await exchange.write(wrong + smuggled)

    web.play = play
    for _ in range(2):
        assert (await call(api)).value["structuredContent"] == {}
    assert web.connections == 2


def _once(answer: bytes) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.write(answer)
        exchange.writer.close()

    return play


@pytest.mark.parametrize(
    ("fields", "body", "cause"),
    [
        (["Content-Type: application/json"], b"{nope", "output_shape"),
        (["Content-Type: application/json"], b'{"a":1,"a":2}', "output_shape"),
        (["Content-Type: application/json"], b'{"a":NaN}', "output_shape"),
        (["Content-Type: application/json"], b'{"a":1e999}', "output_shape"),
        (["Content-Type: application/json"], b'{"a":"\xff"}', "output_shape"),
        (["Content-Type: application/json"], b'{"a":"\\ud800"}', "output_shape"),
        (["Content-Type: application/json"], b"[" * 100_000, "output_shape"),
        (["Content-Type: text/plain"], b"\xff\xfe", "output_shape"),
        (["Content-Type: application/octet-stream"], b"abc", "output_media_type"),
        (["Content-Type: application/json", "Content-Encoding: gzip"], b"\x1f\x8b", "output_encoding"),
    ],
)
async def test_answers_that_cannot_be_passed_on_fail(
    api: HttpApi, web: Web, fields: list[str], body: bytes, cause: str
) -> None:
    """Broken or ambiguous JSON, broken text, bytes, compression nobody asked for."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer("200 OK", body, *fields)

    web.play = play
    assert (await fault(api)).cause_code == cause


async def test_a_hanging_upstream_ends_with_the_callers_patience(api: HttpApi, web: Web) -> None:
    """The connector has no timeout of its own for answers: cancelled, it lets go of the connection."""
    gone = asyncio.Event()

    async def play(exchange: Exchange) -> None:
        await exchange.reader.read()
        gone.set()

    web.play = play
    with anyio.move_on_after(0.1) as scope:
        await call(api)
    assert scope.cancelled_caught
    with anyio.fail_after(2):
        await gone.wait()


async def test_reads_share_a_connection_and_effects_do_not(api: HttpApi, web: Web) -> None:
    """Three reads use one connection, each write its own."""
    for _ in range(3):
        await call(api)
    assert web.connections == 1
    for _ in range(3):
        await call(api, CREATE)
    assert web.connections == 4


async def test_cookies_are_not_kept(api: HttpApi, web: Web) -> None:
    """One caller's session at the upstream is not the next caller's."""

    async def play(exchange: Exchange) -> None:
        await exchange.answer("200 OK", b"{}", "Content-Type: application/json", "Set-Cookie: session=alice; Path=/")

    web.play = play
    await call(api)
    await call(api)
    assert web.exchanges[1].field("Cookie") == []


async def test_a_broken_binding_is_not_sent(api: HttpApi, web: Web) -> None:
    """A binding that cannot be read reaches nothing; a corrected one of the same name is read anew."""
    assert (await fault(api, tool({"method": "BREW", "path": "/x"}))).cause_code == "binding"
    await call(api, tool({"method": "GET", "path": "/x"}))
    await call(api, tool({"method": "GET", "path": "/y"}))
    assert [exchange.line for exchange in web.exchanges] == ["GET /x HTTP/1.1", "GET /y HTTP/1.1"]

"""What an MCP upstream asks while it carries out a call: over HTTP in the handshake era, by its answer in the other."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from connectors.mcp.http import HttpConnector
from connectors.mcp.pool import Pool
from gateway.core.call import Continuation
from gateway.core.errors import GatewayError, ToolFailed
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.asking import Question
from gateway.core.mcpwire.eras import META_CAPABILITIES, Era
from tests.asking_client import ACCEPTED, ALL, Client
from tests.evidence import make_arguments
from tests.rawhttp import RESULT, RawUpstream, Script, Seen, answer, error, http, running, says, stream
from tests.waiting import until

ASKED = {"message": "Who?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[Pool]:
    """The shared connections."""
    async with Pool() as opened:
        yield opened


def event(message: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: %b\n\n" % json.dumps({"jsonrpc": "2.0", **message}).encode()


def replies(up: RawUpstream) -> list[dict[str, Any]]:
    """What the upstream was answered."""
    return [seen.message for seen in up.seen if seen.method == "POST"]


def asks(*messages: dict[str, Any], waits: Callable[[], bool]) -> Script:
    """A stream that says these messages, waits, and then answers the call."""

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"".join(event(message) for message in messages))
        await writer.drain()
        await until(waits)
        writer.write(event({"id": seen.message["id"], "result": RESULT}))
        await writer.drain()
        writer.close()

    return script


def question(request_id: Any, method: str = "elicitation/create", params: Any = None) -> dict[str, Any]:
    """A request of the server."""
    return {"id": request_id, "method": method, "params": ASKED if params is None else params}


async def test_questions_are_put_while_the_stream_is_read_on(pool: Pool) -> None:
    """Each is answered once under its own id; what is not answered is turned down in our own words."""
    client = Client()
    sample = {"messages": [], "maxTokens": 1}
    async with running(Era.HANDSHAKE) as up, HttpConnector(up.url, pool) as connector:
        messages = [
            question("a"),
            question(7, "sampling/createMessage", sample),
            question("p", "ping", {}),
            question("r", "roots/list", {}),
        ]
        up.scripts["tools/call"] = asks(*messages, waits=lambda: len(replies(up)) == 4)
        assert (await client.call(connector)).value == RESULT
        said = {str(reply["id"]): reply.get("result", reply.get("error")) for reply in replies(up)}
    assert said == {
        "a": ACCEPTED,
        "7": {"code": -1, "message": "not answered (declined)"},
        "p": {},
        "r": {"code": -1, "message": "not answered (undeclared)"},
    }
    assert len(up.calls("tools/call")) == 1


async def test_calls_that_wait_for_answers_leave_room_for_these() -> None:
    """Where as many wait as there may be requests at a time, what they wait for still goes out."""
    async with Pool(1) as one, running(Era.HANDSHAKE) as up, HttpConnector(up.url, one) as connector:
        up.scripts["tools/call"] = asks(question("a"), waits=lambda: len(replies(up)) == 1)
        assert (await Client().call(connector)).value == RESULT


async def test_an_upstream_takes_its_question_back(pool: Pool) -> None:
    """It is answered no more, and the call goes on; a cancellation of something else changes nothing."""
    client = Client(answers=False)
    async with running(Era.HANDSHAKE) as up, HttpConnector(up.url, pool) as connector:
        back = [{"method": "notifications/cancelled", "params": {"requestId": at}} for at in ("7", None, 7)]

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            writer.write(HEAD + event(question(7)))
            await writer.drain()
            await until(lambda: bool(client.shown))
            writer.write(b"".join(event(one) for one in back))
            await writer.drain()
            await until(lambda: client.over == 1)
            writer.write(event({"id": seen.message["id"], "result": RESULT}))
            writer.close()

        up.scripts["tools/call"] = script
        assert (await client.call(connector)).value == RESULT
        assert replies(up) == []


async def test_an_upstream_that_answers_does_not_wait_for_its_question(pool: Pool) -> None:
    """The call is over then, and nobody is asked any more."""
    client = Client(answers=False)
    async with running(Era.HANDSHAKE) as up, HttpConnector(up.url, pool) as connector:
        up.scripts["tools/call"] = asks(question(1), waits=lambda: bool(client.shown))
        assert (await client.call(connector)).value == RESULT
        assert client.over == 1
        assert replies(up) == []


async def test_a_fault_ends_the_questions_too(pool: Pool) -> None:
    """A stream that breaks off leaves nobody asked, and says what it is."""
    client = Client(answers=False)

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + event(question(seen.message["id"])))
        await writer.drain()
        await until(lambda: bool(client.shown))
        writer.close()

    async with running(Era.HANDSHAKE, call=script) as up, HttpConnector(up.url, pool) as connector:
        with pytest.raises(GatewayError) as caught:
            await client.call(connector)
    assert caught.value.cause_code == "stream_ended"
    assert client.over == 1


async def test_notices_come_through_beside_questions(pool: Pool) -> None:
    """What is said while a client thinks is heard all the same."""
    client = Client(answers=False)

    async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
        token = seen.message["params"]["_meta"]["progressToken"]
        note = {"method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
        writer.write(HEAD + event(question(1)))
        await until(lambda: bool(client.shown))
        writer.write(event(note))
        await until(lambda: len(client.shown) > 1)
        writer.write(event({"id": seen.message["id"], "result": RESULT}))
        writer.close()

    async with running(Era.HANDSHAKE, call=script) as up, HttpConnector(up.url, pool) as connector:
        await client.call(connector)
    assert client.shown[1].params == {"progressToken": "t", "progress": 1}


async def test_a_session_says_what_its_callers_can_be_asked(pool: Pool) -> None:
    """Callers who can be asked other things do not share one, and who can be asked nothing declares nothing."""
    clients = [Client(), Client({}), Client(asking.declared({"elicitation": {}})), Client(), Client({})]
    async with running(Era.HANDSHAKE, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        for client in clients:
            await client.call(connector)
        declared = [seen.message["params"]["capabilities"] for seen in up.calls("initialize")]
    assert declared == [ALL, {}, {"elicitation": {}}]
    assert len(up.calls("DELETE")) == 3


async def test_a_request_says_what_its_caller_can_be_asked(pool: Pool) -> None:
    """In the stateless era; nothing of it outlives the request."""
    async with running(Era.STATELESS, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        for client in (Client(), Client({}), Client()):
            await client.call(connector)
        declared = [seen.message["params"]["_meta"][META_CAPABILITIES] for seen in up.calls("tools/call")]
        probes = [seen.message["params"]["_meta"][META_CAPABILITIES] for seen in up.calls("server/discover")]
    assert declared == [ALL, {}, ALL]
    assert probes == [{}]


async def test_a_request_of_a_stateless_upstream_is_a_fault(pool: Pool) -> None:
    """That era has none."""
    client = Client()
    script = says(lambda seen: stream({"jsonrpc": "2.0", **question(1)}), close=True)
    async with running(Era.STATELESS, call=script) as up, HttpConnector(up.url, pool) as connector:
        with pytest.raises(GatewayError) as caught:
            await client.call(connector)
    assert caught.value.cause_code == "server_request"
    assert client.shown == []


async def test_an_answer_that_asks_comes_back_and_its_round_goes_out(pool: Pool) -> None:
    """The next round carries the answers as they were decided on, and the upstream's own state."""
    result = {"resultType": "input_required", "inputRequests": {"who": question(1)}, "requestState": "s"}
    brought = Continuation('s"', {"who": Question("elicitation/create", ASKED)}, {"who": make_arguments(b'{"n":1.50}')})
    script = says(lambda seen: answer(seen, result))
    async with running(Era.STATELESS, call=script) as up, HttpConnector(up.url, pool) as connector:
        assert (await Client().call(connector)).value == result
        with pytest.raises(ToolFailed) as caught:
            await Client({}).call(connector)
        await Client().call(connector, continuation=brought)
        await Client().call(connector, continuation=Continuation(None, {}, {}))
    first, _, second, third = (seen.message["params"] for seen in up.calls("tools/call"))
    assert caught.value.cause_code == "input_required_unsupported"
    assert "inputResponses" not in first
    assert (second["inputResponses"], second["requestState"]) == ({"who": {"n": 1.5}}, 's"')
    assert b'{"who":{"n":1.50}}' in up.calls("tools/call")[2].body
    assert (third["inputResponses"], "requestState" in third) == ({}, False)


@pytest.mark.parametrize("era", list(Era))
async def test_an_answer_that_asks_in_escapes_is_refused(era: Era, pool: Pool) -> None:
    """As a question it would be held to no contract, and by its bytes it would be handed on as a finished result."""
    odd = rb'{"resultType":"input\u005frequired","requestState":"s","content":[],"structuredContent":{"n":"odd"}}'

    def reply(seen: Seen) -> bytes:
        return http(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (seen.message["id"], odd))

    async with running(era, call=says(reply)) as up, HttpConnector(up.url, pool) as connector:
        with pytest.raises(ToolFailed) as caught:
            await Client().call(connector)
    assert caught.value.cause_code == "result_type_unsupported"


@pytest.mark.parametrize(
    ("data", "cause"),
    [({"requiredCapabilities": {"sampling": {}, "x": {}}}, "undeclared_sampling"), ({}, "jsonrpc_-32021")],
)
async def test_what_a_client_lacks_is_a_cause_of_its_own(data: Any, cause: str, pool: Pool) -> None:
    """By the names that are understood; without them it is an error like any other."""
    failure = {"code": -32021, "message": "upstream's words", "data": data}
    script = says(lambda seen: error(seen, -32021, "400 Bad Request", error=failure))
    async with running(Era.STATELESS, call=script) as up, HttpConnector(up.url, pool) as connector:
        with pytest.raises(ToolFailed) as caught:
            await Client({}).call(connector)
    assert caught.value.cause_code == cause

"""What an MCP upstream says while it carries out a call: heard in both eras, over HTTP and pipes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from itertools import count
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from connectors.mcp.dialect import Client, Dialect
from connectors.mcp.faults import Fault, Lost, Unreached
from connectors.mcp.hearing import Ear, wanted
from connectors.mcp.http import HttpConnector
from connectors.mcp.multiplex import Multiplex
from connectors.mcp.pool import Pool
from gateway.core.call import Lease, Raw, Resolved
from gateway.core.flow import Flow, Wants
from gateway.core.mcpwire.eras import META_LOG_LEVEL, Era
from tests.evidence import make_call, make_caller, make_intent, make_permit, make_tool
from tests.rawhttp import RESULT, RawUpstream, Seen, answer, running, says, stream
from tests.waiting import until

ERAS = pytest.mark.parametrize("era", list(Era))
TOOL = make_tool()
TOKEN = "io.test/caller"


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[Pool]:
    """The shared connections."""
    async with Pool() as opened:
        yield opened


class Caller:
    """Someone on the line, and what they heard."""

    def __init__(self, wants: Wants) -> None:
        self.heard: list[dict[str, Any]] = []
        self.flow = Flow(wants, self._clean, self._deliver, lambda: None)

    async def call(self, connector: HttpConnector) -> Raw:
        """One call with this line."""
        whose = make_caller(make_call(TOOL.fqn, flow=self.flow))
        with self.flow.under_way(lambda: None), fail_after(30):
            return await connector.invoke(Lease(make_intent(make_permit(Resolved(whose, TOOL, None)))))

    def _clean(self, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        return body, {}

    async def _deliver(self, message: bytes) -> None:
        self.heard.append(json.loads(message)["params"])


def note(method: str, **params: Any) -> dict[str, Any]:
    """A notification."""
    return {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": params}


def talking(seen: Seen) -> bytes:
    """A stream with progress of this call, of another one, of nobody, and a log message, then the answer."""
    token = seen.message["params"].get("_meta", {}).get("progressToken")
    said = [
        note("progress", progressToken=token, progress=1),
        note("progress", progressToken=-1, progress=2),
        note("progress", progress=3),
        note("message", level="info", data="m"),
        note("unheard", of=1),
        note("progress", progressToken=token, progress=4, message="done"),
    ]
    return stream(*said, {"jsonrpc": "2.0", "id": seen.message["id"], "result": RESULT})


@ERAS
async def test_a_call_hears_its_own_progress(era: Era, pool: Pool) -> None:
    """Under its caller's token; the one that is sent is the gateway's own, another one each time."""
    caller = Caller(Wants(TOKEN, "info"))
    async with running(era, call=says(talking, close=True)) as up, HttpConnector(up.url, pool) as connector:
        for _ in range(2):
            assert (await caller.call(connector)).value == RESULT
            assert [said.get("progress", said.get("data")) for said in caller.heard] == [1, "m", 4]
            assert caller.heard[0] == {"progressToken": TOKEN, "progress": 1}
            caller = Caller(Wants(TOKEN, "info"))
    sent = [seen.message["params"]["_meta"]["progressToken"] for seen in up.calls("tools/call")]
    assert len(set(sent)) == 2
    assert TOKEN not in sent


@ERAS
async def test_who_wants_to_hear_nothing_asks_for_nothing(era: Era, pool: Pool) -> None:
    """No token goes upstream, and what is said all the same reaches nobody."""
    caller = Caller(Wants())
    async with running(era, call=says(talking, close=True)) as up, HttpConnector(up.url, pool) as connector:
        await caller.call(connector)
    assert caller.heard == []
    assert "progressToken" not in up.calls("tools/call")[0].message["params"].get("_meta", {})


@ERAS
async def test_an_answer_waits_for_no_notice(era: Era, pool: Pool) -> None:
    """An upstream that answers in one piece is heard as before."""
    caller = Caller(Wants(TOKEN))
    async with running(era, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        assert (await caller.call(connector)).value == RESULT


async def test_a_stateless_upstream_is_told_the_level(pool: Pool) -> None:
    """With the request, where the caller named one."""
    async with running(Era.STATELESS, call=says(talking, close=True)) as up, HttpConnector(up.url, pool) as connector:
        for wants in (Wants(level="info"), Wants(level="info", is_asked=True)):
            await Caller(wants).call(connector)
    said = [seen.message["params"]["_meta"].get(META_LOG_LEVEL) for seen in up.calls("tools/call")]
    assert said == [None, "info"]


def logging(seen: Seen) -> bytes:
    """An introduction that names log messages."""
    result = {
        "protocolVersion": "2025-11-25",
        "capabilities": {"logging": {}},
        "serverInfo": {"name": "r", "version": "0"},
    }
    return answer(seen, result, extra="mcp-session-id: s\r\n")


def levels(up: RawUpstream) -> list[str]:
    """The levels that the upstream was set to."""
    return [seen.message["params"]["level"] for seen in up.calls("logging/setLevel")]


async def test_a_session_is_only_made_to_say_more(pool: Pool) -> None:
    """Several callers share it: whoever asked for more gets it, and nobody takes another's messages away."""
    asked = [
        Wants(level="debug"),
        *(Wants(level=level, is_asked=True) for level in ("error", "error", "info", "alert")),
    ]
    async with running(Era.HANDSHAKE, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        up.scripts["initialize"] = says(logging)
        for wants in asked:
            await Caller(wants).call(connector)
    assert levels(up) == ["error", "info"]


async def test_a_level_that_is_not_taken_costs_nobody_a_call(pool: Pool) -> None:
    """A server that says it logs and refuses the level, and one that never said so, carry the call out."""
    wants = Wants(level="error", is_asked=True)
    async with running(Era.HANDSHAKE, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        await Caller(wants).call(connector)
        assert levels(up) == []
    async with running(Era.HANDSHAKE, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        up.scripts["initialize"] = says(logging)
        assert (await Caller(wants).call(connector)).value == RESULT
        assert len(levels(up)) == 1


# Pipes: many calls on one stream


class Pipe:
    """A stream that many calls share."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.multiplex = Multiplex(self._send, count(1), self.log.append)

    def _send(self, message: bytes) -> None:
        self.sent.append(json.loads(message))

    def say(self, *messages: dict[str, Any]) -> None:
        """Messages of the process, one a line."""
        for message in messages:
            self.hears(message)

    def hears(self, message: dict[str, Any]) -> bool:
        """Whether anybody waited for this message of the process."""
        return self.multiplex.take(json.dumps({"jsonrpc": "2.0", **message}).encode())

    async def ask(self, caller: Caller, dialect: Dialect) -> bytes:
        """One call with this line."""
        ear = Ear(caller.flow, self.multiplex.next_id())
        params = dialect.params(b'"name":"echo"', wanted(ear, dialect, shared=True))
        with caller.flow.under_way(lambda: None):
            return await self.multiplex.ask("tools/call", params, ear.token, ear)


DIALECTS = pytest.mark.parametrize("dialect", [Dialect(Era.HANDSHAKE, "2025-11-25"), Client().stateless()])


@DIALECTS
async def test_calls_on_one_pipe_hear_their_own_progress(dialect: Dialect) -> None:
    """In order, before the answer; a log message says of no call that it is its own, so nobody hears it."""
    pipe, callers = Pipe(), [Caller(Wants(name, "debug", is_asked=True)) for name in "ab"]
    answers: dict[int, bytes] = {}

    async def one(index: int) -> None:
        answers[index] = await pipe.ask(callers[index], dialect)

    with fail_after(30):
        async with create_task_group() as tasks:
            for index in range(2):
                tasks.start_soon(one, index)
            await until(lambda: len(pipe.sent) == 2)
            tokens = [message["params"]["_meta"]["progressToken"] for message in pipe.sent]
            assert [META_LOG_LEVEL in message["params"]["_meta"] for message in pipe.sent] == [False, False]
            pipe.say(
                note("progress", progressToken=tokens[1], progress=1),
                note("progress", progressToken=tokens[0], progress=2),
                note("progress", progressToken="x", progress=9),
                note("progress", progressToken=77, progress=9),
                note("message", level="error", data="m"),
                {"id": tokens[0], "result": {"n": 0}},
                note("progress", progressToken=tokens[0], progress=8),
                {"id": tokens[1], "result": {"n": 1}},
            )
    assert answers == {0: b'{"n": 0}', 1: b'{"n": 1}'}
    assert [caller.heard for caller in callers] == [
        [{"progressToken": "a", "progress": 2}],
        [{"progressToken": "b", "progress": 1}],
    ]


async def test_a_flood_of_progress_is_bounded() -> None:
    """What a caller is too slow to hear is dropped; the answer is not."""
    pipe, caller = Pipe(), Caller(Wants("a"))
    task = asyncio.create_task(pipe.ask(caller, Client().stateless()))
    await until(lambda: len(pipe.sent) == 1)
    pipe.say(*(note("progress", progressToken=1, progress=step) for step in range(1000)), {"id": 1, "result": {}})
    assert await task == b"{}"
    assert len(caller.heard) == 64


async def test_of_a_calls_progress_so_much_is_waited_for() -> None:
    """A server that babbles in a call's name is held to be one that talks to itself; other calls' is their own."""
    pipe, callers = Pipe(), [Caller(Wants("a")), Caller(Wants("b"))]
    tasks = [asyncio.create_task(pipe.ask(caller, Client().stateless())) for caller in callers]
    await until(lambda: len(pipe.sent) == 2)
    long = "x" * 1024 * 1024
    assert [pipe.hears(note("progress", progressToken=1, progress=step, message=long)) for step in range(9)] == [
        *([True] * 7),
        *([False] * 2),
    ]
    assert pipe.hears(note("progress", progressToken=2, progress=1))
    assert [pipe.hears({"id": 1, "result": {}}) for _ in range(2)] == [True, False]
    pipe.say({"id": 2, "result": {}})
    assert await asyncio.gather(*tasks) == [b"{}", b"{}"]


async def test_a_pipe_that_ends_loses_its_calls_once() -> None:
    """Whoever waits is told; an answer that had come stands; nothing more is sent."""
    pipe = Pipe()
    tasks = [asyncio.create_task(pipe.multiplex.ask("x", b"{}")) for _ in range(2)]
    await until(lambda: len(pipe.sent) == 2)
    pipe.say({"id": 1, "result": {}})
    pipe.multiplex.close("process_died")
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[0] == b"{}"
    assert isinstance(found[1], Lost)
    with pytest.raises(Unreached):
        await pipe.multiplex.ask("x", b"{}")
    assert issubclass(Unreached, Fault)

"""A lean MCP load client: keep-alive connections, one call at a time on each, every answer checked.

It runs in a process of its own and is told what to do on standard input, so that tokens are in no argument list:

1. one line, a ``Job`` as JSON;
2. it connects, warms up and says ``{"ready": true}``;
3. any further line starts the measured calls;
4. it says an ``Outcome`` as JSON and ends. A wrong answer ends it with exit code 1 and the reason on standard error.

Run: ``python -m loadtests.client``
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec
import uvloop

from loadtests.connection import ANSWER_DEADLINE_S, Connection, WrongAnswerError

STATELESS: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"
SHOWN: Final = 600
_CLIENT: Final = b'{"name":"ostiary-bench","version":"1.0.0"}'
_STATELESS_META: Final = (
    b',"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":%b,'
    b'"io.modelcontextprotocol/clientCapabilities":{}}' % _CLIENT
)
_INITIALIZE: Final = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":%b}}' % _CLIENT
)
_INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to measure.

    Attributes:
        url: MCP endpoint, plain HTTP.
        tool: the echo tool's name at this endpoint.
        version: protocol revision to speak.
        connections: how many calls are under way at a time.
        seconds: longest time of the measured calls.
        calls: most measured calls over all connections.
        warmup: unmeasured calls on each connection.
        tokens: bearer tokens, dealt to the connections in turn; empty = none is sent.
        seed: goes into each text, so that no two runs send the same bytes.
    """

    url: str
    tool: str
    version: str = STATELESS
    connections: int = 1
    seconds: float = 3.0
    calls: int = 1_000_000
    warmup: int = 20
    tokens: tuple[str, ...] = ()
    seed: int = 1


class Outcome(msgspec.Struct, frozen=True):
    """What was measured; latencies in microseconds."""

    calls: int
    seconds: float
    per_second: float
    p50_us: float
    p99_us: float
    max_us: float


class Content(msgspec.Struct):
    """A content block, as far as it is checked."""

    type: str
    text: str = ""


class Result(msgspec.Struct):
    """A tool result, as far as it is checked."""

    content: list[Content]
    structuredContent: dict[str, str] | None = None  # noqa: N815 - the wire's name
    isError: bool = False  # noqa: N815 - the wire's name


class Reply(msgspec.Struct):
    """A JSON-RPC answer; an error has no result."""

    id: int
    result: Result | None = None


_REPLIES: Final = msgspec.json.Decoder(Reply)
_ENCODE: Final = msgspec.json.Encoder().encode


class Caller:
    """Makes calls on one connection and checks each answer."""

    def __init__(self, job: Job, connection: Connection, number: int) -> None:
        """Prepare what is the same in every call.

        Args:
            job: what to measure.
            connection: an open connection.
            number: which connection of the job this is.
        """
        self._job = job
        self._connection = connection
        self._prefix = f"{job.seed}-{number}-"
        self._count = 0
        self._head = b""
        self._params = b'"name":%b,"arguments":{"text":' % _ENCODE(job.tool)
        self._meta = _STATELESS_META if job.version == STATELESS else b""
        self._number = number
        self.latencies: list[float] = []

    async def prepare(self) -> None:
        """Handshake, where the era has one, and the unmeasured calls.

        Raises:
            WrongAnswerError: an answer is not right.
        """
        if self._job.version != STATELESS:
            body = await self._connection.exchange(self._headers(None, named=False), _INITIALIZE)
            if self._connection.status != 200 or b'"protocolVersion":"2025-11-25"' not in body:
                raise self._wrong("initialize", body)
            session = self._connection.session
            body = await self._connection.exchange(self._headers(session, named=False), _INITIALIZED)
            if self._connection.status not in {200, 202}:
                raise self._wrong("initialized", body)
        self._head = self._headers(self._connection.session, named=True)
        for _ in range(self._job.warmup):
            await self.call()

    @property
    def session(self) -> str | None:
        """The session, in the handshake era."""
        return self._connection.session

    def request(self, request_id: int, arguments: object, progress: str, session: str | None) -> bytes:
        """A whole call of the tool that wants to hear of its progress, in a session where the era has them."""
        meta = self._meta.removesuffix(b"}") or b',"_meta":{'
        meta += b'%b"progressToken":%b}' % (b"" if meta.endswith(b"{") else b",", _ENCODE(progress))
        body = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%b,"arguments":%b%b}}' % (
            request_id,
            _ENCODE(self._job.tool),
            _ENCODE(arguments),
            meta,
        )
        return self._headers(session, named=True) % len(body) + body

    async def ask(self, body: bytes) -> bytes:
        """The answer to any other request of this caller.

        Raises:
            WrongAnswerError: the status is not 200.
        """
        answer = await self._connection.exchange(self._headers(self.session, named=False), body)
        if self._connection.status != 200:
            raise self._wrong("the request", answer)
        return answer

    async def measure(self, end: float, calls: int) -> None:
        """Call until ``end`` (``time.perf_counter``) or ``calls``, whichever comes first; keeps the latencies.

        Raises:
            WrongAnswerError: an answer is not right.
        """
        now = time.perf_counter()
        while calls and now < end:
            started = now
            await self.call()
            now = time.perf_counter()
            self.latencies.append(now - started)
            calls -= 1

    async def call(self) -> None:
        """One call, its answer checked.

        Raises:
            WrongAnswerError: status, id, text or error flag are not right.
        """
        self._count += 1
        text = f"{self._prefix}{self._count}"
        body = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{%b%b}%b}}' % (
            self._count,
            self._params,
            _ENCODE(text),
            self._meta,
        )
        answer = await self._connection.exchange(self._head, body)
        if self._connection.status != 200 or not self._is_right(answer, text):
            raise self._wrong("tools/call", answer)

    def _is_right(self, answer: bytes, text: str) -> bool:
        try:
            reply = _REPLIES.decode(_last_event(answer))
        except ValueError:
            return False
        result = reply.result
        return (
            reply.id == self._count
            and result is not None
            and not result.isError
            and [block.text for block in result.content] == [text]
            and result.structuredContent == {"text": text}
        )

    def _wrong(self, what: str, body: bytes) -> WrongAnswerError:
        shown = body[:SHOWN].decode("utf-8", "backslashreplace")
        return WrongAnswerError(f"{what}, connection {self._number}: HTTP {self._connection.status}: {shown}")

    def _headers(self, session: str | None, *, named: bool) -> bytes:
        job, parts = self._job, urlsplit(self._job.url)
        lines = [
            f"POST {parts.path} HTTP/1.1",
            f"host: {parts.netloc}",
            "content-type: application/json",
            "accept: application/json, text/event-stream",
            f"mcp-protocol-version: {job.version}",
        ]
        if job.tokens:
            lines.append(f"authorization: Bearer {job.tokens[self._number % len(job.tokens)]}")
        if session is not None:
            lines.append(f"mcp-session-id: {session}")
        if named and job.version == STATELESS:
            lines += ["mcp-method: tools/call", f"mcp-name: {job.tool}"]
        return "\r\n".join([*lines, "content-length: "]).replace("%", "%%").encode() + b"%d\r\n\r\n"


def _last_event(body: bytes) -> bytes:
    """The JSON of an answer: the body itself, or the data of the last event where it is an event stream."""
    if body.startswith(b"{"):
        return body
    return body.rpartition(b"data:")[2]


def summary(latencies: Sequence[float], seconds: float) -> Outcome:
    """Figures of the measured calls; latencies in seconds, at least one."""
    ordered = sorted(latencies)
    count = len(ordered)

    def at(share: float) -> float:
        return round(ordered[min(count - 1, int(count * share))] * 1e6, 1)

    return Outcome(count, round(seconds, 4), round(count / seconds, 1), at(0.5), at(0.99), at(1.0))


async def run(job: Job, start: asyncio.Future[None]) -> Outcome:
    """Connect, warm up, wait for ``start``, measure.

    Raises:
        WrongAnswerError: any answer was not right.
        OSError: cannot connect.
    """
    loop = asyncio.get_running_loop()
    parts = urlsplit(job.url)
    connections: list[Connection] = []
    for _ in range(job.connections):
        _, connection = await loop.create_connection(Connection, parts.hostname or "", parts.port or 80)
        connections.append(connection)
    callers = [Caller(job, connection, number) for number, connection in enumerate(connections)]
    async with asyncio.timeout(ANSWER_DEADLINE_S * 3), asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.prepare())
    print('{"ready":true}', flush=True)
    await start
    share = -(-job.calls // job.connections)
    started = time.perf_counter()
    # One timer for the whole run: a timer for each call would cost more than the call.
    overdue = loop.call_later(job.seconds + ANSWER_DEADLINE_S, _expire, connections)
    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.measure(started + job.seconds, share))
    seconds = time.perf_counter() - started
    overdue.cancel()
    for connection in connections:
        connection.close()
    return summary([latency for caller in callers for latency in caller.latencies], seconds)


def _expire(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.expire()


async def _told(job: Job) -> Outcome:
    loop = asyncio.get_running_loop()
    start: asyncio.Future[None] = loop.create_future()

    def told() -> None:
        loop.remove_reader(sys.stdin.fileno())
        start.set_result(None)

    loop.add_reader(sys.stdin.fileno(), told)
    return await run(job, start)


def main() -> int:
    """Read a job, measure, say the outcome."""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stdin:
        job = msgspec.json.decode(stdin.readline(), type=Job)
    outcome = None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(_told(job))
    except* (WrongAnswerError, OSError) as failures:  # TimeoutError is an OSError
        print(f"load client: {failures.exceptions[0]}", file=sys.stderr)
    if outcome is None:
        return 1
    print(msgspec.json.encode(outcome).decode(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

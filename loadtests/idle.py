"""What sessions cost that do nothing: a thousand handshakes over real HTTP, and what the gateway's memory grows by.

Each session is as a client leaves it that will come back: it has said hello, listed the tools and called one. Then it
closes its connection, or keeps a stream open (GET) by which it would hear that a list has changed.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx

from loadtests.client import HANDSHAKE, Caller, Job
from loadtests.connection import ANSWER_DEADLINE_S, Connection, WrongAnswerError
from loadtests.load import Door
from loadtests.processes import BenchmarkError, Memory, memory

SESSIONS: Final = 1000
# What one caller may have open at a time; see docs/mcp.md.
EACH: Final = 100
_ATONCE: Final = 16
# Enough for the database's cache of pages to be full, as it is in any gateway that has been at work for a while.
_WARMUP: Final = 1500
_LIST: Final = b'{"jsonrpc":"2.0","id":900,"method":"tools/list"}'
_OPENED: Final = b":\n\n"


@dataclass(frozen=True, slots=True)
class Growth:
    """What sessions added to the gateway's process.

    Attributes:
        sessions: how many.
        streams: whether each had a stream open.
        before_mb: resident memory before the first one, MB.
        after_mb: resident memory while all of them were idle, MB.
    """

    sessions: int
    streams: bool
    before_mb: float
    after_mb: float

    @property
    def mb(self) -> float:
        """The growth, MB."""
        return self.after_mb - self.before_mb


def tokens(admin_socket: str, count: int) -> list[str]:
    """Tokens of as many callers as ``count`` sessions take; of the gateway's operator.

    Raises:
        BenchmarkError: one was not issued.
    """
    found = []
    with httpx.Client(transport=httpx.HTTPTransport(uds=admin_socket), base_url="http://localhost") as operator:
        for number in range(-(-count // EACH)):
            wish = {"user": f"idler-{number}", "agent": "bench", "scopes": ["tools"], "ttl_s": 7200}
            answer = operator.post("/v1/tokens", json=wish)
            if answer.status_code != httpx.codes.CREATED:
                raise BenchmarkError(f"no token: {answer.text}")
            found.append(str(answer.json()["token"]))
    return found


def growth(door: Door, callers: Sequence[str], count: int, *, streams: bool) -> Growth:
    """Open ``count`` sessions of ``callers``, ``EACH`` for each of them, and say what they cost.

    Raises:
        BenchmarkError: an answer was not right.
    """
    try:
        return asyncio.run(_growth(door, callers, count, streams=streams))
    except ExceptionGroup as failures:
        raise BenchmarkError(f"idle sessions: {failures.exceptions[0]}") from None
    except (WrongAnswerError, OSError) as error:
        raise BenchmarkError(f"idle sessions: {error}") from None


async def _growth(door: Door, callers: Sequence[str], count: int, *, streams: bool) -> Growth:
    # Calls first, so that what is made at first use is not taken for what a session costs.
    async with _connected(Job(door.url, door.tool, HANDSHAKE, warmup=_WARMUP, tokens=(callers[0],))) as caller:
        await caller.prepare()
    before = _resident(door)
    places, held = asyncio.Semaphore(_ATONCE), contextlib.AsyncExitStack()
    async with held, asyncio.timeout(ANSWER_DEADLINE_S * 15):

        async def one(number: int) -> None:
            async with places:
                job = Job(door.url, door.tool, HANDSHAKE, warmup=1, tokens=(callers[number // EACH],), seed=number)
                async with _connected(job) as caller:
                    await caller.prepare()
                    await caller.ask(_LIST)
                if streams:
                    await held.enter_async_context(_listening(job, caller.session))

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))
        return Growth(count, streams, before.rss, _resident(door).rss)


def _resident(door: Door) -> Memory:
    return next(each for each in memory(door.pid) if each.role == "gateway")


@contextlib.asynccontextmanager
async def _connected(job: Job) -> AsyncIterator[Caller]:
    parts = urlsplit(job.url)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, parts.hostname or "", parts.port or 80)
    try:
        yield Caller(job, connection, 0)
    finally:
        connection.close()


@contextlib.asynccontextmanager
async def _listening(job: Job, session: str | None) -> AsyncIterator[None]:
    parts = urlsplit(job.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [
        f"GET {parts.path} HTTP/1.1",
        f"host: {parts.netloc}",
        "accept: text/event-stream",
        f"authorization: Bearer {job.tokens[0]}",
        f"mcp-protocol-version: {job.version}",
        f"mcp-session-id: {session}",
    ]
    writer.write("\r\n".join([*lines, "\r\n"]).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise WrongAnswerError(f"the stream of a session: {head[:300].decode('latin-1')}")
        await reader.readuntil(_OPENED)
        yield
    finally:
        writer.close()

"""How long an event of an upstream takes to its client, and that none waits for the next one.

The upstream (``loadtests/talker.py``) sends an event only when the client has said that it has the one before; so the
order of events proves that nobody holds one back, whatever the machine's mood. The times are beside it.
"""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from loadtests.client import Caller, Job
from loadtests.connection import ANSWER_DEADLINE_S, Connection, WrongAnswerError
from loadtests.load import Door
from loadtests.processes import BenchmarkError
from loadtests.talker import HEARD

_ID: Final = 77
_TOKEN: Final = "bench"
C = TypeVar("C", bound=Connection)


@dataclass(frozen=True, slots=True)
class Lag:
    """What one call's events took.

    Attributes:
        door: before which they were waited for.
        version: the client's protocol revision.
        events: how many the upstream sent, each after the one before was heard.
        p50_us: from the upstream's sending to the client's receipt, microseconds.
        p99_us: the same.
    """

    door: str
    version: str
    events: int
    p50_us: float
    p99_us: float


class Listening(Connection):
    """A connection whose answer is an event stream: ``heard`` has the events, each with the time of its receipt."""

    def __init__(self) -> None:
        """Nothing has come."""
        super().__init__()
        self.heard: asyncio.Queue[tuple[int, dict[str, Any]]] = asyncio.Queue()
        self._rest = b""

    def on_body(self, body: bytes) -> None:
        """Take the events that are complete."""
        now = time.monotonic_ns()
        *events, self._rest = (self._rest + body).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            data = b"".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
            if data:
                self.heard.put_nowait((now, msgspec.json.decode(data)))

    def on_message_complete(self) -> None:
        """What is left is no event: the answer is no stream, or its last event is not whole."""
        if self._rest:
            self.heard.put_nowait((time.monotonic_ns(), {"rest": self._rest.decode("utf-8", "replace")}))


@dataclass(slots=True)
class _Call:
    """One call of ``count``."""

    door: Door
    job: Job
    upstream: str
    events: int
    lags: list[float] = field(default_factory=list)

    async def run(self) -> Lag:
        """Make it.

        Raises:
            WrongAnswerError: an event did not come, or the answer is not right.
        """
        ack = urlsplit(self.upstream)
        head = f"POST {HEARD} HTTP/1.1\r\nhost: {ack.netloc}\r\ncontent-length: %d\r\n\r\n".encode()
        async with _opened(self.job.url, Connection) as hello:
            caller = Caller(self.job, hello, 0)
            await caller.prepare()
        async with _opened(self.job.url, Listening) as line, _opened(self.upstream, Connection) as aside:
            key = f"{self.job.seed}-{self.job.version}-{self.door.name}"
            request = Caller(self.job, line, 0).request(_ID, {"key": key, "events": self.events}, _TOKEN, hello.session)
            line.send(request)
            for number in range(1, self.events + 1):
                await self._take(line, number)
                await aside.exchange(head, msgspec.json.encode({"key": key, "number": number}))
            _, last = await line.heard.get()
        if last.get("id") != _ID or last.get("result", {}).get("isError") is not False:
            raise WrongAnswerError(f"{self.door.name}: the call ended with {last}")
        hundredths = statistics.quantiles(self.lags, n=100)
        return Lag(self.door.name, self.job.version, len(self.lags), round(hundredths[49], 1), round(hundredths[98], 1))

    async def _take(self, line: Listening, number: int) -> None:
        now, event = await line.heard.get()
        params = event.get("params", {})
        if params.get("progressToken") != _TOKEN or params.get("progress") != number:
            raise WrongAnswerError(f"{self.door.name}: event {number} is {event}")
        self.lags.append((now - int(params["message"])) / 1e3)


def lag(door: Door, version: str, upstream: str, events: int, seed: int) -> Lag:
    """The lags of one call's events.

    Args:
        door: where the call is made; its ``tool`` counts.
        version: the client's protocol revision.
        upstream: URL of the talker itself, to which is said what was heard.
        events: how many, at least 2.
        seed: goes into the call's key.

    Raises:
        BenchmarkError: an event was held back, or an answer not right.
    """
    job = Job(door.url, door.tool, version, warmup=0, tokens=door.tokens[:1], seed=seed)
    try:
        return asyncio.run(_within(_Call(door, job, upstream, events)))
    except (WrongAnswerError, OSError) as error:  # TimeoutError is an OSError
        raise BenchmarkError(f"streaming, {door.name}, {version}: {str(error) or 'an event was held back'}") from None


async def _within(call: _Call) -> Lag:
    async with asyncio.timeout(ANSWER_DEADLINE_S + call.events / 10):
        return await call.run()


@contextlib.asynccontextmanager
async def _opened(url: str, kind: type[C]) -> AsyncIterator[C]:
    parts = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(kind, parts.hostname or "", parts.port or 80)
    try:
        yield connection
    finally:
        connection.close()

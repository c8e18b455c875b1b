"""Something that speaks HTTP where an OPA server should be: it answers what it is told, or does not."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]
NOTHING: dict[str, Any] = {"allow": {}, "deny": {}, "hint": {}, "require": {}, "oblige": {}}


@dataclass(slots=True)
class FakeOpa:
    """Replies by script: the n-th question gets the n-th reply, later ones the last.

    Attributes:
        url: where it listens.
        replies: the script.
        asked: head and body of each question.
        holds: the policy it says it holds; what it answers where it is asked for that.
        looked_at: how often it was.
    """

    url: str
    holds: Reply
    replies: list[Reply] = field(default_factory=list)
    asked: list[tuple[bytes, bytes]] = field(default_factory=list)
    looked_at: int = 0
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection came."""
        self.serving.add(asyncio.create_task(self.serve(reader, writer)))

    async def hung_up(self) -> None:
        """End all connections that are there."""
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)
        self.serving.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET /v1/policies "):
                    self.looked_at += 1
                    await self.holds(writer)
                    await writer.drain()
                    continue
                size = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                )
                self.asked.append((head, await reader.readexactly(size)))
                await self.replies[min(len(self.asked), len(self.replies)) - 1](writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def fake_opa(folder: Path, holds: Reply) -> AsyncIterator[FakeOpa]:
    """One on a Unix socket in ``folder``."""
    fake = FakeOpa(f"unix://{folder}/opa.sock", holds)
    server = await asyncio.start_unix_server(fake.begin, folder / "opa.sock")
    try:
        yield fake
    finally:
        server.close()
        for task in fake.serving:
            task.cancel()
        await asyncio.gather(*fake.serving, return_exceptions=True)


def raw(data: bytes) -> Reply:
    """These bytes."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return reply


def answer(body: Any, status: int = 200, *fields: str) -> Reply:
    """An HTTP answer with this body, JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", "Content-Type: application/json", *fields]
    return raw("\r\n".join(head).encode() + b"\r\n\r\n" + content)


def saying(*revisions: str, result: Any = NOTHING, version: str = "1.20.2") -> Reply:
    """What OPA answers that serves bundles of these revisions."""
    bundles = {f"b{number}": {"revision": revision} for number, revision in enumerate(revisions)}
    return answer({"result": result, "provenance": {"version": version, "bundles": bundles}})


def holding(*texts: str) -> Reply:
    """What OPA answers that holds modules of these texts."""
    return answer({"result": [{"id": f"bundle/{at}.rego", "raw": text, "ast": {}} for at, text in enumerate(texts)]})


async def silence(writer: asyncio.StreamWriter) -> None:
    """No answer at all."""
    await asyncio.Event().wait()


async def closing(writer: asyncio.StreamWriter) -> None:
    """The connection ends where an answer should come."""
    writer.close()

"""An MCP server that says where it stands while it works: what the streaming part of the benchmark stands before.

It is the upstream of ``loadtests/upstream.py`` with a second tool, ``count``. That one answers with an event stream: so
many progress notifications, each with the time at which it was sent, then the result. The next notification is sent
only when the client has said, past every gateway and directly to ``/heard``, that it has the one before. Whoever holds
back an event until the next one comes therefore never gets the next one: the call fails.

Run: ``python -m loadtests.talker``
"""

import asyncio
import json
import time
from collections import defaultdict
from typing import Any, Final

import msgspec

from loadtests import upstream
from loadtests.upstream import Message, Receive, Send

HEARD: Final = "/heard"
PATIENCE_S: Final = 20.0
_COUNT: Final = {
    "name": "count",
    "description": "Count aloud.",
    "inputSchema": {
        "type": "object",
        "properties": {"key": {"type": "string"}, "events": {"type": "integer"}},
        "required": ["key", "events"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}
_STREAM: Final = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]


class Wish(msgspec.Struct):
    """Arguments of ``count``: the call's own key, and how many events it wants."""

    key: str
    events: int


class Heard(msgspec.Struct):
    """What a client says: of the call ``key`` it has the event ``number``."""

    key: str
    number: int


class Meta(msgspec.Struct, rename={"progress_token": "progressToken"}):
    """What is read of ``_meta``."""

    progress_token: str | int | None = None


class Params(msgspec.Struct, rename={"meta": "_meta"}):
    """What is read of the ``params`` of a call of ``count``."""

    arguments: Wish
    meta: Meta


class Called(msgspec.Struct):
    """A call of ``count``."""

    id: str | int
    params: Params


class Talker:
    """The ASGI application. It keeps what was heard by the keys of calls; each is used once."""

    def __init__(self) -> None:
        """Nobody has heard anything."""
        self._heard: defaultdict[str, asyncio.Queue[int]] = defaultdict(asyncio.Queue)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body = await upstream.read(receive)
        if scope["path"] == HEARD:
            said = msgspec.json.decode(body, type=Heard)
            self._heard[said.key].put_nowait(said.number)
            await upstream.respond(send, 202, b"")
            return
        asked: dict[str, Any] = json.loads(body or b"{}")
        if asked.get("method") == "tools/list":
            result = {"tools": [upstream.ECHO, _COUNT], "ttlMs": 60_000, "cacheScope": "public"}
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {**result, "resultType": "complete"}}
            await upstream.respond(send, 200, json.dumps(answer).encode())
        elif asked.get("method") == "tools/call" and asked["params"]["name"] == "count":
            await self._count(msgspec.convert(asked, Called), send)
        else:
            answered = upstream.answer(body)
            await upstream.respond(send, 202 if answered is None else 200, answered or b"")

    async def _count(self, call: Called, send: Send) -> None:
        wish, token = call.params.arguments, call.params.meta.progress_token
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
        in_step = token is not None
        for number in range(1, wish.events + 1 if in_step else 1):
            params = {"progressToken": token, "progress": number, "message": str(time.monotonic_ns())}
            await _event(send, {"method": "notifications/progress", "params": params})
            in_step = await self._is_heard(wish.key, number)
            if not in_step:
                break
        self._heard.pop(wish.key, None)
        text = "heard" if in_step else "an event was not heard before the next"
        result = {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": not in_step}
        await _event(send, {"id": call.id, "result": result}, more=False)

    async def _is_heard(self, key: str, number: int) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._heard[key].get() == number
        except TimeoutError:
            return False


async def _event(send: Send, message: dict[str, Any], *, more: bool = True) -> None:
    body = b"event: message\ndata: %b\n\n" % json.dumps({"jsonrpc": "2.0", **message}).encode()
    await send({"type": "http.response.body", "body": body, "more_body": more})


if __name__ == "__main__":
    upstream.serve(Talker())

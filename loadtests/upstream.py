"""A real MCP server that does next to nothing: what stands behind every door of the benchmark.

Raw ASGI on uvicorn, one tool, ``echo``, JSON answers, both eras: revision 2026-07-28 (stateless) and the handshake
revisions. Its first line on standard output is JSON: ``{"url": ...}``.

Run: ``python -m loadtests.upstream``
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

STATELESS: Final = "2026-07-28"
HANDSHAKE: Final = "2025-11-25"
PATH: Final = "/mcp"
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602

_TEXT_OBJECT: Final = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
ECHO: Final = {
    "name": "echo",
    "title": "Echo",
    "description": "Give the text back.",
    "inputSchema": _TEXT_OBJECT,
    "outputSchema": _TEXT_OBJECT,
    "annotations": {"readOnlyHint": True, "openWorldHint": False},
}
_SERVER: Final = {"name": "bench-upstream", "version": "1.0.0"}
_CAPABILITIES: Final = {"tools": {"listChanged": False}}
_CACHEABLE: Final = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}


class Arguments(msgspec.Struct):
    """Arguments of ``echo``."""

    text: str


class Params(msgspec.Struct):
    """What is read of ``params``."""

    name: str = ""
    arguments: Arguments | None = None


class Request(msgspec.Struct):
    """What is read of a request; a notification has no id."""

    method: str
    id: str | int | None = None
    params: Params | None = None


_REQUESTS: Final = msgspec.json.Decoder(Request)
_ENCODE: Final = msgspec.json.Encoder().encode


def answer(body: bytes) -> bytes | None:
    """The answer to one message, or None where none is owed.

    Raises:
        ValueError: no message of MCP.
    """
    request = _REQUESTS.decode(body)
    if request.id is None:
        return None
    if request.method == "tools/call":
        return _call(request)
    result = _RESULTS.get(request.method)
    if result is None:
        return _failure(request.id, METHOD_NOT_FOUND, "method not found")
    return _ENCODE({"jsonrpc": "2.0", "id": request.id, "result": result})


def _call(request: Request) -> bytes:
    params = request.params
    if params is None or params.name != "echo" or params.arguments is None:
        return _failure(request.id, INVALID_PARAMS, "call echo with a text")
    text = _ENCODE(params.arguments.text)
    return (
        b'{"jsonrpc":"2.0","id":%b,"result":{"resultType":"complete","content":[{"type":"text","text":%b}],'
        b'"structuredContent":{"text":%b},"isError":false}}'
    ) % (_ENCODE(request.id), text, text)


def _failure(request_id: str | int | None, code: int, message: str) -> bytes:
    return _ENCODE({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}})


_RESULTS: Final[dict[str, dict[str, Any]]] = {
    "server/discover": {
        **_CACHEABLE,
        "supportedVersions": [STATELESS],
        "capabilities": _CAPABILITIES,
        "_meta": {"io.modelcontextprotocol/serverInfo": _SERVER},
    },
    "initialize": {"protocolVersion": HANDSHAKE, "capabilities": _CAPABILITIES, "serverInfo": _SERVER},
    "tools/list": {**_CACHEABLE, "tools": [ECHO]},
    "ping": {},
}


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The ASGI application: POST ``/mcp`` and nothing else."""
    if scope["type"] != "http" or scope["path"] != PATH:
        await respond(send, 404, b"")
        return
    if scope["method"] != "POST":
        await respond(send, 405, b"")
        return
    try:
        said = answer(await read(receive))
    except ValueError:
        await respond(send, 400, _failure(None, INVALID_PARAMS, "no message of MCP"))
        return
    await respond(send, 202 if said is None else 200, said or b"")


async def read(receive: Receive) -> bytes:
    """The body of a request."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


async def respond(send: Send, status: int, body: bytes) -> None:
    """A whole answer."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve(application: Any) -> None:
    """Serve an ASGI application on a free loopback port until told to stop."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"}), flush=True)
    config = uvicorn.Config(application, access_log=False, log_level="warning", lifespan="off", server_header=False)
    server = uvicorn.Server(config)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


if __name__ == "__main__":
    serve(app)

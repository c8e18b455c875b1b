"""Clients that hold connections, send without end, or send what is costly to read: the good are served meanwhile."""

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.core.call import Lease
from gateway.core.call import Raw as RawResult
from gateway.edge.asgi import Options
from gateway.serving import connections, listening
from gateway.serving.places import Bounds, Places
from gateway.settings import GatewaySettings
from tests.edge_world import Edge, rpc
from tests.waiting import until

_PATIENCE_S = 20
STOCK = "/v1/tools/erp.stock/call"


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer; 0 where the connection ends without one."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0, b""
        lines = head.lower().split(b"\r\n")
        size = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        return int(lines[0].split(b" ")[1]), await self.reader.readexactly(size)

    async def ended(self) -> bool:
        """Whether the gateway closes the connection, in time."""
        with anyio.fail_after(_PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


class Doors:
    """A running server, and connections to it."""

    def __init__(self, edge: Edge, port: int, admin_socket: Path) -> None:
        self.edge = edge
        self.port = port
        self.admin_socket = admin_socket
        self.clients: list[Client] = []

    async def connect(self, first: bytes = b"") -> Client:
        """A new connection by TCP that sends ``first``."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        if first:
            await client.send(first)
        return client

    async def get(self, path: str = "/livez") -> int:
        """The status of one request on a connection of its own."""
        client = await self.connect(request("GET", path))
        return (await client.answer())[0]


def request(method: str, path: str, body: bytes = b"", token: str = "good", **headers: str) -> bytes:
    """The bytes of one HTTP request."""
    fields = {"host": "localhost", "authorization": f"Bearer {token}", "content-length": str(len(body))}
    fields["content-type"] = "application/json"
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


@asynccontextmanager
async def doors(folder: Path, **limits: Any) -> AsyncIterator[Doors]:
    """The surfaces on fakes behind the gateway's own server."""
    settings = GatewaySettings.model_validate({"state": folder, "listen": {"port": 0}, "limits": limits})
    admin_socket = folder / listening.ADMIN_SOCKET
    edge = Edge(Options(version="1", operator_socket=str(admin_socket)))
    with listening.sockets(settings) as (tcp, unix):
        found = Doors(edge, tcp.getsockname()[1], admin_socket)
        async with listening.Server(settings, edge.app).running([tcp, unix]):
            try:
                yield found
            finally:
                for client in found.clients:
                    client.writer.close()


async def test_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    """300 clients that begin a request and say no more: the newest callers, and the operator, are served at once."""
    async with doors(tmp_path, connections_each=40, connections=60) as gateway:
        kept = await gateway.connect(request("GET", "/v1/tools"))
        assert (await kept.answer())[0] == 200
        lazy = [await gateway.connect(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ") for _ in range(300)]
        for _ in range(5):
            assert await gateway.get() == 200
        assert await lazy[0].ended()
        await kept.send(request("GET", "/v1/tools"))
        assert (await kept.answer())[0] == 200, "a connection that has shown a credential is not closed for strangers"
        operator = Client(*await asyncio.open_unix_connection(str(gateway.admin_socket)))
        gateway.clients.append(operator)
        await operator.send(b"GET /v1/audit/records HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await operator.answer())[0] == 200


async def test_a_full_house_lets_go_of_who_was_idle_longest(tmp_path: Path) -> None:
    """One credential that keeps every place busy with idle connections shuts nobody out."""
    async with doors(tmp_path, connections=16) as gateway:
        idle = []
        for _ in range(16):
            idle.append(await gateway.connect(request("GET", "/v1/tools")))
            assert (await idle[-1].answer())[0] == 200
        assert await gateway.get() == 200
        await idle[-1].send(request("GET", "/v1/tools"))
        assert (await idle[-1].answer())[0] == 200
        assert await idle[0].reader.read() == b""


async def test_a_full_house_leaves_the_operators_socket_alone(tmp_path: Path) -> None:
    """Also where a token came by it: who has no place gives none back, and is remembered no longer than connected."""
    bearing = b"GET /v1/tools HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer good\r\n\r\n"
    async with doors(tmp_path, connections=16) as gateway:
        operator = Client(*await asyncio.open_unix_connection(str(gateway.admin_socket)))
        gateway.clients.append(operator)
        await operator.send(bearing)
        assert (await operator.answer())[0] == 200
        kept = []
        for _ in range(17):
            kept.append(await gateway.connect(request("GET", "/v1/tools")))
            assert (await kept[-1].answer())[0] == 200
        await operator.send(bearing)
        assert (await operator.answer())[0] == 200
        assert await kept[0].reader.read() == b"", "the seventeenth has its place"
        (there,) = [found for found in gc.get_objects() if isinstance(found, Places) and found.taken]
        for client in (operator, *kept):
            client.writer.close()
        await until(lambda: there.taken == 0)
        assert len(there._proven) == 0


async def test_a_head_that_is_known_lets_nobody_in(tmp_path: Path) -> None:
    """It is not read anew, but whether its credential is good is asked with each request."""
    async with doors(tmp_path) as gateway:
        client, asked = await gateway.connect(), request("POST", STOCK, b'{"arguments":{}}')
        identity = gateway.edge.world.identity
        known = identity.tokens
        for good in (True, True, True, False, False, True):
            identity.tokens = known if good else {}
            await client.send(asked)
            assert (await client.answer())[0] == (200 if good else 401)
        assert len(gateway.edge.world.connector.sent) == 4


async def test_a_head_that_trickles_has_a_deadline(tmp_path: Path) -> None:
    """However often a byte comes: head and body must be there in time, and an answered connection may begin anew."""
    async with doors(tmp_path, head_seconds=0.5) as gateway:
        silent = await gateway.connect()
        trickle = await gateway.connect(b"GET /livez HTTP/1.1\r\n")
        again = await gateway.connect(request("GET", "/livez"))
        assert (await again.answer())[0] == 200
        await again.send(b"GET /livez HT")

        async def drip() -> None:
            while not trickle.writer.is_closing():
                try:
                    await trickle.send(b"a: b\r\n")
                except ConnectionError:
                    return
                await anyio.sleep(0.05)

        async with anyio.create_task_group() as group:
            group.start_soon(drip)
            assert await trickle.ended()
            group.cancel_scope.cancel()
        assert await silent.ended()
        assert await again.ended()


async def test_a_body_that_trickles_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody reads it, because the request was refused before."""
    monkeypatch.setattr(listening, "_bounds", lambda _: Bounds(body_s=0.3))
    async with doors(tmp_path) as gateway:
        client = await gateway.connect(request("POST", STOCK, token="nobody", content_length="100") + b"{")
        assert (await client.answer())[0] == 401
        assert await client.ended()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 20_000,
        b"GET /livez HTTP/1.1\r\na: " + b"x" * 200_000,
        b"GET /" + b"x" * 200_000,
        b"GET /livez HTTP/1.1\r\na: " + b"x" * 33_000 + b"\r\n\r\n",
    ],
    ids=["many fields", "endless field", "endless line", "whole"],
)
async def test_a_head_has_a_cap(tmp_path: Path, head: bytes) -> None:
    """Over it the answer is 431 (or, where the client still sends, the end), and the next caller is served."""
    async with doors(tmp_path) as gateway:
        client = await gateway.connect()
        with suppress(ConnectionError):
            await client.send(head)
        assert (await client.answer())[0] in {431, 0}
        assert await client.ended()
        just = request("GET", "/livez", x="y" * 30_000)
        assert (await (await gateway.connect(just)).answer())[0] == 200


async def test_a_head_alone_is_answered_with_a_head_alone(tmp_path: Path) -> None:
    """It says how long the body would be, and the next answer on the connection is not taken for it."""
    async with doors(tmp_path) as gateway:
        client = await gateway.connect(request("HEAD", "/livez"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        await client.send(request("GET", "/livez"))
        whole = await client.reader.readuntil(b"\r\n\r\n")
        body = await client.reader.readexactly(int(whole.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        assert body
        assert sorted(head.split(b"\r\n")) == sorted(whole.split(b"\r\n"))


async def test_what_is_no_http_is_refused_unlogged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can send it, so it must not fill the operator's log."""
    async with doors(tmp_path) as gateway:
        client = await gateway.connect(b"\x16\x03\x01 no http\r\n\r\n")
        assert (await client.answer())[0] == 400
        assert await client.ended()
    assert not caplog.records


def _costly() -> dict[str, bytes]:
    room, most = 500_000, 32_700
    many = {"objects": b'{"a":1},', "floats": b"1.50000000000000000,", "lists": b"[],", "big": b"1234567890123456789,"}
    bodies = {name: b"[" + part * (room // len(part)) + b"1]" for name, part in many.items()}
    bodies["few objects"] = b"[" + b'{"a":1.25e1},' * (most // 2) + b"1]"
    bodies["few floats"] = b"[" + b"1.250000000e1," * most + b"1]"
    bodies["fields"] = b"{" + b",".join(b'"k%05d":1.25e1' % n for n in range(25_000)) + b"}"
    bodies["text"] = b'"' + b"{[,\\\\" * (room // 6) + b'"'
    return bodies


async def test_costly_bodies_do_not_stop_the_others(tmp_path: Path) -> None:
    """While the worst bodies within the cap arrive at once, whoever asks for something small is answered."""
    async with doors(tmp_path) as gateway:
        bodies = list(_costly().values())
        statuses: list[int] = []
        answered = 0

        async def post(body: bytes) -> None:
            whole = b'{"arguments":{"a":' + body + b"}}"
            client = await gateway.connect(request("POST", STOCK, whole))
            statuses.append((await client.answer())[0])

        async with anyio.create_task_group() as group:
            for body in bodies:
                group.start_soon(post, body)
            while len(statuses) < len(bodies):
                assert await gateway.get() == 200
                answered += 1
        assert answered > 3
        assert set(statuses) <= {200, 400, 413, 429}


async def test_a_call_over_the_cap_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """512 KiB are a call's, until there is another way for bulk: 413 by its header, whatever the rest is."""
    async with doors(tmp_path) as gateway:
        for sent in (b"x", b""):
            client = await gateway.connect(request("POST", "/mcp", sent, content_length=str(512 * 1024 + 1)))
            assert (await client.answer())[0] == 413
        client = await gateway.connect(request("POST", "/mcp", b"{}"))
        assert (await client.answer())[0] == 400
        await client.send(request("POST", "/mcp", b"", content_length=str(512 * 1024 + 1)))
        assert (await client.answer())[0] == 413


@pytest.mark.parametrize("surface", ["rest", "mcp"])
async def test_a_call_in_flight_at_the_end_of_the_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, surface: str
) -> None:
    """Its client is told that the outcome is unknown, with the call's id; the record says the same; no traceback."""
    monkeypatch.setattr(listening, "_DRAIN_S", 0.2)
    started = asyncio.Event()

    async def never(_: object, lease: Lease) -> RawResult:
        started.set()
        await anyio.sleep_forever()
        raise AssertionError

    with caplog.at_level(logging.INFO):
        async with doors(tmp_path) as gateway:
            monkeypatch.setattr(type(gateway.edge.world.connector), "invoke", never)
            call = json.dumps(rpc("tools/call", {"name": "erp__order"})).encode()
            path, body = ("/mcp", call) if surface == "mcp" else ("/v1/tools/erp.order/call", b"{}")
            client = await gateway.connect(request("POST", path, body))
            await started.wait()
            client.writer.close = lambda: None  # type: ignore[method-assign]
        status, said = await client.answer()
        type(client.writer).close(client.writer)
    document = json.loads(said)
    if surface == "mcp":
        assert status == 200
        document = json.loads(document["result"]["content"][0]["text"])
        assert document["error"] == "outcome_unknown"
    else:
        assert (status, document["type"]) == (504, "urn:ostiary:problem:outcome_unknown")
    assert document["call_id"]
    assert gateway.edge.records()[-1] == "tool.outcome_unknown"
    assert not [record for record in caplog.records if record.exc_info]


async def test_what_is_over_leaves_nothing_for_the_collector(tmp_path: Path) -> None:
    """Each takes some kilobytes: memory would grow with every connection and request, until the collector comes."""
    gc.collect()
    gc.disable()
    try:
        before, requests = _left(connections.BoundedProtocol), _left(RequestResponseCycle)  # of tests that were
        async with doors(tmp_path) as gateway:
            for _ in range(20):
                assert await gateway.get("/v1/tools") == 200
                gateway.clients.pop().writer.close()
            await until(lambda: _left(connections.BoundedProtocol) <= before)
            assert gateway.edge.records() == []
            for _ in range(5):  # one is answered, and the others are not any more
                hasty = await gateway.connect(request("GET", "/v1/tools") * 4)
                assert (await hasty.answer())[0] == 200
                gateway.clients.pop().writer.transport.abort()
            await until(lambda: _left(connections.BoundedProtocol) <= before)
            kept = await gateway.connect()
            for _ in range(20):
                await kept.send(request("GET", "/v1/tools"))
                assert (await kept.answer())[0] == 200
            await until(lambda: _left(RequestResponseCycle) <= requests + 1)
    finally:
        gc.enable()


def _left(kind: type[object]) -> int:
    return sum(isinstance(found, kind) for found in gc.get_objects())


async def test_an_open_stream_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    """It is ended in good order when the gateway stops, and not broken off when the drain is over."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": "s-1", "method": "subscriptions/listen", "params": params}).encode()
    named = {
        "mcp_protocol_version": "2026-07-28",
        "mcp_method": "subscriptions/listen",
        "accept": "application/json, text/event-stream",
    }
    async with doors(tmp_path) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request("POST", "/mcp", body, **named))
        await reader.readuntil(b"notifications/subscriptions/acknowledged")
    rest = await reader.read()
    writer.close()
    assert b'"id":"s-1","result"' in rest

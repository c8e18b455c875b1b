"""Connections to MCP servers, byte by byte: an answer is whole or broken, and never that of another request."""

import asyncio
import datetime as dt
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from anyio import fail_after, wait_all_tasks_blocked
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.mcp.pool import NotConnected, Pool, Target, target
from connectors.mcp.wire import Broken, Response, Wire

REQUEST = b"GET /mcp HTTP/1.1\r\nhost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"X-A: 1\r\nx-a: 2\r\ncontent-length: 11\r\n\r\nhello\r\nyou!"
CHUNKS = b"transfer-encoding: chunked\r\n\r\n"
CHUNKED = OK + b"X-A: 1\r\nx-a: 2\r\n" + CHUNKS + b"5;a=b\r\nhello\r\n6\r\n\r\nyou!\r\n0\r\nx-a: 3\r\n\r\n"
UNTIL_END = OK + b"x-a: 1, 2\r\nconnection: close\r\n\r\nhello\r\nyou!"
TOLD = (200, "1, 2", b"hello\r\nyou!")
EARLY = b"HTTP/1.1 103 Early Hints\r\nx-a: 9\r\nlink: </a>\r\n\r\n"
TWO = b"content-length: 2\r\n\r\nok"
# No more is read at a time, and no more is held before reading stops.
MOST = 256 * 1024


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops: the gateway runs on uvloop, the tools around it on the other."""
    return "asyncio", {"use_uvloop": request.param}


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until it holds."""
    while not holds():  # noqa: ASYNC110 -- states of sockets, which set no event
        await asyncio.sleep(0)


@dataclass(eq=False, slots=True)
class Peer:
    """The server's side of one connection; ``gone`` is set when the client has closed it."""

    writer: asyncio.StreamWriter
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def says(self, wire: Wire, piece: bytes) -> None:
        """Send, and wait until it arrived or was refused."""
        goal = wire._received + len(piece)
        self.writer.write(piece)
        await until(lambda: wire._received >= goal or wire._fault is not None)

    async def floods(self, piece: bytes, reading: "asyncio.Task[tuple[Response, bytes]]") -> None:
        """Send the same until the client closes the connection, and see what becomes of the reader."""
        with suppress(ConnectionError):
            while not self.gone.is_set():
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0)
        await reading


@dataclass(slots=True)
class Upstream:
    """A server that notes requests and leaves every word to the test."""

    at: Target
    peers: list[Peer] = field(default_factory=list)
    asked: asyncio.Queue[Peer] = field(default_factory=asyncio.Queue)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        peer = Peer(writer)
        self.peers.append(peer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked.put_nowait(peer)
        peer.gone.set()
        writer.close()


@asynccontextmanager
async def opened(per_server: int = 256, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Upstream, Pool]]:
    """A server and a pool; all must be over soon."""
    up = Upstream(target("http://127.0.0.1"))
    server = await asyncio.start_server(up.serve, "127.0.0.1", 0, ssl=tls)
    scheme, host = ("http", "127.0.0.1") if tls is None else ("https", "localhost")
    up.at = target(f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}/mcp")
    try:
        with fail_after(20):
            async with Pool(per_server) as pool:
                yield up, pool
    finally:
        server.close()
        for peer in up.peers:
            if not peer.gone.is_set():
                peer.writer.transport.abort()
                await peer.gone.wait()


async def read(wire: Wire) -> tuple[Response, bytes]:
    """Ask and read the whole answer."""
    answer = await wire.ask(REQUEST)
    return answer, b"".join([piece async for piece in answer.chunks()])


async def asking(up: Upstream, pool: Pool) -> tuple[Wire, Peer, asyncio.Task[tuple[Response, bytes]]]:
    """An exchange whose request has arrived."""
    wire = await pool.take(up.at, 5)
    reading = asyncio.create_task(read(wire))
    return wire, await up.asked.get(), reading


async def exchange(
    up: Upstream, pool: Pool, *pieces: bytes, end: Callable[[Peer], None] | None = None
) -> tuple[int, str | None, bytes]:
    """One exchange, its answer sent in these pieces: status, the field ``x-a``, body."""
    wire, peer, reading = await asking(up, pool)
    try:
        for piece in pieces:
            await peer.says(wire, piece)
        if end is not None:
            end(peer)
        answer, body = await reading
        return answer.status, answer.field(b"x-a"), body
    finally:
        reading.cancel()
        pool.give(up.at, wire)


def closes(peer: Peer) -> None:
    """The server ends the connection."""
    peer.writer.close()


def resets(peer: Peer) -> None:
    """The server's machine breaks the connection off."""
    line = peer.writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.writer.transport.abort()


@pytest.mark.parametrize("whole", [SIZED, CHUNKED, EARLY + SIZED], ids=["sized", "chunked", "interim"])
async def test_an_answer_is_the_same_wherever_it_is_cut(whole: bytes) -> None:
    """Cut in two at any byte, an answer has the same status, field and body, and its connection serves the next."""
    async with opened() as (up, pool):
        for cut in range(1, len(whole)):
            assert await exchange(up, pool, whole[:cut], whole[cut:]) == TOLD, cut
        assert await exchange(up, pool, *(bytes([byte]) for byte in whole)) == TOLD
        assert len(up.peers) == 1


@settings(max_examples=40)
@given(whole=st.sampled_from([SIZED, CHUNKED, EARLY + CHUNKED]), cuts=st.sets(st.integers(1, len(SIZED) - 1)))
async def test_any_partition_gives_the_same_answer(whole: bytes, cuts: set[int]) -> None:
    """However the bytes of a valid answer come, they are the same answer."""
    async with opened() as (up, pool):
        ends = [0, *sorted(cuts), len(whole)]
        pieces = [whole[start:end] for start, end in pairwise(ends)]
        assert await exchange(up, pool, *pieces) == TOLD
        assert await exchange(up, pool, whole) == TOLD
        assert len(up.peers) == 1


async def test_interim_answers_are_skipped() -> None:
    """Up to eight interim answers before the real one count for nothing; a ninth breaks the exchange."""
    async with opened() as (up, pool):
        going = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert await exchange(up, pool, going, EARLY, SIZED) == TOLD
        assert await exchange(up, pool, EARLY * 4 + going * 4 + CHUNKED) == TOLD
        assert len(up.peers) == 1
        for pieces in ((EARLY * 9 + SIZED,), (*[going] * 9, SIZED)):
            with pytest.raises(Broken):
                await exchange(up, pool, *pieces)


@pytest.mark.parametrize(
    "stray", [b"x", b"HTTP", SIZED, b"\0", EARLY], ids=["byte", "start", "answer", "nul", "interim"]
)
@pytest.mark.parametrize("apart", [False, True], ids=["together", "later"])
async def test_what_comes_behind_an_answer_ends_the_connection(stray: bytes, apart: bool) -> None:
    """The answer is delivered, and what came behind it is nobody's."""
    async with opened() as (up, pool):
        for number, whole in enumerate((SIZED, CHUNKED), 1):
            assert await exchange(up, pool, *((whole, stray) if apart else (whole + stray,))) == TOLD
            await up.peers[-1].gone.wait()
            assert len(up.peers) == number


async def test_what_comes_unasked_ends_an_idle_connection() -> None:
    """An answer planted between two requests is not that of the second one."""
    async with opened() as (up, pool):
        assert await exchange(up, pool, SIZED) == TOLD
        up.peers[0].writer.write(OK + b"x-a: planted\r\n" + TWO)
        await up.peers[0].gone.wait()
        assert await exchange(up, pool, SIZED) == TOLD
        assert len(up.peers) == 2


async def test_an_answer_without_length_is_whole_at_the_end() -> None:
    """What has no length ends with the connection, which then is not kept; a reset is no end."""
    async with opened() as (up, pool):
        for number in (1, 2):
            assert await exchange(up, pool, UNTIL_END[:-4], UNTIL_END[-4:], end=closes) == TOLD
            assert len(up.peers) == number
        with pytest.raises(Broken):
            await exchange(up, pool, UNTIL_END, end=resets)


@pytest.mark.parametrize("whole", [SIZED, CHUNKED, EARLY + OK + b"x-a: 1"], ids=["sized", "chunked", "head"])
@pytest.mark.parametrize("end", [closes, resets])
async def test_an_answer_that_ends_early_is_broken(whole: bytes, end: Callable[[Peer], None]) -> None:
    """Whatever byte is the last to come, half an answer is none."""
    async with opened() as (up, pool):
        for cut in {0, 9, *range(len(whole) - 40, len(whole))}:
            with pytest.raises(Broken):
                await exchange(up, pool, *([whole[:cut]] if cut else []), end=end)
        assert await exchange(up, pool, SIZED) == TOLD


async def test_an_answer_we_broke_off_is_never_whole() -> None:
    """A body without length that ends because this side closed the connection is broken, also for a slow reader."""
    async with opened() as (up, pool):
        wire = await pool.take(up.at, 5)
        heading = asyncio.create_task(wire.ask(REQUEST))
        peer = await up.asked.get()
        await peer.says(wire, OK + b"x-a: " + b"a" * 60_000)
        await peer.says(wire, b"a" * 10_000 + b"\r\n\r\npart")  # the head is too long
        await until(lambda: wire._transport is None)
        with pytest.raises(Broken):
            assert not [piece async for piece in (await heading).chunks()]
        pool.give(up.at, wire)


LENGTHS = [b"content-length: %b\r\n\r\nok" % text for text in b"2, 3|+2|-2|0x2|2 2||18446744073709551618".split(b"|")]
FIELDS = b"content-length: 3|x-a: 1\nx-b: 2|x-a: 1\rx-b: 2|x-a: 1\0|x-a: 1\r\n 2|x-a|x-a : 1|: 1|\n".split(b"|")
BODIES = b"2\nok\r\n0\r\n|2\r\nok\n0\r\n|2;a\nok\r\n0\r\n|2\r\nok\r\n0\n|2\r\nok!\r\n0\r\n|-2\r\nok\r\n0\r\n".split(
    b"|"
)
MALFORMED = [
    *[OK + length for length in LENGTHS],
    *[OK + fields + b"\r\n" + TWO for fields in [*FIELDS, CHUNKS[:-4]]],
    *[OK + CHUNKS + body + b"\r\n" for body in [*BODIES, b"10000000000000002\r\nok\r\n0\r\n"]],
    *[b"HTTP/1.1 %b\r\ncontent-length: 3\r\n\r\nbad" % status + OK + TWO for status in (b"103 X", b"099 X", b"000 X")],
    OK + CHUNKS[:-2] + b"content-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    *[b"hello\r\n\r\n", b"ICY 200 OK\r\n" + TWO, REQUEST, (OK + TWO).replace(b"\r", b""), OK[:-2] + b"\n" + TWO],
]


@pytest.mark.parametrize("whole", MALFORMED)
async def test_what_is_no_answer_is_broken(whole: bytes) -> None:
    """What two readers could take for two different answers is none, and its connection is closed."""
    async with opened() as (up, pool):
        with fail_after(2), pytest.raises(Broken):
            await exchange(up, pool, whole)
        await up.peers[0].gone.wait()
        assert await exchange(up, pool, SIZED) == TOLD


FLOODS = {
    "empty lines": (b"", b"\r\n" * 2000),
    "endless field": (OK + b"x-a: ", b"a" * 4000),
    "endless name": (OK, b"a" * 4000),
    "many fields": (OK, b"x-a: 1\r\n" * 500),
    "interim fields": (b"HTTP/1.1 103 X\r\n", b"x-a: 1\r\n" * 500),
    "trailers": (OK + CHUNKS + b"2\r\nok\r\n0\r\n", b"x-a: 1\r\n" * 500),
    "endless trailer": (OK + CHUNKS + b"2\r\nok\r\n0\r\nx-a: ", b"a" * 4000),
    "endless extension": (OK + CHUNKS + b"2;a=", b"a" * 4000),
    "extensions": (OK + CHUNKS, (b"1;a=" + b"a" * 60 + b"\r\nx\r\n") * 50),
    "interim of no kind": (b"HTTP/1.1 000 X\r\ncontent-length: 99999999\r\n\r\n", b"a" * 4000),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_what_is_no_body_is_bounded(name: str) -> None:
    """Head and framing may not go on for ever: the exchange breaks after a bounded number of bytes."""
    async with opened() as (up, pool):
        wire, peer, reading = await asking(up, pool)
        peer.writer.write(FLOODS[name][0])
        with fail_after(3), pytest.raises(Broken):
            await peer.floods(FLOODS[name][1], reading)
        assert wire._received <= 128 * 1024 + MOST
        reading.cancel()
        pool.give(up.at, wire)


@pytest.mark.parametrize("framed", [False, True], ids=["sized", "chunked"])
async def test_a_slow_reader_slows_the_server(framed: bool) -> None:
    """A large body waits at the server until it is read, arrives whole, and the connection serves the next."""
    body = bytes(range(256)) * 4096 * 16
    head = CHUNKS + b"%x\r\n" % len(body) if framed else b"content-length: %d\r\n\r\n" % len(body)
    async with opened() as (up, pool):
        wire = await pool.take(up.at, 5)
        heading = asyncio.create_task(wire.ask(REQUEST))
        peer = await up.asked.get()
        peer.writer.write(OK + head + body + (b"\r\n0\r\n\r\n" if framed else b""))
        answer = await heading
        await until(lambda: wire._is_paused)
        await wait_all_tasks_blocked()
        assert wire._transport is not None
        assert not wire._transport.is_reading()
        assert peer.writer.transport.get_write_buffer_size() > 0
        arrived, most = bytearray(), 0
        async for piece in answer.chunks():
            most = max(most, wire._held + len(piece))
            arrived += piece
            await asyncio.sleep(0)
        assert bytes(arrived) == body
        assert most <= 2 * MOST
        pool.give(up.at, wire)
        assert await exchange(up, pool, SIZED) == TOLD
        assert len(up.peers) == 1


@pytest.mark.parametrize("part", [b"", EARLY, SIZED[:-4], CHUNKED[:-9], UNTIL_END], ids=range(5))
async def test_a_cancelled_exchange_closes_its_connection(part: bytes) -> None:
    """Whoever stops waiting for an answer leaves no connection behind, and another gets the place."""
    async with opened(per_server=1) as (up, pool):
        for _ in range(2):
            wire, peer, reading = await asking(up, pool)
            await peer.says(wire, part)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            pool.give(up.at, wire)
            await peer.gone.wait()
        assert await exchange(up, pool, SIZED) == TOLD
        assert len(up.peers) == 3


async def test_an_unread_answer_closes_its_connection() -> None:
    """What was left of an answer is not read by the next exchange, nor is a request that was never sent."""
    async with opened(per_server=1) as (up, pool):
        for whole in (SIZED, CHUNKED, SIZED[:-4]):
            wire = await pool.take(up.at, 5)
            heading = asyncio.create_task(wire.ask(REQUEST))
            peer = await up.asked.get()
            await peer.says(wire, whole)
            assert (await heading).status == 200
            pool.give(up.at, wire)
            await peer.gone.wait()
        assert await exchange(up, pool, SIZED) == TOLD
        assert len(up.peers) == 4


async def test_a_place_is_waited_for_and_never_lost() -> None:
    """With one place the second waits for it, fails in time or is cancelled without taking it along."""
    async with opened(per_server=1) as (up, pool):
        for _ in range(3):
            wire = await pool.take(up.at, 5)
            with pytest.raises(NotConnected):
                await pool.take(up.at, 0.02)
            leaving, waiting = (asyncio.create_task(pool.take(up.at, 5)) for _ in range(2))
            await wait_all_tasks_blocked()
            assert not waiting.done()
            leaving.cancel()
            pool.give(up.at, wire)
            pool.give(up.at, await waiting)
            assert leaving.cancelled()
        assert await exchange(up, pool, SIZED) == TOLD


async def test_a_connection_is_made_in_time_or_not_at_all() -> None:
    """Waiting for a place and waiting for the server are within one time."""
    async with opened(per_server=1) as (up, pool):
        at = replace(up.at, tls=True)  # the server never answers the greeting
        with pytest.raises(NotConnected):
            await pool.take(at, 0.01)
        clock = asyncio.get_running_loop().time
        start = clock()
        tried = await asyncio.gather(pool.take(at, 0.3), pool.take(at, 0.4), return_exceptions=True)
        assert [type(one) for one in tried] == [NotConnected, NotConnected]
        assert clock() - start < 0.6


async def test_an_idle_connection_the_server_closed_is_not_used() -> None:
    """The next exchange dials anew, from the moment on at which the end of the old connection was seen."""
    async with opened() as (up, pool):
        assert await exchange(up, pool, SIZED) == TOLD
        (wire,) = next(iter(pool._lines.values())).idle
        transport = wire._transport
        assert transport is not None
        closes(up.peers[0])
        await until(transport.is_closing)
        fresh = await pool.take(up.at, 5)
        assert fresh is not wire
        pool.give(up.at, fresh)
        assert await exchange(up, pool, SIZED) == TOLD


async def test_an_exchange_that_outlives_its_pool_leaves_no_connection() -> None:
    """A connection given back to a pool that was closed meanwhile is closed."""
    async with opened() as (up, pool):
        wire, peer, reading = await asking(up, pool)
        await peer.says(wire, SIZED)
        assert (await reading)[1] == TOLD[2]
        await pool.__aexit__()
        pool.give(up.at, wire)
        with fail_after(1):
            await peer.gone.wait()


def certified(folder: Path) -> ssl.SSLContext:
    """A server's TLS under a certificate of its own for ``localhost``, which is ``own.pem`` in the folder."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "own.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "own.pem", folder / "key.pem")
    return context


async def test_where_nothing_can_be_sent_there_is_no_connection() -> None:
    """Nobody listens, no such name, no TLS: not connected, and the place is free again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with opened(per_server=1) as (up, pool):
            refused = target(f"http://127.0.0.1:{free.getsockname()[1]}")
            plain = asyncio.create_task(up.asked.get())
            plain.add_done_callback(lambda _: closes(up.peers[0]))
            for at in (refused, target("http://nowhere.invalid"), target("http://a..b"), replace(up.at, tls=True)):
                for _ in range(2):
                    with pytest.raises(NotConnected):
                        await pool.take(at, 0.5)
            plain.cancel()


async def test_tls_is_for_the_name_and_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown signer or another name is not connected to; a trusted one serves one exchange after the other."""
    async with opened(per_server=1, tls=certified(tmp_path)) as (up, pool):
        for _ in range(2):
            with pytest.raises(NotConnected):
                await pool.take(up.at, 5)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        async with Pool(per_server=1) as trusting:
            with pytest.raises(NotConnected):
                await trusting.take(replace(up.at, host="127.0.0.1"), 5)
            known = len(up.peers)
            for whole in (SIZED, CHUNKED, EARLY + SIZED):
                assert await exchange(up, trusting, whole) == TOLD
            assert len(up.peers) == known + 1
            assert await exchange(up, trusting, UNTIL_END, end=closes) == TOLD


TARGETS = {
    "http://h": Target(tls=False, host="h", port=80, authority="h", path="/"),
    "HTTPS://H/m": Target(tls=True, host="h", port=443, authority="h", path="/m"),
    "http://h:80/": Target(tls=False, host="h", port=80, authority="h", path="/"),
    "https://h:80/": Target(tls=True, host="h", port=80, authority="h:80", path="/"),
    "http://h:8080?a=b%20c&d=#f": Target(tls=False, host="h", port=8080, authority="h:8080", path="/?a=b%20c&d="),
    "http://[::1]/m#": Target(tls=False, host="::1", port=80, authority="[::1]", path="/m"),
    "https://[::1]:8443": Target(tls=True, host="::1", port=8443, authority="[::1]:8443", path="/"),
    "http://\u00fc.example/\u00e4": Target(
        tls=False, host="xn--tda.example", port=80, authority="xn--tda.example", path="/%C3%A4"
    ),
    "http://h/a b\r\nx: y": Target(tls=False, host="h", port=80, authority="h", path="/a%20bx:%20y"),
}


@pytest.mark.parametrize("url", TARGETS)
def test_a_target_is_what_the_url_says(url: str) -> None:
    """Where to connect, as whom, and what to ask for."""
    assert target(url) == TARGETS[url]


WRONG = "h:80 /m //h/m http:// http:///m ftp://h ws://h file:///m http://h:99999 http://h:x http://[::1 http://u@h"


@pytest.mark.parametrize("url", ["", *WRONG.split(), "http://u:p@h", "https://:p@h", "http://:@h"])
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    """Another scheme, no host, no port or somebody's password: the operator hears of it at once."""
    with pytest.raises(ValueError, match=r"."):
        target(url)

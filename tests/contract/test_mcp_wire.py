"""Connections to MCP servers, byte by byte: an answer is whole or broken, and never that of another request."""

import asyncio
import socket
from dataclasses import astuple, replace
from itertools import pairwise
from pathlib import Path

import pytest
from anyio import fail_after, wait_all_tasks_blocked
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.mcp.pool import Pool, target
from connectors.mcp.wire import Broken, NotConnected
from tests.contract.test_http_dialling import certified
from tests.rawwire import REQUEST, End, asking, closes, exchange, head, opened, read, resets, until

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"X-A: 1\r\nx-a: 2\r\ncontent-length: 11\r\n\r\nhello\r\nyou!"
CHUNKS = b"transfer-encoding: chunked\r\n\r\n"
CHUNKED = OK + b"X-A: 1\r\nx-a: 2\r\n" + CHUNKS + b"5;a=b\r\nhello\r\n6\r\n\r\nyou!\r\n0\r\nx-a: 3\r\n\r\n"
UNTIL_END = OK + b"x-a: 1, 2\r\nconnection: close\r\n\r\nhello\r\nyou!"
TOLD = (200, "1, 2", b"hello\r\nyou!")
EARLY = b"HTTP/1.1 103 Early Hints\r\nx-a: 9\r\nlink: </a>\r\n\r\n"
GOING = b"HTTP/1.1 100 Continue\r\n\r\n"
TWO = b"content-length: 2\r\n\r\nok"
# No more is read at a time, and no more is held before reading stops.
MOST = 256 * 1024


@pytest.fixture(scope="module", params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops: the gateway runs on uvloop, the tools around it on the other."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.mark.parametrize("whole", [SIZED, CHUNKED, EARLY * 4 + GOING * 4 + SIZED], ids=range(3))
async def test_an_answer_is_the_same_wherever_it_is_cut(whole: bytes) -> None:
    """Cut in two at any byte, also behind eight interim ones, it is the same answer; the connection is kept."""
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


@pytest.mark.parametrize("stray", [b"x", b"HTTP", b"\0", EARLY, OK + b"x-a: planted\r\n" + TWO], ids=range(5))
async def test_what_comes_behind_an_answer_ends_the_connection(stray: bytes) -> None:
    """The answer is delivered; what comes with it, after it or while nobody asks is not that of the next request."""
    async with opened() as (up, pool):
        for pieces in ([SIZED + stray], [CHUNKED + stray], [SIZED, stray], [CHUNKED]):
            assert await exchange(up, pool, *pieces) == TOLD
            if pieces == [CHUNKED]:
                up.peers[-1].writer.write(stray)
            await up.peers[-1].gone.wait()
        assert await exchange(up, pool, SIZED) == TOLD
        assert len(up.peers) == 5


async def test_an_answer_without_length_is_whole_at_the_end() -> None:
    """What has no length ends with the connection, which then is not kept; a reset is no end."""
    async with opened() as (up, pool):
        for _ in range(2):
            assert await exchange(up, pool, UNTIL_END[:-4], UNTIL_END[-4:], end=closes) == TOLD
        assert len(up.peers) == 2
        with pytest.raises(Broken):
            await exchange(up, pool, UNTIL_END, end=resets)


@pytest.mark.parametrize("whole", [SIZED, CHUNKED, EARLY + OK + b"x-a: 1"], ids=["sized", "chunked", "head"])
@pytest.mark.parametrize("end", [closes, resets])
async def test_an_answer_that_ends_early_is_broken(whole: bytes, end: End) -> None:
    """Whatever byte is the last to come, half an answer is none."""
    async with opened() as (up, pool):
        for cut in {0, 9, *range(len(whole) - 40, len(whole))}:
            with pytest.raises(Broken):
                await exchange(up, pool, *([whole[:cut]] if cut else []), end=end)
        assert await exchange(up, pool, SIZED) == TOLD


LENGTHS = [b"content-length: %b\r\n\r\nok" % text for text in b"2, 3|+2|-2|0x2|2 2||18446744073709551618".split(b"|")]
FIELDS = b"content-length: 3|x-a: 1\nx-b: 2|x-a: 1\rx-b: 2|x-a: 1\0|x-a: 1\r\n 2|x-a|x-a : 1|: 1|\n".split(b"|")
BODIES = b"2\nok\r\n0\r\n|2\r\nok\n0\r\n|2;a\nok\r\n0\r\n|2\r\nok\r\n0\n|2\r\nok!\r\n0\r\n|-2\r\nok\r\n".split(b"|")
MALFORMED = [
    *[EARLY * 9 + SIZED, GOING * 9 + SIZED],
    *[OK + length for length in LENGTHS],
    *[OK + fields + b"\r\n" + TWO for fields in [*FIELDS, CHUNKS[:-4]]],
    *[OK + CHUNKS + body + b"\r\n" for body in [*BODIES, b"10000000000000002\r\nok\r\n0\r\n"]],
    *[b"HTTP/1.1 %b X\r\ncontent-length: 3\r\n\r\nbad" % code + OK + TWO for code in (b"103", b"099", b"000")],
    OK + CHUNKS[:-2] + b"content-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    *[b"hello\r\n\r\n", b"ICY 200 OK\r\n" + TWO, REQUEST, (OK + TWO).replace(b"\r", b""), OK[:-2] + b"\n" + TWO],
]


@pytest.mark.parametrize("whole", MALFORMED, ids=range(len(MALFORMED)))
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
    "many fields": (OK, b"x-a: 1\r\n" * 500),
    "trailers": (OK + CHUNKS + b"2\r\nok\r\n0\r\n", b"x-a: 1\r\n" * 500),
    "endless trailer": (OK + CHUNKS + b"2\r\nok\r\n0\r\nx-a: ", b"a" * 4000),
    "endless extension": (OK + CHUNKS + b"2;a=", b"a" * 4000),
    "extensions": (OK + CHUNKS, (b"1;a=" + b"a" * 60 + b"\r\nx\r\n") * 50),
    "interim of no kind": (b"HTTP/1.1 000 X\r\ncontent-length: 99999999\r\n\r\n", b"a" * 4000),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_what_is_no_body_is_bounded(name: str) -> None:
    """Head and framing may not go on for ever: the exchange breaks after a bounded number of bytes."""
    async with opened() as (up, pool), asking(up, pool, read) as (wire, peer, reading):
        peer.writer.write(FLOODS[name][0])
        with fail_after(3):
            while wire._fault is None:
                await peer.says(wire, FLOODS[name][1])
        with pytest.raises(Broken):
            await reading
        assert wire._received <= 128 * 1024 + MOST


@pytest.mark.parametrize("framed", [False, True], ids=["sized", "chunked"])
async def test_a_slow_reader_slows_the_server(framed: bool) -> None:
    """A large body waits at the server until it is read, arrives whole, and the connection serves the next."""
    body = bytes(range(256)) * 4096 * 16
    framing = CHUNKS + b"%x\r\n" % len(body) if framed else b"content-length: %d\r\n\r\n" % len(body)
    async with opened() as (up, pool):
        async with asking(up, pool, head) as (wire, peer, heading):
            peer.writer.write(OK + framing + body + (b"\r\n0\r\n\r\n" if framed else b""))
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
        assert await exchange(up, pool, SIZED) == TOLD
        assert len(up.peers) == 1


@pytest.mark.parametrize("part", [b"", EARLY, SIZED[:-4], CHUNKED[:-9], UNTIL_END], ids=range(5))
async def test_an_answer_that_is_not_read_closes_its_connection(part: bytes) -> None:
    """Whoever stops waiting, or leaves some of an answer unread, leaves no connection behind, and the place is free."""
    async with opened(per_server=1) as (up, pool):
        async with asking(up, pool, read) as (wire, peer, reading):
            await peer.says(wire, part)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        await peer.gone.wait()
        for whole in (SIZED, CHUNKED, SIZED[:-4]):
            async with asking(up, pool, head) as (wire, peer, heading):
                await peer.says(wire, whole)
                assert (await heading).status == 200
            await peer.gone.wait()
        assert await exchange(up, pool, SIZED) == TOLD


async def test_a_place_is_waited_for_and_never_lost() -> None:
    """With one place the second waits for it, fails in time or is cancelled without taking it along."""
    async with opened(per_server=1) as (up, pool):
        for _ in range(3):
            wire = await pool.take(pool.line(up.at), 5)
            with pytest.raises(NotConnected):
                await pool.take(pool.line(up.at), 0.02)
            leaving, waiting = (asyncio.create_task(pool.take(pool.line(up.at), 5)) for _ in range(2))
            await wait_all_tasks_blocked()
            assert not waiting.done()
            leaving.cancel()
            pool.give(pool.line(up.at), wire)
            pool.give(pool.line(up.at), await waiting)
            assert leaving.cancelled()
        assert await exchange(up, pool, SIZED) == TOLD


async def test_an_idle_connection_the_server_closed_is_not_used() -> None:
    """The next exchange dials anew, from the moment on at which the end of the old connection was seen."""
    async with opened() as (up, pool):
        assert await exchange(up, pool, SIZED) == TOLD
        (wire,) = next(iter(pool._lines.values())).idle
        closes(up.peers[0])
        await until(lambda: wire._transport is None or wire._transport.is_closing())
        fresh = await pool.take(pool.line(up.at), 5)
        assert fresh is not wire
        pool.give(pool.line(up.at), fresh)
        assert await exchange(up, pool, SIZED) == TOLD


async def test_an_exchange_that_outlives_its_pool_leaves_no_connection() -> None:
    """A connection given back to a pool that was closed meanwhile is closed."""
    async with opened() as (up, pool):
        async with asking(up, pool, read) as (wire, peer, reading):
            await peer.says(wire, SIZED)
            assert (await reading)[1] == TOLD[2]
            await pool.__aexit__()
        with fail_after(1):
            await peer.gone.wait()


async def test_where_nothing_can_be_sent_there_is_no_connection() -> None:
    """Nobody listens, no such name, no TLS: not connected, and the place is free again."""
    async with opened(per_server=1) as (up, pool):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            for url in (f"http://127.0.0.1:{free.getsockname()[1]}", "http://nowhere.invalid", "http://a..b") * 2:
                with pytest.raises(NotConnected):
                    await pool.take(pool.line(target(url)), 5)
        for number in range(2):
            taking = asyncio.create_task(pool.take(pool.line(replace(up.at, tls=True)), 5))
            await until(lambda more=number: len(up.peers) > more)  # type: ignore[misc]
            up.peers[-1].writer.write(OK + TWO)
            with pytest.raises(NotConnected):
                await taking
        assert await exchange(up, pool, SIZED) == TOLD


async def test_tls_is_for_the_name_and_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown signer or another name is not connected to; a trusted one serves one exchange after the other."""
    async with opened(per_server=1, tls=certified(tmp_path, "localhost")[0]) as (up, pool):
        for _ in range(2):
            with pytest.raises(NotConnected):
                await pool.take(pool.line(up.at), 5)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "key.pem"))
        async with Pool(per_server=1) as trusting:
            with pytest.raises(NotConnected):
                await trusting.take(trusting.line(replace(up.at, host="127.0.0.1")), 5)
            known = len(up.peers)
            for whole in (SIZED, CHUNKED, EARLY + SIZED):
                assert await exchange(up, trusting, whole) == TOLD
            assert len(up.peers) == known + 1
            assert await exchange(up, trusting, UNTIL_END, end=closes) == TOLD


TARGETS = {
    "http://h": (False, "h", 80, "h", "/"),
    "HTTPS://H/m": (True, "h", 443, "h", "/m"),
    "https://h:80/": (True, "h", 80, "h:80", "/"),
    "http://h:8080?a=b%20c&d=#f": (False, "h", 8080, "h:8080", "/?a=b%20c&d="),
    "http://[::1]/m#": (False, "::1", 80, "[::1]", "/m"),
    "https://[::1]:8443": (True, "::1", 8443, "[::1]:8443", "/"),
    "http://\u00fc.example/\u00e4": (False, "xn--tda.example", 80, "xn--tda.example", "/%C3%A4"),
    "http://h/a b\r\nx: y": (False, "h", 80, "h", "/a%20bx:%20y"),
}


def test_a_target_is_what_the_url_says() -> None:
    """Where to connect, as whom, what to ask for; another scheme, no host or somebody's password is refused."""
    assert {url: astuple(target(url)) for url in TARGETS} == {url: (*at, "ask") for url, at in TARGETS.items()}
    for url in [
        "",
        *["h:80", "//h/m", "http:///", "ftp://h", "ws://h", "http://h:x", "http://u@h", "http://u:p@h", "http://:p@h"],
    ]:
        with pytest.raises(ValueError, match=r"."):
            target(url)

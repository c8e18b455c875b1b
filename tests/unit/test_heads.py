"""A head that a connection has sent before is known by its bytes: the application cannot tell the difference."""

import asyncio
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from gateway.core.call import Live
from gateway.core.errors import TooLarge
from gateway.edge.auth import PROVEN
from gateway.edge.body import BODY, read_body
from gateway.edge.ears import STOPPING
from gateway.edge.heads import FORGET, HEAD, Head, forget_headers, head_of
from gateway.edge.reply import WHOLE, lines
from gateway.serving.connections import within
from gateway.serving.cycle import KnownCycle
from gateway.serving.places import Bounds

pytestmark = pytest.mark.anyio

# What the server adds for the application, and the application keeps.
_OWN = frozenset({PROVEN, WHOLE, HEAD, BODY, FORGET, STOPPING})
FIELDS = (b"Host: gateway", b"authorization: Bearer t", b"Content-Length: %d")
Seen = tuple[dict[str, Any], bytes]


class Wire(asyncio.Transport):
    """Keeps what is written, and whether it was closed or paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += bytes(data)

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def pause_reading(self) -> None:
        """Note it."""
        self.is_paused = True

    def resume_reading(self) -> None:
        """Note it."""
        self.is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Both ends, as of TCP."""
        return {"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 5)}.get(name, default)


class Deaf:
    """A parser that must not be asked."""

    def feed_data(self, data: bytes) -> None:
        """Refuse."""
        raise AssertionError(data)


class Line:
    """One connection, and what the application saw on it."""

    def __init__(self, *, is_good: bool = True, **bounds: Any) -> None:
        self.seen: list[Seen] = []
        self.heads: list[object] = []
        self.wire = Wire()
        self._is_good = is_good
        self.is_hasty = False
        given: dict[str, Any] = {"interface": "asgi3", "lifespan": "off", "log_config": None, "proxy_headers": False}
        config = uvicorn.Config(self._app, http=within(Bounds(**bounds)), **given)
        config.load()
        made: Any = config.http_protocol_class
        self.protocol: Any = made(config=config, server_state=ServerState(), app_state={})
        self.protocol.connection_made(self.wire)

    async def _app(self, scope: Any, receive: Any, _send: Any) -> None:
        self.heads.append(head_of(scope))
        shown = {key: value for key, value in scope.items() if key not in _OWN}
        if self._is_good:
            scope[PROVEN]()
        body = b"" if self.is_hasty else await read_body(scope, receive)
        self.seen.append((shown, body))
        scope.pop(WHOLE)(200, lines([(b"content-length", b"2")]), b"ok")

    async def say(self, *pieces: bytes) -> None:
        """Send what arrives in these pieces, and let the application work on each."""
        for piece in pieces:
            self.protocol.data_received(piece)
            for _ in range(20):
                await asyncio.sleep(0)

    async def say_known(self, *pieces: bytes) -> None:
        """The same, where the parser must see nothing of it."""
        parser, self.protocol.parser = self.protocol.parser, Deaf()
        try:
            await self.say(*pieces)
        finally:
            self.protocol.parser = parser

    def hang_up(self) -> None:
        """The client leaves."""
        self.protocol.connection_lost(None)


def request(body: bytes = b"{}", fields: tuple[bytes, ...] = FIELDS, first: bytes = b"POST /mcp HTTP/1.1") -> bytes:
    """The bytes of one request; a ``%d`` in a field is the length of its body."""
    head = b"\r\n".join([first, *(field % len(body) if b"%d" in field else field for field in fields)])
    return head + b"\r\n\r\n" + body


def first_answer(line: Line) -> bytes:
    """The bytes of the first answer on a line."""
    return line.wire.written[: line.wire.written.index(b"\r\n\r\nok") + 6]


async def alone(data: bytes) -> list[Seen]:
    """What the application sees of it on a connection of its own."""
    line = Line()
    await line.say(data)
    line.hang_up()
    return line.seen


async def test_a_head_is_known_again() -> None:
    """Whatever the length of the body, and however it arrives; what was concluded of the head is still there."""
    line = Line()
    await line.say(request())
    for body in (b"{}", b"", b"x" * 1000):
        await line.say_known(request(body))
        assert line.seen[-1:] == await alone(request(body))
    whole = request(b"y" * 300)
    await line.say_known(whole[:-300], whole[-300:-100], whole[-100:])
    assert line.seen[-1:] == await alone(whole)
    assert line.wire.written.count(b"HTTP/1.1 200 OK") == 5
    assert all(head is line.heads[0] for head in line.heads)
    line.hang_up()


@pytest.mark.parametrize(
    "other",
    [
        request(fields=(*FIELDS, b"x-more: 1")),
        request(fields=FIELDS[:2]),
        request(fields=(FIELDS[0], b"authorization: Bearer u", FIELDS[2])),
        request(first=b"POST /mcq HTTP/1.1"),
        request(fields=(*FIELDS[:2], b"Content-Length: 02")),
        request(b"z" * 12_345_678),
    ],
)
async def test_another_head_is_read(other: bytes) -> None:
    """Also where only a letter is another one, or the number is written in another way."""
    line = Line()
    await line.say(request())
    with pytest.raises(AssertionError):
        await line.say_known(other)
    line.hang_up()


@pytest.mark.parametrize("length", [b"+2", b"2 ", b"-2", b"2a", b"", b"0x2", b"\xb2"])
async def test_what_is_no_length_is_the_parsers_to_judge(length: bytes) -> None:
    """The connection fares as it does where nothing is known."""
    odd = request(fields=(*FIELDS[:2], b"Content-Length: " + length))
    line, fresh = Line(), Line()
    await line.say(request())
    await line.say(odd)
    await fresh.say(odd)
    assert line.seen[1:] == fresh.seen
    assert line.wire.is_closed is fresh.wire.is_closed
    assert line.wire.written.removeprefix(first_answer(line)) == fresh.wire.written
    line.hang_up()
    fresh.hang_up()


@pytest.mark.parametrize(
    "data",
    [
        request(fields=(*FIELDS[:2], b"transfer-encoding: chunked")).removesuffix(b"{}") + b"2\r\n{}\r\n0\r\n\r\n",
        request(fields=(*FIELDS, b"expect: 100-continue")),
        request(fields=(*FIELDS, b"proxy-connection: keep-alive")),
        request(fields=(*FIELDS, b"connection: x")),
        request(fields=(b"Host:gateway", *FIELDS[1:])),
        request(fields=(b"Host:  gateway", *FIELDS[1:])),
        request(first=b"PUT /mcp HTTP/1.1"),
        request(first=b"POST http://gateway/mcp HTTP/1.1"),
        request(first=b"POST /mcp? HTTP/1.1"),
        b"\r\n" + request(),
        request(fields=(*FIELDS, b"x-long: " + b"x" * 3000)),
        request(fields=FIELDS[:2], body=b""),
    ],
)
async def test_what_is_not_remembered(data: bytes) -> None:
    """What would be read or answered in another way, is spelled oddly, or is long."""
    line = Line()
    await line.say(data)
    assert len(line.seen) == 1
    with pytest.raises(AssertionError):
        await line.say_known(data)
    line.hang_up()


async def test_a_stranger_is_not_remembered() -> None:
    """Nothing is kept for who has shown nothing."""
    line = Line(is_good=False)
    await line.say(request())
    with pytest.raises(AssertionError):
        await line.say_known(request())
    line.hang_up()


async def test_a_short_head_is_kept_only_as_the_bounds_allow() -> None:
    """Where heads may not be long, a longer number must not make one too long."""
    line = Line(head_bytes=len(request()) - 10)
    await line.say(request())
    assert len(line.seen) == 1
    with pytest.raises(AssertionError):
        await line.say_known(request())
    line.hang_up()


async def test_the_latest_heads_are_known() -> None:
    """Four of them; and who never sends the same one twice is not looked at for ever."""
    line = Line()
    several = [request(fields=(*FIELDS, b"mcp-name: %x" % number)) for number in range(40)]
    for one in several[:5]:
        await line.say(one)
    for one in several[1:5]:
        await line.say_known(one)
    with pytest.raises(AssertionError):
        await line.say_known(several[0])
    for one in several[5:]:
        await line.say(one)
    with pytest.raises(AssertionError):
        await line.say_known(several[-1])
    await line.say_known(several[31])
    line.hang_up()


def test_a_head_is_shown_without_its_fields() -> None:
    """The credential among them stays out of tracebacks."""
    assert "secret" not in repr(Head({b"authorization": (b"Bearer secret",)}, Live("secret")))


async def test_what_lasts_keeps_no_head() -> None:
    """Neither its own nor those before it."""
    line = Line()
    await line.say(request(), request(b"lasting"))
    scope = line.protocol.scope
    held = head_of(scope)
    forget_headers(scope)
    assert scope["headers"] == []
    assert (head_of(scope).fields, held.fields) == ({}, {})
    with pytest.raises(AssertionError):
        await line.say_known(request())
    line.hang_up()


async def test_two_at_once_are_read_one_after_the_other() -> None:
    """A request that comes before the last one is answered, or in one piece with it, is no exception."""
    line = Line()
    await line.say(request())
    line.protocol.data_received(request(b"1"))
    line.protocol.data_received(request(b"2"))
    await line.say(b"")
    await line.say(request(b"3") + request(b"4"))
    half = request(b"56")
    await line.say(half[:-1], half[-1:] + request(b"7"), request(b"8"))
    assert [body for _, body in line.seen] == [b"{}", b"1", b"2", b"3", b"4", b"56", b"7", b"8"]
    line.hang_up()


async def test_a_body_that_is_not_waited_for_is_still_passed_over() -> None:
    """What comes behind it is the next request."""
    line = Line()
    await line.say(request())
    line.is_hasty = True
    whole = request(b"POST / HTTP/1.1\r\n\r\n")
    await line.say_known(whole[:-9], whole[-9:-4], whole[-4:])
    line.is_hasty = False
    await line.say_known(request(b"next"))
    assert [body for _, body in line.seen] == [b"{}", b"", b"next"]
    line.hang_up()


async def test_a_large_body_waits_until_it_is_read() -> None:
    """As it does where the parser reads it."""
    line = Line()
    await line.say(request())
    whole = request(b"b" * 200_000)
    line.protocol.data_received(whole[:150_000])
    assert line.wire.is_paused
    await line.say(b"", whole[150_000:])
    assert not line.wire.is_paused
    assert line.seen[-1][1] == b"b" * 200_000
    line.hang_up()


async def test_a_slow_body_ends_the_connection() -> None:
    """It has its time as any other, and none is left running once it is there."""
    line = Line(body_s=0.05)
    await line.say(request())
    await line.say_known(request(b"abc")[:-1], b"c")
    await asyncio.sleep(0.1)
    assert not line.wire.is_closed
    await line.say_known(request(b"abc")[:-1])
    await asyncio.sleep(0.1)
    assert line.wire.is_closed
    line.hang_up()


async def test_a_whole_body_has_the_same_bound() -> None:
    """Whether or not it was read from the line."""

    async def never() -> Any:
        raise AssertionError

    assert await read_body({BODY: b"abc", "headers": []}, never, 3) == b"abc"
    with pytest.raises(TooLarge):
        await read_body({BODY: b"abcd", "headers": []}, never, 3)


PIECES = st.sampled_from(
    [
        request(),
        request(b"a" * 70),
        request(b""),
        request(fields=(*FIELDS, b"mcp-name: a")),
        request(b"POST /mcp HTTP/1.1\r\n\r\n", fields=(*FIELDS, b"mcp-name: b")),
        request(fields=(*FIELDS[:2], b"transfer-encoding: chunked")).removesuffix(b"{}") + b"1\r\n{\r\n0\r\n\r\n",
        request(first=b"GET /mcp HTTP/1.1", fields=FIELDS[:2], body=b""),
        request(fields=(*FIELDS[:2], b"content-length: 02")),
        request(fields=(*FIELDS[:2], b"x: \xe9", FIELDS[2])),
    ]
)


@given(st.lists(PIECES, min_size=2, max_size=8), st.lists(st.integers(1, 400), max_size=6))
@settings(max_examples=150, deadline=None)
def test_the_application_sees_what_it_would_see_without(several: list[bytes], cuts: list[int]) -> None:
    """However the requests of a connection are mixed, and cut into pieces."""

    async def compared() -> None:
        expected = [seen for one in several for seen in await alone(one)]
        line, stream = Line(), b"".join(several)
        for size in (*cuts, *([len(stream)] if cuts else map(len, several))):
            await line.say(*([stream[:size]] if stream else []))
            stream = stream[size:]
        await line.say(*([stream] if stream else []))
        assert line.seen == expected
        line.hang_up()

    asyncio.run(compared())


async def test_a_known_requests_cycle_begins_as_any_other() -> None:
    """But for its body, which becomes a buffer once it comes in parts."""
    line, scope = Line(), {"type": "http"}
    made: Any = line.protocol
    given = {name: getattr(made, name) for name in ("transport", "flow", "logger", "access_logger", "access_log")}
    given |= {"scope": scope, "default_headers": made.server_state.default_headers}
    given |= {"expect_100_continue": False, "keep_alive": True, "on_response": made.on_response_complete}
    own, known = RequestResponseCycle(message_event=asyncio.Event(), **given), KnownCycle(scope, made)
    assert vars(own).keys() >= vars(known).keys()
    differing = {name for name, value in vars(own).items() if getattr(known, name) != value}
    assert differing == {"message_event"}
    assert not known.message_event.is_set()
    line.hang_up()

"""An answer that leaves in one step is, byte for byte, what the server's own way would have made of it."""

import asyncio
import logging
from functools import partial
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from gateway.edge.reply import TEXT, WHOLE, Common, Hardened, Header, Reply, lines
from gateway.serving.whole import Standing, answer

FIELDS: list[Header] = [(b"content-length", b"2"), (b"x-own", b"1"), (b"x-empty", b"")]

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """Keeps what is written, and whether it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written.append(bytes(data))

    def close(self) -> None:
        """Note it."""
        self.is_closed = True


class Request:
    """One request that waits for its answer."""

    def __init__(self, method: str = "GET", *, keep_alive: bool = True) -> None:
        self.wire = Wire()
        self.answered = 0
        given: dict[str, Any] = {"scope": {"type": "http", "method": method}, "transport": self.wire}
        self.cycle = RequestResponseCycle(
            **given,
            flow=FlowControl(self.wire),
            logger=logging.getLogger("unused"),
            access_logger=logging.getLogger("unused"),
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._count,
        )

    def _count(self) -> None:
        self.answered += 1

    async def by_the_server(self, status: int, body: bytes) -> bytes:
        """What the server's own way sends."""
        await self.cycle.send({"type": "http.response.start", "status": status, "headers": FIELDS})
        await self.cycle.send({"type": "http.response.body", "body": body, "more_body": False})
        return b"".join(self.wire.written)


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("status", [200, 202, 401, 429, 503])
async def test_it_is_what_the_server_would_have_sent(status: int, keep_alive: bool) -> None:
    """In one write, and the connection goes on, or ends, in the same way."""
    one, other = Request(keep_alive=keep_alive), Request(keep_alive=keep_alive)
    expected = await one.by_the_server(status, b"ok")
    assert answer(Standing(), other.cycle, status, lines(FIELDS), b"ok")
    assert other.wire.written == [expected]
    assert other.wire.is_closed is one.wire.is_closed is not keep_alive
    assert other.cycle.response_complete
    assert other.cycle.message_event.is_set()
    assert one.answered == other.answered == 1


@pytest.mark.parametrize("bad", [b"a\r\nset-cookie: b", b"a\nb", b"a\x00b", b"a\x7f"])
async def test_no_value_writes_another_field(bad: bytes) -> None:
    """Nothing is sent, of the head or of the body."""
    request = Request()
    common = Common([(b"x-common", b"1")], lambda _path, _status, given: given)
    for own in ((b"x-own", bad), (bad, b"x-own"), (b"x-common", bad)):
        given: dict[str, Any] = {"send": request.cycle.send}
        send = Hardened({"path": "/", WHOLE: partial(answer, Standing(), request.cycle)}, common=common, **given)
        with pytest.raises(ValueError, match="control character"):
            await Reply(200, b"ok", headers=(own,)).send(send)
    assert request.wire.written == []
    assert not request.cycle.response_started


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"{}", headers=((b"x-own", b"1"),)),
        Reply(200, b"page", media=TEXT),
        Reply(202),
        Reply(401, b"{}", headers=((b"www-authenticate", b"Bearer"), (b"x-own", b"1"))),
        Reply(200, b"{}", headers=((b"x-common", b"2"),)),
    ],
)
async def test_it_has_the_fields_of_the_answer(reply: Reply) -> None:
    """Its own, the common ones and the completed challenge, in the same order."""

    def challenged(path: str, status: int, given: list[Header]) -> list[Header]:
        return [
            (name, value + path.encode() if status == 401 and name[:4] == b"www-" else value) for name, value in given
        ]

    common, whole, slow = Common([(b"x-common", b"1")], challenged), Request(), Request()
    scope = {"path": "/p", WHOLE: partial(answer, Standing(), whole.cycle)}
    given: list[dict[str, Any]] = [{"send": one.cycle.send, "common": common} for one in (whole, slow)]
    await reply.send(Hardened(scope, **given[0]))
    await reply.send(Hardened({"path": "/p"}, **given[1]))
    assert whole.wire.written == [b"".join(slow.wire.written)]


async def test_what_takes_the_servers_own_way() -> None:
    """A head alone, an unread line, an odd status, an answer that was begun: nothing is sent."""
    head, slow, odd, begun = Request("HEAD"), Request(), Request(), Request()
    slow.cycle.flow.pause_writing()
    await begun.cycle.send({"type": "http.response.start", "status": 200, "headers": FIELDS})
    sent = list(begun.wire.written)
    assert not answer(Standing(), head.cycle, 200, lines(FIELDS), b"ok")
    assert not answer(Standing(), slow.cycle, 200, lines(FIELDS), b"ok")
    assert not answer(Standing(), odd.cycle, 299, lines(FIELDS), b"ok")
    assert not answer(Standing(), begun.cycle, 200, lines(FIELDS), b"ok")
    assert head.wire.written == slow.wire.written == odd.wire.written == []
    assert begun.wire.written == sent


async def test_nothing_is_sent_to_who_has_gone() -> None:
    """The answer is done with."""
    request = Request()
    request.cycle.disconnected = True
    assert answer(Standing(), request.cycle, 200, lines(FIELDS), b"ok")
    assert request.wire.written == []
    assert request.answered == 0

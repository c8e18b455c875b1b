"""Heads of answers that are known again by their bytes: each answer is what it is on a connection of its own."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.mcp.heads import known
from connectors.mcp.pool import Pool
from connectors.mcp.wire import Broken
from tests.rawwire import Upstream, asking, exchange, opened, read

USUAL = (b"HTTP/1.1 200 OK", b"date: Mon, 30 Nov 2026 02:00:00 GMT", b"content-type: application/json", b"X-A: 1")
END = b"\r\n\r\n"
Told = tuple[int, dict[bytes, bytes], str, bool, bytes] | None


def answer(body: bytes, *fields: bytes, first: Sequence[bytes] = USUAL) -> bytes:
    """An answer of the usual head, with these fields behind it."""
    return b"\r\n".join([*first, *fields]) + END + body


def sized(body: bytes) -> bytes:
    """An answer that says its length as servers do."""
    return answer(body, b"content-length: %d" % len(body))


async def told(up: Upstream, pool: Pool, whole: bytes) -> Told:
    """All that is told of one answer; None where it is broken."""
    async with asking(up, pool, read) as (wire, peer, reading):
        await peer.says(wire, whole)
        if not wire._is_complete:
            peer.writer.close()
        try:
            said, body = await reading
        except Broken:
            return None
        return said.status, dict(said.fields), said.kind, said.is_plain, body


ODD = st.sampled_from(
    [
        answer(b"ok", b"content-length: 2", b"x-b: 1"),
        answer(b"ok", b"content-length: 2", first=(b"HTTP/1.1 201 Made", *USUAL[1:])),
        answer(b"ok", b"content-length: 2", first=(b"HTTP/1.0 200 OK", *USUAL[1:])),
        answer(b"ok", b"content-length: 02"),
        answer(b"ok", b"content-length: +2"),
        answer(b"ok", b"content-length:  2"),
        answer(b"ok", b"content-length: 2 "),
        answer(b"ok", b"content-length: 2", b"content-length: 2"),
        answer(b"ok", b"content-length: 2", b"transfer-encoding: chunked"),
        answer(b"2\r\nok\r\n0\r\n\r\n", b"transfer-encoding: chunked"),
        answer(b"ok", b"content-length: 2", b"connection: close"),
        answer(b"ok", b"content-length: 2", b"connection: upgrade", b"upgrade: x"),
        answer(b"ok", b"content-length: 2", b"content-encoding: gzip"),
        answer(b"ok", b"content-length: 3"),
        answer(b"okay", b"content-length: 2"),
        answer(b"", b"content-length: 0"),
        answer(b"HTTP/1.1 200 OK", b"content-length: 15"),
        answer(b"ok", b"content-length: 2", b"x-b: a", b" folded"),
        sized(b"ok").replace(b"\r\n", b"\n"),
        b"HTTP/1.1 103 Early\r\nx-a: 9" + END + sized(b"ok"),
        sized(b"ok") + sized(b"no"),
    ]
)
ANSWERS = st.one_of(ODD, st.binary(min_size=1, max_size=40).map(sized))


@settings(max_examples=150, deadline=None)
@given(answers=st.lists(ANSWERS, min_size=1, max_size=6))
async def test_an_answer_is_what_it_is_on_a_connection_of_its_own(answers: list[bytes]) -> None:
    """Whatever came before it on its connection, an answer tells the same, and keeps the connection or does not."""
    async with opened() as (up, pool), opened() as (other, _):
        for whole in answers:
            async with Pool() as own:
                connections, alone = len(up.peers), len(other.peers)
                assert await told(up, pool, whole) == await told(other, own, whole)
                is_kept = bool(next(iter(own._lines.values())).idle)
                assert bool(next(iter(pool._lines.values())).idle) is is_kept
                assert len(up.peers) <= connections + 1
                assert len(other.peers) == alone + 1


async def test_a_head_that_came_before_is_not_parsed_again() -> None:
    """The usual answers of one server are told from one head, whatever their length; one that is cut is parsed."""
    async with opened() as (up, pool):
        bodies = [b"a", b"b" * 9, b"c" * 1000]
        for body in bodies:
            assert await exchange(up, pool, sized(body)) == (200, "1", body)
        (wire,) = next(iter(pool._lines.values())).idle
        parser = wire._parser
        assert await exchange(up, pool, sized(b"d")) == (200, "1", b"d")
        assert wire._parser is parser
        assert await exchange(up, pool, sized(b"e")[:-30], sized(b"e")[-30:]) == (200, "1", b"e")
        assert await exchange(up, pool, sized(b"f")) == (200, "1", b"f")
        assert wire._parser is not parser
        assert len(up.peers) == 1


async def test_heads_that_never_come_again_are_not_looked_at_for_ever() -> None:
    """A server that gives each answer a number costs a look at some of its heads only; a known one is known on."""
    async with opened() as (up, pool):
        for number in range(40):
            whole = answer(b"ok", b"x-number: %d" % number, b"content-length: 2")
            assert await exchange(up, pool, whole) == (200, "1", b"ok")
        (wire,) = next(iter(pool._lines.values())).idle
        assert wire._known is not None
        assert wire._known[0].body_in(answer(b"ok", b"x-number: 15", b"content-length: 2")) == b"ok"


async def test_a_head_stays_known_where_others_come_between() -> None:
    """A server that answers one call by an event stream and the next by JSON is known by what can be known."""
    stream = answer(b"2\r\nok\r\n0\r\n\r\n", b"transfer-encoding: chunked")
    async with opened() as (up, pool):
        for number in range(40):
            assert await exchange(up, pool, sized(b"%d" % number)) == (200, "1", b"%d" % number)
            assert await exchange(up, pool, stream) == (200, "1", b"ok")
        (wire,) = next(iter(pool._lines.values())).idle
        assert wire._known is not None
        assert wire._looked_at == 1


@pytest.mark.parametrize(
    ("whole", "fields"),
    [
        (sized(b"ok"), {}),
        (answer(b"ok", b"x-b: " + b"b" * 4000, b"content-length: 2"), {b"x-b": b"b" * 4000, b"content-length": b"2"}),
        (answer(b"ok", first=(b"HTTP/1.1 200 OK", b"x-a: 1")), {b"x-a": b"1"}),
    ],
    ids=["other", "long", "endless"],
)
def test_a_head_is_known_only_where_all_of_it_is_told(whole: bytes, fields: dict[bytes, bytes]) -> None:
    """What the parser did not make of these very bytes, what is long and what has no length is not known again."""
    assert known(whole, fields) is None

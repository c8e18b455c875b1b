"""A request that is written like an earlier one: what is read by its frame is what the whole would say."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.mcpwire import frames, jsonrpc
from gateway.core.mcpwire.frames import Frame
from tests.unit.test_canonical import TREES

_META = {"protocol": "p", "info": {"name": "n", "é": [1, "}"]}}
_FIRST = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "n", "arguments": {}, "_meta": _META}}
_LAST = {"method": "tools/call", "params": {"arguments": {}, "name": "n"}, "x": [2], "id": 7, "jsonrpc": "2.0"}


def written(message: Any) -> bytes:
    """As a client writes it."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def frame(message: Any) -> Frame:
    """The frame of a message that has one."""
    found = frames.framed(written(message))
    assert found is not None
    return found


def filled(message: Any, request_id: bytes, arguments: bytes) -> bytes:
    """The message with these in the places of its id and arguments."""
    holes = {**message, "id": "@", "params": {**message["params"], "arguments": "#"}}
    return written(holes).replace(b'"@"', request_id).replace(b'"#"', arguments)


@pytest.mark.requirement("CLEAN-1")
@pytest.mark.parametrize("message", [_FIRST, _LAST])
@given(st.integers(-5, 10**17), TREES)
def test_what_differs_is_read_as_within_the_whole(message: Any, request_id: int, arguments: Any) -> None:
    """Whatever id and arguments: the frame reads what the parser reads, or leaves it to the parser."""
    body = filled(message, b"%d" % request_id, written(arguments))
    found = frame(message).read(body)
    assert found is None or found == jsonrpc.parse(body)


@pytest.mark.parametrize("message", [_FIRST, _LAST])
@pytest.mark.parametrize(("request_id", "arguments"), [(b"0", b"{}"), (b"123456789012345", b'{"a":[{"b":"c, }"}]}')])
def test_most_requests_are_read_by_their_frame(message: Any, request_id: bytes, arguments: bytes) -> None:
    """Plain ids and arguments that are written plainly need no look at the whole."""
    body = filled(message, request_id, arguments)
    found = frame(message).read(body)
    assert found is not None
    assert found == jsonrpc.parse(body)
    assert found.params.exact == found.params.value


@pytest.mark.requirement("CLEAN-1")
@pytest.mark.parametrize("message", [_FIRST, _LAST])
@pytest.mark.parametrize(
    ("request_id", "arguments"),
    [
        (b"01", b"{}"),
        (b"-1", b"{}"),
        (b"1.0", b"{}"),
        (b"1e1", b"{}"),
        (b" 1", b"{}"),
        (b"", b"{}"),
        (b"true", b"{}"),
        (b'"7"', b"{}"),
        (b"1234567890123456", b"{}"),
        (b'1,"id":2', b"{}"),
        (b"1", b""),
        (b"1", b" {}"),
        (b"1", b'{"a":1,"a":2}'),
        (b"1", b'{"a":1,"A":2}'),
        (b"1", b'{"a":1.5}'),
        (b"1", b'{"a":"\\u0000"}'),
        (b"1", b'{"a":"\xed\xa0\x80"}'),
        (b"1", b'{},"name":"other"'),
        (b"1", b'{},"arguments":{}'),
        (b"1", b'{}},"params":{"name":"other","arguments":{}'),
        (b"1", b"[" * 63 + b"]" * 63),
        (b"1", b'{"a":"%b"}' % (b"x" * 40_000)),
    ],
)
def test_what_is_not_plain_is_left_to_the_parser(message: Any, request_id: bytes, arguments: bytes) -> None:
    """Another spelling, what is ambiguous, deep or large, and what reaches beyond its place: the parser judges it."""
    assert frame(message).read(filled(message, request_id, arguments)) is None


@pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1), slice(None, 30), slice(-30, None), slice(0, 0)])
@pytest.mark.parametrize("message", [_FIRST, _LAST])
def test_another_frame_is_not_read(message: Any, cut: slice) -> None:
    """What does not begin and end as the frame does is none of it."""
    assert frame(message).read(written(message)[cut]) is None
    assert frame(message).read(written({**message, "method": "other"})) is None
    assert frame(message).read(written({**message, "params": {**message["params"], "name": "m"}})) is None


@pytest.mark.parametrize(
    "message",
    [
        [],
        {"jsonrpc": "2.0", "id": 1, "method": "m"},
        {"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"name": "n"}},
        {"jsonrpc": "2.0", "id": "1", "method": "m", "params": {"arguments": {}}},
        {"jsonrpc": "2.0", "id": True, "method": "m", "params": {"arguments": {}}},
        {"jsonrpc": "2.0", "method": "m", "params": {"arguments": {}}},
        {**_FIRST, "x": "x" * 2048},
        {**_FIRST, "x": [0] * 64},
    ],
)
def test_what_has_no_frame(message: Any) -> None:
    """Without a number for an id or without arguments there is none, and a large one is not kept."""
    assert frames.framed(written(message)) is None


@pytest.mark.parametrize("space", [b" ", b" " * 40_000])
def test_what_is_spaced_out_has_no_frame(space: bytes) -> None:
    """Only what is written as our own writer would be is taken apart by bytes."""
    assert frames.framed(written(_FIRST) + space) is None

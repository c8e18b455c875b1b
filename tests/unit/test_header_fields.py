"""Header fields of a request: looked up by name, and one that came twice is never taken for one."""

from typing import Any

import pytest
from starlette.types import Scope

from gateway.core.canonical import encode
from gateway.core.mcpwire import eras, jsonrpc
from gateway.edge.body import check_accept, check_media
from gateway.edge.faults import HeaderMismatch, NotAcceptable, UnsupportedMediaType
from gateway.edge.heads import head_of, header, headers, says
from gateway.edge.mcp.eras import client_hints, era_of
from gateway.edge.mcp.stream import Stream

JSON = (b"content-type", b"application/json")


def request(*given: tuple[bytes, bytes]) -> Scope:
    """A request with these header fields."""
    return {"type": "http", "headers": list(given)}


async def nowhere(_: object) -> None:
    """Sends nothing."""
    raise AssertionError


def test_each_field_once() -> None:
    """The usual case; a name that is not there has no field."""
    scope = request((b"host", b"a"), (b"accept", b"b"))
    assert [list(headers(scope, name)) for name in (b"host", b"accept", b"origin")] == [[b"a"], [b"b"], []]
    assert (header(scope, b"host"), header(scope, b"origin")) == (b"a", None)


def test_a_field_that_came_twice_keeps_both_in_order() -> None:
    """Also where they say the same, and whatever stands between."""
    scope = request((b"host", b"a"), (b"accept", b"b"), (b"host", b"c"), (b"host", b"a"))
    assert {name: list(found) for name, found in head_of(scope).fields.items()} == {
        b"host": [b"a", b"c", b"a"],
        b"accept": [b"b"],
    }


@pytest.mark.parametrize("accepted", [b"application/json", b"text/html, Application/JSON;q=0.9", b"*/*", None])
def test_who_takes_json(accepted: bytes | None) -> None:
    """In any spelling, or by saying nothing."""
    scope = request(*(() if accepted is None else ((b"accept", accepted),)))
    check_accept(scope)
    assert says(headers(scope, b"accept"), (b"json", b"*/*")) is (accepted is not None)


def test_who_takes_no_json() -> None:
    """Refused; a second field can still say it."""
    with pytest.raises(NotAcceptable):
        check_accept(request((b"accept", b"text/html")))
    both = request((b"accept", b"text/html"), (b"accept", b"TEXT/event-stream, application/json"))
    check_accept(both)
    assert Stream(head_of(both), nowhere, ()).is_heard
    assert not Stream(head_of(request((b"accept", b"application/json"))), nowhere, ()).is_heard


@pytest.mark.parametrize(
    "given",
    [
        (),
        ((b"content-type", b"text/plain"),),
        ((b"content-type", b"application/jsonp"),),
        (JSON, JSON),
        (JSON, (b"content-encoding", b"gzip")),
        (JSON, (b"content-encoding", b"")),
    ],
)
def test_what_is_no_json(given: tuple[tuple[bytes, bytes], ...]) -> None:
    """None, another one, two, or one that is compressed."""
    with pytest.raises(UnsupportedMediaType):
        check_media(request(*given))


@pytest.mark.parametrize("media", [b"application/json", b"Application/JSON ; charset=utf-8"])
def test_what_is_json(media: bytes) -> None:
    """With or without parameters, and with an encoding that is none."""
    scope = request((b"content-type", media), (b"content-encoding", b"identity"))
    check_media(scope)
    assert header(scope, b"content-type") == media


def test_no_version_is_not_repeated_by_no_header() -> None:
    """Null in the body and a header that is not there are no agreement."""
    meta: dict[str, Any] = {eras.META_VERSION: None, eras.META_CAPABILITIES: {}}
    given = encode({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}})
    message, head = jsonrpc.parse(given), head_of(request((b"mcp-method", b"tools/list")))
    assert isinstance(message, jsonrpc.Request)
    with pytest.raises(HeaderMismatch):
        client_hints(message, meta, head, era_of(meta, head.fields))

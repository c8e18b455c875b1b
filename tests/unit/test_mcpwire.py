"""The MCP wire: revisions and constants, JSON-RPC messages, header values, event streams."""

from itertools import pairwise
from typing import Any

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import jsonrpc as official
from mcp_types import version as revisions

from gateway.core import canonical
from gateway.core.canonical import Json
from gateway.core.errors import GatewayError, MalformedRequest, TooLarge
from gateway.core.mcpwire import eras, headers, jsonrpc, sse
from gateway.core.mcpwire.jsonrpc import Failure, Notification, Reply, Request, Response


def test_constants_agree_with_the_official_package() -> None:
    """Our own constants, kept for a pure and quick core, are those of the specification's model package."""
    assert revisions.HANDSHAKE_PROTOCOL_VERSIONS == eras.HANDSHAKE_VERSIONS
    assert revisions.MODERN_PROTOCOL_VERSIONS == eras.STATELESS_VERSIONS
    assert mcp_types.PROTOCOL_VERSION_META_KEY == eras.META_VERSION
    assert mcp_types.CLIENT_CAPABILITIES_META_KEY == eras.META_CAPABILITIES
    assert mcp_types.CLIENT_INFO_META_KEY == eras.META_CLIENT
    assert mcp_types.LOG_LEVEL_META_KEY == eras.META_LOG_LEVEL
    assert mcp_types.SERVER_INFO_META_KEY == eras.META_SERVER
    codes = [
        "PARSE_ERROR",
        "INVALID_REQUEST",
        "METHOD_NOT_FOUND",
        "INVALID_PARAMS",
        "INTERNAL_ERROR",
        "HEADER_MISMATCH",
    ]
    assert [getattr(official, code) for code in codes] == [getattr(eras, code) for code in codes]
    assert official.MISSING_REQUIRED_CLIENT_CAPABILITY == eras.MISSING_CLIENT_CAPABILITY
    assert official.UNSUPPORTED_PROTOCOL_VERSION == eras.UNSUPPORTED_VERSION


def test_revisions_have_eras() -> None:
    """A revision belongs to one era or is unknown; a handshake is answered within its era."""
    assert {eras.era_of(version) for version in eras.HANDSHAKE_VERSIONS} == {eras.Era.HANDSHAKE}
    assert eras.era_of("2026-07-28") is eras.Era.STATELESS
    assert eras.era_of("1999-01-01") is None
    assert eras.answer_version("2025-03-26") == "2025-03-26"
    assert eras.answer_version("2026-07-28") == eras.answer_version("1999-01-01") == "2025-11-25"
    assert eras.newest_mutual(["2025-11-25", 7, "2026-07-28"]) == "2026-07-28"
    assert eras.newest_mutual(["2025-11-25"]) is None


def test_messages_are_told_apart() -> None:
    """Requests, notifications, answers and errors, with ids of both types and lexemes kept."""
    request = jsonrpc.parse(b'{"jsonrpc":"2.0","id":"a","method":"m","params":{"n":1.10}}')
    assert isinstance(request, Request)
    assert (request.id, request.method, request.params.value) == ("a", "m", {"n": 1.1})
    assert bytes(request.params.exact["n"]) == b"1.10"
    note = jsonrpc.parse(b'{"jsonrpc":"2.0","method":"m"}')
    assert isinstance(note, Notification)
    assert note.params.value == {}
    good = jsonrpc.parse(b'{"jsonrpc":"2.0","id":7,"result":{"x":[]}}')
    assert isinstance(good, Response)
    assert (good.id, good.result.value) == (7, {"x": []})
    bad = jsonrpc.parse(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m","data":[1]}}')
    assert bad == Failure(None, -32700, "m", [1])


BAD: dict[bytes, str] = {
    b"[]": "batch",
    b'[{"jsonrpc":"2.0","method":"m"}]': "batch",
    b'"x"': "envelope",
    b"{}": "envelope",
    b'{"jsonrpc":"1.0","id":1,"method":"m"}': "envelope",
    b'{"jsonrpc":"2.0","id":1}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"method":"m","result":{}}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"method":1}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"method":""}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"method":"m","params":[]}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"method":"m","params":null}': "envelope",
    b'{"jsonrpc":"2.0","id":null,"method":"m"}': "envelope",
    b'{"jsonrpc":"2.0","id":true,"method":"m"}': "envelope",
    b'{"jsonrpc":"2.0","id":1.5,"method":"m"}': "envelope",
    b'{"jsonrpc":"2.0","id":90071992547409921,"method":"m"}': "envelope",
    b'{"jsonrpc":"2.0","id":{},"method":"m"}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"result":[]}': "envelope",
    b'{"jsonrpc":"2.0","result":{}}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"error":1}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"error":{"code":true}}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":2}}': "envelope",
    b'{"jsonrpc":"2.0","id":[],"error":{"code":1}}': "envelope",
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"m"}': "duplicate_key",
    b"{": "json",
}


@pytest.mark.parametrize("body", BAD)
def test_bad_messages_are_refused(body: bytes) -> None:
    """What is not exactly one message of the protocol is refused, with a stable cause."""
    with pytest.raises(MalformedRequest) as caught:
        jsonrpc.parse(body)
    assert caught.value.cause_code == BAD[body]


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_leak_another_error(body: bytes) -> None:
    """Arbitrary bytes either are a message or raise one of our errors, in both readers."""
    for read in (jsonrpc.parse, jsonrpc.read_upstream):
        try:
            found: object = read(body)
        except GatewayError as error:
            found = error
        assert found is not None


def test_an_upstreams_result_keeps_its_bytes() -> None:
    """The text of a result is handed on as it was written, wherever it stands in the envelope."""
    text = b'{ "n" : 1.10, "u":"\\u00e9" }'
    assert jsonrpc.read_upstream(b'{"result":%b,"id":3,"jsonrpc":"2.0","x":1}' % text) == Reply(3, text)
    assert isinstance(jsonrpc.read_upstream(b'{"jsonrpc":"2.0","id":"s","method":"ping"}'), Request)
    assert isinstance(jsonrpc.read_upstream(b'{"jsonrpc":"2.0","method":"x","params":{}}'), Notification)
    failure = jsonrpc.read_upstream(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m","data":{}}}')
    assert failure == Failure(1, -1, "m")
    lacking = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32021,"message":"m","data":{"requiredCapabilities":{}}}}'
    assert jsonrpc.read_upstream(lacking) == Failure(1, -32021, "m", {"requiredCapabilities": {}})
    offering = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"m","data":{"supported":["a"]}}}'
    assert jsonrpc.read_upstream(offering) == Failure(1, -32022, "m", {"supported": ["a"]})
    note = jsonrpc.read_upstream(b'{"jsonrpc":"2.0","method":"x","params": {"a": 1.0}}')
    assert isinstance(note, Notification)
    assert (note.text, note.params.value) == (b'{"a": 1.0}', {})


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'{"jsonrpc":"2.0","id":1,"result":[]}',
        b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":90071992547409921,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"message":"m"}}',
        b'{"jsonrpc":"2.0","id":1.0,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{}}{}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000,
        b"[]",
        b"\xff",
    ],
)
def test_an_upstreams_bad_message_is_refused(body: bytes) -> None:
    """An answer that is not exactly one message is none."""
    with pytest.raises(MalformedRequest):
        jsonrpc.read_upstream(body)


_PIECES = st.sampled_from(
    [b'{"a":1}', b"{}", b'"b"', b"{", b"}", b"[", b"]", b",", b":", b'"error"', b'"result":', b" ", b"\xff", b"01"]
)


@given(
    st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False) | st.none(), max_size=3).map(jsonrpc.encode)
    | st.lists(_PIECES, max_size=6).map(b"".join),
    st.sampled_from([b"", b" ", b',"error":{"code":1}', b',"x":{}', b',"result":{}', b',"id":8']),
    st.sampled_from([7, 8, 77]),
)
def test_a_result_is_found_as_the_reader_would(text: bytes, more: bytes, request_id: int) -> None:
    """A result is taken out of an answer only where the reader of all messages finds it, and for its request."""
    body = b'{"jsonrpc":"2.0","id":7,"result":%b%b}' % (text, more)
    found = jsonrpc.result_in(body, request_id)
    assert found is None or jsonrpc.read_upstream(body) == Reply(request_id, found)


def test_a_result_is_found_where_it_is_spelled_as_usual() -> None:
    """The compact spelling is looked at; another one, and one that goes on, is left to the reader of all messages."""
    assert jsonrpc.result_in(b'{"jsonrpc":"2.0","id":7,"result":{"a":[1.10]}}', 7) == b'{"a":[1.10]}'
    assert jsonrpc.result_in(b'{"jsonrpc": "2.0","id":7,"result":{"a":[1.10]}}', 7) is None
    assert jsonrpc.result_in(b'{"jsonrpc":"2.0","id":7,"result":{},"error":{}}', 7) is None
    assert jsonrpc.result_in(b'{"jsonrpc":"2.0","id":7,"result":{"a":' + b"[" * 100_000 + b"}}", 7) is None


@given(
    st.text() | st.integers(-(2**53), 2**53), st.text(min_size=1), st.dictionaries(st.text(), st.integers(), max_size=3)
)
def test_what_is_written_can_be_read(request_id: str | int, method: str, params: dict[str, int]) -> None:
    """Every message we write is read back as what it was, where strict JSON admits its strings."""
    try:
        request = jsonrpc.parse(jsonrpc.encode_request(request_id, method, jsonrpc.encode(params)))
    except MalformedRequest as error:
        assert error.cause_code in {"nul", "duplicate_key"}  # noqa: PT017 -- the strategy may well draw such strings
        return
    assert isinstance(request, Request)
    assert (request.id, request.method, request.params.value) == (request_id, method, params)
    assert jsonrpc.parse(jsonrpc.encode_response(request_id, b"{}")) == Response(request_id, Json({}, {}))
    assert jsonrpc.parse(jsonrpc.encode_failure(request_id, -1, "m")) == Failure(request_id, -1, "m")
    assert jsonrpc.parse(jsonrpc.encode_failure(None, -1, "m", {"a": 1})) == Failure(None, -1, "m", {"a": 1})
    assert isinstance(jsonrpc.parse(jsonrpc.encode_notification(method)), Notification)


def test_the_id_of_a_bad_message() -> None:
    """A message that is otherwise bad can still be answered under its id, if that is a good one."""
    for text, wanted in ((b'{"id":7}', 7), (b'{"id":"a"}', "a"), (b'{"id":true}', None), (b"[]", None), (b"{}", None)):
        assert jsonrpc.id_of(canonical.parse(text)) == wanted


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_header_values_survive_the_trip(value: str) -> None:
    """Any text can be wrapped for a header field, in printable ASCII, and comes back the same."""
    field = headers.wrap(value)
    assert field.isascii()
    assert field == "" or field.isprintable()
    assert headers.unwrap(field) == value


@pytest.mark.parametrize(
    "field", ["=?base64?!?=", "=?base64?YQ?=", "=?base64?YR==?=", "=?base64?/w==?=", "\xe9", "a\x7f", "a\x00", "a\n"]
)
def test_malformed_wrapping_says_nothing(field: str) -> None:
    """Bad base64, a second spelling of one value, bad UTF-8 and what has to be wrapped match no value."""
    assert headers.unwrap(field) is None
    assert not headers.says(field, "\xe9")
    assert not headers.says(field, 5)


@pytest.mark.parametrize(
    ("field", "value", "same"),
    [
        *[("42", 42, True), ("42.0", 42, True), ("42", 42.0, True), ("-7", -7, True), ("-7", 7, False)],
        *[("042", 42, True), ("4_2", 42, False), ("\u0664\u0662", 42, False), ("42 ", 42, False), ("1e1", 10, False)],
        *[("9007199254740993", 2**53, False), ("1" + "0" * 40, 10**40, True), ("2" + "0" * 40, 10**40, False)],
        *[("42", "42", True), ("42.0", "42", False), ("true", True, True), ("1", True, False), ("1", "true", False)],
        *[("=?base64?NDI=?=", 42, True), ("=?base64?w6k=?=", "\xe9", True), ("e", "\xe9", False)],
    ],
)
def test_numbers_are_compared_as_numbers(field: str, value: str | float, *, same: bool) -> None:
    """However a number is written it is the same one; texts and truth values are what they are, letter for letter."""
    assert headers.says(field, value) is same


def annotation(token: Any, kind: Any = "string") -> dict[str, Any]:
    """A schema with one annotated argument ``a``."""
    return {"properties": {"a": {"type": kind, "x-mcp-header": token}}}


def test_annotated_arguments_become_fields() -> None:
    """Annotated arguments, nested ones too, are repeated; absent, null and composite ones are not."""
    inner = {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "Count"}}}
    names = headers.annotated({"properties": {**annotation("Region")["properties"], "in": inner, "other": True}})
    assert names == {("a",): "mcp-param-region", ("in", "n"): "mcp-param-count"}
    assert headers.param_fields(names, {"a": "é", "in": {"n": 5}}) == {
        "mcp-param-region": "=?base64?w6k=?=",
        "mcp-param-count": "5",
    }
    assert headers.param_fields(names, {"a": None, "in": []}) == {}
    assert headers.param_fields(names, {"a": True, "in": {"n": {}}}) == {"mcp-param-region": "true"}
    assert headers.param_fields(names, {"a": False}) == {"mcp-param-region": "false"}


@pytest.mark.parametrize(
    "schema",
    [
        None,
        annotation("a b"),
        annotation(""),
        annotation(5),
        annotation("A", "number"),
        annotation("A", ["string"]),
        {"properties": {"a": {"type": "string", "x-mcp-header": "X"}, "b": {"type": "string", "x-mcp-header": "x"}}},
    ],
)
def test_malformed_annotations_mean_nothing(schema: Any) -> None:
    """A tool whose annotations are malformed has no header fields at all."""
    assert headers.annotated(schema) == {}
    assert headers.is_misannotated(schema) is (schema is not None)


STREAM = (
    b"\xef\xbb\xbf: comment\r\n\r\nevent: message\r\nid: 1\r\ndata: a\r\ndata: b\r\n\r\n"
    b"data:c\n\ndata\n\nid: \0\nretry: 5\rdata:  d\r\runknown: x\n\nevent: other\ndata: e\n\ndata: never closed\n"
)
EVENTS = [
    sse.Event(b"a\nb", "message", "1"),
    sse.Event(b"c", "message", "1"),
    sse.Event(b" d", "message", "1"),
    sse.Event(b"e", "other", "1"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=len(STREAM)))
def test_streams_may_be_cut_anywhere(cuts: list[int]) -> None:
    """The events do not depend on where the network cut the stream; an unclosed last event is none."""
    edges = [0, *sorted(cuts), len(STREAM)]
    decoder = sse.Decoder(1000)
    assert [event for start, end in pairwise(edges) for event in decoder.feed(STREAM[start:end])] == EVENTS


def test_streams_byte_by_byte() -> None:
    """The finest cut of all."""
    decoder = sse.Decoder(1000)
    assert [event for byte in STREAM for event in decoder.feed(bytes([byte]))] == EVENTS


@pytest.mark.parametrize("chunk", [b"data: 123456789", b"data: 1234567\n", b"data: 1\ndata: 2\n", b": 12345678901\n"])
def test_an_event_over_the_cap_ends_the_stream(chunk: bytes) -> None:
    """Closed lines and the open one count together, so no endless event is collected."""
    with pytest.raises(TooLarge):
        list(sse.Decoder(12).feed(chunk))


def test_the_cap_is_for_one_event() -> None:
    """Many small events pass."""
    decoder = sse.Decoder(12)
    assert len([event for _ in range(50) for event in decoder.feed(b"data: 12345\n\n")]) == 50


@pytest.mark.parametrize(
    ("text", "last", "retry"),
    [
        (b"data: x\n\n", "", None),
        (b"id: 1\nretry: 500\ndata: \n\n", "1", 500),
        (b"id: 1\n\nid: 2\n", "1", None),
        (b"id: 1\n\nid\n\n", "", None),
        (b"id: 1\n\nid: 2\0\n\n", "1", None),
        (b"retry: -1\n\n", "", None),
        (b"retry: 1s\n\n", "", None),
        (b"retry: 500\nretry:\n\n", "", 500),
        (b"retry: 0\n", "", 0),
        (b"retry: 1000000000\n\n", "", None),
    ],
)
def test_a_stream_says_where_and_when_to_go_on(text: bytes, last: str, retry: int | None) -> None:
    """After each empty line, also of an event without data; what is no number of milliseconds says nothing."""
    decoder = sse.Decoder(1000)
    list(decoder.feed(text))
    assert (decoder.last_id, decoder.retry_ms) == (last, retry)


def test_members_are_kept_as_they_are_written() -> None:
    """White space, escapes and digits of a member go on as they came."""
    found = jsonrpc.members(b'{"a": 1.10,"b":{"x" : "\\u0041"}}')
    assert {name: bytes(raw) for name, raw in found.items()} == {"a": b"1.10", "b": b'{"x" : "\\u0041"}'}

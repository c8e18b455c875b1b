"""JSON-RPC 2.0 as MCP uses it: one message a body, ids are strings or integers, ``params`` is an object.

Two readers, because two things are wanted. ``parse`` is for what callers send: strict, and it keeps number lexemes,
since arguments are decided on and forwarded. ``read_upstream`` is for what upstreams answer: it keeps the bytes of the
result, which are handed on unless something is redacted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.core import canonical
from gateway.core.canonical import MAX_SAFE_INTEGER, Json
from gateway.core.errors import MalformedRequest
from gateway.core.mcpwire.eras import MISSING_CLIENT_CAPABILITY, UNSUPPORTED_VERSION

Id = str | int
_EMPTY: Final = Json({}, {})
_ENCODER: Final = msgspec.json.Encoder()
# Compact JSON text of a plain value, members in the order given.
encode: Final[Callable[[Any], bytes]] = _ENCODER.encode


class Request(Struct, frozen=True):
    """A request: it is owed exactly one answer.

    Attributes:
        id: as the peer chose it; the answer repeats it with the same type.
        method: MCP method.
        params: a JSON object; empty where there was none.
        text: of an upstream's request, the JSON text of its ``params`` as it was sent; anything at all.
    """

    id: Id
    method: str
    params: Json
    text: bytes = b""


class Notification(Struct, frozen=True):
    """A message that is owed no answer; ``text`` is that of an upstream's ``params``, as of a request."""

    method: str
    params: Json
    text: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """A good answer to a request of ours; ``result`` is a JSON object."""

    id: Id
    result: Json


@dataclass(frozen=True, slots=True)
class Failure:
    """A JSON-RPC error answer.

    Attributes:
        id: which request failed; None where the peer could not tell.
        code: JSON-RPC error code.
        message: the peer's words; untrusted.
        data: whatever else the peer said, untrusted; of an upstream only what a client lacks: capabilities,
            or a revision of the protocol.
    """

    id: Id | None
    code: int
    message: str
    data: Any = None


class Reply(Struct, frozen=True):
    """A good answer of an upstream; ``result`` is the JSON text of the object it sent, byte for byte."""

    id: Id
    result: bytes


Message = Request | Notification | Response | Failure
UpstreamMessage = Request | Notification | Reply | Failure


def parse(body: bytes) -> Message:
    """Parse one untrusted message.

    Raises:
        MalformedRequest: bad JSON (``cause_code`` as of ``canonical.parse``), a batch (``batch``) or a bad envelope
            (``envelope``).
        TooLarge: nested too deep.
    """
    return message(canonical.parse(body))


def message(document: Json) -> Message:
    """The message in a parsed document.

    Raises:
        MalformedRequest: it is none (``cause_code`` ``batch`` or ``envelope``).
    """
    members = document.value
    if isinstance(members, list):
        raise MalformedRequest("JSON-RPC batches are not accepted", cause_code="batch")
    if not isinstance(members, dict) or members.get("jsonrpc") != "2.0":
        raise _envelope('a message is a JSON object with "jsonrpc": "2.0"')
    is_call, is_answer, is_failure = "method" in members, "result" in members, "error" in members
    if is_call + is_answer + is_failure != 1:
        raise _envelope("a message has one of method, result and error")
    if is_call:
        return _from_caller(document)
    return _answer(document) if is_answer else _failure(members)


def read_upstream(body: bytes | memoryview) -> UpstreamMessage:
    """Read one message of an upstream, keeping a result's bytes; ``params`` of its own messages are not parsed.

    Raises:
        MalformedRequest: not JSON (``cause_code`` ``json``), more than one message, or a bad envelope (``envelope``).
    """
    envelope = _envelope_of(body)
    if envelope.method is not None:
        if envelope.id is None:
            return Notification(envelope.method, _EMPTY, bytes(envelope.params))
        return Request(_good_id(envelope.id), envelope.method, _EMPTY, bytes(envelope.params))
    result = bytes(envelope.result)
    if not result:
        return _upstream_failure(envelope)
    if not result.startswith(b"{"):
        raise _envelope("result must be an object")
    return Reply(_good_id(envelope.id), result)


def result_in(body: bytes, request_id: int) -> bytes | None:
    """The result in an answer to this request that is spelled as answers mostly are; None = ``read_upstream`` tells.

    Where what stands between the usual beginning and the last brace is one JSON object, the message has no other
    members.
    """
    opening = b'{"jsonrpc":"2.0","id":%d,"result":{' % request_id
    if not (body.startswith(opening) and body.endswith(b"}}")):
        return None
    result = body[len(opening) - 1 : -1]
    try:
        _ONE_VALUE.decode(result)
    except (ValueError, RecursionError):
        return None
    return result


def id_of(document: Json) -> Id | None:
    """The id a document carries, as far as it has a usable one: for answering a message that is otherwise bad."""
    found = document.member("id").value
    return found if _is_id(found) else None


def encode_request(request_id: Id, method: str, params: bytes) -> bytes:
    """A request; ``params`` is the JSON text of an object and is copied verbatim."""
    written = _ENCODER.encode
    return b'{"jsonrpc":"2.0","id":%b,"method":%b,"params":%b}' % (written(request_id), written(method), params)


def encode_notification(method: str, params: bytes = b"{}") -> bytes:
    """A notification; ``params`` is the JSON text of an object and is copied verbatim."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (encode(method), params)


def encode_response(request_id: Id, result: bytes) -> bytes:
    """A good answer; ``result`` is the JSON text of an object and is copied verbatim."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (encode(request_id), result)


def encode_failure(request_id: Id | None, code: int, text: str, data: Any = None) -> bytes:
    """An error answer; ``data`` is left out where it is None."""
    error: dict[str, Any] = {"code": code, "message": text}
    if data is not None:
        error["data"] = data
    return encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def members(text: bytes) -> dict[str, msgspec.Raw]:
    """The members of a JSON object that is known to be one, each as it is written."""
    return _OBJECTS.decode(text)


class _Error(Struct):
    code: int
    message: str = ""
    data: msgspec.Raw = msgspec.Raw()


class _Envelope(Struct):
    jsonrpc: str = ""
    id: str | int | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


# The errors whose data says what to do about them.
_TELLING: Final = frozenset({MISSING_CLIENT_CAPABILITY, UNSUPPORTED_VERSION})
_ENVELOPES: Final = msgspec.json.Decoder(_Envelope)
_ONE_VALUE: Final = msgspec.json.Decoder(msgspec.Raw)
_OBJECTS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ERRORS: Final = msgspec.json.Decoder(_Error)


def _envelope_of(body: bytes | memoryview) -> _Envelope:
    try:
        envelope = _ENVELOPES.decode(body)
    except RecursionError:
        raise MalformedRequest("nested too deep", cause_code="json") from None
    except msgspec.ValidationError:
        raise _envelope("not a JSON-RPC message") from None
    except ValueError:  # msgspec's own errors are ValueErrors, and so is that of bad UTF-8
        raise MalformedRequest("not JSON", cause_code="json") from None
    kinds = (envelope.method is not None) + bool(envelope.result) + bool(envelope.error)
    if envelope.jsonrpc != "2.0" or kinds != 1:
        raise _envelope("not a JSON-RPC message")
    return envelope


def _upstream_failure(envelope: _Envelope) -> Failure:
    try:
        error = _ERRORS.decode(envelope.error)
        data = msgspec.json.decode(error.data) if error.code in _TELLING and error.data else None
    except (ValueError, RecursionError):
        raise _envelope("error needs an integer code and a message") from None
    return Failure(None if envelope.id is None else _good_id(envelope.id), error.code, error.message, data)


def _from_caller(document: Json) -> Request | Notification:
    members = document.value
    method = members["method"]
    if not isinstance(method, str) or not method:
        raise _envelope("method must be a string")
    params = document.member("params") if "params" in members else _EMPTY
    if not isinstance(params.value, dict):
        raise _envelope("params must be an object")
    # The presence of the member decides, not its value: a request with a bad id is no notification.
    if "id" not in members:
        return Notification(method, params)
    return Request(_good_id(members["id"]), method, params)


def _answer(document: Json) -> Response:
    result = document.member("result")
    if not isinstance(result.value, dict):
        raise _envelope("result must be an object")
    return Response(_good_id(document.member("id").value), result)


def _failure(members: dict[str, Any]) -> Failure:
    error = members["error"]
    if not isinstance(error, dict):
        raise _envelope("error must be an object")
    code, text = error.get("code"), error.get("message", "")
    if not isinstance(code, int) or isinstance(code, bool) or not isinstance(text, str):
        raise _envelope("error needs an integer code and a message")
    found = members.get("id")
    return Failure(None if found is None else _good_id(found), code, text, error.get("data"))


def _is_id(value: Any) -> bool:
    kind = type(value)  # of what was read: a bool is no number here
    return kind is str or (kind is int and -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER)


def _good_id(value: Any) -> Id:
    if not _is_id(value):
        raise _envelope("id must be a string or an integer within 2^53")
    good: Id = value
    return good


def _envelope(detail: str) -> MalformedRequest:
    return MalformedRequest(detail, cause_code="envelope")

"""From an HTTP response to a tool result.

========== ===========================================================================================================
success    JSON becomes ``structuredContent`` (an array or scalar as ``{"result": ...}``) and the same as text; other
           text becomes text; an empty body is JSON null.
4xx        the upstream refuses this request: a text-only ``isError`` result ``{"status": ..., "body": ...}`` the model
           can act on. Not 401 and 407: those refuse the gateway's own credential, which is no business of the model's.
502, 504   a proxy on the way got no answer: ``OutcomeUnknown``.
other      ``ToolFailed``; nothing of the response is passed on. Redirects are never followed.
========== ===========================================================================================================
"""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from connectors.http.binding import Route
from gateway.core.call import Lease, Raw
from gateway.core.errors import GatewayError, OutcomeUnknown, ToolFailed

_CHUNK = 64 * 1024
_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "us-ascii": "ascii", "ascii": "ascii", "iso-8859-1": "latin-1"}
_TEXT_TYPES = ("text/", "application/xml", "application/yaml", "application/x-www-form-urlencoded")
_ENCODER = msgspec.json.Encoder()


async def answer(lease: Lease, route: Route, response: aiohttp.ClientResponse) -> Raw:
    """The result of a call.

    Raises:
        ToolFailed: the upstream failed, redirects, or sends what cannot be passed on.
        OutcomeUnknown: a proxy got no answer, or the response broke off.
    """
    status = response.status
    if not route.succeeds(status) and (fault := _fault(status)) is not None:
        raise fault
    body = await _read(response, lease.intent.tool.limits.max_output_bytes)
    found = _document(response, body)
    if route.succeeds(status):
        return _result(lease, found)
    shown = found.text if isinstance(found, _Text) else found
    return _result(lease, _Text(_encoded({"status": status, "body": shown}).decode()), is_error=True)


def _fault(status: int) -> GatewayError | None:
    if status in {502, 504}:
        return OutcomeUnknown(f"a proxy before the upstream got no answer ({status})", cause_code="upstream_gateway")
    if 300 <= status < 400:  # noqa: PLR2004
        return ToolFailed(f"the upstream redirects ({status}), which is not followed", cause_code="redirect")
    if status in {401, 407}:
        return ToolFailed("the upstream refuses the gateway's credential", cause_code="upstream_credential")
    if 400 <= status < 500:  # noqa: PLR2004
        return None
    return ToolFailed(f"the upstream answered {status}", cause_code="upstream_status")


async def _read(response: aiohttp.ClientResponse, cap: int) -> bytes:
    # Identity was asked for; a compressed body would have to be unpacked under a bound of its own.
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ToolFailed("the upstream compressed its answer unasked", cause_code="output_encoding")
    if (response.content_length or 0) > cap:
        raise _too_large(cap)
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > cap:
            raise _too_large(cap)
    return bytes(body)


def _too_large(cap: int) -> ToolFailed:
    return ToolFailed(f"the upstream's answer is over {cap} bytes", cause_code="output_size")


@dataclass(frozen=True, slots=True)
class _Text:
    """What is shown as it is, unlike a string that is JSON."""

    text: str


def _document(response: aiohttp.ClientResponse, body: bytes) -> Any:
    # JSON with floats as lexemes, or _Text.
    media = response.content_type if "Content-Type" in response.headers else "text/plain"
    if not body.strip():
        return None
    try:
        if media == "application/json" or media.endswith("+json"):
            return _STRICT.decode(body.decode())
        if media.startswith(_TEXT_TYPES) or media.endswith("+xml"):
            return _Text(body.decode(_CHARSETS.get((response.charset or "utf-8").lower(), "utf-8")))
    except (ValueError, RecursionError):
        raise ToolFailed(f"the upstream's answer is no {media}", cause_code="output_shape") from None
    raise ToolFailed("the upstream answered with a media type that is not passed on", cause_code="output_media_type")


def _result(lease: Lease, found: Any, *, is_error: bool = False) -> Raw:
    result: dict[str, Any]
    if isinstance(found, _Text):
        result = {"content": [{"type": "text", "text": found.text}]}
    else:
        text = _encoded(found if isinstance(found, dict) else {"result": found})
        result = {"content": [{"type": "text", "text": text.decode()}], "structuredContent": msgspec.Raw(text)}
    if is_error:
        result["isError"] = True
    body = _encoded(result)
    try:
        return Raw(lease, body, msgspec.json.decode(body))
    except msgspec.MsgspecError:  # a number that is JSON but fits no float
        raise ToolFailed("the upstream's answer holds a number out of range", cause_code="output_shape") from None


def _encoded(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value)
    except (UnicodeEncodeError, RecursionError):  # lone surrogates are JSON to some and no text to anyone
        raise ToolFailed("the upstream's answer cannot be written as JSON", cause_code="output_shape") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Which of two equal keys counts is what parsers disagree about.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate key")
    return members


def _lexeme(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_float=_lexeme, parse_constant=_refuse)

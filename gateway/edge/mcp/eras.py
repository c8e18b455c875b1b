"""Which era a message belongs to, and what the stateless era demands of it.

The body says it; headers only repeat it. In the stateless era each header that repeats a part of the body must equal
it, or whoever routes by the header saw another request than the one that is decided.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Scope

from gateway.core.canonical import Json
from gateway.core.mcpwire import eras, headers, jsonrpc
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.jsonrpc import Id, Notification, Request
from gateway.edge import reply
from gateway.edge.faults import HeaderMismatch, InvalidParams, UnsupportedVersion

_VERSION = eras.VERSION_HEADER.encode()
_METHOD = eras.METHOD_HEADER.encode()
_NAME = eras.NAME_HEADER.encode()
_PARAM_PREFIX = eras.PARAM_HEADER_PREFIX.encode()
_HANDSHAKE = frozenset(version.encode() for version in eras.HANDSHAKE_VERSIONS)
_MAX_HINT = 64


def era_hint(scope: Scope) -> Era:
    """The era as the headers have it: for answering a body that could not be read."""
    versions = reply.headers(scope, _VERSION)
    return Era.HANDSHAKE if not versions or versions[0] in _HANDSHAKE else Era.STATELESS


def era_of(message: Request | Notification, scope: Scope) -> Era:
    """The message's era: stateless if its body says so, or a header that is not of the other era."""
    if eras.META_VERSION in _meta(message):
        return Era.STATELESS
    versions = reply.headers(scope, _VERSION)
    is_handshake = not versions or (len(versions) == 1 and versions[0] in _HANDSHAKE)
    return Era.HANDSHAKE if is_handshake else Era.STATELESS


def client_hints(message: Request | Notification, scope: Scope, era: Era) -> Mapping[str, str]:
    """What the client says of itself, once the message has passed all checks of its era.

    Raises:
        InvalidParams: a stateless request without its ``_meta`` members.
        HeaderMismatch: a header differs from the body.
        UnsupportedVersion: a revision we do not speak.
    """
    versions = reply.headers(scope, _VERSION)
    if era is Era.HANDSHAKE:
        return {"protocol": _text(versions[0]) if versions else eras.ASSUMED_VERSION}
    if isinstance(message, Notification):
        _check_version(_text(versions[0]) if versions else "")
        return {}
    meta = _meta(message)
    _check_meta(meta)
    version = meta[eras.META_VERSION]
    if not _is_said(versions, version):
        raise HeaderMismatch(f"{eras.VERSION_HEADER} does not equal the body's protocol version", cause_code="header")
    _check_headers(message, scope)
    _check_version(version)
    return client_of(meta.get(eras.META_CLIENT), version)


def client_of(info: object, version: str) -> dict[str, str]:
    """What a client says of itself, cut to size; hints only."""
    said = {"protocol": version[:_MAX_HINT]}
    if isinstance(info, dict):
        for key in ("name", "version"):
            value = info.get(key)
            if isinstance(value, str):
                said[key] = value[:_MAX_HINT]
    return said


def recovered_id(body: bytes) -> Id | None:
    """The id in a body the strict parser refused: for addressing the refusal, never for acting on.

    A model can put a NUL into an argument; its client should get an answer to that request, not a dead connection.
    """
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, dict) or members.get("jsonrpc") != "2.0" or not isinstance(members.get("method"), str):
        return None
    return jsonrpc.id_of(Json(members, members))


def param_fields(scope: Scope) -> dict[str, str | None]:
    """The request's ``mcp-param-*`` headers; one that came twice says nothing (None)."""
    found: dict[str, str | None] = {}
    for name, value in scope["headers"]:
        if name.startswith(_PARAM_PREFIX):
            key = _text(name)
            found[key] = None if key in found else _text(value)
    return found


def _meta(message: Request | Notification) -> Mapping[str, Any]:
    meta = message.params.value.get("_meta")
    return meta if isinstance(meta, dict) else {}


def _is_said(found: Sequence[bytes], wanted: object) -> bool:
    """Whether there is one field, which says just this."""
    return len(found) == 1 and _text(found[0]) == wanted


def _check_meta(meta: Mapping[str, Any]) -> None:
    missing = [key for key in (eras.META_VERSION, eras.META_CAPABILITIES) if key not in meta]
    if missing:
        raise InvalidParams(f"params._meta lacks {' and '.join(missing)}", cause_code="meta")
    if not isinstance(meta[eras.META_CAPABILITIES], dict):
        raise InvalidParams(f"{eras.META_CAPABILITIES} must be an object", cause_code="meta")


def _check_headers(message: Request, scope: Scope) -> None:
    fields = reply.fields(scope)
    if not _is_said(fields.get(_METHOD, ()), message.method):
        raise HeaderMismatch(f"{eras.METHOD_HEADER} does not equal the body's method", cause_code="header")
    member = eras.NAME_MEMBER.get(message.method)
    named = None if member is None else message.params.value.get(member)
    if named is None:
        return
    said = fields.get(_NAME, ())
    if len(said) != 1 or headers.unwrap(_text(said[0])) != named:
        raise HeaderMismatch(f"{eras.NAME_HEADER} does not equal the body's {member}", cause_code="header")


def _check_version(version: object) -> None:
    if version not in eras.STATELESS_VERSIONS:
        raise UnsupportedVersion(version[:_MAX_HINT] if isinstance(version, str) else "")


def _text(value: bytes) -> str:
    return value.decode("latin-1")

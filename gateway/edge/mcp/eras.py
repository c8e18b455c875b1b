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
from gateway.edge.faults import HeaderMismatch, InvalidParams, UnsupportedVersion
from gateway.edge.heads import Fields, Head

_VERSION = eras.VERSION_HEADER.encode()
_METHOD = eras.METHOD_HEADER.encode()
_NAME = eras.NAME_HEADER.encode()
_PARAM_PREFIX = eras.PARAM_HEADER_PREFIX.encode()
_HANDSHAKE = frozenset(version.encode() for version in eras.HANDSHAKE_VERSIONS)
_MAX_HINT = 64


def era_hint(head: Head) -> Era:
    """The era as the headers have it: for answering a body that could not be read."""
    if head.hint is None:
        versions = head.fields.get(_VERSION)
        head.hint = Era.HANDSHAKE if not versions or versions[0] in _HANDSHAKE else Era.STATELESS
    return head.hint


def meta_of(message: Request | Notification) -> Mapping[str, Any]:
    """What a message says beside its parameters proper."""
    meta = message.params.value.get("_meta")
    return meta if isinstance(meta, dict) else {}


def era_of(meta: Mapping[str, Any], fields: Fields) -> Era:
    """The message's era: stateless if its body says so, or a header that is not of the other era."""
    if eras.META_VERSION in meta:
        return Era.STATELESS
    versions = fields.get(_VERSION, ())
    is_handshake = not versions or (len(versions) == 1 and versions[0] in _HANDSHAKE)
    return Era.HANDSHAKE if is_handshake else Era.STATELESS


def client_hints(message: Request | Notification, meta: Mapping[str, Any], head: Head, era: Era) -> Mapping[str, str]:
    """What the client says of itself in ``meta``, once the message has passed all checks of its era.

    Raises:
        InvalidParams: a stateless request without its ``_meta`` members.
        HeaderMismatch: a header differs from the body.
        UnsupportedVersion: a revision we do not speak.
    """
    versions = head.fields.get(_VERSION, ())
    if era is Era.HANDSHAKE:
        return {"protocol": _text(versions[0]) if versions else eras.ASSUMED_VERSION}
    if isinstance(message, Notification):
        _check_version(_text(versions[0]) if versions else "")
        return {}
    _check_meta(meta)
    version = meta[eras.META_VERSION]
    if version is None or _only(versions) != version:
        raise HeaderMismatch(f"{eras.VERSION_HEADER} does not equal the body's protocol version", cause_code="header")
    _check_headers(message, head)
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
        if not isinstance(members, dict) or members.get("jsonrpc") != "2.0" or not isinstance(members["method"], str):
            return None
        found = jsonrpc.id_of(Json(members, members))
        jsonrpc.encode(found)  # half a character is no text that could be said again
    except (ValueError, KeyError, RecursionError):
        return None
    return found


def param_fields(scope: Scope) -> dict[str, str | None]:
    """The request's ``mcp-param-*`` headers; one that came twice says nothing (None)."""
    found: dict[str, str | None] = {}
    for name, value in scope["headers"]:
        if name.startswith(_PARAM_PREFIX):
            key = _text(name)
            found[key] = None if key in found else _text(value)
    return found


def _only(found: Sequence[bytes]) -> str | None:
    """What the field says where there is just one."""
    return found[0].decode("latin-1") if len(found) == 1 else None


def _check_meta(meta: Mapping[str, Any]) -> None:
    if eras.META_VERSION not in meta or eras.META_CAPABILITIES not in meta:
        missing = [key for key in (eras.META_VERSION, eras.META_CAPABILITIES) if key not in meta]
        raise InvalidParams(f"params._meta lacks {' and '.join(missing)}", cause_code="meta")
    if not isinstance(meta[eras.META_CAPABILITIES], dict):
        raise InvalidParams(f"{eras.META_CAPABILITIES} must be an object", cause_code="meta")


def _check_headers(message: Request, head: Head) -> None:
    if _only(head.fields.get(_METHOD, ())) != message.method:
        raise HeaderMismatch(f"{eras.METHOD_HEADER} does not equal the body's method", cause_code="header")
    member = eras.NAME_MEMBER.get(message.method)
    named = None if member is None else message.params.value.get(member)
    if named is not None and _name(head) != named:
        raise HeaderMismatch(f"{eras.NAME_HEADER} does not equal the body's {member}", cause_code="header")


def _name(head: Head) -> str | None:
    if head.named is None:
        said = _only(head.fields.get(_NAME, ()))
        head.named = None if said is None else headers.unwrap(said)
    return head.named


def _check_version(version: object) -> None:
    if version not in eras.STATELESS_VERSIONS:
        raise UnsupportedVersion(version[:_MAX_HINT] if isinstance(version, str) else "")


def _text(value: bytes) -> str:
    return value.decode("latin-1")

"""What policy packages export, strictly: a member too many, too few or of another type is a fault.

JSON Schema: ``gateway/schemas/policy-decision.v1.json``.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from gateway.core.sandbox import Capability

# ``\\Z``, as ``$`` lets a newline pass.
_Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*\Z", max_length=64)]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reason or a hint."""

    id: _Id
    msg: _Text
    fact: _Text | None = None


class Required(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An approval that is asked for."""

    id: _Id
    msg: _Text
    kind: _Text = "approval"
    quorum: _Count = 1
    roles: tuple[str, ...] = ()
    distinct: bool = True
    exclude: tuple[str, ...] = ()
    ttl_s: _Count | None = None
    binds: Literal["args_digest"] = "args_digest"


class Obliged(msgspec.Struct, frozen=True):
    """An obligation of any kind, as far as it is read where its kind is not known."""

    id: _Id
    kind: _Text


class Timeout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Longest the connector may take, seconds."""

    id: _Id
    kind: Literal["timeout"]
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86400)]
    msg: _Text | None = None


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls a minute."""

    id: _Id
    kind: Literal["rate_limit"]
    per_minute: _Count
    msg: _Text | None = None


class Sandbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the sandbox of a code tool may lack."""

    id: _Id
    kind: Literal["sandbox"]
    accept_missing: tuple[Capability, ...] = ()
    msg: _Text | None = None


class Exports(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The five sets, each by the name of the package that exports it."""

    allow: dict[str, tuple[Said, ...]]
    deny: dict[str, tuple[Said, ...]]
    hint: dict[str, tuple[Said, ...]]
    require: dict[str, tuple[Required, ...]]
    oblige: dict[str, tuple[msgspec.Raw, ...]]


Obligation = Obliged | Timeout | RateLimit | Sandbox
_Loose = dict[str, dict[str, tuple[msgspec.Raw, ...]]]

_obliged = msgspec.json.Decoder(Obliged)
_OBLIGATIONS: Mapping[str, Callable[[msgspec.Raw], Obligation]] = {
    "timeout": msgspec.json.Decoder(Timeout).decode,
    "rate_limit": msgspec.json.Decoder(RateLimit).decode,
    "sandbox": msgspec.json.Decoder(Sandbox).decode,
}
_loose = msgspec.json.Decoder(_Loose)
_reason = msgspec.json.Decoder(Said)

decoded = msgspec.json.Decoder(Exports).decode
"""The exports in an answer of an engine; raises ``msgspec.DecodeError`` for anything else."""


def obligation(raw: msgspec.Raw) -> Obligation:
    """One obligation; ``Obliged`` where its kind is not known, ``msgspec.DecodeError`` where it is not of its form."""
    item = _obliged.decode(raw)
    decode = _OBLIGATIONS.get(item.kind)
    return item if decode is None else decode(raw)


def misshapen(result: bytes) -> tuple[str, ...]:
    """(set, package, what is wrong) of the first entry that breaks the contract; empty where it is not in an entry."""
    try:
        parts = _loose.decode(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    for part, packages in parts.items():
        for package, items in packages.items():
            for item in items:
                if words := _wrong(part, item):
                    return part, package, words
    return ()


_SHAPES: Mapping[str, Callable[[msgspec.Raw], Any]] = {
    "require": msgspec.json.Decoder(Required).decode,
    "oblige": obligation,
}


def _wrong(part: str, item: msgspec.Raw) -> str:
    try:
        _SHAPES.get(part, _reason.decode)(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return str(error)
    return ""

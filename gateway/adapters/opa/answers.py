"""What an OPA server's answer to one question says: a decision and the revision it was made under, or a fault.

See OPA's REST API, "Get a Document (with Input)" with ``provenance`` and ``strict-builtin-errors``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from gateway.core.errors import Unavailable

_OK: Final = 200
_FAILED: Final = 500
_REFUSED: Final = frozenset({401, 403})
# What the policy itself did wrong, unlike what went wrong in the server.
_OF_POLICY: Final = "eval_"
# Its own limit on an evaluation, or ours: the gateway hung up.
_CANCELLED: Final = "eval_cancel_error"
_SHOWN: Final = 64
_LONGEST: Final = 200


class Misfit(Exception):
    """OPA serves something else than the gateway examined; the message names what, for the operator."""


@dataclass(frozen=True, slots=True)
class Said:
    """What OPA said of one document.

    Attributes:
        result: JSON text of the decision, or None.
        fault: id of the fault, or None.
        revision: of the bundle that answered; None for a failed evaluation, as OPA does not say it then.
        version: of OPA; None as above.
        place: ``file:line:column`` of a fault in the policy, or empty.
    """

    result: bytes | None
    fault: str | None
    revision: str | None = None
    version: str | None = None
    place: str = ""


class _Bundle(msgspec.Struct, frozen=True):
    revision: str = ""


class _Provenance(msgspec.Struct, frozen=True):
    # It goes on record with each decision.
    version: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]*\Z", max_length=_SHOWN)]
    bundles: dict[str, _Bundle] = {}


class _Answer(msgspec.Struct, frozen=True):
    provenance: _Provenance
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Location(msgspec.Struct, frozen=True):
    file: str = ""
    row: int = 0
    col: int = 0


class _Error(msgspec.Struct, frozen=True):
    code: str
    location: _Location = _Location()


class _Failure(msgspec.Struct, frozen=True):
    errors: Annotated[tuple[_Error, ...], msgspec.Meta(min_length=1)]


class _Module(msgspec.Struct, frozen=True):
    id: str
    raw: str


class _Modules(msgspec.Struct, frozen=True):
    result: tuple[_Module, ...] = ()


_answer = msgspec.json.Decoder(_Answer)
_modules = msgspec.json.Decoder(_Modules)
_failure = msgspec.json.Decoder(_Failure)


def unavailable(detail: str) -> Unavailable:
    """The one error callers see: nothing was decided and nothing done."""
    return Unavailable(detail, retry_after=1, cause_code="policy_unavailable")


def read(status: int, body: bytes) -> Said:
    """The answer as the gateway understands it.

    Raises:
        Misfit: it comes from several bundles.
        Unavailable: it is nothing that an OPA with one active bundle says.
    """
    try:
        if status == _OK:
            return _said(_answer.decode(_unambiguous(body)))
        if status == _FAILED:
            return _fault(_failure.decode(body).errors)
    except (ValueError, RecursionError):
        raise unavailable("OPA's answer cannot be read") from None
    raise _refused(status)


def modules(status: int, body: bytes) -> Mapping[str, str]:
    """What policy OPA holds, however it got it: text by id.

    Raises:
        Unavailable: it does not say.
    """
    if status != _OK:
        raise _refused(status)
    try:
        return {module.id: module.raw for module in _modules.decode(body).result}
    except (ValueError, RecursionError):
        raise unavailable("OPA's list of its policies cannot be read") from None


def stranger(held: Mapping[str, str], *examined: Sequence[str]) -> str | None:
    """Where OPA holds neither of the ``examined`` sets of texts and nothing else: what is wrong, for the operator."""
    found = sorted(held.values())
    if any(found == sorted(texts) for texts in examined):
        return None
    known = {text for texts in examined for text in texts}
    others = sorted(name for name, text in held.items() if text not in known)
    if others:
        return f"OPA holds policy the gateway never examined ({others[0][-_LONGEST:]!r}): give it the bundle alone"
    return "OPA does not hold all the policy the gateway examined, or holds some of it twice"


def _refused(status: int) -> Unavailable:
    if status in _REFUSED:
        return unavailable("OPA refuses the gateway; see [policy.opa] token and OPA's authorization policy")
    return unavailable(f"OPA answered {status}")


def _unambiguous(body: bytes) -> bytes:
    # Of a key that stands there twice one parser reads the first, another one the last: a denial could be passed over.
    json.loads(body, object_pairs_hook=_members)
    return body


def _members(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a key twice")


def _said(answer: _Answer) -> Said:
    revision, version = _revision(answer.provenance.bundles), answer.provenance.version
    if isinstance(answer.result, msgspec.UnsetType):
        return Said(None, "engine.undefined", revision, version)
    return Said(bytes(answer.result), None, revision, version)


def _revision(bundles: Mapping[str, _Bundle]) -> str:
    if not bundles:
        raise unavailable("OPA has no bundle in force yet")
    if len(bundles) > 1:
        named = ", ".join(repr(name[:_SHOWN]) for name in sorted(bundles)[:8])
        raise Misfit(f"OPA serves {len(bundles)} bundles ({named}); it must serve one, that of `ostiary policy build`")
    (bundle,) = bundles.values()
    return bundle.revision


def _fault(errors: tuple[_Error, ...]) -> Said:
    first = errors[0]
    if not first.code.startswith(_OF_POLICY):
        raise unavailable("OPA failed")
    if first.code == _CANCELLED:
        raise unavailable("OPA gave up the evaluation")
    # Only where it happened: the message may quote the caller's arguments.
    where = first.location
    return Said(None, "engine.error", place=f"{where.file[:_LONGEST]}:{where.row}:{where.col}" if where.file else "")

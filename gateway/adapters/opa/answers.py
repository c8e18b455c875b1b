"""What an OPA server's answer to one question says: a decision and the revision it was made under, or a fault.

See OPA's REST API, "Get a Document (with Input)" with ``provenance`` and ``strict-builtin-errors``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

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
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=_SHOWN)]
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


_answer = msgspec.json.Decoder(_Answer)
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
            return _said(_answer.decode(body))
        if status == _FAILED:
            return _fault(_failure.decode(body).errors)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise unavailable("OPA's answer cannot be read") from None
    if status in _REFUSED:
        raise unavailable("OPA refuses the gateway; see [policy.opa] token and OPA's authorization policy")
    raise unavailable(f"OPA answered {status}")


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
    return Said(None, "engine.error", place=f"{where.file[:200]}:{where.row}:{where.col}" if where.file else "")

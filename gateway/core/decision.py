"""Decisions as plain data, and the fold that makes one from what the policy packages export.

Rego gathers, Python folds, in this order: engine fault -> deny; any deny -> deny; no allow -> deny; unmet requirement
-> needs approval; otherwise allow. So adding a package can never loosen anything unless it exports ``allow``.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.core.errors import Reason
from gateway.core.exports import Exports, Obliged, RateLimit, Said, Sandbox, Timeout, decoded, misshapen, obligation
from gateway.core.tool import EffectClass, Tool

# Longest answer of an engine that is read: five sets of sentences for people. Engines do not hand over more.
MAX_RESULT_BYTES = 64 * 1024
_OBSERVABLE = frozenset({EffectClass.READ, EffectClass.WRITE})


class Effect(StrEnum):
    """What policy says of one request."""

    __hash__ = str.__hash__  # Enum's own is Python

    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"


class Phase(StrEnum):
    """What policy was asked: may the caller know of the tool, or may they make this call."""

    LIST = "list"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Requirement:
    """People whose approval is needed.

    Attributes:
        id: stable rule id.
        quorum: how many persons.
        roles: any of these roles counts; empty = any reviewer.
        msg: sentence for people.
        distinct: whether the persons must differ from one another.
        exclude: who may not approve, e.g. ``requester``.
        ttl_s: how long an approval stays good, seconds; None = the gateway's own limit.
        package: policy package that asks.
    """

    id: str
    quorum: int
    roles: tuple[str, ...]
    msg: str
    distinct: bool = True
    exclude: tuple[str, ...] = ()
    ttl_s: int | None = None
    package: str = ""


@dataclass(frozen=True, slots=True)
class Obligations:
    """What must be done with an allowed call: the most restrictive merge of all packages; None = nothing asked.

    Attributes:
        timeout_s: longest the connector may take.
        per_minute: calls a minute of this tool by this principal.
        accept_missing: what the sandbox of a code tool may lack (``memory``, ``pids`` ...); nothing unless it is said.
    """

    timeout_s: float | None = None
    per_minute: int | None = None
    accept_missing: tuple[str, ...] = ()


class Decision(Struct, frozen=True):
    """The folded word of policy on one request.

    Attributes:
        id: UUIDv7 of the decision.
        effect: what policy says.
        reasons: why, in the order deny, hint, allow; never empty for a deny.
        requirements: approvals asked for.
        obligations: what an allowed call is bound to.
        revision: digest of the policy bundle that was asked.
        engine: which engine answered.
        document: the input document itself.
        enforced: False where observe mode lets a call pass that ``effect`` would stop. It is recorded and never set for
            money or destructive tools, nor where the engine failed.
        phase: which question it answers.
    """

    id: str
    effect: Effect
    reasons: tuple[Reason, ...]
    requirements: tuple[Requirement, ...]
    obligations: Obligations
    revision: str
    engine: str
    document: bytes
    enforced: bool = True
    phase: Phase = Phase.CALL

    def __repr__(self) -> str:
        """Without the document, which is long and holds what was called with."""
        said = f"reasons={self.reasons}, enforced={self.enforced}, phase={self.phase}"
        return f"Decision(id={self.id!r}, effect={self.effect}, {said})"

    @property
    def input_digest(self) -> str:
        """SHA-256 of the input document, hex."""
        return hashlib.sha256(self.document).hexdigest()

    @property
    def faulty(self) -> bool:
        """Whether this is no word of policy but the fold of an engine fault."""
        return self.reasons[0].id.startswith("engine.")

    @property
    def passes(self) -> bool:
        """Whether the call may go on."""
        return self.effect is Effect.ALLOW or not self.enforced


class Evaluation(Struct, frozen=True):
    """What the engine said to each input document.

    Attributes:
        results: for each input, the JSON text of ``data.gateway.main.decision``, or None where it is undefined or could
            not be evaluated within the deadline.
        faults: for each input, the fault as a stable id (``engine.timeout`` ...), or None.
        revision: digest of the bundle that answered.
        engine: engine and version.
    """

    results: tuple[bytes | None, ...]
    faults: tuple[str | None, ...]
    revision: str
    engine: str


def fold(decision_id: str, inputs: Sequence[bytes], evaluation: Evaluation) -> list[Decision]:
    """One decision for each input document, in order: fault, deny, no allow, unmet requirement, allow.

    Whatever cannot be read exactly as the contract says is a fault and so a deny; ``reasons`` is never empty, and its
    first id begins with ``engine.`` if and only if this is a fault and no word of policy.
    """
    results, faults = evaluation.results, evaluation.faults
    if len(inputs) == len(results) == len(faults):
        words = [*map(_word, results, faults)]
    else:
        words = [_fault("engine.bad_shape")] * len(inputs)
    return [_made(decision_id, document, word, evaluation) for document, word in zip(inputs, words, strict=True)]


def folded(decision_id: str, document: bytes, evaluation: Evaluation) -> Decision:
    """``fold`` of one input document."""
    results, faults = evaluation.results, evaluation.faults
    fits = len(results) == len(faults) == 1
    return _made(
        decision_id, document, _word(results[0], faults[0]) if fits else _fault("engine.bad_shape"), evaluation
    )


def _made(decision_id: str, document: bytes, word: "_Word", evaluation: Evaluation) -> Decision:
    return Decision(
        decision_id,
        word.effect,
        word.reasons,
        word.requirements,
        word.obligations,
        evaluation.revision,
        evaluation.engine,
        document,
    )


def grants(result: bytes) -> bool:
    """Whether what the engine said (``Evaluation.results``) folds to allow."""
    return _word(result, None).effect is Effect.ALLOW


def in_mode(decision: Decision, tool: Tool, *, observe: bool) -> Decision:
    """The decision as it binds this tool: in observe mode a refusal of a read or a write is recorded, not enforced.

    Money, destructive tools, tools that do not exist and engine faults are always enforced.
    """
    if decision.effect is Effect.ALLOW or decision.faulty:
        return decision
    if observe and tool.listed and tool.effect in _OBSERVABLE:
        return replace(decision, enforced=False)
    return decision


def as_listing(decision: Decision) -> Decision:
    """The decision, marked as the answer to whether the caller may know of the tool."""
    return replace(decision, phase=Phase.LIST)


def as_missing(decision: Decision) -> Decision:
    """The decision about a tool that does not exist: a denial, also where the lists would cover its name."""
    if not decision.passes:
        return decision
    missing = Reason("default.no_tool", "gateway", "there is no tool of this name")
    return replace(decision, effect=Effect.DENY, reasons=(missing, *decision.reasons), enforced=True)


def as_approved(decision: Decision) -> Decision:
    """The decision, once every approval it asks for is given (``core/approval.py`` says when)."""
    return replace(decision, effect=Effect.ALLOW)


# Ids of the fold itself are reserved, or a package could pass its word off as a fault of the engine.
_RESERVED = ("engine.", "default.", "obligation.", "requirement.")
# Obligations of the contract that this gateway cannot carry out yet: a call that is bound to one is refused.
_UNSUPPORTED = frozenset({"redact", "credential", "verify", "idempotency", "label_output", "cache"})


class _Word(Struct, frozen=True):
    effect: Effect
    reasons: tuple[Reason, ...]
    requirements: tuple[Requirement, ...] = ()
    obligations: Obligations = Obligations()


def _fault(fault: str, culprit: str = "") -> _Word:
    fault = fault if fault.startswith("engine.") else "engine.error"
    words = f"policy could not be evaluated{': ' if culprit else ''}{culprit}"
    return _Word(Effect.DENY, (Reason(fault, "gateway", words),))


def _word(result: bytes | None, fault: str | None) -> _Word:
    if fault is not None:
        return _fault(fault)
    if result is None:
        return _fault("engine.undefined")
    if len(result) <= _USUAL:
        return _said_before(result)
    return _said(result) if len(result) <= MAX_RESULT_BYTES else _fault("engine.too_large")


def _said(result: bytes) -> _Word:
    try:
        document = decoded(result)
        obligations, unmet = _merge(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _fault("engine.bad_shape", " of package ".join(misshapen(result)[:2]))
    if any(name.startswith(_RESERVED) for name in _ids(document)):
        return _fault("engine.reserved_id")
    return _judge(document, obligations, unmet)


# An engine says the same few things again and again; what they mean depends on nothing else.
_USUAL = 4096
_said_before = lru_cache(maxsize=1024)(_said)


def _judge(document: Exports, obligations: Obligations, unmet: tuple[Reason, ...]) -> _Word:
    allows, hints = _reasons(document.allow), _reasons(document.hint)
    requirements = tuple(_requirements(document))
    denies = (*_reasons(document.deny), *unmet, *_unknown_requirements(document))
    if denies:
        return _Word(Effect.DENY, (*denies, *hints), requirements, obligations)
    if not allows:
        closed = Reason("default.no_allow", "gateway", "no policy package allows this")
        return _Word(Effect.DENY, (closed, *hints), requirements, obligations)
    if requirements:
        asked = tuple(Reason(item.id, item.package, item.msg) for item in requirements)
        return _Word(Effect.NEEDS_APPROVAL, (*asked, *allows), requirements, obligations)
    return _Word(Effect.ALLOW, allows, requirements, obligations)


def _reasons(said: dict[str, tuple[Said, ...]]) -> tuple[Reason, ...]:
    return tuple(Reason(item.id, package, item.msg, item.fact) for package, items in said.items() for item in items)


def _ids(document: Exports) -> Iterator[str]:
    for part in (document.allow, document.deny, document.hint):
        for said in part.values():
            yield from (item.id for item in said)
    for required in document.require.values():
        yield from (item.id for item in required)


def _requirements(document: Exports) -> Iterator[Requirement]:
    for package, items in document.require.items():
        for item in items:
            yield Requirement(
                id=item.id,
                quorum=item.quorum,
                roles=item.roles,
                msg=item.msg,
                distinct=item.distinct,
                exclude=item.exclude,
                ttl_s=item.ttl_s,
                package=package,
            )


def _unknown_requirements(document: Exports) -> Iterator[Reason]:
    for package, items in document.require.items():
        for item in items:
            if item.kind != "approval":
                yield Reason("requirement.unknown", package, f"{item.id} asks for something this gateway cannot check")


def _merge(document: Exports) -> tuple[Obligations, tuple[Reason, ...]]:
    # Most restrictive wins: the least of the timeouts and of the rates, and what every word on the sandbox accepts.
    timeouts: list[float] = []
    rates: list[int] = []
    accepted: list[frozenset[str]] = []
    unmet: list[Reason] = []
    for package, items in document.oblige.items():
        for raw in items:
            item = obligation(raw)
            if isinstance(item, Timeout):
                timeouts.append(item.timeout_s)
            elif isinstance(item, RateLimit):
                rates.append(item.per_minute)
            elif isinstance(item, Sandbox):
                accepted.append(frozenset(item.accept_missing))
            else:
                unmet.append(_unmet(package, item))
    missing = tuple(sorted(frozenset.intersection(*accepted))) if accepted else ()
    return Obligations(min(timeouts, default=None), min(rates, default=None), missing), tuple(unmet)


def _unmet(package: str, item: Obliged) -> Reason:
    known = item.kind in _UNSUPPORTED
    what = "cannot carry out yet" if known else "does not know"
    name = "obligation.unsupported" if known else "obligation.unknown"
    return Reason(name, package, f"{item.id} binds the call to an obligation that this gateway {what}")

"""The document policy reads (``gateway.input/v1``), built here and nowhere else.

Identity comes from the verified credential, never from arguments. A field that has no value is absent, not null.
Numbers beyond 2^53 are strings, as engines round them silently. The same facts always give the same bytes, so a
recorded document can be evaluated again. JSON Schema: ``gateway/schemas/policy-input.v1.json``.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from gateway.core.approval import Signature
from gateway.core.call import Call, Principal, Proof, Run, RunKind
from gateway.core.canonical import MAX_SAFE_INTEGER, encode, policy_view
from gateway.core.errors import TooLarge
from gateway.core.ports import PipelineSettings
from gateway.core.tool import USUAL_NAME, Tool
from gateway.core.usage import Usage

SCHEMA = "gateway.input/v1"
MAX_BYTES = 256 * 1024
MAX_ARGUMENT_BYTES = 192 * 1024
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Callers, runs and tools whose facts are kept as they are written, and which of them met: some kilobytes each at most.
_TOLD = 1024
_MET = 4096
_LONGEST = 4096
S = TypeVar("S")
T = TypeVar("T")


class Who(Protocol):
    """Who asks, and in which run."""

    @property
    def principal(self) -> Principal:
        """Whose credential it is."""

    @property
    def run(self) -> Run:
        """Where they are."""

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """Those of the calls that are named as evidence which the log bears out."""


class Subject(Protocol):
    """What a document is about: a resolved call, or one that is only supposed (``core/questions.py``)."""

    @property
    def call(self) -> Call:
        """The request."""

    @property
    def caller(self) -> Who:
        """Who makes it."""

    @property
    def tool(self) -> Tool:
        """The pinned tool."""

    @property
    def amounts(self) -> Mapping[str, int]:
        """What its measures find in the arguments."""


def listing(target: Subject, settings: PipelineSettings, at_us: int) -> bytes:
    """The input of a phase=list decision: may this caller know of this tool? No arguments, nothing of the run's past.

    Raises:
        TooLarge: the call's arguments are over the cap. Said here, before any tool's own faults, so that the answer is
            the same whether the tool exists or not.
    """
    if len(target.call.arguments.canonical) > MAX_ARGUMENT_BYTES:
        raise _too_large()
    return _sized(_facts(target, settings, at_us, "list"))


def meeting(target: Subject, settings: PipelineSettings) -> "Met":
    """What all calls have in common that this caller makes of this tool in this run.

    Raises:
        TooLarge: as of ``listing``.
    """
    if len(target.call.arguments.canonical) > MAX_ARGUMENT_BYTES:
        raise _too_large()
    return _MEETINGS.of(target, settings)


def calling(
    target: Subject, usage: Usage, settings: PipelineSettings, at_us: int, signatures: Sequence[Signature] = ()
) -> bytes:
    """The input of a phase=call decision: these arguments, and what the run has done (calls in flight included).

    ``run.amounts`` holds what the tool's declared measures find in the arguments, ``approvals`` what people have signed
    of this call, ``risk`` and ``evidence`` what the agent says of it.

    Raises:
        TooLarge: the document is over ``MAX_BYTES``.
    """
    return _MEETINGS.of(target, settings).calling(target, usage, at_us, signatures)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of an upstream as a subject: ``tool`` is named for what is asked (``server.elicitation/TOOL``)."""

    call: Call
    caller: Who
    tool: Tool
    amounts: Mapping[str, int] = field(default_factory=dict)


def asking(target: Asked, kind: str, asked: Mapping[str, Any], settings: PipelineSettings, at_us: int) -> bytes:
    """The input of a phase=call decision on what an upstream asks of a client: ``args`` is {request, answer}.

    ``answer`` is there where it is the answer that is decided on. What the run has done is not part of it.

    Raises:
        TooLarge: the document is over ``MAX_BYTES``.
    """
    canonical = encode(dict(asked))
    document = _facts(target, settings, at_us, "call") | {"kind": kind}
    document["args"] = policy_view(canonical)
    document["args_digest"] = hashlib.sha256(canonical).hexdigest()
    document["run"] = document["run"] | {"calls": {}, "sums": {}, "amounts": {}}
    return _sized(document)


def _reported(call: Call, caller: Who) -> dict[str, Any]:
    # The agent's own word: of its evidence only what the log bears out; an id that is none is simply not there.
    said = call.reported
    facts: dict[str, Any] = {}
    if said.confidence_pct is not None:
        facts["risk"] = {"confidence_pct": said.confidence_pct}
    if said.score_pct is not None:
        facts["risk"] = facts.get("risk", {}) | {"score_pct": said.score_pct}
    if said.evidence:
        facts["evidence"] = [{"call_id": proof.call_id, "tool": proof.tool} for proof in caller.proofs]
    return facts


def without_arguments(document: bytes, canonical: bytes | None = None) -> bytes:
    """What is kept of an input beside the arguments, which the log holds with the request.

    ``canonical``: the arguments it was probably made of, which makes it a matter of cutting them out.
    """
    if canonical is not None:
        # No string of a JSON document holds the bytes of a member's name with its quotes and colon, and none of the
        # members that stand before this one has a member of this name.
        before, found, after = document.partition(b'"args":' + canonical + b',"args_digest":')
        if found:
            return before + b'"args_digest":' + after
    facts = _MEMBERS.decode(document)
    facts.pop("args", None)
    return encode(facts)


def with_arguments(facts: bytes, canonical: bytes | None, digest: str) -> bytes | None:
    """The input that ``facts`` was made of, from the arguments as the log holds them; None where it cannot be that one.

    ``digest`` is the SHA-256 of the input, hex: what it does not confirm is not given out.
    """
    candidates = [facts]  # of phase list: whether the tool may be known of does not depend on the arguments
    if canonical is not None:
        members = _MEMBERS.decode(facts)
        # As ``calling`` does: arguments with big integers are rewritten, all others are sent on as they came.
        candidates += [encode(members | {"args": args}) for args in (msgspec.Raw(canonical), policy_view(canonical))]
    return next((found for found in candidates if hashlib.sha256(found).hexdigest() == digest), None)


def _approval(said: Signature, args_digest: str) -> dict[str, Any]:
    facts = {"by": said.person, "roles": sorted(said.roles), "verdict": said.verdict, "at_us": said.at_us}
    return facts | {"args_digest": args_digest}


def _sums(usage: Usage) -> dict[str, dict[str, int | str]]:
    return {tool: counted for tool, totals in usage.sums.items() if (counted := _counted(totals))}


def _counted(totals: Mapping[str, int]) -> dict[str, int | str]:
    return {name: total if total <= MAX_SAFE_INTEGER else str(total) for name, total in totals.items() if total}


def _too_large() -> TooLarge:
    return TooLarge(f"arguments are larger than {MAX_ARGUMENT_BYTES} bytes", cause_code="policy_input")


def _facts(target: Subject, settings: PipelineSettings, at_us: int, phase: str) -> dict[str, Any]:
    call = target.call
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "phase": phase,
        "kind": target.tool.kind,
        "time": msgspec.Raw(_time(at_us)),
        "context": {"env": settings.environment, "region": settings.region, "channel": call.channel},
    }
    facts |= _CALLERS.of(target.caller.principal)
    facts |= {"run": _RUNS.of(target.caller.run), "tool": _TOOLS.of(target.tool)}
    return facts


def _time(at_us: int) -> bytes:
    seconds, micros = divmod(at_us, 1_000_000)
    return b'{"rfc3339":"%b.%06dZ","us":%d}' % (_second(seconds), micros, at_us)


@lru_cache(maxsize=8)
def _second(seconds: int) -> bytes:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat(timespec="seconds").removesuffix("+00:00").encode()


def _who(principal: Principal) -> dict[str, Any]:
    # An agent acts on behalf of a person; a person with their own token acts alone.
    auth = {"method": principal.auth_method, "issuer": principal.issuer}
    groups = sorted(principal.groups)
    if principal.agent is None:
        return {"principal": {"kind": "person", "id": principal.user, "groups": groups, "auth": auth}}
    facts = {
        "principal": {"kind": "agent", "id": principal.agent, "auth": auth},
        "agent": {"id": principal.agent},
        "on_behalf_of": {"id": principal.user, "groups": groups},
    }
    return facts | ({"delegation": list(principal.delegation)} if principal.delegation else {})


def _run(run: Run) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": run.id, "kind": run.kind, "opened_by": run.opened_by}
    if run.scope:
        facts["scope"] = list(run.scope)
    if run.plan:
        facts["plan"] = list(run.plan)
    if run.goal is not None:
        digest = hashlib.sha256(run.goal.encode("utf-8", "surrogatepass")).hexdigest()
        facts["goal"] = {"sha256": digest, "trusted": run.kind is RunKind.OPENED}
    return facts


def _tool(tool: Tool) -> dict[str, Any]:
    vendor: dict[str, Any] = {"name": tool.vendor.name, "region": tool.vendor.region}
    if tool.vendor.retention_days is not None:
        vendor["retention_days"] = tool.vendor.retention_days
    made = {} if tool.uri is None else {"template": tool.name}
    return made | {
        "server": tool.server,
        "name": tool.decided_name,
        "fqn": tool.decided_fqn,
        "connector": tool.connector,
        "digest": tool.digest,
        "effect": tool.effect,
        "reversible": tool.reversible,
        "open_world": tool.open_world,
        "labels": sorted(tool.labels),
        "vendor": vendor,
        "price": {"micros": tool.vendor.price_micros, "currency": tool.vendor.currency},
    }


class _Told(Generic[S, T]):
    """What is said of something that does not change, by that very thing: it comes again with every call."""

    def __init__(self, say: Callable[[S], T]) -> None:
        self._say = say
        self._said: dict[int, tuple[S, T]] = {}

    def of(self, item: S) -> T:
        """What ``say`` says of it."""
        # What is kept here is alive, so that its id is nobody else's; threads that meet here say the same.
        found = self._said.get(id(item))
        if found is None or found[0] is not item:
            if len(self._said) >= _TOLD:
                self._said.clear()
            found = self._said[id(item)] = (item, self._say(item))
        return found[1]


def _written(facts: Mapping[str, Any]) -> dict[str, msgspec.Raw]:
    # What is written already is kept once for all that hold it.
    return {name: fact if isinstance(fact, msgspec.Raw) else msgspec.Raw(encode(fact)) for name, fact in facts.items()}


_TOOLS = _Told[Tool, msgspec.Raw](lambda tool: msgspec.Raw(encode(_tool(tool))))
_RUNS = _Told[Run, dict[str, msgspec.Raw]](lambda run: _written(_run(run)))
_CALLERS = _Told[Principal, Mapping[str, Any]](lambda principal: _written(_who(principal)))


class Met(msgspec.Struct, frozen=True):
    """What every call has in common that this caller makes of this tool in this run.

    Attributes:
        of: the objects it is said of, which keep their ids while it is kept.
        facts: all members that do not change, as they are written.
        run: those of the member ``run``.
        listing: the input of ``listing``, as if asked when time began. An answer to it is remembered or there is none
            (``ports.PolicyEngine.known``): it is evaluated by nobody.
        pieces: the input of ``calling``, where it has no other members than most calls', cut where calls differ.
    """

    of: tuple[object, ...]
    facts: dict[str, msgspec.Raw]
    run: dict[str, msgspec.Raw]
    listing: bytes
    pieces: tuple[bytes, ...]

    def calling(self, target: Subject, usage: Usage, at_us: int, signatures: Sequence[Signature] = ()) -> bytes:
        """The input of a phase=call decision on one of these calls; see the function of that name."""
        call, caller = target.call, target.caller
        arguments = call.arguments
        members = _reported(call, caller)
        if caller.run.budget:
            members["budget"] = {"run": policy_view(encode(dict(caller.run.budget)))}
        if signatures:
            members["approvals"] = [_approval(said, arguments.digest) for said in signatures]
        # The canonical bytes are what is sent; only numbers that engines would round must differ from them.
        canonical = arguments.canonical
        args = encode(policy_view(canonical)) if arguments.big_integers else canonical
        digest = f'"{arguments.digest}"'.encode()
        amounts = encode(dict(target.amounts)) if target.amounts else b"{}"
        calls = encode({tool: count for tool, count in usage.calls.items() if count})
        sums = encode(_sums(usage)) if usage.sums else b"{}"
        time = _time(at_us)
        if members:
            return _fit(_whole(self.facts | members, self.run, (args, digest, amounts, calls, sums, time)))
        a, b, c, d, e, f, g = self.pieces
        return _fit(b"".join((a, args, b, digest, c, amounts, d, calls, e, sums, f, time, g)))


class _Meetings:
    """Who met which tool in which run, by those very things, as in ``_Told``."""

    def __init__(self) -> None:
        self.known: dict[tuple[int, ...], Met] = {}

    def of(self, target: Subject, settings: PipelineSettings) -> Met:
        """What is said of this one."""
        caller, tool, channel = target.caller, target.tool, target.call.channel
        principal, run = caller.principal, caller.run
        key = (id(principal), id(run), id(tool), id(channel), id(settings))
        found = self.known.get(key)
        if found is None:
            facts = _facts(target, settings, 0, "list")
            listing = _sized(facts)
            constant = _written({name: fact for name, fact in facts.items() if name not in {"phase", "time", "run"}})
            pieces = tuple(_whole(constant, facts["run"], [_CUT] * 6).split(_CUT))
            found = Met((principal, run, tool, channel, settings), constant, facts["run"], listing, pieces)
            if len(self.known) >= _MET:
                self.known.clear()
            # A tool with a long name may be another object with each call, which nobody meets again.
            if len(listing) <= _LONGEST and len(tool.decided_fqn) <= USUAL_NAME:
                self.known[key] = found
        return found


_MEETINGS = _Meetings()
# No text that our encoder writes holds this byte.
_CUT = b"\0"


def _whole(facts: Mapping[str, Any], run: Mapping[str, msgspec.Raw], differing: Sequence[bytes]) -> bytes:
    # The input of a call from what does not change and from what does, each of it written already.
    args, digest, amounts, calls, sums, time = map(msgspec.Raw, differing)
    return encode(
        {
            **facts,
            "phase": "call",
            "time": time,
            "args": args,
            "args_digest": digest,
            "run": {**run, "calls": calls, "sums": sums, "amounts": amounts},
        }
    )


def _sized(document: dict[str, Any]) -> bytes:
    return _fit(encode(document))


def _fit(encoded: bytes) -> bytes:
    if len(encoded) > MAX_BYTES:
        raise TooLarge(f"the call's facts are larger than {MAX_BYTES} bytes", cause_code="policy_input")
    return encoded

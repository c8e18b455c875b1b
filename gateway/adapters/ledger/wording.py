"""What the records of one call say: the leaf in ids and numbers, the rest as payload."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from gateway.core.call import Call, Channel, Permit, Redacted, Resolved, Resumed
from gateway.core.canonical import encode
from gateway.core.decision import Decision, Effect, Requirement
from gateway.core.errors import GatewayError, Reason
from gateway.core.policy_input import without_arguments
from gateway.core.ports import Said
from gateway.core.records import MAX_REASONS, Payload, Role, identifier

# A refused call may not fill the disk: its payloads together stay below 16 KiB.
_MAX_REFUSED_ARGUMENTS = 8 * 1024
_MAX_REFUSED_REASONS = 4 * 1024
_MAX_REFUSED_FACTS = 3 * 1024
_MAX_NAME = 256
_MAX_HINT = 64
_MAX_HINTS = 8
_MAX_MESSAGE = 512
_MAX_CLEANED = 64 * 1024


def tool_name(target: Resolved) -> str | None:
    """The tool as it may stand in a leaf: a catalogued name, or None where the name is only the caller's word."""
    return target.tool.fqn[:_MAX_NAME] if target.tool.listed else None


class Words(NamedTuple):
    """What a decision's records say that others like it say, too: ids for the leaf, all of it for the payload.

    Attributes:
        said: members of the leaf's body.
        opening: the payload's JSON text up to the facts.
        closing: the same from behind the digest of the policy input.
    """

    said: Mapping[str, Any]
    opening: bytes
    closing: bytes


def _said(
    effect: Effect, reasons: tuple[Reason, ...], requirements: tuple[Requirement, ...], engine: str, revision: str
) -> Words:
    said = {
        "effect": effect,
        "engine": identifier(engine),
        "reasons": [identifier(reason.id) for reason in reasons[:MAX_REASONS]],
        "requirements": [identifier(need.id) for need in requirements[:MAX_REASONS]],
        "revision": identifier(revision),
    }
    why = {"reasons": list(map(_reason, reasons)), "requirements": list(map(_requirement, requirements))}
    return Words(said, b'{"effect":' + encode(effect) + b',"facts":', b'",' + encode(why)[1:])


# Policy lets calls go with the same few words again and again; what it refuses with is often about the call.
_said_before = lru_cache(maxsize=256)(_said)


def words_of(decision: Decision) -> Words:
    """What the decision's records say of why it was made."""
    say = _said_before if decision.passes else _said
    return say(decision.effect, decision.reasons, decision.requirements, decision.engine, decision.revision)


def decision_body(decision: Decision, words: Words, tool: str | None, commitment: str, took_us: int) -> dict[str, Any]:
    """Leaf of a ``decision``; ``commitment`` is the keyed hash of the policy input's digest."""
    return {
        **words.said,
        "decision_id": decision.id,
        "enforced": decision.enforced,
        "input": commitment,
        "phase": decision.phase,
        "took_us": took_us,
        "tool": tool,
    }


def using(call: Call, body: dict[str, Any]) -> dict[str, Any]:
    """``body`` with what the records of a resumed call say of the approval they use up."""
    if isinstance(call.origin, Resumed):
        body["approval"] = call.origin.approval_id
    return body


def requested_body(permit: Permit, tool: str | None) -> dict[str, Any]:
    """Leaf of a ``tool.requested``: the intent, and what the run's ledger is rebuilt from."""
    called = permit.target.tool
    body = {
        "class": called.effect,
        "connector": called.connector,
        "decision_id": permit.decision.id,
        "definition": called.digest,
        "measures": dict(permit.reservation.amounts),
        "tool": tool,
    }
    return using(permit.target.caller.call, body)


def completed_body(output: Redacted, tool: str | None, upstream_us: int, total_us: int) -> dict[str, Any]:
    """Leaf of a ``tool.completed``."""
    body = {
        "is_error": output.value.get("isError") is True,  # whether the tool itself said that it failed
        "redactions": sum(output.counts.values()) if output.counts else 0,
        "tool": tool,
        "total_us": total_us,
        "upstream_us": upstream_us,
    }
    return using(output.intent.quota.permit.target.caller.call, body)


def redaction_body(output: Redacted, tool: str | None) -> dict[str, Any]:
    """Leaf of a ``redaction``: how many values were taken out, by rule."""
    counts: dict[str, int] = {}
    for rule, count in list(output.counts.items())[:MAX_REASONS]:
        counts[identifier(rule)] = counts.get(identifier(rule), 0) + count
    return {"rules": counts, "tool": tool}


def ending_body(tool: str | None, code: str, cause: str, total_us: int) -> dict[str, Any]:
    """Leaf of a refusal or of an intent that did not complete."""
    return {"cause": identifier(cause), "code": code, "tool": tool, "total_us": total_us}


def input_body(tool: str | None, said: Said) -> dict[str, Any]:
    """Leaf of an ``input.asked`` or ``input.answered``."""
    decision = said.decision
    return {
        "decision_id": decision.id,
        "effect": decision.effect,
        "kind": said.asks,
        "reasons": [identifier(reason.id) for reason in decision.reasons[:MAX_REASONS]],
        "revision": identifier(decision.revision),
        "tool": tool,
    }


def request_payload(call: Call) -> Payload:
    """The whole request of a call that is about to be made."""
    client, arguments = call.client, call.arguments
    if not _is_usual(client):
        return _written(call)
    opening, middle, closing = _around(call.channel, call.tool, tuple(client.items()))
    content = b"".join((opening, arguments.canonical, middle, arguments.digest.encode(), closing))
    return Payload(Role.REQUEST, content)


def refused_request_payload(call: Call, clean: Callable[[str], str]) -> Payload:
    """The request of a refused call, cut short where it is long, without secrets: it may be refused for holding one."""
    return cleaned(_refused_request(call), clean)


def cleaned(payload: Payload, clean: Callable[[str], str]) -> Payload:
    """The payload of a refused call without secrets: also the name of a tool that does not exist may be one."""
    text = payload.content.decode()
    found = clean(text)
    if found == text:
        return payload
    # What cannot be read for cleaning is no JSON any more; that it was asked for is all that is kept of it.
    return Payload(payload.role, found.encode() if found.startswith("{") else encode({"redacted": True}))


def cleaned_reasons(payload: Payload, target: Resolved, clean: Callable[[str], str]) -> Payload:
    """The same for the facts a decision was made on, which have a name that was asked for in parts, too."""
    asked = target.call.tool
    if clean(asked) != asked:
        return Payload(payload.role, encode({"redacted": True}))
    return cleaned(payload, clean)


def _refused_request(call: Call) -> Payload:
    canonical = call.arguments.canonical
    if len(canonical) <= _MAX_REFUSED_ARGUMENTS:
        return _written(call)  # it may be of any name: nothing of it is kept
    head = canonical[: _MAX_REFUSED_ARGUMENTS // 4].decode(
        errors="ignore"
    )  # escaping may make it up to 4 times as long
    cut = {"arguments": None, "arguments_head": head, "arguments_len": len(canonical)}
    return Payload(Role.REQUEST, encode(_request(call) | cut))


def reasons_payload(decision: Decision, words: Words, digest: str, call: Call) -> Payload:
    """Why policy decided as it did, in sentences, and the facts it decided on, but for the arguments of the call.

    ``digest``: of the policy input, hex.
    """
    facts = without_arguments(decision.document, call.arguments.canonical)
    # Canonical: its members are put together in the order of their names, and a digest needs no escapes.
    content = b"".join((words.opening, facts, b',"input_digest":"', digest.encode(), words.closing))
    return Payload(Role.REASONS, content)


def refusal_payload(decision: Decision, digest: str) -> Payload:
    """The same of a call that is refused, cut short where it is long."""
    document: dict[str, Any] = {
        "effect": decision.effect,
        "input_digest": digest,
        "reasons": [_reason(reason) for reason in decision.reasons],
        "requirements": [_requirement(need) for need in decision.requirements],
    }
    if len(encode(document)) > _MAX_REFUSED_REASONS:
        ids = [{"id": identifier(reason.id), "msg": ""} for reason in decision.reasons[:MAX_REASONS]]
        document = {"effect": decision.effect, "reasons": ids, "truncated": True}
    facts = without_arguments(decision.document)
    if len(facts) <= _MAX_REFUSED_FACTS:
        document["facts"] = msgspec.Raw(facts)
    return Payload(Role.REASONS, encode(document))


def error_payload(error: BaseException, clean: Callable[[str], str]) -> Payload:
    """What went wrong, in words; an upstream's own words are the cause's, and ``clean`` takes secrets out of them."""
    if isinstance(error, GatewayError):
        said = {"code": error.code, "cause": error.cause_code, "detail": _cut(clean(error.detail), _MAX_MESSAGE)}
    else:
        said = {"code": "internal", "cause": type(error).__name__, "detail": _cut(clean(str(error)), _MAX_MESSAGE)}
    if error.__cause__ is not None:
        # Cleaned before it is cut: half a secret would not be found.
        because = clean(f"{type(error.__cause__).__name__}: {str(error.__cause__)[:_MAX_CLEANED]}")
        said["because"] = _cut(because, _MAX_MESSAGE)
    return Payload(Role.ERROR, encode(said))


def _written(call: Call) -> Payload:
    return Payload(Role.REQUEST, encode(_request(call) | {"arguments": msgspec.Raw(call.arguments.canonical)}))


def _request(call: Call) -> dict[str, Any]:
    return {
        "channel": call.channel,
        "client": _hints(call.client),
        "digest": call.arguments.digest,
        "tool": _cut(call.tool, _MAX_NAME),
    }


# A client says the same of itself with every call, and calls the same few tools.
@lru_cache(maxsize=256)
def _around(channel: Channel, tool: str, client: tuple[tuple[str, str], ...]) -> tuple[bytes, bytes, bytes]:
    # The text of a request around its arguments and their digest; no text that our encoder writes holds this byte.
    request = {
        "arguments": msgspec.Raw(b"\0"),
        "channel": channel,
        "client": dict(client),
        "digest": msgspec.Raw(b'"\0"'),
        "tool": _cut(tool, _MAX_NAME),
    }
    opening, middle, closing = encode(request).split(b"\0")
    return opening, middle, closing


def _is_usual(client: Mapping[str, str]) -> bool:
    # Whether nothing in it is long, as with nearly every client.
    said = "".join((*client, *client.values()))
    return len(client) <= _MAX_HINTS and len(said) <= _MAX_HINT and said.isascii()


def _hints(client: Mapping[str, str]) -> dict[str, str]:
    if _is_usual(client):
        return dict(client)
    return {_cut(key, _MAX_HINT): _cut(value, _MAX_HINT) for key, value in list(client.items())[:_MAX_HINTS]}


def _reason(reason: Reason) -> dict[str, Any]:
    return {"fact": reason.fact, "id": reason.id, "msg": reason.msg, "package": reason.package}


def _requirement(need: Requirement) -> dict[str, Any]:
    return {"id": need.id, "msg": need.msg, "quorum": need.quorum, "roles": need.roles}


def _cut(text: str, most: int) -> str:
    if text.isascii():
        return text[:most]
    # A lone surrogate has no UTF-8 form; recording must not fail on what a caller or an upstream sends.
    return text[:most].encode("utf-8", "replace").decode()

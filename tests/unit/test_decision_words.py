"""What the records of a decision say of it, put together from parts that are kept."""

import msgspec
import pytest

from gateway.adapters.ledger import wording
from gateway.core.canonical import encode
from gateway.core.decision import Decision, Effect, Phase, Requirement
from gateway.core.errors import Reason
from tests.evidence import make_call, make_decision

DIGEST = "ab" * 32
ODD = 'say "no" \\ to \u00fc\u2028\x1f'
REASONS = (Reason("scope.granted", "gateway.authz", ODD), Reason(ODD, "p", "", "data.x"))
REQUIREMENTS = (Requirement("two", 2, ("boss", ODD), ODD),)


def decided(effect: Effect, *, enforced: bool = True) -> Decision:
    """A decision with odd words."""
    document = b'{"action":{},"args":{},"args_digest":"x","user":{"sub":"u"}}'
    words = {"reasons": REASONS, "requirements": REQUIREMENTS, "revision": "r1", "engine": ODD}
    return make_decision(effect, document=document, enforced=enforced, **words)


@pytest.mark.parametrize(
    "decision",
    [decided(Effect.ALLOW), decided(Effect.DENY, enforced=False), decided(Effect.DENY)],
    ids=lambda d: d.effect,
)
def test_the_payload_is_the_canonical_document(decision: Decision) -> None:
    """Byte for byte what an encoder makes of all its members at once; for words that are kept, and others."""
    document = {
        "effect": decision.effect,
        "facts": {"action": {}, "args_digest": "x", "user": {"sub": "u"}},
        "input_digest": DIGEST,
        "reasons": [{"id": r.id, "msg": r.msg, "package": r.package, "fact": r.fact} for r in REASONS],
        "requirements": [{"id": n.id, "msg": n.msg, "quorum": n.quorum, "roles": n.roles} for n in REQUIREMENTS],
    }
    for _ in range(2):
        words = wording.words_of(decision)
        payload = wording.reasons_payload(decision, words, DIGEST, make_call())
        assert payload.content == encode(document)


def test_the_leaf_tells_decisions_with_the_same_words_apart() -> None:
    """Effect, bundle and engine are the decision's own; what is no id is not said."""
    first, other = decided(Effect.ALLOW), decided(Effect.DENY, enforced=False)
    other = msgspec.structs.replace(other, revision="r2", engine="e2")
    bodies = [wording.decision_body(one, wording.words_of(one), "up.echo", "c", 4) for one in (first, other, first)]
    assert bodies[0] == {
        "decision_id": first.id,
        "effect": Effect.ALLOW,
        "enforced": True,
        "engine": "irregular",
        "input": "c",
        "phase": Phase.CALL,
        "reasons": ["scope.granted", "irregular"],
        "requirements": ["two"],
        "revision": "r1",
        "took_us": 4,
        "tool": "up.echo",
    }
    assert bodies[1] == {**bodies[0], "effect": Effect.DENY, "enforced": False, "engine": "e2", "revision": "r2"}
    assert bodies[2] == bodies[0]


@pytest.mark.parametrize(
    "client",
    [{}, {"name": "c", "version": "1"}, {"name": "x" * 200}, {"name": "\u00fc"}, {str(n): "" for n in range(9)}],
)
@pytest.mark.parametrize("tool", ["up.echo", "up.\u00fc" + "x" * 300])
def test_the_request_is_the_canonical_document(client: dict[str, str], tool: str) -> None:
    """Byte for byte what an encoder makes of all its members at once; of whatever client, known or not."""
    for arguments in ({}, {"a": ODD}):
        call = msgspec.structs.replace(make_call(tool, arguments), client=client)
        document = {
            "arguments": arguments,
            "channel": call.channel,
            "client": {key[:64]: value[:64] for key, value in list(client.items())[:8]},
            "digest": call.arguments.digest,
            "tool": tool[:256],
        }
        assert wording.request_payload(call).content == encode(document)


def test_of_what_is_refused_nothing_is_kept() -> None:
    """A name of no tool may be as long as a request and another one with each; its record is the same document."""
    calls = [make_call(name, {"a": ODD}) for name in ("up.no-tool", f"up.{'y' * 1000}")]
    before = wording._around.cache_info()
    refused = [wording.refused_request_payload(call, str).content for call in calls]
    assert wording._around.cache_info() == before
    assert refused == [wording.request_payload(call).content for call in calls]

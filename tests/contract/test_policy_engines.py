"""The PolicyEngine port on every engine: embedded workers, an OPA server over TCP and a Unix socket, and the oracle."""

import asyncio
from typing import Any

import pytest

from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.probe import PROBES
from gateway.core.bundle import Bundle, Module, bundled
from gateway.core.decision import Effect
from gateway.core.errors import TooLarge, Unavailable
from gateway.core.policy_input import MAX_BYTES
from tests.policy_engines import KINDS, decide, serving_on
from tests.rego_demo import demo, saying

pytestmark = pytest.mark.parametrize("kind", KINDS)
NAMES = {"embedded": "regorus/0.13.0", "oracle": "opa library"}
EMPTY = '{"allow": {"x": set()}, "deny": {}, "hint": {}, "require": {}, "oblige": {}}'


def granting(**scope: Any) -> Bundle:
    """The shipped bundle with these scope lists."""
    return load([shipped()], {"gateway": {"scope": scope}})


async def test_allow_deny_require_and_oblige(kind: str) -> None:
    """Each part of the contract arrives, with revision and engine named."""
    bundle = demo()
    async with serving_on(kind, bundle) as engine:
        words = ("yes", "no", "ask", "bound", "nothing")
        decisions = await decide(engine, *(saying(word) for word in words))
        effects = [decision.effect for decision in decisions]
        assert effects == [Effect.ALLOW, Effect.DENY, Effect.NEEDS_APPROVAL, Effect.ALLOW, Effect.DENY]
        assert decisions[1].reasons[0].id == "demo.no"
        assert decisions[1].reasons[0].package == "demo"
        assert decisions[2].requirements[0].quorum == 2
        assert (decisions[3].obligations.timeout_s, decisions[3].obligations.per_minute) == (2, 7)
        assert decisions[4].reasons[0].id == "default.no_allow"
        assert {decision.revision for decision in decisions} == {engine.revision} == {bundle.revision}
        assert {decision.engine for decision in decisions} == {NAMES.get(kind, "opa/1.20.2")} == {engine.engine}
        await engine.ping()


async def test_shipped_policies_answer(kind: str) -> None:
    """The shipped bundle grants what the data grants and hints at each list that is missing."""
    both = {"probe": {"allow": ["probe.*"]}}
    async with serving_on(kind, granting(agents=both, users=both)) as engine:
        assert [decision.effect for decision in await decide(engine, *PROBES)] == [Effect.ALLOW, Effect.ALLOW]
    async with serving_on(kind, granting()) as engine:
        (listed, _called) = await decide(engine, *PROBES)
        assert listed.effect is Effect.DENY
        assert {reason.fact for reason in listed.reasons[1:]} == {
            "data.gateway.scope.agents.probe.allow",
            "data.gateway.scope.users.probe.allow",
        }


async def test_error_of_a_policy_is_a_fault_of_its_input_only(kind: str) -> None:
    """A rule that fails denies its own input and nobody else's."""
    async with serving_on(kind, demo()) as engine:
        bad, good = await decide(engine, saying("error", zero=0), saying("yes"))
        assert bad.reasons[0].id == "engine.error"
        assert bad.effect is Effect.DENY
        assert good.effect is Effect.ALLOW


async def test_undefined_decision_is_a_fault(kind: str) -> None:
    """Where the bundle has nothing to say, nothing is allowed."""
    rule = f'package gateway.main\n\ndecision := {EMPTY} if input.phase in {{"list", "call"}}\n'
    async with serving_on(kind, bundled([Module("main.rego", rule)], {})) as engine:
        known, unknown = await decide(engine, saying("yes"), b'{"phase": "other"}')
        assert known.reasons[0].id == "default.no_allow"
        assert unknown.reasons[0].id == "engine.undefined"


async def test_values_that_are_no_decision_are_faults(kind: str) -> None:
    """What a bundle says in another shape is no word of policy; false and null are as defined as anything."""
    rules = (
        'package gateway.main\n\ndecision := input.args.give if input.tool.server == "s"\n\n'
        f'decision := {EMPTY} if input.tool.server == "probe"\n'
    )
    async with serving_on(kind, bundled([Module("main.rego", rules)], {})) as engine:
        given: list[Any] = [None, False, "<undef>", [], {}, {"allow": []}]
        decisions = await decide(engine, *(saying("x", give=one) for one in given))
        assert [decision.reasons[0].id for decision in decisions] == ["engine.bad_shape"] * len(given)


async def test_input_that_is_no_json_is_a_fault(kind: str) -> None:
    """Garbage in denies; what is two documents, or closes the one around it, is garbage."""
    async with serving_on(kind, demo()) as engine:
        for document in (b"", b"{", b"[" * 500, b'{}, "x": {}', b"{} {}"):
            (decision,) = await decide(engine, document)
            assert decision.reasons[0].id.startswith("engine.")


async def test_many_questions_at_once_get_their_own_answers(kind: str) -> None:
    """100 concurrent questions: no answer is mixed up."""
    async with serving_on(kind, demo()) as engine:
        words = ["yes" if number % 3 else "no" for number in range(100)]
        answers = await asyncio.gather(*(decide(engine, saying(word), saying("nothing")) for word in words))
        for word, (first, second) in zip(words, answers, strict=True):
            assert first.effect is (Effect.ALLOW if word == "yes" else Effect.DENY)
            assert second.reasons[0].id == "default.no_allow"


async def test_listing_of_500_tools(kind: str) -> None:
    """A long question is answered in order, an empty one by nothing."""
    async with serving_on(kind, demo()) as engine:
        decisions = await decide(engine, *(saying("yes" if n % 2 else "no") for n in range(500)))
        assert [d.effect is Effect.ALLOW for d in decisions] == [bool(n % 2) for n in range(500)]
        assert await decide(engine) == []


async def test_input_over_the_cap_is_refused(kind: str) -> None:
    """What is larger is not asked about; what fits is answered."""
    async with serving_on(kind, demo()) as engine:
        with pytest.raises(TooLarge):
            await engine.evaluate("d", [b" " * (MAX_BYTES + 1)])
        large = saying("yes", text="x" * (MAX_BYTES - 200))
        assert [d.effect for d in await decide(engine, *[large] * 8)] == [Effect.ALLOW] * 8


async def test_engine_that_is_not_running_is_unavailable(kind: str) -> None:
    """After it was stopped nothing is answered."""
    async with serving_on(kind, demo()) as engine:
        await engine.ping()
    with pytest.raises(Unavailable):
        await engine.evaluate("d", [saying("yes")])
    with pytest.raises(Unavailable):
        await engine.ping()

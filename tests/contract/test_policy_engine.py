"""The policy engine on real workers: what it answers, and which bundles it serves."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.adapters.rego.engine import RegoEngine
from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.probe import PROBES
from gateway.core.bundle import BundleError, Module, bundled
from gateway.core.decision import Effect
from gateway.core.errors import TooLarge, Unavailable
from gateway.core.policy_input import MAX_BYTES
from tests.rego_demo import (
    MAIN,
    SETTINGS,
    decide,
    demo,
    saying,
    serving,
)


async def test_allow_deny_require_and_oblige() -> None:
    """Each part of the contract arrives, with revision and engine named."""
    async with serving() as engine:
        words = ("yes", "no", "ask", "bound", "nothing")
        decisions = await decide(engine, *(saying(word) for word in words))
        effects = [decision.effect for decision in decisions]
        assert effects == [Effect.ALLOW, Effect.DENY, Effect.NEEDS_APPROVAL, Effect.ALLOW, Effect.DENY]
        assert decisions[1].reasons[0].id == "demo.no"
        assert decisions[1].reasons[0].package == "demo"
        assert decisions[2].requirements[0].quorum == 2
        assert (decisions[3].obligations.timeout_s, decisions[3].obligations.per_minute) == (2, 7)
        assert decisions[4].reasons[0].id == "default.no_allow"
        assert {decision.revision for decision in decisions} == {engine.revision}
        assert decisions[0].engine == "regorus 0.13.0"
        await engine.ping()


async def test_shipped_policies_answer() -> None:
    """The shipped bundle grants what the data grants and hints at each list that is missing."""
    both = {"probe": {"allow": ["probe.*"]}}
    granted = {"gateway": {"scope": {"agents": both, "users": both}}}
    async with serving(load([shipped()], granted)) as engine:
        assert [decision.effect for decision in await decide(engine, *PROBES)] == [Effect.ALLOW, Effect.ALLOW]
    async with serving(load([shipped()])) as engine:
        (listed, _called) = await decide(engine, *PROBES)
        assert listed.effect is Effect.DENY
        assert {reason.fact for reason in listed.reasons[1:]} == {
            "data.gateway.scope.agents.probe.allow",
            "data.gateway.scope.users.probe.allow",
        }


async def test_error_of_a_policy_is_a_fault_of_its_input_only(caplog: pytest.LogCaptureFixture) -> None:
    """A rule that fails denies its own input; the place is logged, the arguments are not."""
    async with serving() as engine:
        bad, good = await decide(engine, saying("error", zero=0, secret="hunter2"), saying("yes"))
        assert bad.reasons[0].id == "engine.error"
        assert bad.effect is Effect.DENY
        assert good.effect is Effect.ALLOW
    assert "engine.error at demo.rego:17:7" in caplog.text
    assert "hunter2" not in caplog.text


async def test_input_that_is_no_json_is_a_fault() -> None:
    """Garbage in denies."""
    async with serving() as engine:
        for document in (b"", b"{", b"[" * 500):
            (decision,) = await decide(engine, document)
            assert decision.reasons[0].id.startswith("engine.")


async def test_many_questions_at_once_get_their_own_answers() -> None:
    """200 concurrent questions on two workers: no answer is mixed up."""
    async with serving(settings=replace(SETTINGS, workers=2)) as engine:
        words = ["yes" if number % 3 else "no" for number in range(200)]
        answers = await asyncio.gather(*(decide(engine, saying(word), saying("nothing")) for word in words))
        for word, (first, second) in zip(words, answers, strict=True):
            assert first.effect is (Effect.ALLOW if word == "yes" else Effect.DENY)
            assert second.reasons[0].id == "default.no_allow"


async def test_listing_of_500_tools() -> None:
    """A long question is asked in parts and answered in order."""
    async with serving() as engine:
        decisions = await decide(engine, *(saying("yes" if n % 2 else "no") for n in range(500)))
        assert [d.effect is Effect.ALLOW for d in decisions] == [bool(n % 2) for n in range(500)]
        assert await decide(engine) == []


async def test_input_over_the_cap_is_refused() -> None:
    """No worker is bothered with it."""
    async with serving() as engine:
        with pytest.raises(TooLarge):
            await engine.evaluate("d", [b" " * (MAX_BYTES + 1)])
        large = saying("yes", text="x" * (MAX_BYTES - 200))
        assert [d.effect for d in await decide(engine, *[large] * 8)] == [Effect.ALLOW] * 8


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([], "gateway.main"),
        ([Module("main.rego", "package gateway.main\n")], "engine.error"),
        ([Module("main.rego", "package gateway.main\n\ndecision := 1 if input.args.never\n")], "engine.undefined"),
        ([Module("main.rego", "package gateway.main\n\ndecision := 5\n")], "engine.bad_shape"),
        ([Module("main.rego", "package gateway.main\n\ndecision := 1\n\ndecision := 2\n")], "engine.error"),
        ([Module("main.rego", "package gateway.main\n\ndecision := {")], "GW000"),
        ([MAIN, Module("p.rego", 'package gateway.policies.p\n\nallow contains {"id": 5, "msg": "m"}\n')], "GW005"),
    ],
)
async def test_bundles_that_cannot_answer_are_refused(modules: Sequence[Module], words: str) -> None:
    """A bundle is tried before it decides anything."""
    with pytest.raises(BundleError, match=words):
        async with serving(bundled(modules, {})):
            pass


async def test_engine_that_is_not_running_is_unavailable() -> None:
    """Before start and after stop nothing is answered."""
    engine = RegoEngine(demo(), SETTINGS)
    with pytest.raises(Unavailable):
        await engine.evaluate("d", [saying("yes")])
    async with engine:
        await engine.ping()
    with pytest.raises(Unavailable):
        await engine.ping()


COUNTING = """package gateway.policies.demo

allow contains {"id": "demo.once", "msg": "once"} if input.tool.server == "s"
"""
CLOCKED = (
    COUNTING
    + """
deny contains {"id": "demo.late", "msg": "late"} if input.time.us > 100
"""
)


def listing(us: int, server: str = "s") -> bytes:
    """A listing question asked at a time."""
    return json.dumps({"phase": "list", "time": {"us": us}, "tool": {"server": server, "digest": "d"}}).encode()


@pytest.mark.parametrize(("rules", "later"), [(COUNTING, Effect.ALLOW), (CLOCKED, Effect.DENY)])
async def test_time_counts_where_a_rule_reads_it(rules: str, later: Effect) -> None:
    """A listing answer is remembered only as long as no clock can change it."""
    async with serving(demo(rules)) as engine:
        effects = [(await decide(engine, listing(us)))[0].effect for us in (1, 2, 101)]
        assert effects == [Effect.ALLOW, Effect.ALLOW, later]


async def test_a_remembered_answer_needs_no_worker() -> None:
    """That a tool may be known of is said again while no worker answers; nothing else is."""
    async with serving(demo(COUNTING)) as engine:
        effects = [decision.effect for decision in await decide(engine, listing(1), listing(1, "other"))]
        assert effects == [Effect.ALLOW, Effect.DENY]
        await engine._running().pool.close()
        assert (await decide(engine, listing(2)))[0].effect is Effect.ALLOW
        with pytest.raises(Unavailable):
            await decide(engine, listing(3), listing(3, "other"))
        with pytest.raises(Unavailable):
            await engine.ping()

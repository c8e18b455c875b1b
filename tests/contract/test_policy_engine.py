"""What is the embedded engine's own: its faults in the log, which bundles it serves, what it remembers."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.adapters.rego.engine import RegoEngine
from gateway.core.bundle import BundleError, Module, bundled
from gateway.core.decision import Effect, Evaluation
from gateway.core.errors import Unavailable
from tests.rego_demo import (
    MAIN,
    SETTINGS,
    decide,
    demo,
    saying,
    serving,
)


async def test_error_of_a_policy_is_a_fault_of_its_input_only(caplog: pytest.LogCaptureFixture) -> None:
    """A rule that fails denies its own input; the place is logged, the arguments are not."""
    async with serving() as engine:
        bad, good = await decide(engine, saying("error", zero=0, secret="hunter2"), saying("yes"))
        assert bad.reasons[0].id == "engine.error"
        assert bad.effect is Effect.DENY
        assert good.effect is Effect.ALLOW
    assert "engine.error at demo.rego:17:7" in caplog.text
    assert "hunter2" not in caplog.text


async def test_many_questions_at_once_get_their_own_answers() -> None:
    """200 concurrent questions on two workers: no answer is mixed up."""
    async with serving(settings=replace(SETTINGS, workers=2)) as engine:
        words = ["yes" if number % 3 else "no" for number in range(200)]
        answers = await asyncio.gather(*(decide(engine, saying(word), saying("nothing")) for word in words))
        for word, (first, second) in zip(words, answers, strict=True):
            assert first.effect is (Effect.ALLOW if word == "yes" else Effect.DENY)
            assert second.reasons[0].id == "default.no_allow"


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


@pytest.mark.parametrize(("rules", "is_known"), [(COUNTING, True), (CLOCKED, False)])
async def test_what_is_known_is_known_of_the_bundle_in_force(rules: str, *, is_known: bool) -> None:
    """Once listing and call were answered, where nothing that differs is read; another bundle knows nothing yet."""
    call = json.dumps(json.loads(listing(1)) | {"phase": "call"}).encode()
    async with serving(demo(rules)) as engine:
        assert engine.known(listing(0)) is None
        first = await engine.evaluate("d", [listing(1), call])
        found = engine.known(listing(0))
        assert found == (alone(first, 1) if is_known else None)
        await engine.serve(demo(rules + "\n# another\n"), allowed)
        assert engine.known(listing(0)) is None
    assert engine.known(listing(0)) is None


async def allowed() -> None:
    """Another bundle may come into force."""


def alone(said: Evaluation, number: int) -> Evaluation:
    """What was said of one of the documents."""
    return Evaluation((said.results[number],), (said.faults[number],), said.revision, said.engine)


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

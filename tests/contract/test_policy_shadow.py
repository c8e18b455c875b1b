"""A policy in the shadow: counted and logged, and never in the way of a call, whatever it does."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from gateway.adapters.rego.engine import RegoEngine
from gateway.adapters.rego.shadow import Shadow, ShadowMeter
from gateway.core.bundle import BundleError
from gateway.core.decision import Evaluation
from gateway.core.errors import Unavailable
from gateway.core.ports import PolicyEngine
from tests.rego_demo import SETTINGS, demo, until

OTHER = """package gateway.policies.demo

allow contains {"id": "demo.ok", "msg": "ok"} if input.args.say != "nothing"

allow contains {"id": "demo.probe", "msg": "probe"} if input.tool.server == "probe"

deny contains {"id": "demo.new", "msg": sprintf("%v", [secret])} if {
	input.args.say == "yes"
	secret := input.args.secret
}

require contains {"id": "demo.two", "msg": "two", "quorum": 1} if input.args.say == "ask"

deny contains {"id": "demo.loop", "msg": "loop"} if {
	input.args.say == "hang"
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	some c in numbers.range(1, 3000)
	a * b * c == -1
}
"""


@dataclass
class Seen:
    """What the shadow told its meter."""

    results: Counter[str] = field(default_factory=Counter)
    watching: bool = False

    def meter(self) -> ShadowMeter:
        """The meter."""
        return ShadowMeter(lambda result: self.results.update([result]), lambda on: setattr(self, "watching", on))


@dataclass
class Puppet:
    """An engine that does what it is told; ``said`` is what it gives."""

    behave: Callable[[], Any]
    asked: int = 0

    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation:
        """Behave, then allow everything."""
        self.asked += 1
        found = self.behave()
        if asyncio.iscoroutine(found):
            await found
        words = {"allow": {"p": [{"id": "p.ok", "msg": "ok"}]}, "deny": {}, "hint": {}, "require": {}, "oblige": {}}
        return Evaluation((json.dumps(words).encode(),) * len(inputs), (None,) * len(inputs), "r", "puppet")

    def known(self, about: bytes) -> Evaluation | None:
        """It knows everything."""
        return Evaluation((about,), (None,), "r", "puppet")

    async def ping(self) -> None:
        """Behave."""
        self.behave()


def call(say: str, **more: Any) -> bytes:
    """An input that asks the demo rules for something."""
    tool = {"server": "s", "fqn": f"s.{say}", "digest": "d"}
    return json.dumps({"phase": "call", "tool": tool, "args": {"say": say} | more}).encode()


def made(engine: PolicyEngine) -> Callable[[], AbstractAsyncContextManager[PolicyEngine]]:
    """A candidate that is there at once."""

    @asynccontextmanager
    async def make() -> AsyncIterator[PolicyEngine]:
        yield engine

    return make


@asynccontextmanager
async def shadowed(
    candidate: Callable[[], AbstractAsyncContextManager[PolicyEngine]], seen: Seen, share: float = 1.0
) -> AsyncIterator[tuple[Shadow, Puppet]]:
    """An active engine that allows everything, and the candidate in its shadow."""
    active = Puppet(lambda: None)
    async with Shadow(active, candidate, share, seen.meter()) as shadow:
        yield shadow, active


async def test_a_real_candidate_is_compared_and_its_differences_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Each document once; the first difference of a kind is logged by tool, effects and ids, without arguments."""
    seen = Seen()
    words = ("x", "nothing", "no", "yes", "ask")
    async with RegoEngine(demo(), SETTINGS) as active:
        other = Shadow(active, lambda: RegoEngine(demo(OTHER), SETTINGS), 1.0, seen.meter())
        async with other as shadow:
            await until(lambda: seen.watching)
            with caplog.at_level(logging.WARNING):
                for word in (*words, "yes"):
                    document = call(word, secret="k-123456")
                    answer = await shadow.evaluate("d", [document, document])
                    assert answer == await active.evaluate("d", [document, document])
                    assert shadow.known(document) is None  # or it would not be sampled
                await until(lambda: seen.results.total() == 6)
    assert seen.results == {"agree": 2, "newly_allowed": 1, "newly_denied": 2, "changed": 1}
    lines = [record.getMessage() for record in caplog.records if "in the shadow differs" in record.getMessage()]
    assert sum('"s.yes"' in line for line in lines) == 1
    assert len(lines) == 3
    assert not [line for line in lines if "k-123456" in line]
    assert not seen.watching


async def test_names_of_no_tool_are_not_compared(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever makes up a thousand names leaves room in the log for the difference that matters."""
    seen = Seen()
    document = json.loads(call("x")) | {"phase": "list"}
    async with shadowed(lambda: RegoEngine(demo(OTHER), SETTINGS), seen) as (shadow, _):
        await until(lambda: seen.watching)
        with caplog.at_level(logging.WARNING):
            for number in range(1100):
                tool = {"server": "s", "fqn": f"s.made_up_{number}", "digest": ""}
                await shadow.evaluate("d", [json.dumps(document | {"tool": tool}).encode()])
                await checkpoint()
            await until(shadow._waiting.samples.empty)
            await shadow.evaluate("d", [call("yes", secret="k")])
            await until(lambda: seen.results["newly_denied"] == 1)
    assert set(seen.results) <= {"newly_denied", "dropped"}
    (line,) = [record.getMessage() for record in caplog.records if "in the shadow differs" in record.getMessage()]
    assert '"s.yes"' in line


async def test_differences_of_another_candidate_are_logged_anew(caplog: pytest.LogCaptureFixture) -> None:
    """A candidate that was changed is not spoken for by what its predecessor did."""
    seen = Seen()
    async with RegoEngine(demo(OTHER), SETTINGS) as candidate, shadowed(made(candidate), seen) as (shadow, _):
        await until(lambda: seen.watching)
        with caplog.at_level(logging.WARNING):
            for rules in (OTHER, OTHER + "\n# changed\n"):
                await candidate.serve(demo(rules), checkpoint)
                for _ in range(2):
                    expected = seen.results.total() + 1
                    await shadow.evaluate("d", [call("yes", secret="k")])
                    await until(lambda expected=expected: seen.results.total() == expected)  # type: ignore[misc]
    lines = [record.getMessage() for record in caplog.records if "in the shadow differs" in record.getMessage()]
    assert len(lines) == 2


async def test_a_candidate_that_hangs_in_evaluation_is_a_fault_of_its_own() -> None:
    """Its worker is killed at its deadline; calls have long been answered, and the next sample is compared."""
    seen = Seen()
    quick = SETTINGS.__class__(workers=1, deadline_s=0.3, queue_wait_s=20.0)
    async with shadowed(lambda: RegoEngine(demo(OTHER), quick), seen) as (shadow, _):
        await until(lambda: seen.watching)
        await shadow.evaluate("d", [call("hang")])
        await shadow.evaluate("d", [call("x")])
        await until(lambda: seen.results.total() == 2)
    assert seen.results == {"fault": 1, "agree": 1}


async def test_a_candidate_whose_start_hangs_holds_nobody_up() -> None:
    """Calls are answered, their samples dropped, and the gateway can still end."""

    @asynccontextmanager
    async def never() -> AsyncIterator[PolicyEngine]:
        await asyncio.Event().wait()
        yield Puppet(lambda: None)

    seen = Seen()
    async with shadowed(never, seen) as (shadow, active):
        for _ in range(3):
            await shadow.evaluate("d", [call("x")])
        assert active.asked == 3
    assert seen.results == {"dropped": 3}


@pytest.mark.parametrize("error", [BundleError("x.rego:3: GW002 no"), RuntimeError("broken"), OSError("no process")])
async def test_a_candidate_that_cannot_be_started_is_logged(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing else happens: the policy in force answers."""

    @asynccontextmanager
    async def broken() -> AsyncIterator[PolicyEngine]:
        raise error
        yield

    seen = Seen()
    async with shadowed(broken, seen) as (shadow, active):
        await until(lambda: any("in the shadow" in record.getMessage() for record in caplog.records))
        await shadow.evaluate("d", [call("x")])
        await shadow.ping()
        assert active.asked == 1
    assert seen.results == {"dropped": 1}
    assert not seen.watching


async def test_a_candidate_that_breaks_its_contract_is_a_fault() -> None:
    """An error of the candidate that nobody foresaw is counted, and the next sample compared."""
    seen, calls = Seen(), iter([RuntimeError("bug"), Unavailable("gone", retry_after=1), None])

    def behave() -> None:
        error = next(calls)
        if error is not None:
            raise error

    async with shadowed(made(Puppet(behave)), seen) as (shadow, _):
        await until(lambda: seen.watching)
        for _ in range(3):
            await shadow.evaluate("d", [call("x")])
        await until(lambda: seen.results.total() == 3)
    assert seen.results == {"fault": 2, "agree": 1}


async def test_a_full_queue_drops_and_never_waits() -> None:
    """While the candidate is busy no more than the queue's number of samples is kept."""
    seen, gate = Seen(), asyncio.Event()
    async with shadowed(made(Puppet(gate.wait)), seen) as (shadow, active):
        await until(lambda: seen.watching)
        for _ in range(300):
            await shadow.evaluate("d", [call("x")])
        assert active.asked == 300
        assert seen.results["dropped"] >= 300 - 256 - 1
        dropped = seen.results["dropped"]
        gate.set()
        await until(lambda: seen.results["agree"] == 300 - dropped)


async def test_large_samples_are_bounded_by_bytes() -> None:
    """What waits holds arguments; few large ones fill the queue as many small ones do."""
    seen, gate = Seen(), asyncio.Event()
    async with shadowed(made(Puppet(gate.wait)), seen) as (shadow, _):
        await until(lambda: seen.watching)
        document = call("x", text="y" * 200_000)
        for _ in range(100):
            await shadow.evaluate("d", [document])
        assert seen.results["dropped"] > 50
        gate.set()


async def test_only_the_share_that_is_asked_for_is_sampled() -> None:
    """By the decision's id: all, about a tenth, or none of the questions."""
    for share, least, most in ((1.0, 1000, 1000), (0.1, 50, 200), (0.0, 0, 0)):
        seen, other = Seen(), Puppet(lambda: None)
        async with shadowed(made(other), seen, share) as (shadow, _):
            await until(lambda seen=seen: seen.watching)  # type: ignore[misc]
            for number in range(1000):
                await shadow.evaluate(f"018f0000-0000-7000-8000-{number:012x}", [call("x")])
                await checkpoint()
            await until(lambda: seen.results.total() >= least)  # noqa: B023 - awaited at once
            assert least <= seen.results.total() <= most


async def test_a_fault_of_the_policy_in_force_stays_one() -> None:
    """What it raises is raised, and nothing is sampled."""

    def broken() -> None:
        raise Unavailable("gone", retry_after=1)

    seen = Seen()
    async with Shadow(Puppet(broken), made(Puppet(lambda: None)), 1.0, seen.meter()) as shadow:
        with pytest.raises(Unavailable):
            await shadow.evaluate("d", [call("x")])
        with pytest.raises(Unavailable):
            await shadow.ping()
    assert seen.results == {}

"""A small Rego bundle that answers as it is told, an engine that serves it, and a look at its workers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.rego.engine import RegoEngine
from gateway.adapters.rego.layers import shipped
from gateway.adapters.rego.settings import EngineSettings
from gateway.core.bundle import Bundle, Module, bundled
from gateway.core.decision import Decision, fold
from gateway.core.errors import Unavailable

# Generous, as the machine that runs the tests is busy; where a deadline is the point, the test sets its own.
SETTINGS = EngineSettings(workers=1, deadline_s=5.0, queue_wait_s=20.0)
MAIN = Module("main.rego", (shipped() / "main.rego").read_text("utf-8"))
RULES = """package gateway.policies.demo

allow contains {"id": "demo.ok", "msg": "ok"} if input.args.say != "nothing"

allow contains {"id": "demo.probe", "msg": "probe"} if input.tool.server == "probe"

deny contains {"id": "demo.no", "msg": "no"} if input.args.say == "no"

require contains {"id": "demo.two", "msg": "two", "quorum": 2, "roles": ["cfo"]} if input.args.say == "ask"

oblige contains {"id": "demo.slow", "kind": "timeout", "timeout_s": 2} if input.args.say == "bound"

oblige contains {"id": "demo.rate", "kind": "rate_limit", "per_minute": 7} if input.args.say == "bound"

deny contains {"id": "demo.error", "msg": "error"} if {
	input.args.say == "error"
	1 % input.args.zero > 1
}

deny contains {"id": "demo.loop", "msg": "loop"} if {
	input.args.say == "loop"
	some a in numbers.range(1, 3000)
	some b in numbers.range(1, 3000)
	some c in numbers.range(1, 3000)
	a * b * c == -1
}

deny contains {"id": "demo.bomb", "msg": "bomb"} if {
	input.args.say == "bomb"
	count([[a, b] | some a in numbers.range(1, 10000); some b in numbers.range(1, 10000)]) == 0
}
"""


def demo(rules: str = RULES) -> Bundle:
    """A bundle of the shipped main and these rules."""
    return bundled([MAIN, Module("demo.rego", rules)], {})


def saying(word: str, **more: Any) -> bytes:
    """An input that asks the demo rules for something."""
    return json.dumps({"phase": "call", "tool": {"server": "s"}, "args": {"say": word} | more}).encode()


async def decide(engine: RegoEngine, *inputs: bytes) -> list[Decision]:
    """The engine's decisions."""
    return fold("d", inputs, await engine.evaluate("d", inputs))


async def refused(engine: RegoEngine, word: str) -> Unavailable:
    """The error that a question about ``word`` ends in."""
    with pytest.raises(Unavailable) as caught:
        await engine.evaluate("d", [saying(word)])
    assert caught.value.cause_code == "policy_unavailable"
    assert caught.value.retry_after == 1
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, for at most ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  the condition is another process's state
            await asyncio.sleep(0.01)


def pids(engine: RegoEngine) -> list[int]:
    """Process ids of the workers."""
    return [link._child.process.pid for link in engine._running().pool._alive if link._child is not None]


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def environment(pid: int) -> bytes:
    """Environment of a process."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def descriptors(pid: int) -> dict[str, str]:
    """Open descriptors of a process and what they are."""
    return {fd.name: str(fd.readlink()).partition("[")[0] for fd in Path(f"/proc/{pid}/fd").iterdir()}


@asynccontextmanager
async def serving(
    what: Bundle | None = None, settings: EngineSettings = SETTINGS, events: list[str] | None = None
) -> AsyncIterator[RegoEngine]:
    """A running engine that leaves no process behind."""
    seen = events if events is not None else []
    async with RegoEngine(what or demo(), settings, seen.append) as engine:
        yield engine
        left = pids(engine)
    assert [pid for pid in left if alive(pid)] == []

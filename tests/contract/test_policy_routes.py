"""What the engine remembers is what it would say again: held against an engine that is asked each time."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.adapters.rego.engine import _recalled
from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.pool import Pool
from gateway.core.bundle import Bundle, Module, bundled
from gateway.core.decision import fold
from tests.rego_demo import SETTINGS, serving

QUESTIONS = 1500
# Of each kind of package: guarded, free of what differs, and one that reads arguments behind a guard of its own.
OWN = """package gateway.policies.own

allow contains {"id": "own.small", "msg": "small"} if {
	small
	input.args.n < 5
}

deny contains {"id": "own.tired", "msg": "tired"} if {
	small
	input.run.calls["s.a"] > 2
}

require contains {"id": "own.ask", "msg": "ask"} if {
	small
	data.gateway.lib.own.often
}

deny contains {"id": "own.unsure", "msg": "unsure"} if {
	small
	data.gateway.lib.own.unsure
}

deny contains {"id": "own.unproven", "msg": "unproven"} if {
	small
	not data.gateway.lib.own.proven
}

small if input.tool.effect == "write"
"""
LIB = """package gateway.lib.own

often if input.run.amounts.eur > 3

unsure if input.risk.confidence_pct < 5

proven if input.evidence[0].tool == "s.a"
"""
SCOPE = {
    "agents": {"a": {"allow": ["s.*"]}, "b": {"allow": ["*"], "deny": ["s.b"]}},
    "users": {"*": {"allow": ["s.a", "s.b"]}},
    "groups": {"g": {"allow": ["*"]}},
}
LIMITS = {"s.a": {"calls_per_run": 3}, "s.c": {"sums_per_run": {"eur": 9}}}


def served() -> Bundle:
    """The shipped packages and one of a user."""
    own = [Module("own/own.rego", OWN), Module("own/lib.rego", LIB)]
    data = {"gateway": {"scope": SCOPE, "limits": LIMITS, "approval": {"effects": {"destructive": {"quorum": 2}}}}}
    return bundled([*load([shipped()]).modules, *own], data)


def document(chance: random.Random) -> bytes:
    """A question of a small world, in which most facts come up again."""
    name, agent, phase = chance.choice("abc"), chance.choice("ab"), chance.choice(["list", "call", "call"])
    effect = chance.choice(["read", "write", "destructive", "money"])
    facts: dict[str, Any] = {
        "schema": "gateway.input/v1",
        "phase": phase,
        "time": {"us": chance.randrange(1000)},
        "principal": {"kind": "agent", "id": agent},
        "agent": {"id": agent},
        "on_behalf_of": {"id": "u", "groups": chance.choice([[], ["g"]])},
        "run": {"id": chance.choice(["r1", "r2"]), "kind": "implicit"},
        "tool": {"server": "s", "name": name, "fqn": f"s.{name}", "effect": effect, "connector": "mcp", "digest": "d"},
    }
    if phase == "call":
        facts["args"] = {"n": chance.randrange(10)}
        facts["run"]["calls"] = {"s.a": chance.randrange(5)} if chance.random() < 0.8 else {}
        facts["run"]["sums"] = {"s.c": {"eur": chance.randrange(10)}} if chance.random() < 0.8 else {}
        facts["run"]["amounts"] = {"eur": chance.randrange(6)} if chance.random() < 0.8 else {}
        facts |= {"risk": {"confidence_pct": chance.randrange(10)}} if chance.random() < 0.5 else {}
        facts |= (
            {"evidence": [{"call_id": "c", "tool": chance.choice(["s.a", "s.b"])}]} if chance.random() < 0.9 else {}
        )
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def about(asked: bytes) -> bytes:
    """The listing question about whom and what ``asked`` is about."""
    facts = json.loads(asked)
    run = {name: facts["run"][name] for name in ("id", "kind")}
    lacks = {name: facts[name] for name in facts if name not in {"args", "risk", "evidence"}}
    return json.dumps(lacks | {"phase": "list", "run": run}, sort_keys=True, separators=(",", ":")).encode()


async def test_what_is_remembered_is_what_would_be_said() -> None:
    """Over many questions in any order: the same reasons, requirements and obligations as ``gateway.main`` says.

    Whole answers are remembered by the gateway, and what single packages say by the worker; the reference remembers
    nothing.
    """
    chance = random.Random(7)
    bundle = served()
    async with serving(bundle, SETTINGS) as engine, reference(bundle) as plain:
        assert engine._now is not None
        assert len(engine._now.pool.routes.guards) == 2
        memory = engine._now.memory
        recalled = kept = told = 0
        for number in range(QUESTIONS):
            asked = [document(chance) for _ in range(chance.choice([1, 1, 2, 3]))]
            keys = [memory.key(one) for one in asked]
            known = [one is not None for one in _recalled(engine._now, keys)]
            recalled += sum(known)
            kept += sum(not is_known and memory.shared(key) != b"" for is_known, key in zip(known, keys, strict=True))
            remembering = await engine.evaluate(str(number), asked)
            fresh = await plain.ask(str(number), [(b"", one) for one in asked]).answer
            assert [json.loads(one or b"0") for one in remembering.results] == [
                json.loads(v.result or b"0") for v in fresh
            ]
            assert remembering.faults == tuple(verdict.fault for verdict in fresh)
            assert not any(decision.faulty for decision in fold("d", asked, remembering))
            for one, verdict in zip(asked, fresh, strict=True):
                standing = engine.known(about(one))
                if standing is not None and b'"phase":"call"' in one:
                    told += 1
                    assert json.loads(standing.results[0] or b"0") == json.loads(verdict.result or b"0")
    assert told > QUESTIONS // 10
    assert recalled > QUESTIONS // 4  # or nothing would have been tried
    assert kept > QUESTIONS // 4


@asynccontextmanager
async def reference(bundle: Bundle) -> AsyncIterator[Pool]:
    """A worker that is told of no routes: each question is evaluated whole."""
    pool = Pool(bundle, SETTINGS.pool(), lambda _event: None)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def test_a_worker_keeps_nothing_by_an_empty_key() -> None:
    """Without a key, or of a package that reads what differs, everything is evaluated each time."""
    bundle = served()
    chance = random.Random(3)
    async with serving(bundle, SETTINGS) as engine, reference(bundle) as plain:
        assert engine._now is not None
        pool = engine._now.pool
        for key in (b"", b"k" * 16):
            # One key for questions that differ in what no key may leave out: only without one is the answer right.
            asked = [(key, document(chance)) for _ in range(8)]
            said = [json.loads(one.result or b"0") for one in await pool.ask("d", asked).answer]
            right = [json.loads(one.result or b"0") for one in await plain.ask("d", asked).answer]
            assert (said == right) is (key == b"")


async def test_calls_are_not_remembered_while_no_worker_serves() -> None:
    """Policy that cannot be asked allows nothing, whatever it said before."""
    asked = [json.dumps({"phase": phase, "tool": {"fqn": "s.a", "digest": "d"}}).encode() for phase in ("list", "call")]
    rules = Module("all.rego", 'package gateway.policies.all\n\nallow contains {"id": "all", "msg": "all"} if true\n')
    async with serving(bundled([*load([shipped()]).modules, rules], {}), SETTINGS) as engine:
        await engine.evaluate("d", asked)
        pool = engine._running().pool
        keys = [engine._running().memory.key(one) for one in asked]
        assert None not in _recalled(engine._running(), keys)
        assert engine.known(asked[0]) is not None
        await pool.close()
        for link in list(pool._links):
            pool._links.remove(link)
        assert [one is None for one in _recalled(engine._running(), keys)] == [False, True]
        assert engine.known(asked[0]) is None

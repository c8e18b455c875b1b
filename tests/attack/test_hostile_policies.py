"""Policies and inputs made to hang, crash or flood the engine: never an allow, never the end of the gateway.

The demo package allows every call, and the rule that forbids it is the hostile one: an engine that passed over it would
allow.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.rego import layers, testing
from gateway.adapters.rego.frames import MAX_FRAME_BYTES
from gateway.adapters.rego.worker import _RESULT_BYTES
from gateway.core.bundle import BundleError
from gateway.core.decision import MAX_RESULT_BYTES, Effect, Evaluation, fold
from gateway.core.errors import Unavailable
from gateway.core.policy_input import MAX_BYTES
from tests.rego_demo import SETTINGS, decide, demo, serving

ALLOWING = """package gateway.policies.demo

allow contains {"id": "demo.ok", "msg": "ok"} if input.phase

"""
DENY = 'deny contains {"id": "demo.hurt", "msg": "hurt"} if {\n\thurt\n'
# The question the preflight asks has no such argument, so the bundle is found good and does its harm while it serves.
GUARDED = '\nhurt if input.args.say == "hurt"\n'
# Each line makes sixteen of the one before.
TIMES_16 = ", ".join(["s{0}"] * 16)
DOUBLED = [f'\ts{n + 1} := concat("", [{TIMES_16.format(n)}])\n' for n in range(7)]


def over(name: str, most: int) -> str:
    """A loop."""
    return f"some {name} in numbers.range(1, {most})"


def many(most: int, text: str) -> str:
    """A text, so many times."""
    return f'concat("", ["{text}" | {over("_", most)}])'


UNFOLDING = "\\n".join(
    f"{name}: &{name} [{','.join([below] * 9)}]"
    for name, below in zip("abcdefg", ["x", *(f"*{c}" for c in "abcdef")], strict=True)
)
NUMBERS = f"{over('a', 400)}; {over('b', 400)}; {over('c', 400)}"
GRAPH = f'{{sprintf("%d", [n]): [sprintf("%d", [m]) | {over("m", 1000)}] | {over("n", 1000)}}}'
GLOBS = f'concat("", ["{{", concat(",", [sprintf("a*%d*b*c*", [n]) | {over("n", 20000)}]), "}}"])'
HOSTILE = {
    "nested loops": f"{over('a', 3000)}\n\t{over('b', 3000)}\n\t{over('c', 3000)}\n\ta * b * c == -1",
    "a giant range": "count(numbers.range(1, 1000000000000)) == 0",
    "a large range": "count(numbers.range(1, 30000000)) == 0",
    "a regex that is too large": "regex.match(`(((a{1000}){1000}){1000}){1000}`, input.args.say)",
    "a regex that backtracks": f"regex.match(`^(a+)+$`, {many(20000, 'a')})",
    "an exponential comprehension": f"count([[a, b, c] | {NUMBERS}]) == 0",
    "an exponential set": f"count({{[a, b, c] | {NUMBERS}}}) == 0",
    "a string that doubles": f's0 := "aaaaaaaaaaaaaaaa"\n{"".join(DOUBLED)}\tcount(s7) == 0',
    "walks in walks": f"count([1 | {'; '.join(['walk(input, [_, _])'] * 7)}]) == 0",
    "a large graph": f'count(graph.reachable({GRAPH}, ["1"])) == 0',
}
# What the lint stops before it does harm: the engines do not agree on it.
STOPPED = {
    "a regex out of the input": ("GW011", "regex.match(input.args.pattern, input.args.say)"),
    "many globs": ("GW009", f"glob.match({GLOBS}, [], {many(30000, 'a')})"),
    "a format as wide as memory": ("GW010", 'count(sprintf("%999999999d", [1])) == 0'),
    "a number of a billion digits": ("GW009", 'to_number("1e1000000000") > 1'),
    "a shift by billions": ("GW009", "bits.lsh(1, 4000000000) > 5"),
    "brackets in a string": ("GW009", f"json.unmarshal({many(100000, '[')})"),
    "a document that unfolds": ("GW009", f'yaml.unmarshal("{UNFOLDING}")'),
}
LONG = f'if {{\n\thurt\n\ts0 := "aaaaaaaaaaaaaaaa"\n{"".join(DOUBLED[:5])}}}\n'
FLOODS = {
    "many reasons": 'deny contains {"id": "demo.x", "msg": sprintf("%d", [n])} '
    f"if {{\n\thurt\n\t{over('n', 20000)}\n}}\n",
    "a long reason": f'deny contains {{"id": "demo.x", "msg": s5}} {LONG}',
    "a long obligation": f'oblige contains {{"id": "demo.x", "kind": "timeout", "timeout_s": 1, "more": s5}} {LONG}',
}
GROWTH_BYTES = 64 * 1024 * 1024


def question(say: str = "hurt", **more: Any) -> bytes:
    """A call of the demo tool."""
    args = {"say": say, "pattern": "((((a{1000}){1000}){1000}){1000}){1000}"} | more
    return json.dumps({"phase": "call", "tool": {"server": "s"}, "args": args}).encode()


def resident() -> int:
    """Memory of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def hurt(rules: str, document: bytes, deadline_s: float = 0.4) -> str:
    """How a hostile question ends; the next one is answered, and this process has not grown."""
    before = resident()
    async with serving(demo(rules), replace(SETTINGS, deadline_s=deadline_s)) as engine:
        try:
            (decision,) = await decide(engine, document)
            assert decision.effect is Effect.DENY
            how = decision.reasons[0].id
        except Unavailable as error:
            how = str(error.cause_code)
        (after,) = await decide(engine, question("yes"))
        assert after.effect is Effect.ALLOW
    assert resident() - before < GROWTH_BYTES
    return how


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_rule_that_hurts_while_serving(case: str) -> None:
    """Denied, or Unavailable within its deadline; the question after it is answered."""
    rules = f"{ALLOWING}{DENY}\t{HOSTILE[case]}\n}}\n{GUARDED}"
    assert await hurt(rules, question()) in {"engine.error", "policy_unavailable", "demo.hurt"}


@pytest.mark.parametrize("case", STOPPED)
async def test_a_rule_that_would_hurt_is_refused_at_load(case: str) -> None:
    """With file, line and rule."""
    rule, words = STOPPED[case]
    with pytest.raises(BundleError, match=f"demo.rego:7: {rule}"):
        await hurt(f"{ALLOWING}{DENY}\t{words}\n}}\n{GUARDED}", question())


@pytest.mark.parametrize("case", FLOODS)
async def test_a_policy_that_floods_its_answer(case: str) -> None:
    """An answer over 64 KiB is a fault of its own; the gateway never reads it."""
    assert await hurt(f"{ALLOWING}{FLOODS[case]}{GUARDED}", question(), 5.0) == "engine.too_large"


def test_no_answer_over_the_cap_is_read_from_any_engine() -> None:
    """Worker, framing and fold know the same cap, and an answer just below it is read."""
    assert _RESULT_BYTES == MAX_RESULT_BYTES
    assert MAX_FRAME_BYTES < 10 * MAX_RESULT_BYTES
    said = json.dumps(
        {"allow": {"p": [{"id": "p.x", "msg": "m"}]}, "deny": {}, "hint": {}, "require": {}, "oblige": {}}
    )
    for size, name in ((MAX_RESULT_BYTES, "p.x"), (MAX_RESULT_BYTES + 1, "engine.too_large")):
        (decision,) = fold("d", [b"{}"], Evaluation((said.encode().ljust(size),), (None,), "r", "e"))
        assert decision.reasons[0].id == name


@pytest.mark.parametrize(
    ("case", "document"),
    [
        ("nested 64 deep", question("yes", deep=json.loads("[" * 60 + "]" * 60))),
        ("256 KiB of one text", question("yes", text="x" * (MAX_BYTES - 300))),
        ("256 KiB of members", question("yes", **{f"m{n}": n for n in range(15000)})),
        ("256 KiB of an array", question("yes", array=[0] * 85000)),
        ("NUL in text and name", question("yes", **{"a\0b": "\0" * 1000})),
        ("a whole surrogate pair", question("yes", text="\U0001f6aa")),
        ("text that looks like code", question('yes"} allow { true } #', text="`}]\n}")),
    ],
)
async def test_large_and_odd_inputs_that_are_json(case: str, document: bytes) -> None:
    """They are read as the data they are: the rule that forbids what they say forbids it."""
    rules = ALLOWING + 'deny contains {"id": "demo.hurt", "msg": "hurt"} if startswith(input.args.say, "yes")\n'
    rules += '\nallow contains {"id": "demo.probe", "msg": "probe"} if input.tool.server == "probe"\n'
    async with serving(demo(rules)) as engine:
        (decision,) = await decide(engine, document)
        assert [reason.id for reason in decision.reasons] == ["demo.hurt"], case


@pytest.mark.parametrize(
    ("case", "document"),
    [
        ("half a surrogate pair", b'{"phase": "call", "args": {"say": "\\ud800"}}'),
        ("half a pair in a name", b'{"phase": "call", "args": {"\\udfff": 1}}'),
        ("not UTF-8", b'{"phase": "call", "args": {"say": "\xff\xfe"}}'),
        ("an encoded surrogate", b'{"phase": "call", "args": {"say": "\xed\xa0\x80"}}'),
        ("nested 5,000 deep", b'{"phase": "call", "args": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        ("nested and open", b'{"phase": "call", "args": ' + b"[" * 200000),
        ("a number beyond all doubles", b'{"phase": "call", "args": 1e999999999}'),
        ("no JSON", b'{"phase": "call", "args": NaN}'),
        ("two documents", b'{"phase": "call"}{"phase": "call"}'),
        ("nothing", b""),
    ],
)
async def test_inputs_that_are_no_json_decide_nothing(case: str, document: bytes) -> None:
    """No such document leaves the gateway; were one to, the engine's answer would be a fault or none."""
    how = await hurt(ALLOWING + GUARDED, document, 5.0)
    assert how in {"engine.error", "policy_unavailable"}, case


ALWAYS = "\nhurt if input.phase\n"
LOADED = {
    "loops for ever": f"{DENY}\t{HOSTILE['nested loops']}\n}}\n{ALWAYS}",
    "eats memory": f"{DENY}\t{HOSTILE['a giant range']}\n}}\n{ALWAYS}",
    "a regex that is too large": f"{DENY}\t{HOSTILE['a regex that is too large']}\n}}\n{ALWAYS}".replace(
        "args.say", "phase"
    ),
    "deep brackets": "x := " + "[" * 100_000 + "]" * 100_000 + "\n",
    "open brackets": "x := " + "[" * 500_000 + "\n",
    "deep objects": "x := " + '{"a": ' * 60 + "1" + "}" * 60 + "\n",
    "deep parentheses": "x := " + "(" * 100_000 + "1" + ")" * 100_000 + "\n",
    "recursion of functions": f"{DENY}\tf(1)\n}}\n{ALWAYS}\nf(x) if f(x)\n",
    "recursion of rules": f"{DENY}\ta\n}}\n{ALWAYS}\na if b\n\nb if a\n",
    "a sum of thousands": "x := " + " + ".join(["1"] * 5000) + "\n",
    "a long name": "x" * 1_000_000 + " := 1\n",
    "a long string": 'x := "' + "a" * 2_000_000 + '"\n',
    "a number of 100,000 digits": "x := " + "9" * 100_000 + "\n",
    "NUL": 'x := "a\0b"\n',
}


@pytest.mark.parametrize("case", LOADED)
def test_a_bundle_that_hurts_at_load_is_refused(tmp_path: Path, case: str) -> None:
    """Found in a process that is thrown away; the file is named, but for what shows only when it is evaluated."""
    (tmp_path / "p.rego").write_text(ALLOWING + LOADED[case], "utf-8")
    findings = testing.check(tmp_path)
    assert findings
    text = str(findings[0])
    assert "p.rego" in text or "plain question" in text


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("nested 101 deep", '{"x":' + "[" * 100 + "]" * 100 + "}"),
        ("nested 5,000 deep", '{"x":' + "[" * 5000 + "]" * 5000 + "}"),
        ("open brackets", '{"x":' + "[" * 500_000),
        ("half a surrogate pair", '{"x": "\\ud800"}'),
        ("half a pair in a name", '{"\\ud800": 1}'),
        ("a number beyond all doubles", '{"x": 1e999}'),
        ("an integer of 5,000 digits", '{"x": ' + "9" * 5000 + "}"),
        ("no JSON", '{"x": NaN}'),
        ("the same key twice", '{"x": 1, "x": 2}'),
        ("an array", "[]"),
        ("rules of the packages", '{"gateway": {"policies": {"demo": {"allow": [{"id": "x", "msg": "m"}]}}}}'),
    ],
)
def test_data_that_hurts_is_refused(tmp_path: Path, case: str, text: str) -> None:
    """With the file's name, and no traceback."""
    (tmp_path / "data.json").write_text(text, "utf-8")
    (finding, *_) = testing.check(tmp_path)
    assert "data.json" in finding.message or "data.gateway.policies" in finding.message, case


@pytest.mark.parametrize("folders", [100, 900])
def test_data_as_deep_as_its_folders_is_refused(tmp_path: Path, folders: int) -> None:
    """Each folder is a level of what the engine is given; so is each table of the settings."""
    place = tmp_path.joinpath(*["a"] * folders)
    place.mkdir(parents=True)
    (place / "data.json").write_text('{"x": 1}', "utf-8")
    (finding,) = testing.check(tmp_path)
    assert "data.json: nested more than 100 deep" in finding.message
    overlay: dict[str, Any] = {"x": 1}
    for _ in range(folders):
        overlay = {"a": overlay}
    with pytest.raises(BundleError, match=r"\[policy\.data\]: nested more than 100 deep"):
        layers.load([], overlay)


async def test_data_that_no_worker_can_hold(tmp_path: Path) -> None:
    """A document beyond a worker's memory stops the bundle, not the gateway."""
    rules = ALLOWING + GUARDED
    bundle = replace(demo(rules), data=json.dumps({"house": {"x": [[]] * 4_000_000}}))
    with pytest.raises(BundleError):
        async with serving(bundle, replace(SETTINGS, memory_bytes=128 * 1024 * 1024)):
            pass

"""What rules can read of the input: everything they do read is found, in whatever way it is written."""

import pytest

from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.preflight import parse
from gateway.adapters.rego.reads import Path, Reads, overlaps
from gateway.core.bundle import Module

HEAD = "package gateway.policies.demo\n\n"
DEMO = ("data", "gateway", "policies", "demo")


async def facts(root: Path, **modules: str) -> frozenset[Path]:
    """What the rules at ``root`` can read."""
    parsed = await parse([Module(f"{name}.rego", text) for name, text in modules.items()])
    assert parsed.findings == []
    return Reads(parsed.sources).of(root)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("a if input.tool.name == data.x[input.agent.id]", {"tool", "agent"}),
        ('a if input["tool"].name == "x"', {"tool"}),
        ('a if input["ti\\u006de"].us == 1', {"time"}),
        ("a if input.run.calls[input.tool.fqn] > 1", {"run", "tool"}),
        ("a if f(input.args.n)[input.context.env]\n\nf(x) := [x]", {"args", "context"}),
        ('a if object.get(input.run, ["calls", input.tool.fqn], 0) > 1', {"run", "tool"}),
        ("a := {x | some x in input.args.list; x.input}", {"args"}),
        ("a if data.input.time", set()),
        ("import input.time\n\na if time.us > 1", {"time"}),
        ("import input as facts\n\na if facts.time.us > 1", {"time"}),
        ("import input.time as clock\n\na if clock.us > 1", {"time"}),
        ('a := sprintf("%v", [{"k": [input.kind]}])', {"kind"}),
        ("a if every x in input.args.list { x < input.time.us }", {"args", "time"}),
        ("a if not b\n\nb if input.phase == input.time.rfc3339", {"phase", "time"}),
        ("default a := false\n\na := true if false else := input.time.us", {"time"}),
    ],
)
async def test_members_that_are_named(rules: str, found: set[str]) -> None:
    """Each form of a reference is understood."""
    assert {path[0] for path in await facts(DEMO, demo=HEAD + rules)} == found


@pytest.mark.parametrize(
    "rules",
    [
        "a := input",
        "a if x := input",
        "a if input[data.which] == 1",
        "a if input[`time`].us == 1",
        'a if input[data.which].time == input["x"]',
        "a if object.get(input, data.which, 0) == 1",
        "a if walk(input, [_, 3])",
        "a if some name, _ in input",
        "import input as facts\n\na if count(facts) > 1",
        'a if b with input as {"time": 1}\n\nb if input.phase',
    ],
)
async def test_the_whole_input(rules: str) -> None:
    """Where the member is not written down, any may be read."""
    assert () in await facts(DEMO, demo=HEAD + rules)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("a if input.run.calls[input.tool.fqn] > 1", {("run", "calls"), ("tool", "fqn")}),
        ("a if input.run[input.kind].fqn", {("run",), ("kind",)}),
        ('a if input.run["sums"].x.y', {("run", "sums", "x", "y")}),
        ("import input.run as r\n\na if r.calls", {("run", "calls")}),
    ],
)
async def test_how_deep_a_reference_goes(rules: str, found: set[Path]) -> None:
    """To the first step that is not written down."""
    assert await facts(DEMO, demo=HEAD + rules) == found


LIB = "package gateway.lib.facts\n\na := input.args.n\n\nb := a if c\n\nc if input.kind\n\nf(x) := input.agent[x]\n"


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("x if data.gateway.lib.facts.a", {"args"}),
        ("x if data.gateway.lib.facts.b", {"args", "kind"}),
        ("x if data.gateway.lib.facts.f(1)", {"agent"}),
        ('x if data.gateway.lib["facts"].c', {"kind"}),
        ("x if data.gateway.lib[input.phase].c", {"args", "kind", "agent", "phase"}),
        ("x if data.gateway.lib.facts", {"args", "kind", "agent"}),
        ("x if count(data) > 1", {"args", "kind", "agent"}),
        ("import data.gateway.lib.facts\n\nx if facts.a", {"args"}),
        ("import data.gateway.lib.facts as other\n\nx if other.c", {"kind"}),
        ("import data.gateway.lib\n\nx if lib.facts.f(2)", {"agent"}),
        ("x if y\n\ny if z\n\nz if data.gateway.lib.facts.c", {"kind"}),
        ("x if data.gateway.limits.erp", set()),
    ],
)
async def test_what_other_rules_read_is_read(rules: str, found: set[str]) -> None:
    """A reference leads on, however far, and to nothing beside it."""
    assert {path[0] for path in await facts((*DEMO, "x"), demo=HEAD + rules, lib=LIB)} == found


async def test_the_shipped_policies_read_what_they_need() -> None:
    """None reads the time or the arguments; what a run has done is read by its limits only."""
    reads = Reads((await parse(load([shipped()]).modules)).sources)
    used = {path[:2] for path in reads.of(("data", "gateway"))}
    assert {path[0] for path in used} == {"phase", "principal", "tool", "run", "agent", "on_behalf_of"}
    packages = [(name, reads.of(("data", "gateway", "policies", name))) for name in ("authz", "approval", "sandbox")]
    assert [name for name, paths in packages if any(overlaps(path, ("run",)) for path in paths)] == []


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("a if input.kind", set()),
        ("a if data.gateway.lib.facts.a", {"facts"}),
        ("import data.gateway.lib.facts as other\n\na if other.f(1)", {"facts"}),
        ("a if data.gateway.lib[input.kind].a", {"facts", "more", "beside"}),
        ("a if data.gateway.lib.beside", {"beside", "facts"}),
        ('a if data["gateway"]["lib"]["beside"].b', {"beside", "facts"}),
        ("a if data.gateway.policies.other.deny", {"other", "more"}),
        ("a if some name, _ in data.gateway.policies", {"other", "more"}),
        ("a if data[input.kind]", {"facts", "more", "beside", "other"}),
        ("a if count(data) > 1", {"facts", "more", "beside", "other"}),
        ("unused if data.gateway.lib.more.x\n\na if input.kind", {"more"}),
        ("a if data.gateway.limits[input.tool.fqn]", set()),
    ],
)
async def test_which_modules_a_package_can_reach(rules: str, found: set[str]) -> None:
    """Its own and all that any rule of those leads to: without one of them what it says would be undefined."""
    texts = {
        "demo": HEAD + rules,
        "facts": LIB,
        "more": "package gateway.lib.more\n\nx := 1\n",
        "beside": "package gateway.lib.beside\n\na := 1\n\nb := data.gateway.lib.facts.b\n",
        "other": "package gateway.policies.other\n\ndeny contains 1 if data.gateway.lib.more.x\n",
    }
    parsed = await parse([Module(name, text) for name, text in texts.items()])
    assert parsed.findings == []
    (demo,) = [module for module in parsed.sources if module.file == "demo"]
    assert set(Reads(parsed.sources).modules(demo)) == found | {"demo"}

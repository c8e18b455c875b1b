"""What a bundle can read of the input: everything it does read is found, in whatever way it is written."""

import pytest

from gateway.adapters.rego.bundle import Module, load, shipped
from gateway.adapters.rego.preflight import examine

HEAD = "package gateway.policies.demo\n\n"


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
        ("import input.time as clock\n\na if clock.us > 1", {"time"}),
        ('a := sprintf("%v", [{"k": [input.kind]}])', {"kind"}),
        ("a if every x in input.args.list { x < input.time.us }", {"args", "time"}),
        ("a if not b\n\nb if input.phase == input.time.rfc3339", {"phase", "time"}),
        ("default a := false\n\na := true if false else := input.time.us", {"time"}),
    ],
)
async def test_members_that_are_named(rules: str, found: set[str]) -> None:
    """Each form of a reference is understood."""
    examined = await examine([Module("demo.rego", HEAD + rules)])
    assert (examined.findings, examined.reads) == ([], frozenset(found))


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
        "import input as facts\n\na if facts.time.us > 1",
        'a if b with input as {"time": 1}\n\nb if input.phase',
    ],
)
async def test_the_whole_input(rules: str) -> None:
    """Where the member is not written down, any may be read."""
    examined = await examine([Module("demo.rego", HEAD + rules)])
    assert (examined.findings, examined.reads) == ([], None)


async def test_the_shipped_policies_do_not_read_time() -> None:
    """So what they say of a listing may be kept."""
    examined = await examine(load([shipped()]).modules)
    assert examined.reads is not None
    assert "time" not in examined.reads
    assert {"phase", "principal", "tool", "run", "agent", "on_behalf_of"} <= examined.reads

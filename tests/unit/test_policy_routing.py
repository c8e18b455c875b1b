"""Which packages have a say in a call, and for which other calls the answer holds."""

import pytest

from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.preflight import examine, parse
from gateway.adapters.rego.routing import MAX_GUARDS, Routes, routes
from gateway.core.bundle import Module
from gateway.core.decision import Phase

HEAD = "package gateway.policies.demo\n\n"
SAYS = 'deny contains {"id": "demo.no", "msg": "no"} if '
GUARD = "\n\nguard if input.tool.effect == data.demo\n"


async def found(*rules: str) -> Routes:
    """The routes of packages that hold ``rules``."""
    modules = [Module(f"{at}.rego", HEAD.replace("demo", f"demo{at}") + text) for at, text in enumerate(rules)]
    parsed = await parse(modules)
    assert parsed.findings == []
    return routes(parsed.sources, plain=True)


@pytest.mark.parametrize(
    "fact", ["args.n", "args_digest", "run.calls", "run.sums", "run.amounts", "time.us", "budget", "risk", "evidence"]
)
async def test_a_package_that_reads_what_differs_has_a_say_each_time(fact: str) -> None:
    """And a listing, which has no arguments and no past, differs in its time only."""
    said = await found(f"{SAYS}input.{fact} == 1")
    assert said.guards == ()
    assert not said.holds(Phase.CALL, 0)
    assert said.holds(Phase.LIST, 0) is (fact != "time.us")


@pytest.mark.parametrize("fact", ["tool.fqn", "principal.id", "run.id", "run.plan", "context.env", "agent.id", "phase"])
async def test_an_answer_that_what_differs_cannot_change(fact: str) -> None:
    """Holds for every call of this caller, run and tool."""
    said = await found(f"{SAYS}input.{fact} == 1")
    assert said.holds(Phase.CALL, 0)
    assert said.holds(Phase.LIST, 0)


@pytest.mark.parametrize(
    "rules",
    [
        SAYS + "{ guard; input.args.n > 3 }",
        SAYS + '{ guard; input.args.n > 3 }\n\nallow contains {"id": "a", "msg": "m"} if { guard; input.args.m }',
        SAYS + "{ guard; input.args.n > 3 }\n\nguard if input.agent.id == data.who",
        SAYS + "{ guard; data.gateway.policies.demo0.helper; input.args.n }\n\nhelper if input.run.id",
        SAYS + "{ guard; some n in input.args.list; n > 3 }",
        SAYS + "guard\n\nhint contains {} if { guard; input.time.us > 3 }",
    ],
)
async def test_a_guard_takes_a_package_out(rules: str) -> None:
    """Where the first condition of all it exports does not hold, what the others read cannot matter."""
    said = await found(rules + GUARD)
    assert said.guards == ("data.gateway.policies.demo0.guard",)
    assert said.holds(Phase.CALL, 1)
    assert not said.holds(Phase.CALL, 0)


@pytest.mark.parametrize(
    "rules",
    [
        SAYS + "{ input.args.n > 3; guard }",
        SAYS + "guard\n\n" + SAYS.replace("no", "never") + "input.args.n > 3",
        SAYS + "not guard\n\n" + SAYS.replace("no", "never") + "input.args.n > 3",
        SAYS + "{ guard with input as input.args; input.args.n }",
        SAYS + "{ guard == true; input.args.n }",
        SAYS + "{ guard; guard := input.args.n }",
        SAYS + "{ guard; some guard; guard = input.args.n }",
        SAYS + "{ guard; some guard in input.args.n }",
        SAYS + "{ guard; [guard, _] = input.args.n }",
        SAYS + "{ guard; input.args.n }\n\ndefault guard := false",
        SAYS + "{ guard; input.args.n }\n\nguard := 7 if input.agent.id",
        SAYS + "{ guard; input.args.n }\n\nguard if input.args.m",
        SAYS + "{ guard; helper }\n\nhelper if input.args.n",
        SAYS + "{ guard; input.args.n }\n\nhint contains {}",
        SAYS + "{ guard; input.args.n }\n\ndefault allow := {}",
        SAYS + "{ guard; input.args.n }\n\nallow := {1} if { guard }",
        SAYS + "{ guard; input.args.n }\n\nguard if input.agent.id else := 7 if input.agent",
        SAYS + '{ "guard"; input.args.n }',
        SAYS + "{ guard; input }\n\nother if input.args",
        "import data.other.guard\n\n" + SAYS + "{ guard; input.args.n }",
    ],
)
async def test_what_is_no_guard(rules: str) -> None:
    """Any doubt about it, and the package has a say in every call."""
    said = await found(rules + GUARD)
    assert said.guards == ()
    assert not said.holds(Phase.CALL, 0)
    assert not said.holds(Phase.CALL, 1)


async def test_a_missing_guard_is_none() -> None:
    """A name that is no rule of the package says nothing about it."""
    said = await found(SAYS + "{ data.guard; input.args.n }", SAYS + "{ f(1); input.args.n }\n\nf(x) if x")
    assert said.guards == ()


async def test_each_package_has_its_own_guard() -> None:
    """An answer holds where each that has a say cannot read what differs."""
    rules = SAYS + "{ guard; input.args.n > 3 }" + GUARD
    said = await found(rules, SAYS + "input.tool.fqn", rules)
    assert said.guards == tuple(f"data.gateway.policies.demo{at}.guard" for at in (0, 2))
    assert [said.holds(Phase.CALL, idle) for idle in range(4)] == [False, False, False, True]


async def test_no_guard_is_asked_for_in_vain() -> None:
    """Where one package has a say in every call, no answer holds."""
    said = await found(SAYS + "{ guard; input.args.n > 3 }" + GUARD, SAYS + "input.args.n == 4")
    assert said.guards == ()


async def test_guards_have_room_for_their_bits() -> None:
    """A package too many has a say in every call."""
    rules = SAYS + "{ guard; input.args.n > 3 }" + GUARD
    said = await found(*[rules] * MAX_GUARDS)
    assert len(said.guards) == MAX_GUARDS
    said = await found(*[rules] * (MAX_GUARDS + 1))
    assert said.guards == ()


@pytest.mark.parametrize("reads", ["args", "tool"])
async def test_another_main_package_may_read_anything(reads: str) -> None:
    """It may look at what packages do not export, so guards take nothing out."""
    main = f"package gateway.main\n\ndecision := data.gateway.policies.demo.{reads}\n"
    rules = f"{HEAD}{SAYS}{{ guard; input.{reads}.fqn }}{GUARD}"
    parsed = await parse([Module("main.rego", main), Module("demo.rego", rules)])
    said = routes(parsed.sources, plain=False)
    assert said.guards == ()
    assert said.holds(Phase.CALL, 1) is (reads == "tool")


async def test_the_shipped_policies_concern_calls_with_limits() -> None:
    """All other calls of one caller, run and tool have the same answer."""
    examined = await examine(load([shipped()]).modules)
    assert examined.routes.guards == ("data.gateway.policies.limits.limited",)
    assert examined.routes.holds(Phase.CALL, 1)
    assert not examined.routes.holds(Phase.CALL, 0)
    assert examined.routes.holds(Phase.LIST, 0)
    changed = [Module(m.name, m.text + "\n# changed\n") if "main" in m.name else m for m in load([shipped()]).modules]
    assert (await examine(changed)).routes.guards == ()

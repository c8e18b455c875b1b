"""The catalogue in force: what a name resolves to, and the one place where a connector is invoked."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from anyio import sleep_forever

from gateway.core import schema
from gateway.core.call import Lease, Raw, Resolved
from gateway.core.catalog import Catalog, Shelf
from gateway.core.errors import (
    Denied,
    GatewayError,
    InvalidArguments,
    NotSent,
    OutcomeUnknown,
    Quarantined,
    ToolFailed,
    Unavailable,
)
from gateway.core.pinning import Cause
from gateway.core.tool import EffectClass, Measure, Tool, ToolLimits
from tests.evidence import lease, make_call, make_caller, make_run, make_tool

STRICT = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
ECHO = make_tool(schema=STRICT)
PAY = make_tool("pay", effect=EffectClass.MONEY, measures=(Measure("amount", "/amount", "/currency"),))
BIG = make_tool("big", big_integers=True)


async def answer(given: Lease) -> Raw:
    """A connector's good answer."""
    return Raw(given, b'{"content":[]}', {"content": []})


@dataclass
class Scripted:
    """A connector that does what it is told, and counts."""

    act: Callable[[Lease], Awaitable[Raw]] = answer
    invoked: list[Lease] = field(default_factory=list)

    async def invoke(self, given: Lease) -> Raw:
        """Count, then act."""
        self.invoked.append(given)
        return await self.act(given)

    async def ping(self) -> None:
        """Always well."""


def shelf(tool: Tool, quarantine: Cause | None = None) -> Shelf:
    """A tool with its own schema compiled."""
    return Shelf(tool, schema.compile(tool.definition["inputSchema"]).problems, quarantine)


def stocked(*shelves: Shelf, act: Callable[[Lease], Awaitable[Raw]] = answer) -> tuple[Catalog, Scripted]:
    """A catalogue with ``shelves`` and one connector."""
    connector = Scripted(act)
    catalog = Catalog({"up": connector})
    catalog.replace(shelves or (shelf(ECHO), shelf(PAY), shelf(BIG)))
    return catalog, connector


def resolved(name: str, arguments: dict[str, object] | bytes | None = None, *scope: str) -> Resolved:
    """What a call resolves to."""
    catalog = stocked()[0]
    return catalog.checked(catalog.resolve(make_caller(make_call(name, arguments), run=make_run(scope=scope))))


def test_a_good_call_resolves_to_the_pinned_tool() -> None:
    """Tool and amounts are there, and no fault."""
    found = resolved("up.pay", {"amount": 5, "currency": "EUR"})
    assert (found.tool, found.fault, found.amounts) == (PAY, None, {"amount.EUR": 5})


@pytest.mark.parametrize("name", ["up.nosuch", "other.echo", "", "up", ".", "up..echo", "up.echo\n"])
def test_an_unknown_name_is_a_stand_in(name: str) -> None:
    """Nothing is raised, and nothing says that the tool is unknown but ``listed``."""
    found = resolved(name, {"anything": True})
    assert (found.tool.listed, found.tool.fqn.strip("."), found.fault) == (False, name.strip("."), None)


def test_outside_its_scope_a_run_knows_no_tool() -> None:
    """A tool the run is not for resolves exactly as one that does not exist."""
    assert not resolved("up.echo", None, "erp.*").tool.listed
    assert resolved("up.echo", None, "erp.*", "up.e*").tool.listed


@pytest.mark.requirement("CLEAN-1")
@pytest.mark.parametrize(
    ("name", "arguments", "cause"),
    [
        ("up.echo", {"n": "1"}, "schema"),
        ("up.echo", {"n": 1, "m": 2}, "schema"),
        ("up.echo", b'{"n":9007199254740993}', "integer_range"),
        ("up.pay", {"amount": -5, "currency": "EUR"}, "measure"),
        ("up.pay", {}, "measure"),
    ],
)
def test_bad_arguments_are_kept_not_raised(name: str, arguments: dict[str, object] | bytes, cause: str) -> None:
    """Policy must first say whether the caller may know of the tool at all."""
    fault = resolved(name, arguments).fault
    assert isinstance(fault, InvalidArguments)
    assert fault.cause_code == cause
    assert resolved(name, arguments).amounts == {}


TEMPLATE = make_tool("resources/file:///{+path}", schema={"type": "object"})


def read(uri: str, *scope: str) -> Resolved:
    """What reading an address of the template resolves to."""
    catalog = stocked(shelf(TEMPLATE))[0]
    caller = make_caller(make_call(TEMPLATE.fqn, {"uri": uri}), run=make_run(scope=scope))
    return catalog.checked(catalog.resolve(caller))


def test_a_made_address_is_resolved_as_itself() -> None:
    """Policy and the run's scope see the very address; the pin and whatever is counted is the template's."""
    found = read("file:///etc/passwd", "up.resources/file:///etc/*").tool
    assert (found.listed, found.digest, found.fqn) == (True, TEMPLATE.digest, TEMPLATE.fqn)
    assert found.decided_fqn == "up.resources/file:///etc/passwd"


@pytest.mark.parametrize("uri", ["file:///var/x", "file:///etc/../var/x", "file:///%65tc/x", "file:////etc/x", ""])
def test_an_address_out_of_scope_or_with_another_spelling_is_unknown(uri: str) -> None:
    """Neither exists."""
    assert not read(uri, "up.resources/file:///etc/*").tool.listed


def test_big_integers_where_the_tool_admits_them() -> None:
    """The catalogue entry says so, beside the schema."""
    assert resolved("up.big", b'{"id":9007199254740993}').fault is None


def test_a_quarantined_tool_is_listed_and_cannot_be_used() -> None:
    """The fault says why, before the arguments are looked at."""
    catalog, _ = stocked(shelf(ECHO, Cause.CHANGED))
    fault = catalog.checked(catalog.resolve(make_caller(make_call("up.echo", {"n": "x"})))).fault
    assert isinstance(fault, Quarantined)
    assert (fault.cause_code, [reason.id for reason in fault.reasons]) == ("pin_changed", ["pin.changed"])
    assert catalog.tools() == (ECHO,)


def test_a_new_generation_replaces_the_old_whole() -> None:
    """Sorted by name; two tools of one name are refused and the old generation stays."""
    catalog, _ = stocked()
    assert [tool.name for tool in catalog.tools()] == ["big", "echo", "pay"]
    with pytest.raises(ValueError, match="same name"):
        catalog.replace([shelf(PAY), shelf(PAY)])
    assert len(catalog.tools()) == 3
    catalog.replace([shelf(PAY)])
    assert catalog.tools() == (PAY,)
    assert not catalog.resolve(make_caller(make_call("up.echo"))).tool.listed


def test_what_changes_between_resolving_and_checking_counts() -> None:
    """A tool that is quarantined, pinned anew or gone by then is taken as it is by then."""
    catalog, _ = stocked()
    early = catalog.resolve(make_caller(make_call("up.echo", {"n": 1})))
    assert catalog.checked(early).tool is ECHO
    assert catalog.checked(early).fault is None
    catalog.replace([shelf(ECHO, Cause.CHANGED)])
    assert isinstance(catalog.checked(early).fault, Quarantined)
    again = make_tool(schema={"type": "object", "properties": {"n": {"type": "string"}}})
    catalog.replace([shelf(again)])
    assert catalog.checked(early).tool is again
    assert isinstance(catalog.checked(early).fault, InvalidArguments)
    catalog.replace([])
    assert not catalog.checked(early).tool.listed


def test_a_new_generation_is_told_to_those_who_listen() -> None:
    """It is in force by then; who listens no more is not told."""
    catalog = stocked(shelf(ECHO))[0]
    told = []

    def look() -> None:
        told.append(list(catalog.tools()))

    catalog.bell.hear(look)
    assert told == []
    catalog.replace([shelf(PAY)])
    catalog.bell.forget(look)
    catalog.replace([shelf(ECHO)])
    assert told == [[PAY]]


async def test_readiness() -> None:
    """Ready once a generation is in force, though it may be empty."""
    catalog = Catalog({})
    assert catalog.tools() == ()
    with pytest.raises(Unavailable):
        await catalog.ping()
    catalog.replace([])
    await catalog.ping()


async def test_a_call_is_carried_out_once() -> None:
    """The connector gets the lease as it is."""
    catalog, connector = stocked()
    given = lease(ECHO, {"n": 1})
    assert (await catalog.invoke(given)).body == b'{"content":[]}'
    assert connector.invoked == [given]


async def test_without_an_upstream_nothing_is_sent() -> None:
    """A tool whose server is not configured cannot have been reached."""
    with pytest.raises(NotSent):
        await Catalog({}).invoke(lease(ECHO, {}))


@pytest.mark.parametrize(("effect", "error"), [(EffectClass.READ, ToolFailed), (EffectClass.WRITE, OutcomeUnknown)])
async def test_a_hanging_upstream_is_given_up(effect: EffectClass, error: type[GatewayError]) -> None:
    """After the tool's time: a read has failed, of anything else the outcome is not known."""

    async def hang(given: Lease) -> Raw:
        await sleep_forever()
        return await answer(given)

    tool = make_tool(effect=effect, limits=ToolLimits(timeout_s=0.01))
    catalog, connector = stocked(shelf(tool), act=hang)
    with pytest.raises(error) as raised:
        await catalog.invoke(lease(tool, {}))
    assert (raised.value.cause_code, len(connector.invoked)) == ("timeout", 1)


@pytest.mark.parametrize("error", [NotSent("a"), ToolFailed("b"), OutcomeUnknown("c"), Denied("d")])
async def test_a_connectors_own_words_stand(error: GatewayError) -> None:
    """Errors of ours pass as they are."""

    async def fail(given: Lease) -> Raw:
        raise error

    with pytest.raises(type(error)) as raised:
        await stocked(act=fail)[0].invoke(lease(ECHO, {}))
    assert raised.value is error


async def test_a_connectors_own_time_is_the_tools() -> None:
    """A time-out that a connector lets through is told as that of the call."""

    async def late(given: Lease) -> Raw:
        raise TimeoutError

    with pytest.raises(ToolFailed) as raised:
        await stocked(act=late)[0].invoke(lease(ECHO, {}))
    assert raised.value.cause_code == "timeout"


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), KeyError("x"), OSError(5, "io"), ExceptionGroup("g", [OSError()])]
)
async def test_a_broken_connector_may_have_sent(error: Exception) -> None:
    """Whatever else it raises, the outcome is not known."""

    async def fail(given: Lease) -> Raw:
        raise error

    with pytest.raises(OutcomeUnknown) as raised:
        await stocked(act=fail)[0].invoke(lease(ECHO, {}))
    assert raised.value.cause_code == "connector_broken"
    assert "bug" not in raised.value.detail


@pytest.mark.parametrize("name", ["erp.nothing", "erp." + "x" * 300])
def test_a_name_of_no_tool_stands_for_none_each_time(name: str) -> None:
    """Short names and long ones, asked for once and again."""
    found = [Catalog({}).resolve(make_caller(make_call(name))).tool for _ in range(2)]
    assert found[0] == found[1]
    assert (found[0].fqn, found[0].listed, found[0].digest) == (name, False, "")

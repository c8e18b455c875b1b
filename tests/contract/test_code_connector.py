"""Code tools behind the door: what reaches the sandbox, what comes back, and hosts that cannot hold what is asked."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest

from connectors.code import CodeConnector, check
from gateway.core.call import Lease, Resolved
from gateway.core.catalog import Catalog
from gateway.core.decision import Obligations
from gateway.core.errors import GatewayError, NotSent, ToolFailed, Unavailable
from gateway.core.sandbox import BoxLimits, Capabilities, Ended, Outcome, SandboxRunner, Spent
from gateway.core.tool import ConnectorKind, EffectClass, Tool, ToolLimits
from gateway.core.verify import Verifier
from gateway.settings.catalogue import CodeBinding
from tests.boxes import marked, marking, running
from tests.evidence import make_call, make_caller, make_decision, make_intent, make_permit, make_tool
from tests.fakes.sandbox import DONE, FULL, FakeSandbox

SCHEMA = {
    "type": "object",
    "required": ["code"],
    "properties": {"code": {"type": "string"}, "data": {}, "number": {"type": "integer"}},
}
DEGRADED = replace(FULL, missing=("memory", "cpu"), held={"pids": "rlimit", "seccomp": "bpf"})


def code_tool(timeout_s: float = 30, **binding: Any) -> Tool:
    """``code.run``, pinned; ``binding`` are members of its catalogue entry."""
    bound = CodeBinding(**({"input": "data"} | binding)).model_dump()
    limits, kind = ToolLimits(timeout_s=timeout_s), ConnectorKind.CODE
    tool = make_tool("run", server="code", schema=SCHEMA, limits=limits, connector=kind, binding=bound)
    return replace(tool, effect=EffectClass.WRITE)


def lease(tool: Tool, arguments: dict[str, Any] | bytes, accept_missing: tuple[str, ...] = ()) -> Lease:
    """A call of ``tool`` that policy allowed, accepting what it says."""
    target = Resolved(make_caller(make_call(tool.fqn, arguments)), tool, None)
    decision = make_decision(obligations=Obligations(accept_missing=accept_missing))
    return Lease(make_intent(make_permit(target, decision)))


async def invoked(sandbox: SandboxRunner, given: Lease) -> dict[str, Any]:
    """The verified result of the call, through the catalogue's one way to a connector."""
    raw = await Catalog({"code": CodeConnector(sandbox)}).invoke(given)
    return Verifier().verify(raw).raw.value


@asynccontextmanager
async def sandboxes(kind: str) -> AsyncIterator[SandboxRunner]:
    """The fake, or the real runner."""
    if kind == "fake":
        yield FakeSandbox()
    else:
        async with running() as runner:
            yield runner


@pytest.mark.requirement("TOOL-3")
@pytest.mark.parametrize("kind", ["fake", "real"])
async def test_a_result_tells_output_end_and_use(kind: str) -> None:
    """Structured and as text alike: how it ended, what it wrote and used, and what held it."""
    async with sandboxes(kind) as sandbox:
        seen = await sandbox.probe()
        given = lease(code_tool(), {"code": "print(6 * 7)"}, accept_missing=seen.missing)
        value = await invoked(sandbox, given)
    shown = value["structuredContent"]
    assert (shown["ended"], shown["exit_code"], shown["stdout"], shown["stderr"]) == ("exited", 0, "42\n", "")
    assert shown["usage"].keys() == {"wall_ms", "cpu_ms", "memory_kb"}
    assert shown["box"]["backend"] == seen.backend
    assert shown["box"]["seccomp_sha256"] == seen.seccomp
    assert shown["box"]["code_sha256"] == hashlib.sha256(b"print(6 * 7)").hexdigest()
    assert shown["box"]["limits"]["memory_mb"] == 256
    assert "isError" not in value
    assert not any(isinstance(number, float) for number in [*shown["usage"].values(), *shown["box"]["limits"].values()])


async def test_the_sandbox_gets_code_input_and_caps() -> None:
    """The text as it was decided, the input argument as JSON, and the catalogue's caps; the tool's patience is more."""
    fake = FakeSandbox()
    caps = {"memory_mb": 64, "pids": 4, "cpu_s": 0.5, "wall_s": 60, "output_bytes": 1000, "work_mb": 8}
    tool = code_tool(timeout_s=10, limits=caps)
    await invoked(fake, lease(tool, {"code": "print('é')", "data": {"b": [1, "x"], "a": None}, "number": 5}))
    await invoked(fake, lease(code_tool(input=None), {"code": "", "data": 1}))
    await invoked(fake, lease(code_tool(), b'{"code": "", "data": 10000000000000000000001}'))
    assert [(code, stdin) for code, stdin, _ in fake.ran] == [
        ("print('é')".encode(), b'{"a":null,"b":[1,"x"]}'),
        (b"", b""),
        (b"", b"10000000000000000000001"),
    ]
    assert fake.ran[0][2] == BoxLimits(64, 4, 500, 9_000, 1000, 8)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Ended.EXITED, 1, b"", b"ValueError", Spent(1)),
        *(Outcome(ended, None, b"so far", b"", Spent(1, 2, 3)) for ended in Ended if ended is not Ended.EXITED),
    ],
    ids=lambda outcome: str(outcome.ended),
)
async def test_code_that_did_not_end_well_is_an_error_result(outcome: Outcome) -> None:
    """The model is told what happened; a cap that killed is never passed off as a result."""
    value = await invoked(FakeSandbox(outcome=outcome), lease(code_tool(), {"code": ""}))
    assert value["isError"] is True
    assert value["structuredContent"]["ended"] == outcome.ended
    assert value["structuredContent"]["exit_code"] == outcome.exit_code


async def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    """Output need not be UTF-8; the answer is."""
    value = await invoked(FakeSandbox(outcome=replace(DONE, stdout=b"a\xffb")), lease(code_tool(), {"code": ""}))
    assert value["structuredContent"]["stdout"] == "a\ufffdb"


@pytest.mark.parametrize(
    ("accepted", "lacking"),
    [((), "memory, cpu"), (("memory",), "cpu"), (("memory", "cpu"), None), (("pids",), "memory")],
)
async def test_a_degraded_host_follows_policy(accepted: tuple[str, ...], lacking: str | None) -> None:
    """What the host cannot cap must be accepted by the decision, each by its name, or nothing runs."""
    fake = FakeSandbox(seen=DEGRADED)
    given = lease(code_tool(), {"code": "pass"}, accept_missing=accepted)
    if lacking is None:
        value = await invoked(fake, given)
        assert value["structuredContent"]["box"]["missing"] == ["memory", "cpu"]
        return
    with pytest.raises(Unavailable) as refused:
        await invoked(fake, given)
    assert (refused.value.status, refused.value.cause_code) == (503, "sandbox_degraded")
    assert lacking in refused.value.detail
    assert fake.ran == []


async def test_no_policy_accepts_a_host_without_a_sandbox() -> None:
    """Where no box can be started nothing runs, whatever was accepted."""
    fake = FakeSandbox(seen=Capabilities(None, missing=("sandbox",)))
    with pytest.raises(Unavailable) as refused:
        await invoked(fake, lease(code_tool(), {"code": "pass"}, accept_missing=("memory", "pids", "cpu", "sandbox")))
    assert refused.value.cause_code == "sandbox_degraded"
    assert fake.ran == []
    with pytest.raises(Unavailable, match="no sandbox"):
        await CodeConnector(fake).ping()
    await CodeConnector(FakeSandbox(seen=DEGRADED)).ping()


@pytest.mark.parametrize("arguments", [{}, {"code": 5}, {"code": ["pass"]}])
async def test_arguments_without_code_are_not_sent(arguments: dict[str, Any]) -> None:
    """Whatever the schema let through: only text is code."""
    fake = FakeSandbox()
    with pytest.raises(NotSent):
        await invoked(fake, lease(code_tool(), arguments))
    assert fake.ran == []


@pytest.mark.parametrize("error", [Unavailable("busy", cause_code="sandbox_busy"), ToolFailed("lost")])
async def test_a_sandbox_that_fails_is_told_as_it_is(error: GatewayError) -> None:
    """The port's own errors reach the caller."""
    with pytest.raises(type(error)) as told:
        await invoked(FakeSandbox(outcome=error), lease(code_tool(), {"code": ""}))
    assert told.value is error


async def test_a_cancelled_call_leaves_no_box() -> None:
    """The caller gone, its box is dead before the connector returns."""
    async with running() as runner:
        seen = await runner.probe()
        given = lease(code_tool(), {"code": marking("box-call") + "import time; time.sleep(60)"}, seen.missing)
        async with anyio.create_task_group() as group:
            group.start_soon(invoked, runner, given)
            with anyio.fail_after(20):
                while not marked("box-call"):  # noqa: ASYNC110 - a process of the system has no event to wait for
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
        assert not marked("box-call")


async def test_the_wall_ends_before_the_callers_patience() -> None:
    """A tool that sleeps is ended by its box, so that how it ended is known: no outcome is left unknown."""
    async with running() as runner:
        seen = await runner.probe()
        given = lease(code_tool(timeout_s=1.0), {"code": "import time; time.sleep(60)"}, seen.missing)
        value = await invoked(runner, given)
    assert value["structuredContent"]["ended"] == "wall"


@pytest.mark.parametrize(
    ("binding", "problem"),
    [
        ({}, None),
        ({"code": "text"}, "'text' must be a required argument"),
        ({"code": "number"}, "'number' must be a required argument"),
        ({"input": "nothing"}, "'nothing' is no argument"),
    ],
)
def test_a_declaration_is_held_against_its_schema(binding: dict[str, Any], problem: str | None) -> None:
    """An entry whose names are not in its schema is refused when the catalogue is loaded."""
    found = check(code_tool(**binding))
    assert (found == []) if problem is None else (problem in found[0])

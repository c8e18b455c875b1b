"""A small MCP client whose way to its server is our connector, as the conformance suite drives it.

It lists, then calls every tool, gets every prompt and reads every resource, and answers whatever it is asked with what
the question proposes.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from anyio import move_on_after
from msgspec import structs

from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.pool import Pool
from gateway.core.call import Continuation, Lease
from gateway.core.canonical import Arguments
from gateway.core.errors import GatewayError
from gateway.core.flow import Flow, Wants
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.asking import Question
from gateway.core.tool import Kind, Tool, kind_of
from tests.evidence import lease, make_arguments, make_tool
from tests.foreign.conformance_account import PATIENCE_S, PATIENT

CAPABILITIES = asking.declared({"elicitation": {}, "sampling": {}, "roots": {}})
SAMPLES: Mapping[str, Any] = {"number": 5, "integer": 5, "boolean": True, "array": [], "object": {}, "string": "x"}
# A call that a scenario never answers is given up, so that the scenario ends.
_CALL_S = 20.0
SAID = {"role": "assistant", "model": "scripted", "content": {"type": "text", "text": "x"}}


def sample(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object that fits: the defaults, and something of its type for what has none."""
    return {name: _value(said) for name, said in schema.get("properties", {}).items()}


def _value(said: Mapping[str, Any]) -> Any:
    if "default" in said:
        return said["default"]
    return said["enum"][0] if "enum" in said else SAMPLES.get(str(said.get("type")), "x")


class Everything:
    """Lets everything be asked and answered: what policy would say is not what is tried here."""

    async def permit(self, question: Question) -> Question:
        """As it is."""
        return question

    async def accept(self, question: Question, answer: Arguments) -> None:
        """As it is."""


async def answered(question: Question) -> Arguments:
    """What this client says."""
    if question.method == "elicitation/create":
        said: Any = {"action": "accept", "content": sample(question.params["requestedSchema"])}
    else:
        said = SAID if question.method == "sampling/createMessage" else {"roots": [{"uri": "file:///x"}]}
    return make_arguments(said)


async def _nowhere(message: bytes) -> None:
    del message


def made(tool: Tool, given: Mapping[str, Any], brought: Continuation | None = None) -> Lease:
    """A leased call with a line to this client."""
    flow = Flow(Wants(capabilities=CAPABILITIES), lambda text: (text, {}), _nowhere, lambda: None, answered)
    whole = lease(tool, dict(given))
    quota = whole.intent.quota
    target = quota.permit.target
    call = structs.replace(target.call, flow=flow, continuation=brought)
    permit = structs.replace(
        quota.permit, target=structs.replace(target, caller=structs.replace(target.caller, call=call))
    )
    return structs.replace(whole, intent=structs.replace(whole.intent, quota=structs.replace(quota, permit=permit)))


async def called(connector: HttpConnector, tool: Tool, given: Mapping[str, Any]) -> None:
    """Call, and again with the answers as long as the result asks."""
    brought = None
    for _ in range(8):
        whole = made(tool, given, brought)
        flow = whole.intent.call.flow
        assert flow is not None
        with flow.under_way(lambda: None, Everything()):
            value = (await connector.invoke(whole)).value
        if value.get("resultType") != "input_required":
            return
        questions = asking.questions(value)
        answers = {key: await answered(question) for key, question in questions.items()}
        brought = Continuation(value.get("requestState"), questions, answers)


def asked_for(definition: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments for what ``definition`` describes."""
    name = str(definition["name"])
    if kind_of(name) is Kind.RESOURCE:
        return {"uri": name.removeprefix(Kind.RESOURCE.prefix)}
    given: Mapping[str, Any] = wanted.get(name, sample(definition["inputSchema"]))
    return given


async def used(url: str, given: Mapping[str, Any]) -> None:
    """All that there is, at once: no call may see what is another one's. ``given``: what the suite wants called."""
    wanted = {call["name"]: call["arguments"] for call in given.get("toolCalls", [])}
    async with Pool() as pool, HttpConnector(url, pool, HttpOptions(setup_timeout_s=PATIENCE_S)) as connector:
        # Of what makes no tool only the name is there; the gateway leaves it out as well.
        listed = [item for item in await connector.discover() if "{" not in item["name"]]
        found = [item for item in listed if "inputSchema" in item or kind_of(item["name"]) is Kind.RESOURCE]
        kept = [item["inputSchema"] for item in found if item["name"] == "json_schema_2020_12_tool"]
        wanted |= {"json_schema_echo": {"schema": one} for one in kept[:1]}  # noqa: B035 -- at most one
        tools = [(make_tool(item["name"], definition=item, limits=PATIENT), asked_for(item, wanted)) for item in found]

        async def tried(tool: Tool, given: Mapping[str, Any]) -> None:
            # The suite judges what was sent; a call may fail.
            with contextlib.suppress(GatewayError), move_on_after(_CALL_S):
                await called(connector, tool, given)

        await asyncio.gather(*[tried(tool, given) for tool, given in tools])

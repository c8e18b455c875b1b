"""REST for tools: list them, call them. Names are ``server.tool``."""

from collections.abc import Sequence
from typing import Any

from msgspec import structs
from pydantic import Field

from gateway.core import canonical, pipeline
from gateway.core.desk import Desk
from gateway.core.errors import (
    BudgetExhausted,
    InvalidArguments,
    OutcomeUnknown,
    Pending,
    Quarantined,
    Throttled,
    TooLarge,
    ToolFailed,
    Unavailable,
    UnknownTool,
)
from gateway.core.mcpwire import jsonrpc
from gateway.core.pinning import PinState
from gateway.core.ports import Ports
from gateway.core.tool import EffectClass, Kind, Tool, kind_of
from gateway.edge.auth import NO_ARGUMENTS
from gateway.edge.calling import carry_out
from gateway.edge.disconnect import Watched, unless_gone
from gateway.edge.faults import UnsupportedMediaType
from gateway.edge.models import Model
from gateway.edge.problems import CALL_HEADER
from gateway.edge.reply import Reply
from gateway.edge.reported import Remarks
from gateway.edge.rest.routes import Asked, Operation, shown


class ToolCall(Remarks):
    """A call of a tool."""

    arguments: dict[str, Any] = Field(default_factory=dict, description="Checked against the tool's input schema.")


class ToolAnswer(Model):
    """What a call brought."""

    call_id: str = Field(description="For GET /v1/calls/{id} and `ostiary explain`.")
    run_id: str
    result: dict[str, Any] = Field(description="MCP tool result: content, structuredContent, isError.")
    redactions: int = Field(description="How many values were taken out of the result.")
    replayed: bool = Field(
        default=False,
        description="Whether this is what came of an earlier, approved execution: nothing was executed now.",
    )


class ToolShown(Model):
    """A tool the caller may know of."""

    name: str = Field(description="server.tool, the name in policy, log and REST.")
    wire_name: str = Field(description="Name on the aggregate MCP endpoint.")
    effect: EffectClass
    labels: tuple[str, ...]
    state: PinState = Field(description="quarantined: not to be called until a person approves its new definition.")
    definition: dict[str, Any] = Field(description="The approved MCP definition.")


class ToolList(Model):
    """All tools the caller may know of."""

    tools: tuple[ToolShown, ...]


class ToolRest:
    """Operations on tools. Every call ends in the pipeline."""

    def __init__(self, ports: Ports, desk: Desk) -> None:
        """``ports`` are the pipeline's."""
        self._ports = ports
        self._pins = desk.pins

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "POST",
                "/v1/tools/{tool:path}/call",
                "callTool",
                "Call a tool; the header Ostiary-Run names the run.",
                self.call,
                ToolAnswer,
                scopes=("tools",),
                calls=True,
                body=ToolCall,
                refusals=(
                    Pending,
                    UnknownTool,
                    Quarantined,
                    TooLarge,
                    UnsupportedMediaType,
                    InvalidArguments,
                    Throttled,
                    BudgetExhausted,
                    ToolFailed,
                    Unavailable,
                    OutcomeUnknown,
                ),
            ),
            Operation(
                "GET",
                "/v1/tools",
                "listTools",
                "List the tools the caller may know of.",
                self.list,
                ToolList,
                scopes=("tools",),
                lists=True,
                refusals=(Unavailable,),
            ),
        )

    async def call(self, asked: Asked) -> Reply:
        """Carry out one call."""
        given = canonical.arguments(asked.document.member("arguments"))
        named = asked.visit.named(_tool_name(asked.path["tool"]), given, asked.run)
        call = structs.replace(named, reported=asked.body.reported())
        answer = await carry_out(call, self._ports, Watched(asked.receive))
        body = b'{"call_id":%b,"run_id":%b,"result":%b,"redactions":%d%b}' % (
            jsonrpc.encode(answer.call_id),
            jsonrpc.encode(answer.run_id),
            answer.body,
            answer.redactions,
            b',"replayed":true' if answer.replayed else b"",
        )
        return Reply(200, body, headers=((CALL_HEADER, answer.call_id.encode()),))

    async def list(self, asked: Asked) -> Reply:
        """The caller's tools."""
        call = asked.visit.named("", NO_ARGUMENTS, asked.run)
        tools = await unless_gone(asked.receive, pipeline.listing(call, self._ports))
        return shown(ToolList(tools=tuple(_shown(tool, self._pins.state(tool.fqn)) for tool in tools)))


def _tool_name(said: str) -> str:
    # A name of another kind names no tool: it becomes one that none has.
    return said if kind_of(said.partition(".")[2]) is Kind.TOOL else f".{said}"


def _shown(tool: Tool, state: PinState) -> ToolShown:
    return ToolShown(
        name=tool.fqn,
        wire_name=tool.wire_name,
        effect=tool.effect,
        labels=tool.labels,
        state=state,
        definition=dict(tool.definition),
    )

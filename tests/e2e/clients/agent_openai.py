"""An agent of the OpenAI Agents SDK whose model is a script; see ``plot``."""

import asyncio
import json
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
from plot import HEADERS, URL, Plot

PLOT = Plot()


def word() -> ResponseFunctionToolCall | ResponseOutputMessage:
    """The model's next word."""
    number = len(PLOT.seen)
    if (call := PLOT.next()) is None:
        text = ResponseOutputText(text="finished", type="output_text", annotations=[])
        return ResponseOutputMessage(
            id=f"m{number}", role="assistant", type="message", status="completed", content=[text]
        )
    tool, arguments = call
    return ResponseFunctionToolCall(
        call_id=f"c{number}", name=tool, arguments=json.dumps(arguments), type="function_call"
    )


class Script(Model):
    """The model."""

    async def get_response(self, *given: Any, **more: Any) -> ModelResponse:
        """Note what it is shown, and say the next word."""
        shown, tools = given[1] if len(given) > 1 else more["input"], given[3] if len(given) > 3 else more["tools"]
        PLOT.offered = [tool.name for tool in tools]
        results = [] if isinstance(shown, str) else [item for item in shown if "output" in item]
        PLOT.seen = [text if isinstance(text := item["output"], str) else json.dumps(text) for item in results]
        return ModelResponse(output=[word()], usage=Usage(), response_id=None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        """Not asked for here."""
        raise NotImplementedError


async def main() -> None:
    """Let the agent work."""
    set_tracing_disabled(disabled=True)
    model = Script()
    place = {"url": URL, "headers": HEADERS, "timeout": 90}
    async with MCPServerStreamableHttp(place, name="ostiary", client_session_timeout_seconds=90) as server:
        agent = Agent(name="clerk", model=model, mcp_servers=[server])
        ended = await Runner.run(agent, "do your work")
    PLOT.output = ended.final_output
    PLOT.tell()


asyncio.run(main())

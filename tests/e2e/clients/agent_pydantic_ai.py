"""An agent of Pydantic AI whose model is a script; see ``plot``."""

import asyncio

from plot import HEADERS, URL, Plot
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

PLOT = Plot()


def speak(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """The model's next word."""
    PLOT.offered = [tool.name for tool in info.function_tools]
    for part in messages[-1].parts:
        if isinstance(part, ToolReturnPart | RetryPromptPart):
            PLOT.seen.append(part.model_response_str() if isinstance(part, ToolReturnPart) else str(part.content))
    call = PLOT.next()
    return ModelResponse(parts=[TextPart("finished") if call is None else ToolCallPart(*call)])


async def main() -> None:
    """Let the agent work."""
    model = FunctionModel(speak)
    toolset = MCPToolset(URL, headers=HEADERS, tool_error_behavior="failed")
    agent = Agent(model, toolsets=[toolset])
    PLOT.output = (await agent.run("do your work")).output
    PLOT.tell()


asyncio.run(main())

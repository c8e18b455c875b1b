"""An agent of Pydantic AI whose model is a script: ``agent_2026.py PATH CALLS`` with URL and token in the environment.

CALLS is JSON: ``[[tool, arguments], ...]``; the model asks for one after the other, then answers. Prints one line of
JSON: the tools the model was offered, and what it got to read after each call.
"""

import asyncio
import json
import os
import sys

from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

URL = os.environ["OSTIARY_URL"] + sys.argv[1]
CALLS = json.loads(sys.argv[2])


class Script:
    """The model: it asks for the calls in order, and keeps what it was shown."""

    def __init__(self) -> None:
        self.offered: list[str] = []
        self.seen: list[str] = []

    def speak(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        """The next word."""
        self.offered = [tool.name for tool in info.function_tools]
        for part in messages[-1].parts:
            if isinstance(part, ToolReturnPart | RetryPromptPart):
                self.seen.append(part.model_response_str() if isinstance(part, ToolReturnPart) else str(part.content))
        if len(self.seen) == len(CALLS):
            return ModelResponse(parts=[TextPart("finished")])
        tool, arguments = CALLS[len(self.seen)]
        return ModelResponse(parts=[ToolCallPart(tool, arguments)])


async def main() -> None:
    """Let the agent work."""
    script = Script()
    headers = {"Authorization": f"Bearer {os.environ['OSTIARY_TOKEN']}"}
    agent = Agent(FunctionModel(script.speak), toolsets=[MCPToolset(URL, headers=headers)], retries=len(CALLS))
    ended = await agent.run("do your work")
    said = {"offered": script.offered, "seen": script.seen, "output": ended.output}
    sys.stdout.write(json.dumps(said))


asyncio.run(main())

"""An agent of Google's ADK whose model is a script; see ``plot``."""

import asyncio
import json
from collections.abc import AsyncGenerator

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams
from google.genai import types
from plot import HEADERS, URL, Plot

PLOT = Plot()


class Script(BaseLlm):
    """The model."""

    model: str = "script"

    async def generate_content_async(
        self,
        llm_request: LlmRequest,
        stream: bool = False,
    ) -> AsyncGenerator[LlmResponse, None]:
        """Note what it is shown, and say the next word."""
        PLOT.offered = list(llm_request.tools_dict)
        parts = [part for content in llm_request.contents for part in content.parts or ()]
        PLOT.seen = [json.dumps(part.function_response.response) for part in parts if part.function_response]
        part = types.Part(text="finished")
        if (call := PLOT.next()) is not None:
            part = types.Part(function_call=types.FunctionCall(name=call[0], args=call[1]))
        yield LlmResponse(content=types.Content(role="model", parts=[part]))


async def main() -> None:
    """Let the agent work."""
    model = Script()
    place = StreamableHTTPConnectionParams(url=URL, headers=HEADERS, timeout=90)
    agent = LlmAgent(name="clerk", model=model, tools=[McpToolset(connection_params=place)])
    runner = InMemoryRunner(agent, app_name="market")
    session = await runner.session_service.create_session(app_name="market", user_id="dora")
    wish = types.Content(role="user", parts=[types.Part(text="do your work")])
    async for event in runner.run_async(user_id="dora", session_id=session.id, new_message=wish):
        if event.is_final_response() and event.content and event.content.parts:
            PLOT.output = event.content.parts[0].text or ""
    await runner.close()
    PLOT.tell()


asyncio.run(main())

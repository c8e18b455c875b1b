"""An agent of LangChain whose model is a script: ``agent_2025.py PATH CALLS`` with URL and token in the environment.

CALLS is JSON: ``[[tool, arguments], ...]``; the model asks for one after the other, then answers. Prints one line of
JSON: the tools the model was offered, and what it got to read after each call.
"""

import asyncio
import json
import os
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_mcp_adapters.client import MultiServerMCPClient
from pydantic import Field

URL = os.environ["OSTIARY_URL"] + sys.argv[1]
CALLS = json.loads(sys.argv[2])


class Script(BaseChatModel):
    """The model: it asks for the calls in order, and keeps what it was shown."""

    offered: list[str] = Field(default_factory=list)
    seen: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "script"

    def bind_tools(self, tools: Any, **_: Any) -> "Script":
        """Note what the model may call."""
        self.offered = [tool.name for tool in tools]
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.seen = [str(message.text) for message in messages if isinstance(message, ToolMessage)]
        word = AIMessage("finished")
        if len(self.seen) < len(CALLS):
            tool, arguments = CALLS[len(self.seen)]
            word = AIMessage("", tool_calls=[{"name": tool, "args": arguments, "id": f"call-{len(self.seen)}"}])
        return ChatResult(generations=[ChatGeneration(message=word)])


async def main() -> None:
    """Let the agent work."""
    headers = {"Authorization": f"Bearer {os.environ['OSTIARY_TOKEN']}"}
    client = MultiServerMCPClient({"door": {"transport": "streamable_http", "url": URL, "headers": headers}})
    script = Script()
    agent = create_agent(script, await client.get_tools())
    ended = await agent.ainvoke({"messages": [("user", "do your work")]})
    said = {"offered": script.offered, "seen": script.seen, "output": ended["messages"][-1].text}
    sys.stdout.write(json.dumps(said))


asyncio.run(main())

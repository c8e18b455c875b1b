"""An agent of LangChain whose model is a script; see ``plot``."""

import asyncio

from langchain.agents import create_agent
from langchain_mcp_adapters.client import MultiServerMCPClient
from plot import HEADERS, URL
from script_langchain import Script


async def main() -> None:
    """Let the agent work."""
    client = MultiServerMCPClient({"ostiary": {"transport": "streamable_http", "url": URL, "headers": HEADERS}})
    model = Script()
    agent = create_agent(model, await client.get_tools())
    ended = await agent.ainvoke({"messages": [("user", "do your work")]})
    model.plot.output = ended["messages"][-1].text
    model.plot.tell()


asyncio.run(main())

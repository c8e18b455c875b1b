"""An agent of mcp-use whose model is a script; see ``plot``. ``MCP_USE_ANONYMIZED_TELEMETRY=false`` keeps it silent."""

import asyncio

from mcp_use import MCPAgent, MCPClient
from plot import HEADERS, URL
from script_langchain import Script


async def main() -> None:
    """Let the agent work."""
    client = MCPClient({"mcpServers": {"ostiary": {"url": URL, "headers": HEADERS}}})
    model = Script()
    agent = MCPAgent(llm=model, client=client, max_steps=30)
    model.plot.output = await agent.run("do your work")
    await client.close_all_sessions()
    model.plot.tell()


asyncio.run(main())

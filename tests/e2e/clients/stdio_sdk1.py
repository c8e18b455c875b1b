"""A client on the official MCP SDK 1.x that only starts programs: ``stdio_sdk1.py ENTRY CALLS``.

ENTRY is a server of an ``mcp.json``, CALLS is ``[[tool, arguments], ...]``. Prints one line of JSON.
"""

import asyncio
import json
import os
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main() -> None:
    """Shake hands, list, call."""
    entry = json.loads(sys.argv[1])
    place = StdioServerParameters(command=entry["command"], args=entry["args"], env=dict(os.environ))
    async with stdio_client(place) as (reading, writing), ClientSession(reading, writing) as session:
        hello = await session.initialize()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        results = [await session.call_tool(tool, arguments) for tool, arguments in json.loads(sys.argv[2])]
        texts = [[block.text for block in result.content if block.type == "text"] for result in results]
    sys.stdout.write(json.dumps({"version": hello.protocolVersion, "tools": tools, "texts": texts}))


asyncio.run(main())

"""A client on the official MCP SDK 2.x that only starts programs: ``stdio_sdk2.py ENTRY CALLS``.

ENTRY is a server of an ``mcp.json``, CALLS is ``[[tool, arguments], ...]``. Prints one line of JSON.
"""

import asyncio
import json
import os
import sys

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main() -> None:
    """Connect, list, call."""
    entry = json.loads(sys.argv[1])
    place = StdioServerParameters(command=entry["command"], args=entry["args"], env=dict(os.environ))
    async with Client(stdio_client(place), mode="auto") as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        results = [await client.call_tool(tool, arguments) for tool, arguments in json.loads(sys.argv[2])]
        texts = [[block.text for block in result.content if block.type == "text"] for result in results]
        version = client.protocol_version
    sys.stdout.write(json.dumps({"version": version, "tools": tools, "texts": texts}))


asyncio.run(main())

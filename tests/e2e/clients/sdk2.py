"""A client on the official MCP SDK 2.x: ``sdk2.py TALKS [MODE]`` with URL and token in the environment.

TALKS is JSON: ``[[path, [[tool, arguments], ...]], ...]``; MODE is the SDK's (``auto``, ``legacy`` or a revision).
Prints one line of JSON: of each talk the protocol version, tools and answers.
"""

import asyncio
import json
import os
import sys
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

URL = os.environ["OSTIARY_URL"]
HEADERS = {"Authorization": f"Bearer {os.environ['OSTIARY_TOKEN']}"}
MODE = sys.argv[2] if len(sys.argv) > 2 else "auto"


async def answered(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One call, as a program on this SDK sees its end."""
    try:
        result = await client.call_tool(tool, arguments)
    except MCPError as error:
        return {"code": error.error.code, "message": error.error.message}
    texts = [block.text for block in result.content if block.type == "text"]
    return {"is_error": result.is_error, "texts": texts, "structured": result.structured_content}


async def talk(path: str, calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Connect, list, call."""
    async with (
        httpx2.AsyncClient(headers=HEADERS) as http,
        Client(streamable_http_client(URL + path, http_client=http), mode=MODE) as client,
    ):
        tools = [tool.name for tool in (await client.list_tools()).tools]
        answers = [await answered(client, tool, arguments) for tool, arguments in calls]
        return {"version": client.protocol_version, "tools": tools, "answers": answers}


async def main() -> None:
    """Hold one talk after the other."""
    said = [await talk(path, calls) for path, calls in json.loads(sys.argv[1])]
    sys.stdout.write(json.dumps(said))


asyncio.run(main())

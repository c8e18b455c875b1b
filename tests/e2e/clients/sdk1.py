"""A client on the official MCP SDK 1.x: ``sdk1.py TALKS`` with URL and token in the environment.

TALKS is JSON: ``[[path, [[tool, arguments], ...]], ...]``. Prints one line of JSON: of each talk the protocol version,
tools and answers.
"""

import asyncio
import json
import os
import sys
from typing import Any

from mcp import ClientSession, McpError
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

URL = os.environ["OSTIARY_URL"]
HEADERS = {"Authorization": f"Bearer {os.environ['OSTIARY_TOKEN']}"}


async def answered(session: ClientSession, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One call, as a program on this SDK sees its end."""
    try:
        result = await session.call_tool(tool, arguments)
    except McpError as error:
        return {"code": error.error.code, "message": error.error.message}
    texts = [block.text for block in result.content if block.type == "text"]
    return {"is_error": result.isError, "texts": texts, "structured": result.structuredContent}


async def talk(path: str, calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Shake hands, list, call."""
    async with (
        create_mcp_http_client(headers=HEADERS) as http,
        streamable_http_client(URL + path, http_client=http) as (reading, writing, _),
        ClientSession(reading, writing) as session,
    ):
        hello = await session.initialize()
        await session.send_ping()
        tools = [tool.name for tool in (await session.list_tools()).tools]
        answers = [await answered(session, tool, arguments) for tool, arguments in calls]
    return {"version": hello.protocolVersion, "tools": tools, "answers": answers}


async def main() -> None:
    """Hold one talk after the other."""
    said = [await talk(path, calls) for path, calls in json.loads(sys.argv[1])]
    sys.stdout.write(json.dumps(said))


asyncio.run(main())

"""A program on the official MCP SDK 1.x that makes calls in order; see ``plot``."""

import asyncio

from mcp import ClientSession
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from plot import HEADERS, URL, Plot


async def main() -> None:
    """Shake hands, list, call."""
    plot = Plot()
    async with (
        create_mcp_http_client(headers=HEADERS) as http,
        streamable_http_client(URL, http_client=http) as (reading, writing, _),
        ClientSession(reading, writing) as session,
    ):
        await session.initialize()
        plot.offered = [tool.name for tool in (await session.list_tools()).tools]
        while (call := plot.next()) is not None:
            plot.seen.append((await session.call_tool(*call)).content[0].text)
    plot.output = "finished"
    plot.tell()


asyncio.run(main())

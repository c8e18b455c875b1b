"""A program on the official MCP SDK 2.x that makes calls in order; see ``plot``. ``MCP_MODE`` is the SDK's."""

import asyncio
import os

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from plot import HEADERS, URL, Plot


async def main() -> None:
    """Connect, list, call."""
    plot = Plot()
    async with (
        httpx2.AsyncClient(headers=HEADERS, timeout=60) as http,
        Client(streamable_http_client(URL, http_client=http), mode=os.environ["MCP_MODE"]) as client,
    ):
        plot.offered = [tool.name for tool in (await client.list_tools()).tools]
        while (call := plot.next()) is not None:
            plot.seen.append((await client.call_tool(*call)).content[0].text)
    plot.output = "finished"
    plot.tell()


asyncio.run(main())

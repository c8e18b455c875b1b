"""The peer: FastMCP's proxy in front of the same upstream, in its own environment (``requirements/peers.txt``).

Two ways that FastMCP documents:

* ``shared``: ``create_proxy`` is given a connected client, and every call goes through its one session;
* ``default``: ``create_proxy`` is given the URL, and every call gets a client, a connection and a session of its own.

Both answer statelessly and in JSON, which is the cheapest FastMCP's HTTP server offers, without access log. No control
of any kind is on. The first line on standard output is JSON: ``{"url": ..., "versions": {...}}``.

Run: ``python loadtests/peers.py shared|default UPSTREAM_URL``
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import socket

import uvicorn
from fastmcp import Client  # type: ignore[import-not-found]  # lives in an environment of its own
from fastmcp.server import create_proxy  # type: ignore[import-not-found]

PATH = "/mcp"


async def serve(mode: str, upstream: str) -> None:
    """Serve the proxy on a free loopback port until told to stop."""
    async with contextlib.AsyncExitStack() as stack:
        target = await stack.enter_async_context(Client(upstream)) if mode == "shared" else upstream
        proxy = create_proxy(target, name="peer")
        app = proxy.http_app(path=PATH, json_response=True, stateless_http=True)
        # With the protocol named: asyncio leaves Nagle's algorithm on otherwise, and each answer waits 40 ms.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        versions = {name: importlib.metadata.version(name) for name in ("fastmcp", "mcp", "uvicorn")}
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        print(json.dumps({"url": url, "versions": versions}), flush=True)
        config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="on")
        await uvicorn.Server(config).serve(sockets=[listener])


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="FastMCP's proxy of an MCP upstream")
    parser.add_argument("mode", choices=("shared", "default"))
    parser.add_argument("upstream", help="URL of the upstream's MCP endpoint")
    options = parser.parse_args()
    asyncio.run(serve(options.mode, options.upstream))


if __name__ == "__main__":
    main()

"""The edge on fakes behind real sockets: what the command line talks to."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from tests.edge_world import Edge

DEADLINE_S = 10


@contextmanager
def served(edge: Edge, socket: Path) -> Iterator[str]:
    """Serve ``edge`` by a Unix socket and on loopback; yields the URL."""
    config = uvicorn.Config(edge.app, uds=str(socket), lifespan="off", log_level="error", ws="none")
    with (
        running(config),
        running(uvicorn.Config(edge.app, port=0, lifespan="off", log_level="error", ws="none")) as server,
    ):
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(config: uvicorn.Config) -> Iterator[uvicorn.Server]:
    """Run a server in a thread until the bracket closes."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + DEADLINE_S
    while not server.started and time.monotonic() < end:
        thread.join(0.01)
    try:
        assert server.started
        yield server
    finally:
        server.should_exit = True
        thread.join()

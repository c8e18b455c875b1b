"""The sockets the gateway listens on, and the server that takes calls from them."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import uvicorn
from starlette.types import ASGIApp

from gateway.edge.ears import Stopping
from gateway.serving import connections
from gateway.serving.places import Bounds
from gateway.settings import GatewaySettings

ADMIN_SOCKET = "admin.sock"
_BACKLOG = 2048
_DRAIN_S = 10


@contextmanager
def sockets(settings: GatewaySettings) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The TCP socket and the operator's Unix socket (mode 0600), bound and listening.

    Raises:
        OSError: the address is taken or may not be used.
    """
    path = settings.state / ADMIN_SOCKET
    family = socket.AF_INET6 if ":" in settings.listen.host else socket.AF_INET
    with socket.create_server((settings.listen.host, settings.listen.port), family=family, backlog=_BACKLOG) as tcp:
        # Inherited by each connection; asyncio sets it only on sockets that name their protocol, and a delayed answer
        # costs 40 ms.
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(FileNotFoundError):
            path.unlink()  # left by a gateway that was killed; the state folder's lock says that none is alive
        with socket.socket(socket.AF_UNIX) as unix:
            _bind_private(unix, path)
            try:
                yield tcp, unix
            finally:
                with suppress(FileNotFoundError):
                    path.unlink()


def url(settings: GatewaySettings, tcp: socket.socket) -> str:
    """Where callers reach the gateway: as configured, else the address it listens on."""
    if settings.listen.external_url is not None:
        return settings.listen.external_url.rstrip("/")
    host, port = tcp.getsockname()[:2]
    scheme = "https" if settings.listen.tls_certificate else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Server:
    """Takes calls from listening sockets. Signals are the command's business, not the server's."""

    def __init__(self, settings: GatewaySettings, app: ASGIApp) -> None:
        """Prepare; nothing is taken yet."""
        certificate, key = settings.listen.tls_certificate, settings.listen.tls_key
        bounds = _bounds(settings)
        self._stopping = Stopping()
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                http=connections.within(bounds, self._stopping),
                timeout_keep_alive=bounds.idle_s,
                backlog=_BACKLOG,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                timeout_graceful_shutdown=_DRAIN_S,
                ssl_certfile=str(certificate) if certificate else None,
                ssl_keyfile=str(key) if key else None,
            )
        )

    @asynccontextmanager
    async def running(self, on: list[socket.socket]) -> AsyncIterator[None]:
        """Take calls while the bracket is open; on exit calls in flight are let finish, within bounds."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._serve, on)
            try:
                await self._server.is_up.wait()
                yield
            finally:
                self._stopping.set()
                self._server.should_exit = True

    async def _serve(self, on: list[socket.socket]) -> None:
        # Shielded: being cancelled is the signal to drain, and draining ends by its own deadline.
        with anyio.CancelScope(shield=True):
            await self._server.serve(on)


class _Uvicorn(uvicorn.Server):
    """Says when it is up, and leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = anyio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind_private(unix: socket.socket, path: Path) -> None:
    before = os.umask(0o177)
    try:
        unix.bind(str(path))
    finally:
        os.umask(before)
    unix.listen(_BACKLOG)


def _bounds(settings: GatewaySettings) -> Bounds:
    limits = settings.limits
    return Bounds(
        connections=limits.connections,
        connections_each=limits.connections_each,
        head_s=limits.head_seconds,
        head_bytes=limits.head_bytes,
    )

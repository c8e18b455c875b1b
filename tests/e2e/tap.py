"""A tap on the wire between a client and a server: it passes all bytes on, and keeps those of the client."""

import contextlib
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from urllib.parse import urlsplit

_REVISION = re.compile(rb"(?i)\r\nmcp-protocol-version: *(\S+)\r\n")


class Tap(ThreadingTCPServer):
    """The tap before ``url``; each connection has two threads."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.far = (str(place.hostname), int(place.port or 0))
        self.asked: list[bytearray] = []
        super().__init__(("127.0.0.1", 0), _Pipe)

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def heard(self, text: bytes) -> bool:
        """Whether a client has said ``text``."""
        return any(text in said for said in self.asked)

    def revisions(self) -> set[str]:
        """The revisions of MCP that the clients' requests named."""
        return {name.decode() for said in self.asked for name in _REVISION.findall(said)}


class _Pipe(BaseRequestHandler):
    server: Tap

    def handle(self) -> None:
        """Pass on what comes, both ways, until the client leaves."""
        said = bytearray()
        self.server.asked.append(said)
        with socket.create_connection(self.server.far) as far, contextlib.suppress(OSError):
            back = Thread(target=_pumped, args=(far, self.request), daemon=True)
            back.start()
            while piece := self.request.recv(65536):
                said += piece
                far.sendall(piece)
            far.shutdown(socket.SHUT_WR)
            back.join()


def _pumped(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def tapped(url: str) -> Iterator[Tap]:
    """A tap before the server at ``url``."""
    with Tap(url) as tap:
        thread = Thread(target=tap.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield tap
        finally:
            tap.shutdown()
            thread.join()

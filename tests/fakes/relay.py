"""A relay before a Unix socket that cuts or holds a connection when it sees certain bytes on their way."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_CHUNK = 65536


@dataclass
class Relay:
    """What a running relay does; change it from the test.

    Attributes:
        path: where it listens.
        cut: bytes whose answer is lost: the connection is cut once there is one.
        drop: bytes at which the connection is cut; they are not forwarded.
        hold: bytes that are forwarded only once ``let_go`` is set.
        held: set when something is being held.
        down: new connections are closed at once.
        answers: all that the server said.
    """

    path: Path
    cut: bytes | None = None
    drop: bytes | None = None
    hold: bytes | None = None
    let_go: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    down: bool = False
    answers: bytearray = field(default_factory=bytearray)

    def _up(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                if self.hold is not None and self.hold in data:
                    self.held.set()
                    self.let_go.wait(60)
                if self.drop is not None and self.drop in data:
                    break
                if self.cut is not None and self.cut in data:
                    lost.set()
                server.sendall(data)
        _shut(client, server)

    def _down(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                self.answers += data
                if lost.is_set():
                    # Not before: a server breaks off what it does for a client that has gone, and here it has done it.
                    break
                client.sendall(data)
        _shut(client, server)


@contextmanager
def relaying(path: Path, server: Path) -> Iterator[Relay]:
    """A relay at ``path`` before the socket ``server``."""
    relay = Relay(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        threading.Thread(target=_accept, args=(listener, relay, server), daemon=True).start()
        try:
            yield relay
        finally:
            relay.let_go.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, relay: Relay, path: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.socket(socket.AF_UNIX)
        try:
            if relay.down:
                raise OSError
            server.connect(str(path))
        except OSError:
            client.close()
            server.close()
            continue
        lost = threading.Event()
        for pump in (relay._up, relay._down):
            threading.Thread(target=pump, args=(client, server, lost), daemon=True).start()


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

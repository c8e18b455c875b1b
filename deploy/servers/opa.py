"""A real OPA server with bundles in a folder of its own, as operators run it.

Its binary is on no package index: ``make setup`` builds it with Go, once, into the user's cache.
"""

import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import MappingProxyType

from deploy.servers.process import Running, Server, ServerError, running, short_folder

VERSION = "1.20.2"
_READY_S = 20.0
_ASK_S = 2.0
_OK = 200
_FIX = "`make setup` builds it where Go is installed"


@dataclass(frozen=True, slots=True)
class Opa:
    """A running OPA.

    Attributes:
        url: where it listens, as the gateway's settings have it.
        folder: holds its bundle files.
        process: the server.
    """

    url: str
    folder: Path
    process: Running


def binary() -> Path:
    """The server's binary: ``$OSTIARY_TEST_OPA``, the one ``make setup`` built, or the one on ``PATH``.

    Raises:
        ServerError: there is none.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for path in (os.environ.get("OSTIARY_TEST_OPA"), cache / "ostiary" / f"opa-{VERSION}" / "opa", shutil.which("opa")):
        if path and os.access(path, os.X_OK):
            return Path(path)
    raise ServerError("there is no OPA server", _FIX)


@contextmanager
def opa(
    bundles: Mapping[str, bytes],
    *,
    unix: bool = False,
    arguments: Sequence[str] = (),
    beside: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Opa]:
    """Serve these bundle files, by name, on loopback or on a Unix socket, until exit; files may be replaced meanwhile.

    With files ``beside`` them, all are loaded together, which is how operators make mistakes.

    Raises:
        ServerError: it cannot be started; one line with its fix.
    """
    with short_folder("ostiary-opa-") as folder:
        for name, content in bundles.items():
            (folder / f"{name}.tar.gz").write_bytes(content)
        address = f"unix://{folder}/opa.sock" if unix else f"127.0.0.1:{_free_port()}"
        command = [str(binary()), "run", "--server", "--addr", address, "--watch", "--disable-telemetry"]
        for name, text in beside.items():
            (folder / name).write_text(text, "utf-8")
        files = [*(f"{folder / name}.tar.gz" for name in bundles), *(str(folder / name) for name in beside)]
        command += ["--log-level", "error", *arguments, *([] if beside else ["--bundle"]), *files]
        environment = {"PATH": os.defpath, "HOME": str(folder)}
        with running(Server("OPA", command, folder / "log", environment=environment)) as process:
            process.wait_until(lambda: _is_ready(address), _READY_S)
            yield Opa(address if unix else f"http://{address}", folder, process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ready(address: str) -> bool:
    path = address.removeprefix("unix://")
    connection = HTTPConnection(address, timeout=_ASK_S) if path == address else _UnixConnection(path)
    try:
        connection.request("GET", "/health?bundles")
        return connection.getresponse().status == _OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

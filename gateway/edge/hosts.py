"""Host and Origin checks, against DNS rebinding and against web pages that reach for a local gateway.

A rebound name stands in the Host header as the attacker's own domain, so an IP literal there is harmless (probes and
scrapers use one); a name must be ours. An Origin is foreign unless it is ours, or loopback where we are loopback too.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from gateway.edge.faults import ForeignOrigin, Misdirected
from gateway.edge.heads import head_of

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class HostGuard:
    """Lets requests through whose Host and Origin are ours."""

    def __init__(
        self, external_url: str, allowed_hosts: Sequence[str] = (), operator_socket: str | None = None
    ) -> None:
        """``external_url`` is where callers reach the gateway; ``allowed_hosts`` are further names, without ports.

        ``operator_socket`` is the path of the operator's own Unix socket, which has neither names nor web pages. Any
        other Unix socket may have a proxy before it that has both.
        """
        self._operator_socket = operator_socket
        own = urlsplit(external_url)
        host = own.hostname or ""
        self._names = _LOOPBACK_NAMES | {host} | {name.lower() for name in allowed_hosts}
        self._origin = f"{own.scheme}://{own.netloc}".lower()
        self._loopback = host in _LOOPBACK_NAMES

    def check(self, scope: Scope) -> None:
        """Refuse a request with a foreign Host or Origin.

        Raises:
            Misdirected: the Host header is missing, doubled or names somebody else.
            ForeignOrigin: a web page of another origin sent it.
        """
        head = head_of(scope)
        if came_by(scope, self._operator_socket):
            return
        found = head.fields
        hosts = found.get(b"host", ())
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Misdirected("the Host header names another server", cause_code="host")
        for origin in found.get(b"origin", ()):
            if not self._is_own_origin(origin.decode("latin-1").lower()):
                raise ForeignOrigin("requests from web pages of other origins are refused", cause_code="origin")
        head.is_ours = True

    def _is_ours(self, host: bytes) -> bool:
        name = _name(host.decode("latin-1").lower())
        return name is not None and (name in self._names or _is_address(name))

    def _is_own_origin(self, origin: str) -> bool:
        if origin == self._origin:
            return True
        scheme, separator, host = origin.partition("://")
        return self._loopback and bool(separator) and scheme in {"http", "https"} and _name(host) in _LOOPBACK_NAMES


def came_by(scope: Scope, path: str | None) -> bool:
    """Whether the request came by the Unix socket at ``path`` (the server's address is then that path, no port)."""
    server = scope.get("server")
    return path is not None and server is not None and server[1] is None and server[0] == path


def _name(host: str) -> str | None:
    """The name of ``name[:port]`` or ``[v6][:port]``; None where it is neither."""
    name, bracket, rest = host[1:].partition("]") if host.startswith("[") else (host, "", "")
    if not bracket:
        name, colon, port = host.partition(":")
        rest = colon + port
    if rest and not (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdigit()):
        return None
    return name or None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

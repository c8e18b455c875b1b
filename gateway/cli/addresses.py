"""Addresses: which are this machine's own, and whether one can be listened on."""

import errno
import socket
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from gateway.cli.screen import Misconfigured

_USUAL: Final = {"http": ":80", "https": ":443"}


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine and nothing else."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def place(url: str) -> str:
    """``url`` in one spelling: scheme and host in lower case, the usual port and a slash at the end left out.

    Its path keeps its case: ``/A`` and ``/a`` of one host may be two people's.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # no address at all; whoever uses it says so
    user, at, host = parts.netloc.rpartition("@")
    host = host.lower().removesuffix(_USUAL.get(parts.scheme, "/"))
    return parts._replace(netloc=user + at + host).geturl().rstrip("/")


def require_free(host: str, port: int) -> None:
    """Say it now, and with the fix, where the address cannot be listened on.

    Raises:
        Misconfigured: taken, or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _unlistenable(host, port, error) from None


def _unlistenable(host: str, port: int, error: OSError) -> Misconfigured:
    if error.errno == errno.EADDRINUSE:
        return Misconfigured(f"port {port} of {host} is taken", "choose another port, or port 0 for any free one")
    if error.errno == errno.EACCES:
        return Misconfigured(f"port {port} needs privileges", "choose a port above 1023")
    return Misconfigured(f"{host} cannot be listened on ({error.strerror})", "correct listen.host")

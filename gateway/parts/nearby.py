"""What a server in a box with the host's network can reach beside what it is meant to, in words for operators."""

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.settings import GatewaySettings

_ALL = "all that this host reaches, and nothing filters it"
_REST = (
    "whatever else listens on the loopback, sockets without a file, and the metadata address of a cloud "
    "(169.254.169.254), which may give out this machine's own credentials"
)


def reached(settings: GatewaySettings) -> str:
    """The parts of this very deployment by name, as far as settings tell where they are; then the rest."""
    return f"{_ALL}: {'; '.join((*_named(settings), _REST))}"


def _named(settings: GatewaySettings) -> Iterator[str]:
    yield f"this gateway ({settings.listen.host}:{settings.listen.port})"
    if settings.vault is not None and (at := _near(settings.vault.address)) is not None:
        yield f"its vault ({at})"
    if settings.audit.postgres is not None and (at := _near(settings.audit.postgres.url)) is not None:
        yield f"the database of its log ({at})"
    for name, upstream in settings.upstreams.items():
        address = getattr(upstream, "url", None) or getattr(upstream, "origin", None)
        if address is not None and (at := _near(address)) is not None:
            yield f"{name} ({at})"


def _near(address: str) -> str | None:
    """Host and port of what is on this host, as far as its address says so; never a user or a password."""
    parts = urlsplit(address)
    host = parts.hostname
    if host is None:
        return None
    try:
        is_near = ip_address(host).is_loopback
    except ValueError:
        is_near = host == "localhost"
    return parts.netloc.rpartition("@")[2] if is_near else None

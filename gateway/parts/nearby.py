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
    for what, address in _addresses(settings):
        if address is not None and (at := _near(address)) is not None:
            yield f"{what} ({at})"


def _addresses(settings: GatewaySettings) -> Iterator[tuple[str, str | None]]:
    """What settings say of where things are, each with its name."""
    if settings.vault is not None:
        yield "its vault", settings.vault.address
    if settings.audit.postgres is not None:
        yield "the database of its log", settings.audit.postgres.url
    if settings.policy.engine == "opa":
        yield "who decides", settings.policy.opa.url
    yield from ((f"the policy source {name}", source.url) for name, source in settings.policy.sources.items())
    yield from ((f"the issuer {name}", issuer.issuer) for name, issuer in settings.identity.issuers.items())
    for name, connection in settings.connections.items():
        yield f"the service {name}", connection.issuer or connection.token_url
    for name, upstream in settings.upstreams.items():
        yield name, getattr(upstream, "url", None) or getattr(upstream, "origin", None)


def _near(address: str) -> str | None:
    """Host and port of what is on this host, as far as its address says so; never a user or a password."""
    parts = urlsplit(address)
    return parts.netloc.rpartition("@")[2] if _is_here((parts.hostname or "").removesuffix(".")) else None


def _is_here(host: str) -> bool:
    try:
        found = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    # An address of none is dialled here, and one of the older kind may be written as one of the newer.
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified

"""Which credentials fit which upstreams; what does not is refused with the reason, before anything is opened."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gateway.core.leasing import reaping
from gateway.settings.connections import ConnectionSection
from gateway.settings.sections import NEAR_OR_TLS
from gateway.settings.upstreams import HttpUpstream, McpUpstream, SqlUpstream, Upstream
from gateway.settings.vault import LeaseSection

# Fields of MCP over HTTP that are the protocol's own.
_PROTOCOL = frozenset({"accept", "content-type", "last-event-id"})


@dataclass(frozen=True, slots=True)
class Lenders:
    """Where credentials come from, each by name."""

    credentials: Collection[str]
    leases: Mapping[str, LeaseSection]
    connections: Mapping[str, ConnectionSection]


def check(upstreams: Mapping[str, Upstream], lenders: Lenders) -> None:
    """All that is named is there, and fits where it is named.

    Raises:
        ValueError: the first thing that does not, by its key.
    """
    for name in sorted(lenders.leases.keys() & set(lenders.credentials)):
        raise ValueError(f"leases.{name}: a credential has this name, too")
    for name, lease in lenders.leases.items():
        if lease.connection is not None and lease.connection not in lenders.connections:
            raise ValueError(f"leases.{name}.connection: no [connections.{lease.connection}]")
    _reapers(lenders.leases)
    for name, upstream in upstreams.items():
        if isinstance(upstream, SqlUpstream):
            _database(name, upstream, lenders)
        elif isinstance(upstream, McpUpstream | HttpUpstream):
            _named(name, upstream, lenders)


def _reapers(leases: Mapping[str, LeaseSection]) -> None:
    # Whoever asks the one to drop what was left would mint by the other, and the log would say that all is well.
    roles = {name: (lease.mount or "database", str(lease.role)) for name, lease in _minting(leases).items()}
    for name, (mount, role) in roles.items():
        if (mount, reaping(role)) in roles.values():
            raise ValueError(f"leases.{name}.role: {reaping(role)!r} drops what it leaves, and may mint for no other")


def _minting(leases: Mapping[str, LeaseSection]) -> Mapping[str, LeaseSection]:
    return {name: lease for name, lease in leases.items() if lease.provider == "database"}


def _named(name: str, upstream: HttpUpstream | McpUpstream, lenders: Lenders) -> None:
    if isinstance(upstream, McpUpstream):
        _discovery(name, upstream, lenders)
    credential = upstream.credential
    if credential is None:
        return
    lease = lenders.leases.get(credential)
    if lease is None and credential not in lenders.credentials:
        raise ValueError(f"upstreams.{name}.credential: no [credentials.{credential}]")
    if isinstance(upstream, McpUpstream) and upstream.command:
        _process(name, upstream, lease)
    elif lease is not None:
        _sent(name, upstream, lease)


def _sent(name: str, upstream: HttpUpstream | McpUpstream, lease: LeaseSection) -> None:
    if lease.variable is not None:
        raise ValueError(_by_command_only(upstream.credential, name))
    if isinstance(upstream, HttpUpstream):
        _api(name, upstream, lease)
    elif upstream.url is not None:
        _server(name, upstream, upstream.url, lease)


def _by_command_only(lease: str | None, upstream: str) -> str:
    return f"leases.{lease}: `env` and `file` are for MCP servers by command, not upstreams.{upstream}"


def _api(name: str, upstream: HttpUpstream, lease: LeaseSection) -> None:
    if lease.provider == "pki" and not upstream.origin.startswith("https://"):
        raise ValueError(f"upstreams.{name}.origin: a client certificate needs https://")
    if lease.provider != "pki":
        _header(name, upstream.credential, lease)
    if not re.match(NEAR_OR_TLS, upstream.origin):
        raise ValueError(f"upstreams.{name}.origin: a leased credential goes over https://, or http:// on loopback")


def _process(name: str, upstream: McpUpstream, lease: LeaseSection | None) -> None:
    if lease is None:
        raise ValueError(
            f"upstreams.{name}.credential: a server by command takes no header fields; a lasting secret is given to "
            'its one process, which all calls share, by env = {NAME = {env = "..."}}'
        )
    if lease.variable is None:
        raise ValueError(
            f"leases.{upstream.credential}: upstreams.{name} is run by command and finds its credential in a process "
            "of the call; say in which variable, by `file` or `env`"
        )


def _server(name: str, upstream: McpUpstream, url: str, lease: LeaseSection) -> None:
    if lease.provider == "pki":
        raise ValueError(
            f"upstreams.{name}.credential: connections to MCP servers are shared by calls, and a client certificate "
            "names whoever uses the connection; use a lease with a `header`"
        )
    _header(name, upstream.credential, lease)
    header = (lease.header or "").lower()
    if header in _PROTOCOL or header.startswith("mcp-"):
        raise ValueError(f"upstreams.{name}.credential: {lease.header} is a field of MCP itself")
    if not re.match(NEAR_OR_TLS, url):
        raise ValueError(f"upstreams.{name}.url: a leased credential goes over https://, or http:// on loopback")


def _discovery(name: str, upstream: McpUpstream, lenders: Lenders) -> None:
    given = upstream.discovery_credential
    if given is None:
        return
    if upstream.url is None or upstream.credential not in lenders.leases:
        raise ValueError(f"upstreams.{name}.discovery_credential: it is for servers by URL with a leased credential")
    if given not in lenders.credentials:
        raise ValueError(f"upstreams.{name}.discovery_credential: no [credentials.{given}]")


def _header(name: str, credential: str | None, lease: LeaseSection) -> None:
    if lease.header is None:
        raise ValueError(f"leases.{credential}: upstreams.{name} needs to know in which `header`")


def _database(name: str, upstream: SqlUpstream, lenders: Lenders) -> None:
    for given in upstream.leases:
        lease = lenders.leases.get(given)
        if lease is None:
            raise ValueError(f"upstreams.{name}: no [leases.{given}]")
        if lease.provider != "database":
            raise ValueError(f"leases.{given}: upstreams.{name} needs users, which database mints")
        if lease.variable is not None:
            raise ValueError(_by_command_only(given, name))
    write = upstream.write_lease
    if write is not None and lenders.leases[write].scope != "call":
        raise ValueError(f"leases.{write}.scope: upstreams.{name} writes with it, so it must be call")

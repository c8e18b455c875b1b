"""What is written for an MCP server with accounts: three tables, and a file with the client's secret."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.adapters.connections.discovering import Membership, Protected
from gateway.adapters.connections.metadata import Metadata
from gateway.cli import home
from gateway.cli.client import appending, changing, recording
from gateway.cli.client.changing import Change, Found
from gateway.cli.client.housing import House
from gateway.cli.screen import Misconfigured

_TITLE: Final = "An MCP server with persons' own accounts, by `ostiary upstream oauth`."


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator asked for.

    Attributes:
        name: of the upstream, its connection and its lease.
        url: of the MCP server.
        discovery: name of the credential that its tools are listed with, if any.
        variable: environment variable with the client's secret, where the operator has it.
    """

    name: str
    url: str
    house: House
    discovery: str | None = None
    variable: str | None = None

    @property
    def file(self) -> Path:
        """Where the client's secret lies; its name is made of the upstream's only."""
        return self.house.state / "secrets" / f"{self.name}.client_secret"


@dataclass(frozen=True, slots=True)
class Discovered:
    """What was found out, and the scopes that persons are to be asked for."""

    protected: Protected
    found: Metadata
    scopes: Sequence[str]

    @property
    def revokes(self) -> bool:
        """Whether access tokens can be ended after a call."""
        return self.found.revocation is not None


def tables(wanted: Wanted, what: Discovered, member: Membership) -> dict[str, dict[str, Any]]:
    """The tables, by section and name."""
    connection: dict[str, Any] = {
        "issuer": what.found.issuer,
        "client_id": member.id,
        "resource": what.protected.resource,
        "scopes": list(what.scopes),
        "token_role": f"{wanted.name}-accounts",
    }
    if member.auth is not None:
        place = {"env": wanted.variable} if wanted.variable else {"file": str(wanted.file)}
        connection |= {"client_secret": place, "client_auth": member.auth}
    lease: dict[str, Any] = {"provider": "oauth_user", "connection": wanted.name}
    lease |= {} if what.revokes else {"revoke": False}
    upstream: dict[str, Any] = {"kind": "mcp", "url": wanted.url, "credential": wanted.name}
    upstream |= {"discovery_credential": wanted.discovery} if wanted.discovery else {}
    name = wanted.name
    return {"connections": {name: connection}, "leases": {name: lease}, "upstreams": {name: upstream}}


def changes(wanted: Wanted, what: Discovered, member: Membership) -> list[Change]:
    """What becomes of which files; nothing is changed.

    Raises:
        Misconfigured: something of this name is there, or the settings could not be used.
    """
    config, secret = changing.look(wanted.house.config), changing.look(wanted.file)
    made = tables(wanted, what, member)
    document = appending.document(config)
    for section in made:
        there = document.get(section)
        if isinstance(there, dict) and wanted.name in there:
            raise Misconfigured(f"{config.path}: [{section}.{wanted.name}] is there", "take another name, or remove it")
    if secret.content is not None:
        raise Misconfigured(f"{secret.path} is there: it may be another client's secret", "take another name")
    done = [Change(config, appending.appended(wanted.house, config, _TITLE, made).content)]
    if member.secret is not None:
        done.insert(0, Change(Found(secret.path, None, 0o600), f"{member.secret}\n".encode()))
    return done


def carry_out(wanted: Wanted, done: Sequence[Change]) -> Path:
    """Write the files, all or none; the folder with copies of what was there.

    Raises:
        Failed: nothing was changed.
    """
    home.prepare(wanted.house.state)
    wanted.file.parent.mkdir(mode=0o700, exist_ok=True)
    return recording.carry_out(wanted.house, f"upstream {wanted.name}", done)

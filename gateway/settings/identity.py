"""``[identity]``: the local issuer, and the foreign ones whose access tokens are taken."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from gateway.settings.sections import NEAR_OR_TLS, Address, Section

Scope = Literal["tools", "runs", "review", "audit", "admin"]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
Name = Annotated[str, StringConstraints(min_length=1)]
# RFC 6749 section 3.3. A name that is empty would be found in tokens without any scope.
ScopeName = Annotated[str, StringConstraints(pattern=r"^[\x21\x23-\x5B\x5D-\x7E]+$")]
_TYPES = {"at+jwt", "application/at+jwt", "jwt"}


class IssuerSection(Section):
    """One foreign issuer (OpenID Connect or RFC 8414)."""

    issuer: Annotated[Address, StringConstraints(pattern=rf"^({NEAR_OR_TLS})[^\s|#?]*$")] = Field(
        description="Its identifier, exactly as in `iss`; https, or http on loopback."
    )
    audience: tuple[Name, ...] = Field(min_length=1, description="Accepted `aud` values: this gateway's own.")
    prefix: Annotated[str, StringConstraints(pattern=r"^([a-z0-9][a-z0-9._-]{0,30}:)?$")] | None = Field(
        None,
        description="Stands before each name of its users, agents and groups; the table's name and a colon unless set. "
        "Empty: its names are as good as those of the local issuer.",
    )
    jwks_url: Annotated[Address, StringConstraints(pattern=rf"^({NEAR_OR_TLS})\S*$")] | None = Field(
        None, description="Its key set; found through its metadata unless set."
    )
    ca_certificate: Path | None = Field(None, description="PEM file its certificate is checked against.")
    algorithms: tuple[Algorithm, ...] = Field(("RS256",), min_length=1, description="Signatures it may use.")
    types: tuple[str, ...] = Field(
        ("at+jwt", "application/at+jwt"),
        min_length=1,
        description='`typ` of its access tokens; add "jwt" for issuers that do not follow RFC 9068.',
    )
    scopes: dict[ScopeName, Scope] = Field(
        {"tools": "tools"}, description="Scopes its tokens may give here: their name there to the name here."
    )
    groups_claim: str = Field("groups", min_length=1, description="Claim that lists a user's groups.")
    person_clients: tuple[Name, ...] = Field(
        (), description="Client ids that are a person's own software; any other client is an agent."
    )
    max_ttl_s: int = Field(86_400, ge=60, le=7 * 86_400, description="Longest life of a token, seconds.")
    skew_s: int = Field(30, ge=0, le=30, description="How far in the future a token may begin, seconds.")

    @field_validator("types")
    @classmethod
    def _known_types(cls, types: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [one for one in types if one.lower() not in _TYPES]:
            raise ValueError(f"{unknown[0]} is no type of an access token: any of {', '.join(sorted(_TYPES))}")
        return tuple(one.lower() for one in types)


class IdentitySection(Section):
    """Who vouches for callers."""

    issuer: str = Field("urn:ostiary:local", description="`iss` of the tokens issued here.")
    audience: tuple[str, ...] = Field(("ostiary",), min_length=1, description="Accepted `aud` values.")
    run_max_s: int = Field(
        86_400, ge=1, le=30 * 86_400, description="Longest a run and the token of its agent may last, seconds."
    )
    issuers: dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,29}$")], IssuerSection] = Field(
        {}, description="Foreign issuers by name."
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        said = [self.issuer, *(one.issuer for one in self.issuers.values())]
        if len(set(said)) < len(said):
            raise ValueError("two issuers have the same identifier")
        prefixes = [self.prefix_of(name) for name in self.issuers]
        if len(set(prefixes)) < len(prefixes):
            raise ValueError("two issuers have the same prefix: their users could not be told apart")
        return self

    def prefix_of(self, name: str) -> str:
        """What stands before the names of the foreign issuer ``name``."""
        given = self.issuers[name].prefix
        return f"{name}:" if given is None else given

    def reserved_for(self, name: str) -> tuple[str, ...]:
        """What names of the foreign issuer ``name`` may not begin with: another's prefix, where it has none itself."""
        others = (self.prefix_of(other) for other in self.issuers if other != name)
        return () if self.prefix_of(name) else tuple(filter(None, others))

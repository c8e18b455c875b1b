"""The section ``[policy]``: which Rego decides, where it comes from, and how long it may take."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, StringConstraints, Tag, field_validator, model_validator

from gateway.settings.sections import NEAR_OR_TLS, SecretReference, Section

_UNIX: Final = "unix://"
_LONGEST_SOCKET: Final = 107  # of Linux
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$", max_length=31)]


_DENY_ONLY = "It may only restrict (GW006). A bundle can say so itself, in its .manifest; false does not undo that."


class PolicyBundleSection(Section):
    """A bundle that need not be signed."""

    path: Path = Field(description="Folder or tar.gz on this machine.")
    deny_only: bool = Field(default=False, description=_DENY_ONLY)


def _form(entry: object) -> str:
    return "path" if isinstance(entry, str | Path) else "bundle"


PolicyBundle = Annotated[
    Annotated[Path, Tag("path")] | Annotated[PolicyBundleSection, Tag("bundle")], Discriminator(_form)
]
"""A path, or a table where there is more to say."""


def tables(bundles: Iterable[Path | PolicyBundleSection]) -> Iterator[PolicyBundleSection]:
    """Each as a table."""
    yield from (PolicyBundleSection(path=one) if isinstance(one, Path) else one for one in bundles)


class PolicySourceSection(Section):
    """A bundle that is held against a signature, or that is fetched."""

    path: Path | None = Field(None, description="Folder or tar.gz on this machine.")
    url: str | None = Field(
        None,
        pattern=f"^({NEAR_OR_TLS})[^@]*$",
        description="Where a tar.gz is served; https, or http on loopback; shown and logged as it is.",
    )
    public_key: Path | None = Field(
        None, description="PEM key (P-256, Ed25519 or RSA) that .signatures.json must be signed with; a url needs one."
    )
    token: SecretReference | None = Field(None, description="Bearer token the url asks for.")
    ca_certificate: Path | None = Field(None, description="PEM file the url's certificate is checked against.")
    poll_s: float = Field(30.0, ge=1, le=86_400, description="Pause between two looks at the url.")
    deny_only: bool = Field(default=False, description=_DENY_ONLY)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("set exactly one of path and url")
        if self.public_key is None:
            raise ValueError("public_key: policy from here must be signed (what need not be stands in policy.bundles)")
        if self.url is None and (self.token is not None or self.ca_certificate is not None):
            raise ValueError("token and ca_certificate go with a url")
        return self


class ShadowSection(Section):
    """A candidate that is asked what the policy in force is asked, off the path of every call."""

    bundles: tuple[PolicyBundle, ...] = Field(
        min_length=1, description="What would stand in policy.bundles; followed as those are."
    )
    sample_pct: int = Field(10, ge=1, le=100, description="Share of the questions it is asked, in percent.")


class OpaSection(Section):
    """A real OPA server that serves the gateway's own bundle; see docs/policy.md."""

    url: str = Field(
        "http://127.0.0.1:8181",
        pattern=r"^(https://[^/?#@\s]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?|unix:///[^\x00-\x1f]+)$",
        description="https://HOST:PORT, unix:///PATH, or http:// on loopback.",
    )
    token: SecretReference | None = Field(None, description="Bearer token OPA asks for.")
    ca_certificate: Path | None = Field(None, description="PEM file OPA's certificate is checked against.")
    connections: int = Field(16, ge=1, le=256, description="Requests at a time.")

    @field_validator("url")
    @classmethod
    def _can_be_dialled(cls, url: str) -> str:
        if url.startswith(_UNIX):
            if len(url.removeprefix(_UNIX).encode()) > _LONGEST_SOCKET:
                raise ValueError(f"the path of a Unix socket has {_LONGEST_SOCKET} bytes at most")
        # Reading the port raises ValueError for one that is none.
        elif not urlsplit(url).hostname or urlsplit(url).port == 0:
            raise ValueError("names no host and port")
        return url


class PolicySection(Section):
    """Which Rego decides, and how long it may take."""

    bundles: tuple[PolicyBundle, ...] = Field(
        (),
        description="Folders and tar.gz archives of Rego and data besides the shipped ones: a path, or a table with "
        "path and deny_only.",
    )
    sources: Mapping[SourceName, PolicySourceSection] = Field(
        default_factory=dict, description="Signed bundles, from this machine or fetched, after `bundles`."
    )
    reload_s: float = Field(
        2.0, ge=0, le=86_400, description="Pause between two looks at folders and archives; 0 = only at the start."
    )
    shipped: bool = Field(default=True, description="Load the shipped packages (scope, session ledger).")
    data: Mapping[str, Any] = Field(default_factory=dict, description="Data merged under `data`, e.g. gateway.scope.")
    mode: Literal["enforce", "observe"] = Field(
        "enforce", description="observe: record, don't enforce (reads, writes)."
    )
    shadow: ShadowSection | None = Field(None, description="A candidate to be compared with what is in force.")
    workers: int = Field(1, ge=1, le=16, description="Policy worker processes.")
    deadline_ms: int = Field(50, ge=5, le=5000, description="Longest a decision may take, from dispatch.")
    engine: Literal["embedded", "opa"] = Field("embedded", description="Who evaluates: own workers, or an OPA server.")
    opa: OpaSection = OpaSection()

"""What sections of the settings are made of."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

# Fields that frame a message or address the next hop: a call that sets one of them is never sent.
FRAMING = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
        "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# The whole authority of an http address: `localhost:x@elsewhere` is elsewhere.
NEAR_OR_TLS = r"https://|http://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?(/|$)"

# Variables that say how a program is found, loaded or run.
_STEERING = re.compile(r"(PATH|ENV|BASH_ENV|NODE_OPTIONS|IFS|HOME)$|LD_|DYLD_|PYTHON|PERL|RUBY|JAVA_|GIT_CONFIG")


def _no_framing(name: str) -> str:
    if name.lower() in FRAMING:
        raise ValueError(f"{name} frames the message; a credential needs a field of its own")
    return name


def _no_steering(name: str) -> str:
    if _STEERING.match(name):
        raise ValueError(f"{name} steers how a program is run; a credential needs a variable of its own")
    return name


def _is_address(url: str) -> str:
    parts = urlsplit(url)  # ValueError: it is none
    if not parts.hostname or parts.username is not None or parts.port == 0:
        raise ValueError("it must be scheme://HOST[:PORT][/PATH], without a user")
    return url


# Further constraints (which schemes) stand where it is used.
Address = Annotated[str, AfterValidator(_is_address)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$"), AfterValidator(_no_framing)]

VariableName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64), AfterValidator(_no_steering)
]


class Section(BaseModel):
    """A part of the settings: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretReference(Section):
    """Where a secret is kept; it never stands in this file, is never logged and is taken out of results."""

    env: str | None = Field(None, description="Environment variable that holds the value.")
    file: Path | None = Field(None, description="File that holds the value.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("set exactly one of env and file")
        return self


class GovernanceSection(Section):
    """Who signs for what may be used; see docs/tool-pinning.md."""

    pin_roles: tuple[str, ...] = Field(
        (),
        max_length=32,
        description="A reviewer with one of these roles must sign each tool that is pinned; none = no signature.",
    )
    suspicious: Literal["report", "hold"] = Field(
        "report", description="hold leaves suspicious tools to people where first use is trusted."
    )

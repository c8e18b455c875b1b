"""``.manifest``: what a bundle says of itself, above all which part of ``data`` it owns."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from gateway.core.bundle import BundleError

_Root = Annotated[str, StringConstraints(max_length=512)]


_SPELT = '"metadata": {"ostiary": {"deny_only": true}}'


class Ours(BaseModel):
    """What this gateway reads of a bundle's metadata; a key it does not know is refused.

    Attributes:
        deny_only: the bundle may only restrict. What gateway.toml says is not undone by false.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    deny_only: bool = False


class Metadata(BaseModel):
    """A bundle's metadata; what is not ours is free."""

    model_config = ConfigDict(frozen=True, extra="allow")

    ostiary: Ours = Ours()

    @model_validator(mode="after")
    def _says_it_where_it_counts(self) -> Self:
        # Whoever writes this believes that the bundle is held to it.
        if any(re.sub(r"[^a-z]", "", key.lower()) == "denyonly" for key in self.__pydantic_extra__ or ()):
            raise ValueError(f"write {_SPELT}")
        return self


class Manifest(BaseModel):
    """Members as OPA names them; those that would need an engine we do not have are refused.

    Attributes:
        revision: what its builder calls this version; our own revision is a digest and does not depend on it.
        roots: paths below ``data``, ``a/b``; everything in the bundle stands below one of them, and nothing of another.
        metadata: anything, but for what it says to us.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str = ""
    roots: tuple[_Root, ...] = ("",)
    rego_version: int = Field(1, ge=1, le=1)
    metadata: Metadata = Metadata()


def parse(label: str, content: bytes) -> Manifest:
    """The manifest in ``content``.

    Raises:
        BundleError: it is malformed, or says what is not supported.
    """
    try:
        manifest = Manifest.model_validate(json.loads(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{label}/.manifest: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{label}/.manifest: {error}") from None
    roots = [_steps(root) for root in manifest.roots]
    for number, root in enumerate(roots):
        for other in roots[number + 1 :]:
            if overlap(root, other):
                raise BundleError(f"{label}/.manifest: roots {'/'.join(root)} and {'/'.join(other)} overlap")
    return manifest


def owned(manifest: Manifest) -> tuple[tuple[str, ...], ...]:
    """The roots as steps below ``data``; one empty path = all of it."""
    return tuple(_steps(root) for root in manifest.roots)


def overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether one path leads to the other's place or into it."""
    return all(left == right for left, right in zip(one, other, strict=False))


def within(path: Sequence[str], roots: Sequence[Sequence[str]]) -> bool:
    """Whether ``path`` stands at or below one of ``roots``."""
    return any(tuple(path[: len(root)]) == tuple(root) for root in roots)


def _steps(root: str) -> tuple[str, ...]:
    return tuple(step for step in root.split("/") if step)

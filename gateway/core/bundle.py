"""Policy bundles as plain data: Rego modules and one JSON document, with one revision over all of it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.core.canonical import encode


class BundleError(Exception):
    """The bundle cannot be used; each problem names its file, with the line where there is one."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Module:
    """One Rego file.

    Attributes:
        name: path as shown to people, ``LAYER/relative/path.rego``.
        text: its source.
    """

    name: str
    text: str

    @property
    def is_test(self) -> bool:
        """Whether it holds tests and is therefore not served."""
        return self.name.endswith("_test.rego")


@dataclass(frozen=True, slots=True)
class DenyOnly:
    """A layer that may only restrict: with it nothing is allowed that is not allowed without it.

    Attributes:
        label: how the names of its files begin.
        origin: where it comes from, for people.
        said_by: who says so: ``gateway.toml``, its own ``.manifest``; one is enough.
        modules: names of its modules.
        data: (file, path below ``data``) of each value it sets.
    """

    label: str
    origin: str
    said_by: tuple[str, ...]
    modules: frozenset[str]
    data: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Bundle:
    """All layers together, immutable.

    Attributes:
        modules: what is served, by name.
        tests: the ``*_test.rego`` modules.
        data: JSON text of the merged data documents.
        revision: SHA-256 over the sorted names and contents of modules and data, hex.
        deny_only: the layers that may only restrict. No part of the revision: they say what is let in, not what is
            decided.
    """

    modules: tuple[Module, ...]
    tests: tuple[Module, ...]
    data: str
    revision: str
    deny_only: tuple[DenyOnly, ...] = ()


def bundled(modules: Sequence[Module], data: Mapping[str, Any], deny_only: Sequence[DenyOnly] = ()) -> Bundle:
    """A bundle of what is at hand.

    Raises:
        BundleError: two modules have the same name.
    """
    ordered = sorted(modules, key=lambda module: module.name)
    if len({module.name for module in ordered}) != len(ordered):
        raise BundleError("two layers hold a Rego file of the same name")
    served = tuple(module for module in ordered if not module.is_test)
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    revision = hashlib.sha256(encode([[[m.name, m.text] for m in served], text])).hexdigest()
    tests = tuple(module for module in ordered if module.is_test)
    return Bundle(served, tests, text, revision, tuple(deny_only))


@dataclass(frozen=True, slots=True)
class Standing:
    """Which policy is in force, and why not a newer one.

    Attributes:
        revision: of the bundle that answers.
        engine: engine and version.
        since_us: when it came into force.
        origin: where its layers come from, in their order.
        problems: why what the sources hold now is not in force; empty where it is.
        problems_since_us: when that was first seen, or None.
        deny_only: those of its layers that may only restrict.
    """

    revision: str
    engine: str
    since_us: int
    origin: tuple[str, ...]
    problems: tuple[str, ...] = ()
    problems_since_us: int | None = None
    deny_only: tuple[DenyOnly, ...] = ()


class PolicyDesk(Protocol):
    """What people may know of the policy in force. Reading never changes it."""

    def standing(self) -> Standing:
        """What is in force now."""

    async def bundle(self, revision: str) -> Bundle | None:
        """A bundle that was in force at some time, or None where no such one was.

        Raises:
            Unavailable: what is kept of it cannot be read or is not what it was.
        """

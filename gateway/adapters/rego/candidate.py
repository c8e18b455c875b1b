"""A candidate in the place of what decided at the time: which modules and which data are then in force.

Modules: those of the candidate, completed by the shipped ones of this gateway where the past had shipped ones, and by
the other layers of the past. A layer of the past is replaced whole by a candidate of the same name, so that a deleted
file is gone; of other layers, the files whose package the candidate has itself. A candidate with ``package
gateway.main`` stands alone.

Data: that of the past, in which each value of the candidate replaces what stands at its path; objects join.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.adapters.rego.lists import problems
from gateway.adapters.rego.testing import label, read
from gateway.core.bundle import Bundle, BundleError, Module, bundled

_SHIPPED = "shipped/"
_PACKAGE = re.compile(r"^package\s+(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A folder of policies that might come into force.

    Attributes:
        prefix: how the names of its own files begin.
        bundle: its files, completed as ``policy check`` does.
        own_data: whether nothing of the past's data counts.
    """

    prefix: str
    bundle: Bundle
    own_data: bool = False

    def over(self, past: Bundle) -> Bundle:
        """What would have been in force instead of ``past``.

        Raises:
            BundleError: together they cannot be served.
        """
        own = [module for module in self.bundle.modules if module.name.startswith(self.prefix)]
        main = any("gateway.main" in _PACKAGE.findall(module.text) for module in own)
        modules = own if main else [*own, *self._shipped(past), *self._others(past, own)]
        data = json.loads(self.bundle.data)
        if not self.own_data:
            data = _replaced(json.loads(past.data), data)
        held = [mark for mark in self.bundle.deny_only if f"{mark.label}/" == self.prefix]
        whole = bundled(modules, data, held)
        if any(module.name.startswith(_SHIPPED) for module in modules):
            found = [f"data.{'.'.join(path)}: {words}" for path, words in problems(data)]
            if found:
                raise BundleError(*found)
        return whole

    def _shipped(self, past: Bundle) -> list[Module]:
        if self.prefix == _SHIPPED or not any(module.name.startswith(_SHIPPED) for module in past.modules):
            return []
        return [module for module in self.bundle.modules if module.name.startswith(_SHIPPED)]

    def _others(self, past: Bundle, own: list[Module]) -> list[Module]:
        packages = {name for module in own for name in _PACKAGE.findall(module.text)}
        kept = [module for module in past.modules if not module.name.startswith((self.prefix, _SHIPPED))]
        return [module for module in kept if packages.isdisjoint(_PACKAGE.findall(module.text))]


def candidate(directory: Path, *, own_data: bool = False) -> Candidate:
    """The folder as a candidate.

    Raises:
        BundleError: as ``layers.load``.
    """
    place = directory.resolve()  # "." has no name of its own
    return Candidate(label(place), read(place), own_data)


def _replaced(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(old)
    for key, value in new.items():
        before = found.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        found[key] = _replaced(before, value) if both else value  # type: ignore[arg-type]
    return found

"""What this installation is made of: a CycloneDX document from the metadata of installed distributions, no network."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r";.*\bextra\s*==")
_SHORT = 64


def sbom(root: str, made_at: str) -> dict[str, Any]:
    """The distribution ``root`` and all that it needs, as CycloneDX 1.6; what is not installed here is left out.

    Raises:
        PackageNotFoundError: ``root`` is not installed.
    """
    found = {_key(root): distribution(root)}
    needs: dict[str, list[str]] = {}
    waiting = [root]
    while waiting:
        name = _key(waiting.pop())
        needs[name] = []
        for needed in _needed(found[name]):
            key = _key(needed)
            if key not in found:
                try:
                    found[key] = distribution(needed)
                except PackageNotFoundError:
                    continue  # for another system or another Python
                waiting.append(needed)
            needs[name].append(key)
    links = [{"ref": _url(found[name]), "dependsOn": sorted(_url(found[one]) for one in needs[name])} for name in needs]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"timestamp": made_at, "component": _component(found.pop(_key(root)), "application")},
        "components": [_component(found[name], "library") for name in sorted(found)],
        "dependencies": sorted(links, key=lambda link: str(link["ref"])),
    }


def _needed(one: Distribution) -> Iterator[str]:
    for line in one.requires or ():
        name = _NAME.match(line)
        if name is not None and not _EXTRA.search(line):
            yield name[0]


def _component(one: Distribution, kind: str) -> dict[str, Any]:
    about = one.metadata
    licence = next(iter(about.get_all("License-Expression") or about.get_all("License") or []), "")
    said = {"licenses": [{"license": {"name": licence}}]} if licence and len(licence) <= _SHORT else {}
    name = one.metadata["Name"]
    return {"type": kind, "bom-ref": _url(one), "name": name, "version": one.version, "purl": _url(one), **said}


def _url(one: Distribution) -> str:
    return f"pkg:pypi/{_key(one.metadata['Name'])}@{one.version}"


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

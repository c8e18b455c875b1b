"""Policy layers: directories of Rego and data, read and put together into one bundle.

A layer is a directory of ``*.rego`` and ``*.json`` files. As in OPA, a ``data.json`` stands at the path of its
directory, so ``gateway/data.json`` and ``{"gateway": ...}`` in the root's ``data.json`` are the same; any other
``NAME.json`` is refused rather than silently ignored. ``*_test.rego`` files are no part of what is served.
"""

import json
import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from gateway.adapters.rego.lists import problems
from gateway.core.bundle import Bundle, BundleError, Module, bundled

MAX_FILES = 1000
MAX_BUNDLE_BYTES = 16 * 1024 * 1024


def shipped() -> Path:
    """Directory of the policies that come with the gateway."""
    return Path(str(files("policies")))


def load(layers: Sequence[Path], overlay: Mapping[str, Any] | None = None) -> Bundle:
    """Read the layers in order; ``overlay`` is the data that stands in the settings.

    Raises:
        BundleError: unreadable, too large, a link that leaves its layer, malformed JSON, or two documents that set the
            same data path; with the shipped layer also data its packages could not read as meant.
    """
    modules: list[Module] = []
    data: dict[str, Any] = {}
    owners: dict[tuple[str, ...], str] = {}
    for layer in layers:
        for name, path, content in _read(layer, "shipped" if layer == shipped() else layer.name):
            if path.suffix == ".rego":
                modules.append(Module(name, _text(name, content)))
            else:
                _merge(data, _nest(path.parts[:-1], _document(name, content)), owners, name)
    if overlay:
        _merge(data, dict(overlay), owners, "[policy.data]")
    if shipped() in layers:
        _check(data, owners)
    return bundled(modules, data)


def _read(layer: Path, label: str) -> list[tuple[str, Path, bytes]]:
    found: list[tuple[str, Path, bytes]] = []
    total = 0
    for path in _paths(layer):
        relative = path.relative_to(layer)
        name = f"{label}/{relative.as_posix()}"
        if not path.resolve().is_relative_to(layer.resolve()):
            raise BundleError(f"{name}: the link leads out of the bundle")
        try:
            total += path.stat().st_size
            if len(found) >= MAX_FILES or total > MAX_BUNDLE_BYTES:
                raise BundleError(f"{label}: more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes")
            found.append((name, relative, path.read_bytes()))
        except OSError as error:
            raise BundleError(f"{name}: cannot be read: {error.strerror}") from None
    return found


def _paths(layer: Path) -> list[Path]:
    if not layer.is_dir():
        raise BundleError(f"{layer}: no such directory")
    paths: list[Path] = []
    # followlinks stays off: a linked directory could lead anywhere, or round in a circle.
    for folder, folders, names in os.walk(layer):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        paths += [Path(folder, name) for name in sorted(names) if name.endswith((".rego", ".json"))]
    return paths


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{name}: not UTF-8") from None


def _document(name: str, content: bytes) -> dict[str, Any]:
    if name.rpartition("/")[2] != "data.json":
        raise BundleError(f"{name}: data files are named data.json; this one would be ignored by other engines")
    try:
        value = json.loads(_text(name, content), object_pairs_hook=_members, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{name}: {error}") from None
    if not isinstance(value, dict):
        raise BundleError(f"{name}: must be a JSON object")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same key twice")
    return members


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _nest(folders: Sequence[str], value: dict[str, Any]) -> dict[str, Any]:
    for folder in reversed(folders):
        value = {folder: value}
    return value


def _merge(into: dict[str, Any], value: Mapping[str, Any], owners: dict[tuple[str, ...], str], name: str) -> None:
    # Objects join, anything else belongs to one file: which of two layers wins must never be a matter of order.
    level: list[tuple[dict[str, Any], Mapping[str, Any], tuple[str, ...]]] = [(into, value, ())]
    while level:
        target, source, path = level.pop()
        for key, item in source.items():
            here = (*path, key)
            if key not in target:
                target[key] = _own(item, here, owners, name)
            elif isinstance(item, Mapping) and isinstance(target[key], dict):
                level.append((target[key], item, here))
            else:
                raise BundleError(f"{name}: data.{'.'.join(here)} is already set by {owners[_nearest(here, owners)]}")


def _own(item: Any, path: tuple[str, ...], owners: dict[tuple[str, ...], str], name: str) -> Any:
    owners[path] = name
    if not isinstance(item, Mapping):
        return item
    return {key: _own(child, (*path, key), owners, name) for key, child in item.items()}


def _check(data: Mapping[str, Any], owners: Mapping[tuple[str, ...], str]) -> None:
    found = [f"{owners[_nearest(path, owners)]}: data.{'.'.join(path)}: {words}" for path, words in problems(data)]
    if found:
        raise BundleError(*found)


def _nearest(path: tuple[str, ...], owners: Mapping[tuple[str, ...], str]) -> tuple[str, ...]:
    return path if path in owners else _nearest(path[:-1], owners)

"""Policy layers: Rego and data from a folder or an archive, put together into one bundle.

As in OPA, a ``data.json`` stands at the path of its directory, so ``gateway/data.json`` and ``{"gateway": ...}`` in the
root's ``data.json`` are the same; any other ``NAME.json`` is refused rather than silently ignored. ``*_test.rego``
files are no part of what is served. A ``.manifest`` says which part of ``data`` a layer owns: it holds
nothing else, and no other layer holds anything there.
"""

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from gateway.adapters.rego.bundles import archive, signatures
from gateway.adapters.rego.bundles.archive import MANIFEST, MAX_BUNDLE_BYTES, MAX_FILES, SIGNATURES
from gateway.adapters.rego.bundles.manifest import Manifest, overlap, owned, parse, within
from gateway.adapters.rego.lists import problems
from gateway.core.bundle import Bundle, BundleError, DenyOnly, Module, bundled

_PACKAGE = re.compile(r"^\s*package\s+(\S+)", re.MULTILINE)
_STEP = re.compile(r'\["([^"]*)"\]|([^.\[\]"]+)')
_SHIPPED = "shipped"
# Beside the packages that are served; each is taken by copying it.
_GALLERY = "gallery"
# Well within what every engine takes.
_DEEPEST = 100
Steps = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """The files of one source.

    Attributes:
        label: how their names begin.
        files: content by relative name.
        manifest: what its ``.manifest`` says, or None where there is none.
        origin: where it comes from, for people; empty = its label says it.
        deny_only: who says that it may only restrict; empty = nobody.
    """

    label: str
    files: Mapping[str, bytes]
    manifest: Manifest | None = None
    origin: str = ""
    deny_only: tuple[str, ...] = ()

    def restricted(self, *said_by: str) -> "Layer":
        """The layer, held to restrict by whom it was and by these. Nobody can take that back for another."""
        return replace(self, deny_only=tuple(dict.fromkeys((*said_by, *self.deny_only))))


def shipped() -> Path:
    """Directory of the policies that come with the gateway."""
    return Path(str(files("policies")))


def gallery() -> Path:
    """Directory of the starter packages: they come with the gateway too, but none is in force until it is copied."""
    return shipped() / _GALLERY


def load(paths: Sequence[Path], overlay: Mapping[str, Any] | None = None) -> Bundle:
    """Read layers in order, each a folder or a ``tar.gz``; ``overlay`` is the data that stands in the settings.

    Raises:
        BundleError: as ``read`` and ``joined``.
    """
    return joined([read(path) for path in paths], overlay)


def read(path: Path, public_key: bytes | None = None) -> Layer:
    """One layer, held against its signature where there is a key to check it with.

    Raises:
        BundleError: unreadable, too large, a link that leaves its layer, or not signed with that key.
    """
    label = _SHIPPED if path == shipped() else path.absolute().name
    if path.is_file():
        return unpacked(label, _content(label, path), public_key)
    return _layer(label, _folder(label, path), public_key)


def unpacked(label: str, content: bytes, public_key: bytes | None = None) -> Layer:
    """The layer in an archive.

    Raises:
        BundleError: as ``read``.
    """
    return _layer(label, archive.read(label, content), public_key)


def joined(layers: Sequence[Layer], overlay: Mapping[str, Any] | None = None) -> Bundle:
    """One bundle of all layers.

    Raises:
        BundleError: malformed data, two documents that set the same path, something outside its layer's roots or inside
            another's; with the shipped layer also data its packages could not read as meant.
    """
    modules: list[Module] = []
    data: dict[str, Any] = {}
    owners: dict[Steps, str] = {}
    places: list[tuple[Layer, str, Steps]] = []
    for layer in layers:
        for name, content in sorted(layer.files.items()):
            full = f"{layer.label}/{name}"
            if name.endswith(".rego"):
                modules.append(Module(full, _text(full, content)))
                places.append((layer, full, package(modules[-1])))
            else:
                document = _nest(PurePosixPath(name).parts[:-1], _document(full, content))
                _check_depth(full, document)
                places += [(layer, full, path) for path in leaves(document)]
                _merge(data, document, owners, full)
    _check_roots(layers, places)
    if overlay:
        _check_depth("[policy.data]", overlay)
        _merge(data, dict(overlay), owners, "[policy.data]")
    if any(layer.label == _SHIPPED for layer in layers):
        _check(data, owners)
    return bundled(modules, data, [_mark(layer, places) for layer in layers if layer.deny_only])


def _mark(layer: Layer, places: Sequence[tuple[Layer, str, Steps]]) -> DenyOnly:
    own = [(name, path) for holder, name, path in places if holder is layer]
    modules = frozenset(name for name, _path in own if name.endswith(".rego"))
    data = tuple((name, path) for name, path in own if name not in modules)
    return DenyOnly(layer.label, layer.origin or layer.label, layer.deny_only, modules, data)


def _check_roots(layers: Sequence[Layer], places: Sequence[tuple[Layer, str, Steps]]) -> None:
    for layer in layers:
        roots = () if layer.manifest is None else owned(layer.manifest)
        for holder, name, path in places:
            where = f"data.{'.'.join(path)}"
            if holder is layer and layer.manifest is not None and not within(path, roots):
                raise BundleError(f"{name}: {where} stands outside the roots of {layer.label}/.manifest")
            if holder is not layer and any(overlap(path, root) for root in roots):
                raise BundleError(f"{name}: {where} stands in what {layer.label}/.manifest says it owns")


def package(module: Module) -> Steps:
    """Where the rules of a module stand below ``data``, as its text says; the engine has the last word at load."""
    found = _PACKAGE.search(module.text)
    return tuple(quoted or plain for quoted, plain in _STEP.findall(found[1])) if found else ()


def leaves(value: Mapping[str, Any]) -> list[Steps]:
    """The paths of all values that are no objects, or empty ones."""
    found: list[Steps] = []
    level: list[tuple[Steps, Any]] = [((), value)]
    while level:
        path, item = level.pop()
        if isinstance(item, Mapping) and item:
            level += [((*path, key), child) for key, child in item.items()]
        elif path:
            found.append(path)
    return found


def _layer(label: str, found: Mapping[str, bytes], public_key: bytes | None) -> Layer:
    if public_key is not None:
        signatures.check(label, found, public_key)
    elif SIGNATURES in found:
        raise BundleError(f"{label}: is signed, and no public key is set to check it with")
    manifest = parse(label, found[MANIFEST]) if MANIFEST in found else None
    held = {name: content for name, content in found.items() if name.endswith((".rego", ".json")) and name[0] != "."}
    layer = Layer(label, held, manifest)
    return layer.restricted(MANIFEST) if manifest is not None and manifest.metadata.ostiary.deny_only else layer


def _content(label: str, path: Path) -> bytes:
    try:
        # Never waits for a writer: a pipe in a folder would hold up whoever reads, and the end of the gateway.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BundleError(f"{label}: no plain file")
            content = file.read(MAX_BUNDLE_BYTES + 1)
        if len(content) > MAX_BUNDLE_BYTES:
            raise BundleError(f"{label}: more than {MAX_BUNDLE_BYTES} bytes")
    except OSError as error:
        raise BundleError(f"{label}: cannot be read: {error.strerror}") from None
    return content


def _folder(label: str, folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    total = 0
    for path in paths(folder):
        name = path.relative_to(folder).as_posix()
        if not _leads_to(path).is_relative_to(folder.resolve()):
            raise BundleError(f"{label}/{name}: the link leads out of the bundle")
        content = _content(f"{label}/{name}", path)
        total += len(content)
        if len(found) >= MAX_FILES or total > MAX_BUNDLE_BYTES:
            raise BundleError(f"{label}: more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes")
        found[name] = content
    return found


def _leads_to(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # the latter: a link that leads to itself
        raise BundleError(f"{path}: cannot be read: {error}") from None


def paths(folder: Path) -> list[Path]:
    """The files of a folder that belong to its layer, in order.

    Raises:
        BundleError: there is no such folder, or part of it cannot be looked into: what it forbids would be allowed.
    """
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such directory, nor an archive")
    left_out = {_GALLERY} if folder == shipped() else set()
    found: list[Path] = []
    # followlinks stays off: a linked directory could lead anywhere, or round in a circle.
    for place, folders, names in os.walk(folder, onerror=_closed):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")) and name not in left_out)
        linked = [name for name in folders if Path(place, name).is_symlink()]
        if linked:
            raise BundleError(
                f"{Path(place, linked[0])}: a linked folder would be left out; copy it, or name it itself"
            )
        own = {MANIFEST, SIGNATURES} if Path(place) == folder else set()
        found += [Path(place, name) for name in sorted(names) if name.endswith((".rego", ".json")) or name in own]
    return found


def _closed(error: OSError) -> None:
    raise BundleError(f"{error.filename}: cannot be read: {error.strerror}") from None


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
        # No engine takes a number beyond all doubles, nor half of a surrogate pair.
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
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


def _check_depth(name: str, value: Mapping[str, Any]) -> None:
    if _depth(value) > _DEEPEST:
        raise BundleError(f"{name}: nested more than {_DEEPEST} deep")


def _depth(value: Any) -> int:
    # Level by level: how deep Python itself may go is a matter of its version.
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [item for one in level for item in (one.values() if isinstance(one, dict) else one)]
    return depth


def _merge(into: dict[str, Any], value: Mapping[str, Any], owners: dict[Steps, str], name: str) -> None:
    # Objects join, anything else belongs to one file: which of two layers wins must never be a matter of order.
    level: list[tuple[dict[str, Any], Mapping[str, Any], Steps]] = [(into, value, ())]
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


def _own(item: Any, path: Steps, owners: dict[Steps, str], name: str) -> Any:
    owners[path] = name
    if not isinstance(item, Mapping):
        return item
    return {key: _own(child, (*path, key), owners, name) for key, child in item.items()}


def _check(data: Mapping[str, Any], owners: Mapping[Steps, str]) -> None:
    found = [f"{owners[_nearest(path, owners)]}: data.{'.'.join(path)}: {words}" for path, words in problems(data)]
    if found:
        raise BundleError(*found)


def _nearest(path: Steps, owners: Mapping[Steps, str]) -> Steps:
    return path if path in owners else _nearest(path[:-1], owners)

"""Archives of policy, for a gateway to fetch or for an OPA server to serve."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import archive, signatures
from gateway.adapters.rego.bundles.archive import MANIFEST, SIGNATURES
from gateway.adapters.rego.bundles.manifest import Manifest, owned
from gateway.adapters.rego.layers import Steps
from gateway.core.bundle import Bundle, BundleError

# How much of a data path becomes a root: enough to tell teams apart, not a root for each value.
_ROOT_STEPS = 2


def layer_archive(folder: Path, *, deny_only: bool = False) -> bytes:
    """The Rego and data of a folder, tests left out, with a manifest that says which part of ``data`` it owns.

    Roots and metadata of the folder's own manifest are kept; ``deny_only`` adds that it may only restrict.

    Raises:
        BundleError: the folder is no sound layer, or its manifest says a revision: that is what is written here.
    """
    layer = layers.read(folder)
    said = layer.manifest or Manifest()
    if said.revision:
        raise BundleError(f"{folder}/{MANIFEST}: revision: is written here; take it away")
    bundle = layers.joined([layer])
    files = {name: content for name, content in layer.files.items() if not name.endswith("_test.rego")}
    roots = owned(said) if "roots" in said.model_fields_set else _outermost(_roots(bundle))
    metadata = said.metadata.model_dump(exclude_unset=True)
    if deny_only:
        metadata["ostiary"] = {"deny_only": True}
    return archive.write(files | {MANIFEST: _manifest(bundle.revision, roots, metadata)})


def bundle_archive(bundle: Bundle) -> bytes:
    """All that a gateway serves, under its own revision; what an OPA server beside it is given.

    It owns all of ``data``: OPA lets nobody add a package beside it, which would speak under the same revision.
    """
    files = {module.name: module.text.encode() for module in bundle.modules}
    files |= {"data.json": bundle.data.encode(), MANIFEST: _manifest(bundle.revision, [()])}
    return archive.write(files)


def signed(content: bytes, private_key: bytes, key_id: str) -> bytes:
    """The archive with a signature; an older one is replaced.

    Raises:
        BundleError: not an archive, or the key is unfit.
    """
    files = {name: held for name, held in archive.read("bundle", content).items() if name != SIGNATURES}
    return archive.write(files | {SIGNATURES: signatures.signed(files, private_key, key_id)})


def _manifest(revision: str, roots: Iterable[Steps], metadata: Mapping[str, Any] | None = None) -> bytes:
    members = {"revision": revision, "roots": ["/".join(root) for root in roots], "rego_version": 1}
    members |= {"metadata": metadata} if metadata else {}
    return json.dumps(members, sort_keys=True).encode()


def _roots(bundle: Bundle) -> Iterable[Steps]:
    yield from (layers.package(module) for module in bundle.modules)
    yield from (path[:_ROOT_STEPS] for path in layers.leaves(json.loads(bundle.data)))


def _outermost(roots: Iterable[Steps]) -> list[Steps]:
    found: list[Steps] = []
    for root in sorted(set(roots), key=lambda steps: (len(steps), steps)):
        if not any(root[: len(outer)] == outer for outer in found):
            found.append(root)
    return found

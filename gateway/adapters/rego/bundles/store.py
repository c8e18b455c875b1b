"""Every bundle that was ever in force, by its revision: records name it for as long as there are records."""

import json
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from gateway.core.bundle import Bundle, Module, bundled
from gateway.core.canonical import encode
from gateway.core.errors import Unavailable

_REVISION: Final = re.compile(r"[0-9a-f]{64}")


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    modules: list[tuple[str, str]]
    data: str


class Revisions:
    """A folder of bundles; a file's name is the digest of what it holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, bundle: Bundle) -> None:
        """Write the bundle durably, unless it is there.

        Raises:
            OSError: it cannot be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{bundle.revision}.json"
        if path.exists():
            return
        draft = path.with_suffix(".new")
        content = encode({"modules": [[module.name, module.text] for module in bundle.modules], "data": bundle.data})
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync(self._folder)

    def get(self, revision: str) -> Bundle | None:
        """The bundle of that revision, or None where none was kept.

        Raises:
            Unavailable: it cannot be read, or is not what its name says.
        """
        path = self._folder / f"{revision}.json"
        if not _REVISION.fullmatch(revision) or not path.is_file():
            return None
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
            found = bundled([Module(name, text) for name, text in kept.modules], json.loads(kept.data))
        except (OSError, ValueError) as error:
            raise Unavailable(f"revision {revision} cannot be read", cause_code="revision") from error
        if found.revision != revision:
            raise Unavailable(f"revision {revision} is not what it was", cause_code="revision")
        return found


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Bundle archives: ``tar.gz`` as OPA reads and writes them. What an archive says is untrusted until it is read here."""

import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import PurePosixPath

from gateway.core.bundle import BundleError

MAX_FILES = 1000
MAX_BUNDLE_BYTES = 16 * 1024 * 1024
# Names beside Rego and data that an archive may hold.
MANIFEST, SIGNATURES = ".manifest", ".signatures.json"


def read(label: str, content: bytes) -> dict[str, bytes]:
    """The files of an archive, by name without a leading slash.

    Raises:
        BundleError: not a gzipped tar, too large, or an entry that is no plain file below the root.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(_unpacked(label, content))) as tar:
            return _files(label, tar)
    except (tarfile.TarError, zlib.error, EOFError, OSError, UnicodeError, ValueError) as error:
        raise BundleError(f"{label}: not a bundle (tar.gz): {error}") from None


def write(files: Mapping[str, bytes]) -> bytes:
    """An archive of ``files``; the same files always give the same bytes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"/{name}")
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(raw.getvalue()) + packer.flush()


def _unpacked(label: str, content: bytes) -> bytes:
    # Bounded: a few kilobytes can unpack to gigabytes.
    room = MAX_BUNDLE_BYTES + MAX_FILES * 1024
    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    raw = unpacker.decompress(content, room)
    if unpacker.unconsumed_tail or len(raw) >= room:
        raise BundleError(f"{label}: unpacks to more than {MAX_BUNDLE_BYTES} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise BundleError(f"{label}: cut short, or followed by something else")
    return raw


def _files(label: str, tar: tarfile.TarFile) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for entry in tar:
        if entry.isdir():
            continue
        path = PurePosixPath(entry.name.lstrip("/"))
        name = path.as_posix()
        if not entry.isreg() or not path.parts or ".." in path.parts:
            raise BundleError(f"{label}: {entry.name}: only plain files below the root may stand in a bundle")
        if name in files:
            raise BundleError(f"{label}: {name} stands in it twice")
        held = tar.extractfile(entry)
        files[name] = held.read() if held is not None else b""
        if len(files) > MAX_FILES:
            raise BundleError(f"{label}: more than {MAX_FILES} files")
    return files

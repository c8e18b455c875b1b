"""Bundle archives: what is written is read again, and nothing hostile gets through."""

import gzip
import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.adapters.rego.bundles import archive
from gateway.core.bundle import BundleError

NAMES = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}\.(rego|json)", fullmatch=True)


def tar(*entries: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """A packed archive of these entries, each with the content."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as packed:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            packed.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """A member of an archive."""
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


@given(st.dictionaries(NAMES, st.binary(max_size=200), max_size=8))
def test_what_is_written_is_read(files: dict[str, bytes]) -> None:
    """The same files come out, and the same files always make the same bytes."""
    packed = archive.write(files)
    assert archive.read("b", packed) == files
    assert archive.write(dict(reversed(files.items()))) == packed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tar(entry("../main.rego")), "only plain files below the root"),
        (tar(entry("a/../../x.rego")), "only plain files below the root"),
        (tar(entry("/..")), "only plain files below the root"),
        (tar(entry("main.rego", tarfile.SYMTYPE, "/etc/passwd")), "only plain files below the root"),
        (tar(entry("main.rego", tarfile.LNKTYPE, "other.rego")), "only plain files below the root"),
        (tar(entry("main.rego", tarfile.CHRTYPE)), "only plain files below the root"),
        (tar(entry("main.rego", tarfile.FIFOTYPE)), "only plain files below the root"),
        (tar(entry("a.rego"), entry("/a.rego")), "stands in it twice"),
        (tar(*(entry(f"f{number}.rego") for number in range(1001))), "more than 1000 files"),
        (b"", "cut short"),
        (b"no archive", "not a bundle"),
        (gzip.compress(b"no tar"), "not a bundle"),
        (tar(entry("a.rego"))[:-9], "cut short"),
        (tar(entry("a.rego")) + b"more", "followed by something else"),
        (gzip.compress(bytes(64 * 1024 * 1024)), "unpacks to more than"),
    ],
)
def test_hostile_archives_are_refused(content: bytes, words: str) -> None:
    """Names that lead out, links, devices, doubles, too many, bombs and half a file."""
    with pytest.raises(BundleError, match=words):
        archive.read("b", content)


@pytest.mark.parametrize("spoil", [lambda raw, n: raw[:n], lambda raw, n: raw[:n] + b"\xff" + raw[n + 1 :]])
def test_damaged_archives_raise_nothing_else(spoil: Callable[[bytes, int], bytes]) -> None:
    """Wherever an archive is cut or altered, it is read as it was or refused as a bundle."""
    whole = archive.write({"main.rego": b"package gateway.main\n" * 20})
    for number in range(len(whole)):
        try:
            found = archive.read("b", spoil(whole, number))
        except BundleError:
            continue
        assert set(found) <= {"main.rego"}

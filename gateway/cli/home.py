"""The state folder on disk: its keys, its lock, and the configuration that belongs to it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.adapters.clock import SystemClock
from gateway.adapters.identity import KeyFileError, LocalIssuer, Trust, create_key, load_key
from gateway.cli.reach import ADMIN_SOCKET
from gateway.cli.screen import Misconfigured
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.file import development, load

_CONFIG = "gateway.toml"
_MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux, 104 elsewhere


def issuer_key(state: Path) -> Path:
    """Where the local issuer's key lies."""
    return state / "keys" / "issuer.pem"


def read(config: Path) -> GatewaySettings:
    """The settings of a configuration file.

    Raises:
        Misconfigured: with every problem on its own line.
    """
    try:
        return load(config)
    except SettingsError as error:
        raise unusable(error) from None


def unusable(error: SettingsError) -> Misconfigured:
    """A settings error as the command's failure."""
    problems = "\n  ".join(error.problems)
    return Misconfigured(
        f"the configuration cannot be used\n  {problems}",
        "correct the named keys; `ostiary schema gateway` prints what there is",
        {"error": "configuration", "problems": error.problems},
    )


def of_state(state: Path) -> GatewaySettings:
    """The settings a state folder belongs to: a configuration in it or beside it, else those of ``ostiary up``."""
    beside = state.resolve().parent / _CONFIG
    if not (state / _CONFIG).is_file() and beside.is_file():
        settings = read(beside)
        if settings.state.resolve() == state.resolve():
            return settings
    try:
        return development(state, 0, {})
    except SettingsError as error:
        raise unusable(error) from None


def issuer(settings: GatewaySettings) -> LocalIssuer:
    """The local issuer of these settings; touches nothing but its key file.

    Raises:
        Misconfigured: the key cannot be used.
    """
    trust = Trust(settings.identity.issuer, frozenset(settings.identity.audience))
    try:
        return LocalIssuer(SystemClock(), trust, load_key(issuer_key(settings.state)))
    except KeyFileError as error:
        raise Misconfigured(f"{error.path}: {error.problem}", error.fix) from None


def prepare(state: Path) -> None:
    """Make the state folder (0700) and the issuer's key, as far as they are missing.

    Raises:
        Misconfigured: the folder cannot be used.
    """
    socket = os.fsencode(state.resolve() / ADMIN_SOCKET)
    if len(socket) > _MAX_SOCKET_PATH:
        raise Misconfigured(
            f"the admin socket's path would be {len(socket)} bytes long; the system takes {_MAX_SOCKET_PATH}",
            "use a --state folder with a shorter path",
        )
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if state.stat().st_mode & 0o077:
            raise Misconfigured(f"{state} can be entered by other users", f"chmod 700 {state}")
        if not os.access(state, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        if not issuer_key(state).exists():
            create_key(issuer_key(state))
    except KeyFileError as error:
        raise Misconfigured(f"{error.path}: {error.problem}", error.fix) from None
    except OSError as error:
        raise Misconfigured(f"{state} cannot be used ({error.strerror})", "give a folder you may write to") from None


@contextmanager
def held(state: Path) -> Iterator[None]:
    """Hold a prepared state folder for this process alone.

    Raises:
        Misconfigured: another gateway holds it.
    """
    with (state / "gateway.lock").open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read(16).strip() or "unknown"
            raise Misconfigured(
                f"a gateway (process {owner}) already runs on {state}", "end it, or use another --state folder"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield  # the lock ends with the file, also when the process is killed

"""Tokens of persons who logged in, kept for later commands: one file, readable by its owner only."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gateway.cli.addresses import place
from gateway.cli.screen import Failed, Misconfigured

_FILE: Final = "logins.json"


def keep(url: str, token: str, lives_s: float) -> Path:
    """Keep the token for the gateway at ``url``; returns the file.

    Raises:
        Failed: it cannot be written.
    """
    path = _path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path):
            kept = {name: one for name, one in _read(path).items() if one["ends_s"] > time.time()}
            kept[place(url)] = {"token": token, "ends_s": int(time.time() + lives_s)}
            _replace(path, json.dumps(kept))
    except OSError as error:
        raise Failed(f"{path} cannot be written ({error.strerror})", "make its folder writable") from None
    return path


def token_for(url: str) -> str | None:
    """The token kept for the gateway at ``url``; None where there is none.

    Raises:
        Misconfigured: it has expired, or others can read the file.
    """
    path = _path()
    found = _read(path).get(place(url))
    if found is None:
        return None
    if path.stat().st_mode & 0o077:
        raise Misconfigured(f"{path} can be read by others", f"chmod 600 {path}")
    if found["ends_s"] <= time.time():
        raise Misconfigured("your login has expired", f"ostiary login --url {url}")
    return str(found["token"])


def _path() -> Path:
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "ostiary" / _FILE


def _replace(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    # The mode at creation: there is no moment at which another user could open it.
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    fresh.replace(path)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One login at a time: none writes over what another has just kept."""
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    known = kept.items() if isinstance(kept, dict) else ()
    return {name: one for name, one in known if _is_login(one)}


def _is_login(one: object) -> bool:
    return isinstance(one, dict) and isinstance(one.get("token"), str) and isinstance(one.get("ends_s"), int | float)

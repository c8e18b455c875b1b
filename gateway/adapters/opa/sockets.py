"""Whether others than OPA could listen where OPA should: who may write to a socket's folder decides who answers."""

import stat
from pathlib import Path
from typing import Final

_UNIX: Final = "unix://"


def exposed(url: str) -> str | None:
    """Which folder on the way to the socket anybody may change, in words; None where there is none, or no socket.

    The folder that holds the socket is no place for it either where it keeps people from taking away what is others':
    whoever comes first, before OPA or while it is started anew, makes the socket.
    """
    if not url.startswith(_UNIX):
        return None
    first, *others = [folder for folder in Path(url.removeprefix(_UNIX)).absolute().parents if folder.is_dir()]
    for folder, is_holder in [(first, True), *((folder, False) for folder in others)]:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and (is_holder or not mode & stat.S_ISVTX):
            return f"{folder} is writable by all"
    return None

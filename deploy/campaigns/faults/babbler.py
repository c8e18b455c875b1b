"""The real policy worker until a file says otherwise: then one of its replies is garbage. Run by path, isolated.

``python -I -B babbler.py WORKER FLAG KIND PAGE``: ``WORKER`` is the path of the gateway's own worker, ``FLAG`` the file
that says when (it is taken away with the first garbage), ``KIND`` a number that chooses what kind, ``PAGE`` its page.
"""

import importlib.util
import os
import struct
import sys
from typing import Any


def garbled(frames: bytes, kind: int) -> bytes:
    """Frames of which no honest worker sends the first."""
    (size,) = struct.unpack_from(">I", frames)
    frame, others = frames[: 4 + size], frames[4 + size :]
    kinds = (
        frame[:4] + b"\0" * 8 + frame[12:],  # the answer to another question
        frame[:12] + bytes(32) + frame[44:],  # another question's digest
        struct.pack(">I", size - 1) + frame[4:-1],  # cut short
        struct.pack(">I", 2**31) + frame[4:],  # too long to be true
        frame[:44] + b"\x07" + frame[45:],  # a status there is not
    )
    return kinds[kind % len(kinds)] + others


def main() -> None:
    """Work, and babble once."""
    path, flag, kind, page = sys.argv[1:5]
    specification = importlib.util.spec_from_file_location("worker", path)
    assert specification is not None
    assert specification.loader is not None
    worker: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(worker)
    honest = worker._send  # noqa: SLF001 - the very function that is to be spoilt

    def send(frames: bytes) -> None:
        try:
            os.unlink(flag)  # noqa: PTH108 - one system call, nothing imported
        except FileNotFoundError:
            honest(frames)
        else:
            honest(garbled(frames, int(kind)))

    worker._send = send  # noqa: SLF001
    sys.argv = [path, "0", "20", page]
    worker.main()


if __name__ == "__main__":
    main()

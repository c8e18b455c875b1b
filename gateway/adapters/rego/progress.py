"""What a policy worker is at, read from a page of memory that it shares with the gateway.

A worker that has the next question already holds its replies back a little, to send them together. So the order of the
replies does not tell which question hangs or kills it; the page does.
"""

import math
import mmap
import os
import struct
import tempfile
from dataclasses import dataclass

PAGE = 4096
_AT = struct.Struct("=Qd")


@dataclass(slots=True, eq=False)
class Progress:
    """One worker's page; closed by whoever made it.

    Attributes:
        descriptor: of the page, for the worker to inherit; closed by ``shared``.
    """

    descriptor: int
    _page: mmap.mmap

    @classmethod
    def made(cls) -> "Progress":
        """A page that says nothing yet.

        Raises:
            OSError: the system gives none.
        """
        descriptor = _file()
        try:
            os.ftruncate(descriptor, PAGE)
            return cls(descriptor, mmap.mmap(descriptor, PAGE))
        except BaseException:
            os.close(descriptor)
            raise

    def shared(self) -> None:
        """The worker has it: the descriptor is not needed any more."""
        os.close(self.descriptor)

    def read(self) -> tuple[int, float]:
        """The number of the question that was begun last, and when: seconds of the system's monotonic clock."""
        number, began = _AT.unpack_from(self._page)
        # What is no number is neither early nor late: a deadline reckoned from it would never end.
        return number, 0.0 if math.isnan(began) else began

    def close(self) -> None:
        """Give the memory back."""
        self._page.close()


def _file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("ostiary-policy-progress", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

"""Keeping a key under another one that never leaves its place, such as a vault."""

from typing import Protocol


class KeyWrapper(Protocol):
    """Wraps keys. Closed: what cannot be unwrapped is not there.

    Attributes:
        name: where it is kept, for people.
    """

    name: str

    async def wrap(self, key: bytes, context: str) -> str:
        """``key`` in a form that only ``unwrap`` with the same ``context`` opens; ASCII, one line.

        Raises:
            Unavailable: it is not there, or refuses.
        """

    async def unwrap(self, wrapped: str, context: str) -> bytes:
        """The key.

        Raises:
            Unavailable: it is not there, refuses, or ``wrapped`` is of another key or context.
        """

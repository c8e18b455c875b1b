"""Who may sign, as other parts ask it."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.core.approval import Reviewer


class Reviewers(Protocol):
    """The enrolled keys.

    Attributes:
        origin: the log's name in what they sign.
    """

    origin: str

    def active(self, name: str) -> Reviewer:
        """The enrolled key of that id.

        Raises:
            Forbidden: not enrolled, or revoked.
        """

    def steady(self) -> AbstractAsyncContextManager[None]:
        """Nobody is enrolled or revoked meanwhile.

        Raises:
            Unavailable: that cannot be made sure.
        """

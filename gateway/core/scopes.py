"""Cancel scopes made at once: anyio looks for the running loop's kind anew with each of them, which takes longer."""

from functools import cache
from math import inf

from anyio import CancelScope


def scope(*, deadline: float = inf, shield: bool = False) -> CancelScope:
    """What ``CancelScope`` makes, in a running loop."""
    return _kind()(deadline=deadline, shield=shield)


@cache
def _kind() -> type[CancelScope]:
    return type(CancelScope())  # of this process there is one: it has one kind of loop

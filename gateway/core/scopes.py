"""anyio's cancel scopes, without asking for each of them which library runs the loop: one does, for good."""

from functools import cache

from anyio import CancelScope


@cache
def kind() -> type[CancelScope]:
    """The class of what ``anyio.CancelScope`` gives here.

    That one makes an object of another class, by way of four more functions, and sets it up twice.
    """
    return type(CancelScope())

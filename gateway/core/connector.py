"""The contract every connector keeps."""

from collections.abc import Sequence
from typing import Any, Protocol

from gateway.core.call import Lease, Raw


class Connector(Protocol):
    """Carries out leased calls at one upstream. An async context manager made by ``app.py``.

    Failure mode, closed: ``NotSent`` only when it is certain that nothing left; ``ToolFailed`` when the upstream
    answered that it failed; ``OutcomeUnknown`` whenever the call may have arrived and no usable answer came.
    """

    async def invoke(self, lease: Lease) -> Raw:
        """Carry out the call: ``lease.intent.tool`` with ``lease.intent.call.arguments.canonical``, sent at most once.

        Timeouts are the catalogue's business: it cancels the invocation.
        """

    async def ping(self) -> None:
        """Return when the upstream can serve now; raise ``Unavailable`` otherwise."""


class Discovering(Connector, Protocol):
    """A connector whose upstream describes its own tools (MCP)."""

    async def discover(self) -> Sequence[dict[str, Any]]:
        """The upstream's tool definitions as MCP ``Tool`` objects, all pages.

        Raises:
            Unavailable: the upstream cannot be asked.
        """

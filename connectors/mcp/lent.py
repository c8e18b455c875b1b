"""MCP over a child process that serves one call: started with the call's credential, and gone before that is ended.

A standing process without a credential answers discovery and pings. The credential is in an environment variable, or
in a file that has no name in any folder: it lies in memory, its one call's process has it open, and it is gone with
the last who has. The kernel ends that process with the gateway, however that ends: there is nothing to sweep up.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

from anyio import move_on_after

from connectors.mcp.places import Crowd, Places, user_of
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector, StdioOptions
from gateway.core.call import Handout, Lease, Raw
from gateway.core.errors import NotSent
from gateway.core.mcpwire.eras import Era

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


class LentConnector:
    """One MCP server by command, a process for each call; a ``Discovering`` connector and async context manager.

    Args:
        command: what to run.
        log: told what the processes write to their standard error (untrusted text) and how they fare.
        options: times and bounds, of each process.
        crowd: how many there may be at a time; none is ever idle.
    """

    def __init__(
        self,
        command: Command,
        log: Callable[[str], None],
        options: StdioOptions | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        self._command = command
        self._log = log
        self._options = options or StdioOptions()
        self._standing = StdioConnector(command, log, self._options)
        self._places = Places(crowd or Crowd())

    async def __aenter__(self) -> Self:
        """Start the standing process."""
        await self._standing.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it; the processes of calls end with their calls."""
        await self._standing.__aexit__(kind, error, trace)

    @property
    def era(self) -> Era | None:
        """The upstream's era, None while it is not known."""
        return self._standing.era

    async def invoke(self, lease: Lease) -> Raw:
        """Carry out the call in a process of its own; see ``core.connector.Connector``."""
        if lease.handout is None:
            raise NotSent("the upstream is not called without a credential", cause_code="credential_missing")
        user = user_of(lease)
        # A quarter: the rest is for the start of the process and the call.
        with move_on_after(lease.intent.timeout_s / 4) as waiting:
            await self._places.take(user)
        if waiting.cancelled_caught:
            raise self._places.busy(user)
        try:
            with _started_with(self._command, lease.handout) as command:
                options = replace(self._options, lent=lease.handout, dialect=self._standing.dialect)
                async with StdioConnector(command, self._log, options) as own:
                    return await own.carried_out(lease)
        finally:
            self._places.give(user)

    async def discover(self) -> Sequence[dict[str, Any]]:
        """The upstream's tool definitions; see ``core.connector.Discovering``."""
        return await self._standing.discover()

    async def ping(self) -> None:
        """Return when the standing process answers; see ``core.connector.Connector``."""
        await self._standing.ping()


@contextmanager
def _started_with(command: Command, handout: Handout) -> Iterator[Command]:
    """The command with the credential in its environment, or in a file it inherits."""
    if not handout.in_file:
        yield replace(command, env={**command.env, handout.variable: handout.text})
        return
    descriptor = os.memfd_create("credential", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as stream:
            stream.write(handout.text.encode())
        os.fchmod(descriptor, 0o400)  # some programs refuse what others might read
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        path = f"/proc/self/fd/{descriptor}"
        env = {**command.env, handout.variable: path}
        yield replace(command, env=env, inherited=(descriptor,))
    finally:
        os.close(descriptor)

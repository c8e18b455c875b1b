"""``ostiary client bridge``: MCP on standard input and output, for clients that only start programs.

Each line is one message, carried to the gateway's ``/mcp`` as it is, and the answers back. The bridge decides nothing.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import anyio
import anyio.abc
import anyio.from_thread
import anyio.lowlevel

from gateway.cli.client import messages
from gateway.cli.client.carrying import Carrier, Session
from gateway.cli.client.door import Door
from gateway.cli.client.messages import Message

_GRACE_S: Final = 5.0
_LEAVE_S: Final = 2.0
_PAUSES_S: Final = (1.0, 2.0, 5.0, 15.0)
_QUEUE: Final = 64


async def run(door: Door, source: BinaryIO, sink: BinaryIO, patience_s: float = 5.0) -> None:
    """Carry messages until ``source`` ends or nobody reads ``sink``.

    Args:
        door: the gateway.
        source: lines from the client.
        sink: lines to the client.
        patience_s: how long a gateway that is away is waited for, each message.
    """
    async with door.client() as client:
        carrier = Carrier(door, client, _speaker(sink), patience_s)
        try:
            async with anyio.create_task_group() as group:
                await _Talk(carrier, group).hold(source)
        except* BrokenPipeError:
            pass  # nobody reads any more
        with anyio.move_on_after(_LEAVE_S), suppress(Exception):  # best effort: the gateway forgets idle sessions
            await carrier.leave()


def _speaker(sink: BinaryIO) -> Callable[[bytes], None]:
    def say(body: bytes) -> None:
        sink.write(messages.on_one_line(body) + b"\n")
        sink.flush()

    return say


@dataclass(slots=True)
class _Talk:
    """One client's messages: requests side by side, all others in their order."""

    carrier: Carrier
    group: anyio.abc.TaskGroup
    running: dict[str | int, anyio.CancelScope] = field(default_factory=dict)
    idle: anyio.Event = field(default_factory=anyio.Event)
    heard: Session | None = None

    async def hold(self, source: BinaryIO) -> None:
        """Until the client ends it; what is under way then gets a moment to end."""
        sender, receiver = anyio.create_memory_object_stream[bytes](_QUEUE)
        token = anyio.lowlevel.current_token()

        def read() -> None:
            with suppress(anyio.BrokenResourceError, RuntimeError):  # the loop has ended before its client
                for line in iter(source.readline, b""):
                    anyio.from_thread.run(sender.send, line, token=token)
                anyio.from_thread.run_sync(sender.close, token=token)

        # A daemon: a client that neither speaks nor hangs up must not keep this process.
        threading.Thread(target=read, daemon=True).start()
        async with receiver:
            async for line in receiver:
                if line.strip():
                    await self._take(messages.read(line))
        await self._end()

    async def _take(self, message: Message) -> None:
        if message.method == "notifications/cancelled" and self.carrier.session is None:
            # Over HTTP a stateless request is cancelled by leaving it.
            named = message.params.get("requestId")
            scope = self.running.get(named) if isinstance(named, str | int) else None
            if scope is not None:
                scope.cancel()
        elif message.is_request and message.method != "initialize":
            self.group.start_soon(self._alone, message)
        else:
            await self.carrier.carry(message)
        if self.carrier.session is not self.heard:
            self.heard = self.carrier.session
            self.group.start_soon(self._hear, self.heard)

    async def _alone(self, message: Message) -> None:
        assert message.id is not None
        with anyio.CancelScope() as scope:
            self.running[message.id] = scope
            try:
                await self.carrier.carry(message)
            finally:
                if self.running.get(message.id) is scope:
                    del self.running[message.id]
                if not self.running:
                    self.idle.set()

    async def _hear(self, session: Session | None) -> None:
        """What the gateway pushes, over again while the session is the client's."""
        at = 0
        while session is not None and self.carrier.session is session:
            with suppress(Exception):  # whatever ails the stream ails the next request too, which says so
                await self.carrier.listen()
            await anyio.sleep(_PAUSES_S[min(at, len(_PAUSES_S) - 1)])
            at += 1

    async def _end(self) -> None:
        with anyio.move_on_after(_GRACE_S):
            while self.running:
                self.idle = anyio.Event()
                await self.idle.wait()
        self.group.cancel_scope.cancel()

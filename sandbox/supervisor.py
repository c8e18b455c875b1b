"""The process that starts boxes: ``python -m sandbox.supervisor``, with the gateway at the other end of descriptor 0.

It is small, so that forking is quick and safe, and keeps root where it has it, which the boxes never see. It lives as
long as the gateway: when the other end is gone, all boxes are killed and it ends. When it is killed itself, the kernel
kills the boxes. Standard library only.

Messages (``frames``): first ``{"op": "start", ...}``, answered ``ready`` or ``failed``; then ``run`` with two blobs,
answered ``done`` or ``broken`` by id, and ``kill``.
"""

import asyncio
import os
import signal
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from sandbox import cgroups
from sandbox.box import Box, Broken, Place, Task
from sandbox.cgroups import Tree
from sandbox.frames import Garbage, Message, packed, received
from sandbox.profile import Profile
from sandbox.slots import NoRoom, Slots
from sandbox.staging import staged

_FIX = "make that possible for the user that runs the gateway"


@dataclass(slots=True)
class Supervisor:
    """The boxes of one gateway."""

    profile: Profile
    tree: Tree
    slots: Slots
    writer: asyncio.StreamWriter
    _boxes: dict[int, Box] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def take(self, message: Message) -> None:
        """Act on one message.

        Raises:
            Garbage: it is none of those the gateway sends.
        """
        match message.head:
            case {"op": "run", "id": int(number), "limits": dict(limits)}:
                try:
                    code, stdin = message.blobs
                except ValueError:
                    raise Garbage from None
                task = asyncio.create_task(self._run(number, Task(code, stdin, limits)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case {"op": "kill", "id": int(number)}:
                if number in self._boxes:
                    self._boxes[number].kill("killed")
            case _:
                raise Garbage

    async def end(self) -> None:
        """Kill all boxes and wait until they are dead."""
        for box in list(self._boxes.values()):
            box.kill("killed")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, number: int, task: Task) -> None:
        if not self.slots.free:
            self._say({"op": "broken", "id": number, "why": "all boxes are in use"})
            return
        uid = self.slots.free.pop()
        box = self._boxes[number] = Box(task, Place(self.profile, self.tree, uid))
        try:
            head, outputs = await box.run()
        except (Broken, OSError) as error:
            self._say({"op": "broken", "id": number, "why": str(error)})
        else:
            self._say({"op": "done", "id": number, **head}, outputs)
        finally:
            del self._boxes[number]
            self.slots.free.append(uid)

    def _say(self, head: dict[str, Any], blobs: list[bytes] | None = None) -> None:
        self.writer.write(packed(head, blobs or ()))


async def serve(channel: socket.socket) -> int:
    """Serve until the gateway is gone; the exit code."""
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    message = await received(reader)
    if message is None:
        return 0
    with ExitStack() as stack:
        try:
            supervisor = _prepared(message.head, writer, stack)
        except (NoRoom, OSError) as error:
            writer.write(packed({"op": "failed", "why": str(error), "fix": getattr(error, "fix", _FIX)}))
            await writer.drain()
            return 1
        tree = supervisor.tree
        ready = {"op": "ready", "groups": tree.version, "held": tree.held(), "own_uid": os.geteuid() == 0}
        writer.write(packed(ready))
        await _attend(supervisor, reader)
    return 0


def _prepared(head: dict[str, Any], writer: asyncio.StreamWriter, stack: ExitStack) -> Supervisor:
    bwrap = stack.enter_context(staged(head["profile"]["bwrap"], needed=os.geteuid() == 0))
    # Groups before user ids: it ends whoever a killed supervisor left, and under which id.
    tree = cgroups.found(os.getppid()) if head["groups"] else Tree()
    slots = Slots.claimed(head["slots"], head["first_uid"])
    return Supervisor(Profile(**{**head["profile"], "bwrap": bwrap}), tree, slots, writer)


async def _attend(supervisor: Supervisor, reader: asyncio.StreamReader) -> None:
    try:
        while (message := await received(reader)) is not None:
            supervisor.take(message)
            await asyncio.sleep(0)
    except Garbage:
        pass  # a gateway that is out of step gets no more boxes; it starts another supervisor
    finally:
        await supervisor.end()


def main() -> int:
    """Entry point of the process."""
    # The terminal's interrupt is for the gateway, which ends this process by hanging up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    return asyncio.run(serve(socket.socket(fileno=os.dup(0))))


if __name__ == "__main__":
    sys.exit(main())

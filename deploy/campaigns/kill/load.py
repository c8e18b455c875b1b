"""The load: clients that call while the door is open, come back after each death, and remember what they were told."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from deploy.campaigns.kill.wire import NOTE, REFUSED, Connection, Surface, Told

_RETRY_S: Final = 0.02
_PATIENCE_S: Final = 30.0
_REFUSED_SHARE: Final = 0.1


@dataclass(slots=True)
class Load:
    """All clients.

    Attributes:
        ports: the gateways', the same in all their lives.
        told: what was answered since this was last taken.
        unanswered: calls whose answer never came, as the connection broke.
        hung: calls that a living connection did not answer in time.
        reached: set by each answer.
        busy: connections that are in use.
    """

    ports: Sequence[int]
    chance: random.Random
    told: list[Told] = field(default_factory=list)
    unanswered: int = 0
    hung: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    door: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    busy: int = 0
    _made: int = 0

    def take(self) -> list[Told]:
        """What was answered since the last time."""
        told, self.told = self.told, []
        return told

    async def client(self, number: int) -> None:
        """Be one client, for ever."""
        surface = (Surface.REST, Surface.MCP)[number % 2]
        port = self.ports[number // 2 % len(self.ports)]
        while True:
            await self.door.wait()
            try:
                connection = await Connection.opened(port)
            except OSError:
                await asyncio.sleep(_RETRY_S)
                continue
            self.busy += 1
            try:
                while self.door.is_set():
                    await self._call(connection, surface, self.tokens[number % len(self.tokens)])
            except (OSError, EOFError):
                self.unanswered += 1
            finally:
                self.busy -= 1
                connection.close()

    async def _call(self, connection: Connection, surface: Surface, token: str) -> None:
        self._made += 1
        marker = f"m{self._made}"
        tool = REFUSED if self.chance.random() < _REFUSED_SHARE else NOTE
        try:
            async with asyncio.timeout(_PATIENCE_S):
                told = await connection.call(surface, token, tool, marker)
        except TimeoutError:
            self.hung.append(marker)
            raise
        self.told.append(told)
        if told.call_id is None:
            await asyncio.sleep(_RETRY_S)
        else:
            self.reached.set()

    async def alone(self, surface: Surface, tool: str, calls: int) -> float:
        """Make ``calls`` one after another, with nobody else at the door; returns the seconds it took."""
        connection = await Connection.opened(self.ports[0])
        began = time.monotonic()
        try:
            for _ in range(calls):
                self._made += 1
                self.told.append(await connection.call(surface, self.tokens[0], tool, f"m{self._made}"))
        finally:
            connection.close()
        return time.monotonic() - began

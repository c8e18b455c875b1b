"""What is on the shelves: declared tools, and what upstreams say of theirs, compared with what was approved.

Upstreams are asked all at once when the gateway starts, and one by one from then on. An upstream that is down, slow or
hostile keeps nobody else's tools away, and never unlocks its own: what was approved stays as it was last seen.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from anyio import create_task_group, move_on_after, sleep

from gateway.adapters.pins import Pins
from gateway.core.catalog import Shelf
from gateway.core.errors import Unavailable
from gateway.core.tool import Kind
from gateway.findings import Finding
from gateway.parts.shelving import Definitions, Source, pinned, strays, usable

_LOG = logging.getLogger("ostiary.stock")
_MOST_DOUBLINGS: Final = 20


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When upstreams are asked.

    Attributes:
        start_s: longest the start waits for all of them together.
        refresh_s: pause between two looks at one; also the longest pause while it is down.
        first_pause_s: pause after it was first found down; doubled each time it still is.
        pause: waits so many seconds.
    """

    start_s: float = 5.0
    refresh_s: float = 60.0
    first_pause_s: float = 1.0
    pause: Callable[[float], Awaitable[None]] = sleep

    def after(self, failures: int) -> float:
        """Seconds until an upstream is asked again that did not answer so many times in a row."""
        if failures == 0:
            return self.refresh_s
        return min(self.first_pause_s * float(2 ** min(failures - 1, _MOST_DOUBLINGS)), self.refresh_s)


class Stock:
    """The shelves of one gateway; an async context manager that keeps them true while it is open.

    Args:
        declared: tools that do not come from their upstream; they never change.
        sources: the upstreams that describe their own tools.
        pins: what was approved, loaded.
        publish: puts a generation in force, whole.
        rhythm: when upstreams are asked.
    """

    def __init__(
        self,
        declared: Sequence[Shelf],
        sources: Iterable[Source],
        pins: Pins,
        publish: Callable[[Sequence[Shelf]], None],
        rhythm: Rhythm,
    ) -> None:
        self._declared = tuple(declared)
        self._sources = {source.name: source for source in sources}
        self._pins = pins
        self._publish = publish
        self._rhythm = rhythm
        self._said: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._live: dict[str, Definitions] = {}
        self._shelves = {source.name: pinned(source, None, pins) for source in self._sources.values()}
        self._down: set[str] = set()

    async def __aenter__(self) -> Self:
        """Put the first generation in force, with what upstreams said in time, and go on asking them."""
        with move_on_after(self._rhythm.start_s):
            async with create_task_group() as asking:
                for source in self._sources.values():
                    asking.start_soon(self._heard, source)
        for source in self._sources.values():
            if source.name not in self._live:
                self._tell_down(source, "no answer in time")
        self._publish(self._generation())
        self._tasks = await create_task_group().__aenter__()
        for source in self._sources.values():
            self._tasks.start_soon(self._watch, source)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask no more."""
        self._tasks.cancel_scope.cancel()
        # The group is not told of the body's error, which it would wrap in a group of errors.
        await self._tasks.__aexit__(None, None, None)

    async def refresh(self, server: str) -> bool:
        """Ask one upstream now; put a new generation in force where that changes anything.

        Returns:
            Whether it answered.
        """
        source = self._sources[server]
        before = _gist(self._shelves[server])
        answered = await self._heard(source)
        if _gist(self._shelves[server]) != before:
            self._publish(self._generation())
        return answered

    def strays(self) -> list[Finding]:
        """Catalogue entries for tools that their upstream, which was asked, does not have: misspelt, most likely."""
        return [
            finding
            for name, live in self._live.items()
            for finding in strays(self._sources[name], {*live, *self._pins.of(name)})
        ]

    async def _watch(self, source: Source) -> None:
        failures = 0 if source.name in self._live else 1
        while True:
            await self._rhythm.pause(self._rhythm.after(failures))
            failures = 0 if await self.refresh(source.name) else failures + 1

    async def _heard(self, source: Source) -> bool:
        """Take in what an upstream says; whether it answered."""
        try:
            found = await source.connector.discover()
            if found != self._said.get(source.name):  # all that follows costs the loop time
                self._take(source, usable(source, found))
                self._said[source.name] = found
        except Unavailable as error:
            self._tell_down(source, error.detail)
            return False
        # What an upstream says of itself is hostile input: whatever it breaks, nobody else's tools go away with it.
        except Exception as error:  # noqa: BLE001
            self._tell_down(source, f"its tools cannot be read ({type(error).__name__})")
            return False
        self._down.discard(source.name)
        return True

    def _take(self, source: Source, live: Definitions) -> None:
        before = self._live.get(source.name)
        if live == before:
            return
        shelves = pinned(source, live, self._pins)
        _tell_quarantined(self._shelves[source.name], shelves)
        self._live[source.name], self._shelves[source.name] = live, shelves
        if before is None:
            for stray in strays(source, {*live, *self._pins.of(source.name)}):
                _LOG.warning("%s: %s", stray.part, stray.text)

    def _tell_down(self, source: Source, why: str) -> None:
        # Once, and not each time it is still so.
        if source.name not in self._down:
            _LOG.warning("upstream %s cannot be asked for its tools: %s", source.name, why)
        self._down.add(source.name)

    def _generation(self) -> list[Shelf]:
        # A name that an upstream made equal to another one's must not keep a generation from coming into force.
        found = [shelf for shelves in self._shelves.values() for shelf in shelves]
        by_name: dict[tuple[Kind, str], Shelf] = {}
        for shelf in [*self._declared, *sorted(found, key=lambda shelf: shelf.tool.fqn)]:
            if by_name.setdefault((shelf.tool.kind, shelf.tool.wire_name), shelf) is not shelf:
                _LOG.warning("upstream %s: a tool is left out, its name on the wire is taken", shelf.tool.server)
        return list(by_name.values())


def _gist(shelves: Sequence[Shelf]) -> list[tuple[str, str, str | None]]:
    """What makes one generation of shelves differ from another."""
    return [(shelf.tool.fqn, shelf.tool.digest, shelf.quarantine) for shelf in shelves]


def _tell_quarantined(before: Sequence[Shelf], after: Sequence[Shelf]) -> None:
    known = {shelf.tool.fqn: shelf.quarantine for shelf in before}
    for shelf in after:
        if shelf.quarantine is not None and known.get(shelf.tool.fqn) != shelf.quarantine:
            _LOG.warning("tool %s is quarantined: %s", shelf.tool.fqn, shelf.quarantine)

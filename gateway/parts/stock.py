"""What is on the shelves: declared tools, and what upstreams say of theirs, compared with what was approved.

Upstreams are asked all at once when the gateway starts, and one by one from then on. An upstream that is down, slow or
hostile keeps nobody else's tools away, and never unlocks its own: what was approved stays as it was last seen. What an
upstream says other than approved is quarantined, and stays so until a person approves it.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from anyio import create_task_group, move_on_after, sleep

from gateway.core.catalog import Shelf
from gateway.core.errors import Unavailable
from gateway.core.pinning import CAUSES, Cause, Described, PinBook
from gateway.core.suspicion import Names
from gateway.core.tool import Kind, kind_of
from gateway.findings import Finding
from gateway.parts.completing import completions, name_of
from gateway.parts.following import name_of as following
from gateway.parts.following import subscriptions
from gateway.parts.shelving import Definitions, Source, approvals, pinned, quarantines, strays, usable

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
        hold: whether suspicious tools are left to people, also where first use is trusted.
    """

    start_s: float = 5.0
    refresh_s: float = 60.0
    first_pause_s: float = 1.0
    pause: Callable[[float], Awaitable[None]] = sleep
    hold: bool = False

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
        pins: what was approved, synced.
        publish: puts a generation in force, whole.
        rhythm: when upstreams are asked.
    """

    def __init__(
        self,
        declared: Sequence[Shelf],
        sources: Iterable[Source],
        pins: PinBook,
        publish: Callable[[Sequence[Shelf]], None],
        rhythm: Rhythm,
    ) -> None:
        self._declared = tuple(declared)
        self._sources = {source.name: source for source in sources}
        self._pins = pins
        self._publish = publish
        self._rhythm = rhythm
        self._said: dict[str, str] = {}
        self._live: dict[str, Definitions] = {}
        self._shelves = {name: pinned(source, None, pins.of(name)) for name, source in self._sources.items()}
        self._described: dict[str, Mapping[str, Described]] = {}
        self._revisions: dict[str, int] = {}
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
        before = _gist(self._shelves[server])
        answered = await self._heard(self._sources[server])
        if _gist(self._shelves[server]) != before:
            self._publish(self._generation())
        return answered

    async def reshelve(self, server: str) -> None:
        """Take in what was pinned; put a new generation in force where that changes anything."""
        before = _gist(self._shelves[server])
        await self._shelve(self._sources[server], self._live.get(server))
        if _gist(self._shelves[server]) != before:
            self._publish(self._generation())

    @property
    def servers(self) -> Iterable[str]:
        """The upstreams that describe their own tools."""
        return self._sources.keys()

    def shelves(self, server: str) -> Mapping[str, Shelf]:
        """The pinned tools of one of them by name, whether or not they can be used."""
        return {shelf.tool.name: shelf for shelf in self._shelves[server]}

    def live(self, server: str) -> Mapping[str, Described]:
        """What it said last, by tool name; empty where it was not heard."""
        return self._described.get(server, {})

    def names(self, more: Iterable[tuple[str, str]] = ()) -> Names:
        """Every name of a tool, pinned or not, and these (server, name)."""
        pairs = [*more, *((shelf.tool.server, shelf.tool.name) for shelf in self._declared)]
        for server in self._sources:
            pairs += [(server, name) for name in {*self._live.get(server, {}), *self._pins.of(server)}]
        return Names.of(pairs)

    def strays(self) -> list[Finding]:
        """Catalogue entries for tools that their upstream, which was asked, does not have: misspelt, most likely."""
        return [
            finding
            for name, live in self._live.items()
            for finding in strays(self._sources[name], self._known(name, live))
        ]

    def _known(self, server: str, live: Definitions) -> set[str]:
        names = {*live, *self._pins.of(server)}
        followed = {following(_address(name)) for name in names if kind_of(name) is Kind.RESOURCE}
        return names | followed | {name_of(name) for name in names if kind_of(name) is not Kind.TOOL}

    async def _watch(self, source: Source) -> None:
        failures = 0 if source.name in self._live else 1
        while True:
            await self._rhythm.pause(self._rhythm.after(failures))
            failures = 0 if await self.refresh(source.name) else failures + 1

    async def _heard(self, source: Source) -> bool:
        """Take in what an upstream says; whether it answered."""
        try:
            found = await source.connector.discover()
            is_synced = await self._synced()
            # All that follows costs the loop time.
            said = repr(found)  # as text: ``true`` and ``1``, which Python holds to be equal, are a difference
            is_same = self._pins.revision == self._revisions.get(source.name) and said == self._said.get(source.name)
            if not is_same:
                await self._take(source, usable(source, found), {definition.get("name") for definition in found})
            if is_synced:
                self._said[source.name] = said
        except Unavailable as error:
            self._tell_down(source, error.detail)
            return False
        # What an upstream says of itself is hostile input: whatever it breaks, nobody else's tools go away with it.
        except Exception as error:  # noqa: BLE001
            self._tell_down(source, f"its tools cannot be read ({type(error).__name__})")
            return False
        self._down.discard(source.name)
        return True

    async def _synced(self) -> bool:
        """Take in what other processes pinned; where that fails, what is in memory still tells a change from none."""
        try:
            await self._pins.sync()
        except Unavailable as error:
            _LOG.warning("what other gateways pinned cannot be read: %s", error.detail)
            return False
        return True

    async def _take(self, source: Source, live: Definitions, offered: Collection[Any]) -> None:
        if not self._pins.of(source.name) and source.upstream.trust == "first_use":
            names = self.names((source.name, name) for name in live)
            await self._pins.trust(source.name, approvals(source, live, names, hold=self._rhythm.hold))
        before = self._live.get(source.name)
        self._live[source.name] = live
        self._described[source.name] = {name: source.described(text) for name, text in live.items()}
        await self._shelve(source, live, offered)
        if before is None:
            for stray in strays(source, self._known(source.name, live)):
                _LOG.warning("%s: %s", stray.part, stray.text)
        if live != before:
            self._tell_new(source, live)

    async def _shelve(self, source: Source, live: Definitions | None, offered: Collection[Any] = ()) -> None:
        # In force first, recorded then: where the log is full, what changed is quarantined all the same.
        shelves = pinned(source, live, self._pins.of(source.name))
        _tell_quarantined(self._shelves[source.name], shelves)
        self._shelves[source.name] = shelves
        try:
            await self._pins.quarantine(quarantines(source, live, shelves, offered))
        except Unavailable:
            _LOG.warning("upstream %s: a quarantine is in force and not recorded yet: tried again", source.name)
            return
        finally:
            # Its own quarantines may have moved the pins on.
            self._shelves[source.name] = pinned(source, live, self._pins.of(source.name))
        self._revisions[source.name] = self._pins.revision

    def _tell_new(self, source: Source, live: Definitions) -> None:
        fresh = len(live.keys() - self._pins.of(source.name).keys())
        if fresh:  # a server that was taken over later must not widen what it may do
            _LOG.warning(
                "upstream %s has %d new tools, which nobody approved: left out; see `ostiary tool diff`",
                source.name,
                fresh,
            )

    def _tell_down(self, source: Source, why: str) -> None:
        # Once, and not each time it is still so.
        if source.name not in self._down:
            _LOG.warning("upstream %s cannot be asked for its tools: %s", source.name, why)
        self._down.add(source.name)

    def _generation(self) -> list[Shelf]:
        # A name that an upstream made equal to another one's must not keep a generation from coming into force.
        found = [
            shelf
            for server, shelves in self._shelves.items()
            for shelf in (*shelves, *_made_of(self._sources[server], shelves))
        ]
        by_name: dict[tuple[Kind, str], Shelf] = {}
        for shelf in [*self._declared, *sorted(found, key=lambda shelf: shelf.tool.fqn)]:
            if by_name.setdefault((shelf.tool.kind, shelf.tool.wire_name), shelf) is not shelf:
                _LOG.warning("upstream %s: a tool is left out, its name on the wire is taken", shelf.tool.server)
        return list(by_name.values())


def _made_of(source: Source, shelves: Sequence[Shelf]) -> list[Shelf]:
    return [*completions(source, shelves), *subscriptions(source, shelves)]


def _address(name: str) -> str:
    return name.removeprefix(Kind.RESOURCE.prefix)


def _gist(shelves: Sequence[Shelf]) -> list[tuple[str, str, Cause | None]]:
    """What makes one generation of shelves differ from another."""
    return [(shelf.tool.fqn, shelf.tool.digest, shelf.quarantine) for shelf in shelves]


def _tell_quarantined(before: Sequence[Shelf], after: Sequence[Shelf]) -> None:
    known = {shelf.tool.fqn: shelf.quarantine for shelf in before}
    for shelf in after:
        if shelf.quarantine is not None and known.get(shelf.tool.fqn) != shelf.quarantine:
            _LOG.warning("tool %s is quarantined: %s", shelf.tool.fqn, CAUSES[shelf.quarantine])

"""One campaign: measured commits first, then one death after another on the same log, each judged."""

import asyncio
import base64
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.campaigns.kill.commits import count
from deploy.campaigns.kill.ground import Ground, Store, laid_out
from deploy.campaigns.kill.house import GATEWAY, House, HouseError
from deploy.campaigns.kill.judge import Journal, Judge
from deploy.campaigns.kill.load import Load
from deploy.campaigns.kill.plan import Moment, Strike, plan
from deploy.campaigns.kill.wire import NOTE, REFUSED, Surface
from gateway.core.tiles import ProofError, check_consistency
from gateway.core.tlog import Checkpoint, VerifierKey

_LOAD_S: Final = 1.2
_MOVING_S: Final = 0.04
_MOVING_PATIENCE_S: Final = 15.0
_OPENING_S: Final = 0.04
_STOPPING_S: Final = 0.25
_ANSWER_S: Final = 30.0
_LOOK_S: Final = 0.001
_CHECKPOINT_S: Final = 0.05
_TOGETHER_S: Final = 0.6
_ALONE: Final = 60
_FRESH_TOKENS: Final = 10
_VERIFY: Final = 40
_MOST_COMMITS: Final = 2
# Between two calls nobody may write for so long that the log moves its journal into the tables: a commit of no call.
_RESTS: Final = 3
# Strikes that come too late are no deaths: for each this many kills one more is planned, and some at least.
_SPARE: Final = 4
_LEAST_SPARE: Final = 3
_FILES: Final = ("log.db", "log.db-wal", "log.guard", "log.journal")


@dataclass(frozen=True, slots=True)
class Options:
    """How a campaign is run.

    Attributes:
        clients: calls under way at a time.
        store: where the log lies; in PostgreSQL two gateways write it, and either is killed.
        command: how a gateway is started.
        until_violated: end at the first death after which something is wrong.
    """

    seed: int = 0
    kills: int = 5
    clients: int = 32
    store: Store = Store.SQLITE
    command: Sequence[str] = GATEWAY
    until_violated: bool = False

    @property
    def never(self) -> Moment | None:
        """The moment that there is not in such a store."""
        return Moment.MOVING if self.store is Store.POSTGRES else None


@contextlib.asynccontextmanager
async def opened(options: Options) -> AsyncIterator["Campaign"]:
    """A campaign whose tool and first gateways are up.

    Raises:
        HouseError, BenchmarkError, ServerError: they are not.
    """
    with tempfile.TemporaryDirectory(prefix="ostiary-kill-") as name:
        async with laid_out(Path(name), options.store, options.command) as ground:
            vkey = (ground.houses[0].state / "keys" / "log.vkey").read_text("ascii").strip()
            chance = random.Random(options.seed)  # noqa: S311  which calls are made is no secret
            load = Load([house.port for house in ground.houses], chance)
            yield Campaign(options, ground, load, Journal(ground.journal), Judge(VerifierKey.parse(vkey)))


@dataclass(slots=True)
class Campaign:
    """What a campaign works with, and what it has found.

    Attributes:
        house: the gateway that is struck next.
    """

    options: Options
    ground: Ground
    load: Load
    journal: Journal
    judge: Judge
    moments: Counter[str] = field(default_factory=Counter)
    commits: dict[str, float] = field(default_factory=dict)
    verified: int = 0
    house: House = field(init=False)
    _start_s: float = 1.5

    def __post_init__(self) -> None:
        """The first is struck first."""
        self.house = self.ground.houses[0]

    async def conduct(self) -> None:
        """All deaths, and a clean end.

        Raises:
            HouseError: the gateway does not start any more, or leaves something behind.
        """
        clients = [asyncio.create_task(self.load.client(number)) for number in range(self.options.clients)]
        kills = self.options.kills
        strikes = plan(self.options.seed, kills + kills // _SPARE + _LEAST_SPARE, self.options.never)
        try:
            await self._measure()
            for number, strike in enumerate(strikes, 1):
                await self._live(number, strike)
                _say(f"{self.moments.total()} of {kills} kills, {strike.moment}: {self._standing()}")
                if self.judge.violations and self.options.until_violated:
                    return
                if self.moments.total() >= kills:
                    break
            await self._end()
        finally:
            for task in clients:
                task.cancel()
            for ended in await asyncio.gather(*clients, return_exceptions=True):
                if isinstance(ended, Exception):
                    self.judge.violations.append(f"a client gave up: {ended!r}")

    async def _measure(self) -> None:
        if self.options.store is Store.SQLITE:
            await self._count_commits()
        self.load.tokens = await self.house.tokens(16, 16)
        if self.options.store is Store.SQLITE:
            commits, calls = await self._counted(self._together)
            self.commits["together"] = round(commits / max(1, calls), 3)
            _say(f"commits a call, one at a time and together: {self.commits}")

    async def _count_commits(self) -> None:
        self.load.tokens = await self.house.tokens(1, 0)
        await self.load.alone(Surface.REST, NOTE, 2)  # the first call begins the run
        for name, surface, tool in (
            ("rest", Surface.REST, NOTE),
            ("mcp", Surface.MCP, NOTE),
            ("denied", Surface.REST, REFUSED),
        ):
            commits, calls = await self._counted(lambda s=surface, t=tool: self.load.alone(s, t, _ALONE))  # type: ignore[misc]
            self.commits[name] = round(commits / calls, 3)
            if commits > _MOST_COMMITS * calls + _RESTS:
                self.judge.violations.append(f"{calls} calls ({name}), one at a time, took {commits} commits")

    async def _counted(self, calling: Callable[[], Awaitable[object]]) -> tuple[int, int]:
        # The write-ahead log may be begun anew meanwhile: then it is done again.
        for _ in range(5):
            before, told = count(self.house.database), len(self.load.told)
            await calling()
            commits = count(self.house.database).since(before)
            if commits is not None:
                return commits, len(self.load.told) - told
        raise HouseError("commits could not be counted: the write-ahead log was begun anew each time")

    async def _together(self) -> None:
        self.load.door.set()
        await asyncio.sleep(_TOGETHER_S)
        self.load.door.clear()
        await asyncio.sleep(_TOGETHER_S)  # what is under way ends

    async def _live(self, number: int, strike: Strike) -> None:
        # The first life has been going on since the commits were measured.
        self.load.door.set()
        came_up = strike.moment is not Moment.STARTING
        if number > 1:
            await self._start(wait=came_up)
        if came_up:
            self.house = self.ground.houses[int(strike.share * 1_000_000) % len(self.ground.houses)]
        if came_up and number % _FRESH_TOKENS == 0:
            self.load.tokens = await self.house.tokens(16, 16)
        async with self._collecting():
            struck = await _MOMENTS[strike.moment](self, strike.share)
            killed = await self.house.kill()
        self.counted(strike.moment if struck else Moment.LOAD, killed=killed)
        await self._judge(came_up=came_up)
        if number % _VERIFY == 0:
            await self._verify()

    def counted(self, moment: Moment, *, killed: bool) -> None:
        """Count a death, if it was one: who is told to end may have ended well before the strike, and nobody else."""
        if killed:
            self.moments[moment] += 1
        elif self.house.code or moment is not Moment.STOPPING:
            self.judge.violations.append(f"the gateway ended by itself, exit code {self.house.code}, {moment}")

    async def _start(self, *, wait: bool) -> None:
        began = time.monotonic()
        await self.house.begin()
        if wait:
            await self.house.ready()
            self._start_s = time.monotonic() - began

    async def _judge(self, *, came_up: bool) -> None:
        await self.ground.rest(self.load)
        told, has_another = self.load.take(), len(self.ground.houses) > 1
        self.judge.death(self.ground.log, self.journal.more(), told, came_up=came_up or has_another)
        self.judge.violations += [f"call {marker} was never answered" for marker in self.load.hung]
        self.load.hung.clear()

    @contextlib.asynccontextmanager
    async def _collecting(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._collect())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _collect(self) -> None:
        earlier = max(self.judge.checkpoints, default=0)
        while True:
            with contextlib.suppress(httpx.HTTPError):
                newest = self.judge.handed_out(await self.house.checkpoint())
                if newest is not None and earlier:
                    await self._extends(earlier, newest)
                    earlier = 0  # once a life
            await asyncio.sleep(_CHECKPOINT_S)

    async def _extends(self, size: int, newest: Checkpoint) -> None:
        old = Checkpoint(newest.origin, size, self.judge.checkpoints[size])
        proof = [base64.b64decode(line) for line in await self.house.extension(old, newest)]
        try:
            check_consistency(old.size, old.root, newest.size, newest.root, proof)
        except ProofError as error:
            self.judge.violations.append(f"the log is no continuation of its first {size} records: {error}")
        self.judge.counts["consistency proofs"] += 1

    # the moments; each returns whether it struck

    async def under_load(self, share: float) -> bool:
        """Some time after the first answer of this life."""
        await self._answering()
        await asyncio.sleep(share * _LOAD_S)
        return True

    async def starting(self, share: float) -> bool:
        """Anywhere in a start, or just after it has begun to write."""
        if share < 0.5:  # noqa: PLR2004 - one half each
            await asyncio.sleep(2 * share * self._start_s)
        else:
            await self._changed(_FILES, _MOVING_PATIENCE_S)
            await asyncio.sleep((2 * share - 1) * _OPENING_S)
        return True

    async def moving(self, share: float) -> bool:
        """Just after the database itself began to change: only moved pages do that."""
        struck = await self._changed(_FILES[:1], _MOVING_PATIENCE_S)
        await asyncio.sleep(share * _MOVING_S)
        return struck

    async def stopping(self, share: float) -> bool:
        """Just after SIGTERM."""
        await self._answering()
        self.house.ask_to_end()
        await asyncio.sleep(share * _STOPPING_S)
        return True

    async def _answering(self) -> None:
        self.load.reached.clear()
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self.load.reached.wait()
        except TimeoutError:
            raise HouseError(f"no call was answered in {_ANSWER_S:.0f} s") from None

    async def _changed(self, names: Sequence[str], patience_s: float) -> bool:
        deadline, before = time.monotonic() + patience_s, _stand(self.house.state, names)
        while _stand(self.house.state, names) == before:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_S)
        return True

    async def _end(self) -> None:
        await self._start(wait=True)
        self.load.door.clear()
        async with self._collecting():
            await asyncio.sleep(_TOGETHER_S)
            for house in self.ground.houses:
                house.ask_to_end()
                await house.ended()
        await self._judge(came_up=True)
        self.judge.again(self.ground.log)
        said = await self._verify()
        if said["open_calls"]:
            self.judge.violations.append(f"{len(said['open_calls'])} calls are open after a clean end")

    async def _verify(self) -> dict[str, Any]:
        said = await self.house.verified()
        self.verified += 1
        if not said["ok"] or said["size"] != self.judge.size:
            self.judge.violations.append(f"audit verify: {said['size']} records, {said['findings'][:3]}")
        return said

    def _standing(self) -> str:
        counts = self.judge.counts
        shown = ("records", "effects", "told completed", "swept", "checkpoints")
        return f"{', '.join(f'{counts[name]} {name}' for name in shown)}, {len(self.judge.violations)} violations"


_MOMENTS: Final = {
    Moment.LOAD: Campaign.under_load,
    Moment.STARTING: Campaign.starting,
    Moment.MOVING: Campaign.moving,
    Moment.STOPPING: Campaign.stopping,
}


def _stand(state: Path, names: Sequence[str]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for name in names:
        try:
            stat = (state / name).stat()
            found.append((stat.st_mtime_ns, stat.st_size))
        except FileNotFoundError:
            found.append(None)
    return found


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

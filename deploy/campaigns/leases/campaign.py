"""One death after another on the same log; after each recovery, what the vault and the database still have."""

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.campaigns.leases.life import House, LifeError
from deploy.campaigns.leases.steps import ENDING, RECOVERING, Death, Step, plan
from deploy.servers import warden
from deploy.servers.erp import READ, WRITE, erp
from deploy.servers.warden import Warden
from gateway.adapters.ledger.keyring.keys import create_or_load
from gateway.core.leasing import reaping

# What a recovery ends is gone long before it would be over by itself.
PERIOD_S: Final = 60
_RECOVERY_S: Final = 20.0
_SETTLE_S: Final = PERIOD_S + 30.0
_LOOK_S: Final = 0.1
_WARDEN: Final = "the-wardens-own-secret"
_LEASED: Final = (READ, WRITE, reaping(READ), reaping(WRITE))
# OpenBao, where its client goes between the two entries that it keeps of a lease.
_UNREGISTERED: Final = "failed to register lease"
_SESSIONS: Final = "SELECT usename FROM pg_stat_activity WHERE usename LIKE 'v-%'"
_MISSES: Final = 4
_ORIGIN: Final = "ostiary.local/log"


@contextmanager
def opened(seed: int, kills: int, *, settles: bool) -> Iterator["Campaign"]:
    """A campaign before servers of its own.

    Raises:
        ServerError: they do not start.
    """
    with (
        erp(PERIOD_S, warden.requests(_WARDEN)) as both,
        tempfile.TemporaryDirectory(prefix="ostiary-leases-") as folder,
    ):
        house = House(Path(folder), both)
        house.furnish()
        try:
            yield Campaign(seed, kills, house, Warden(both.openbao, _WARDEN), settles)
        finally:
            house.bury()


@dataclass(slots=True)
class Campaign:
    """What a campaign works with, and what it has found.

    Attributes:
        settles: wait at the end until tokens that nobody knows are over, too.
        deaths: by step.
        nameless: accessors of tokens that a death left and no journal knows.
        unknown: roles that deaths left and that the vault had no lease of.
        dangling: leases that the vault kept an entry of and says it failed to register; nothing is behind them.
        swept: deaths that left something for the next start.
        missed: lives in which the step was not reached.
    """

    seed: int
    kills: int
    house: House
    warden: Warden = field(repr=False)
    settles: bool = False
    deaths: Counter[Step] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    nameless: set[str] = field(default_factory=set)
    unknown: int = 0
    dangling: set[str] = field(default_factory=set)
    swept: int = 0
    looks: int = 0
    missed: int = 0
    records: int = 0

    def conduct(self) -> None:
        """All deaths, and a clean end.

        Raises:
            LifeError: the gateway does not start any more.
        """
        last: Death | None = None
        for death in plan(self.seed, self.kills + self.kills // _MISSES):
            if self.deaths.total() >= self.kills and (last is None or last.step not in RECOVERING):
                break
            before = len(self.violations)
            self._live(death, last)
            last = death
            for violation in self.violations[before:]:
                _say(f"  - {violation}")
            _say(f"{self.deaths.total()} of {self.kills}, {death.step}: {len(self.violations)} violations")
        self._end(last)

    def _live(self, death: Death, last: Death | None) -> None:
        is_ready = self.house.begin(death)
        if death.step in RECOVERING:
            reached = self.house.wait() if is_ready else True
            self.house.bury()
        else:
            self._judge(last)
            if death.step is Step.COMMITTING:
                reached = self.house.cut_off(death.turn)
            else:
                reached = self.house.load(stops=death.step in ENDING)
        self.deaths[death.step] += reached
        self.missed += not reached
        self.swept += bool(self._left())
        if death.step is Step.COMMITTING:
            self.unknown += max(0, len(self.house.erp.minted()) - len(self.warden.leases(READ, WRITE)))

    def _left(self) -> list[str]:
        return [
            *(f"session of {user}" for (user,) in self.house.erp.postgres.run(_SESSIONS)[0]),
            *(f"lease {lease}" for lease in self.warden.leases(*_LEASED)),
            *(f"role {user}" for user in self.house.erp.minted()),
        ]

    def _tokens(self) -> list[str]:
        # Those that a journal knows. Of the others nobody does: their gateway died before it could say so.
        state = self.house.folder / "state"
        keys, marks = create_or_load(state / "keys", _ORIGIN), self.house.marks()
        found = [token for token in self.warden.tokens() if token.policy in {READ, WRITE}]
        nameless = {token.accessor for token in found if keys.mark("accessor", token.accessor) not in marks}
        self.nameless |= nameless
        return [f"token of {token.policy}" for token in found if token.accessor not in nameless]

    def _judge(self, last: Death | None) -> None:
        # The gateway has started and is idle: whatever is there now was left.
        self.looks += 1
        deadline = time.monotonic() + _RECOVERY_S
        while (left := [*self._left(), *self._tokens()]) and time.monotonic() < deadline:
            if not self.house.lives:  # it died in the middle of its recovery: the next one is judged
                return
            time.sleep(_LOOK_S)
        left = self._without_dangling(left)
        after = "the start" if last is None else f"a death where {last.step} (turn {last.turn})"
        self.violations += [f"{one} is left after {after}" for one in left]

    def _without_dangling(self, left: list[str]) -> list[str]:
        # Only leases, only without any role or session, and no more of them than the vault's own log tells of.
        leases = [lease for lease in self.warden.leases(*_LEASED) if f"lease {lease}" in left]
        told = (self.house.erp.openbao.folder / "log").read_text("utf-8").count(_UNREGISTERED)
        if len(leases) < len(left) or len(self.dangling) + len(leases) > told:
            return left
        for lease in leases:
            self.dangling.add(lease)
            self.warden.revoke(lease)  # as an operator does, so that it is not met again
        return []

    def _end(self, last: Death | None) -> None:
        if not self.house.begin(None):
            raise LifeError("the last gateway did not start")
        self._judge(last)
        self.house.stop()
        if self.settles:
            deadline = time.monotonic() + _SETTLE_S
            while (tokens := self.warden.tokens()) and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
            self.violations += [f"token {token.policy} is left after its period, at the end" for token in tokens]
        self.violations += [f"{token} is left at the end" for token in self._tokens()]
        self.violations += [f"{one} is left at the end" for one in self._left()]
        said = self.house.verified()
        self.records = said["size"]
        if not said["ok"] or said["open_calls"]:
            self.violations.append(f"audit verify: {said['findings'][:3]}, {len(said['open_calls'])} open calls")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()

"""The gateway that kills itself: ``python -m deploy.campaigns.leases.victim STEP TURN SHARE MARK serve ...``.

It is the real command. The methods at which it dies are wrapped, and do what they do; ``MARK`` is a file that says
that the step was reached. STEP is a member's name, or ``NONE``.
"""

import asyncio
import functools
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from connectors.sql import postgres
from deploy.campaigns.leases.steps import Step
from gateway.adapters.credentials.lending import Lending
from gateway.adapters.ledger.books.leases import SignedLeaseJournal
from gateway.adapters.ledger.entry import CallEntry
from gateway.adapters.vault.client import VaultClient
from gateway.adapters.vault.wire import Ask, Reply, Wire
from gateway.cli.root import ostiary
from gateway.core.leasing import reaping

# How long the vault takes for one request, and a statement.
_REQUEST_S: Final = 0.02
_STATEMENT_S: Final = 0.3
Method = Callable[..., Awaitable[Any]]
_PATHS: Final = {
    Step.MAKING_TOKEN: "auth/token/create/",
    Step.MINTING: "database/creds/",
    Step.REAPING: "database/creds/",
    Step.REVOKING: "sys/leases/revoke",
    Step.ENDING_TOKEN: "auth/token/revoke-accessor",
}
# Where a step is over: the method, and whether it is a coroutine.
_AFTER: Final[dict[Step, tuple[type, str, bool]]] = {
    Step.INTENT: (CallEntry, "commit", True),
    Step.TOKEN_MADE: (VaultClient, "open_token", True),
    Step.ACCESSOR: (SignedLeaseJournal, "opened", True),
    Step.MINTED: (VaultClient, "mint", True),
    Step.LEASED: (SignedLeaseJournal, "leased", False),
    Step.KNOWN: (Lending, "lend", False),
    Step.CLOSED: (postgres.PostgresConnector, "invoke", True),
    Step.REVOKED: (VaultClient, "revoke_login", True),
    Step.CONFIRMED: (VaultClient, "login_exists", True),
    Step.JOURNALLED: (SignedLeaseJournal, "revoked", False),
    Step.COMPLETED: (CallEntry, "complete", True),
    Step.TOKEN_ENDED: (VaultClient, "revoke_token", True),
    Step.TOKEN_CLOSED: (SignedLeaseJournal, "closed", False),
    Step.SWEEPING: (SignedLeaseJournal, "leftovers", True),
    Step.SWEPT_AT_VAULT: (VaultClient, "revoke_token", True),
    Step.REAPED: (VaultClient, "reap", True),
    Step.SWEPT: (SignedLeaseJournal, "swept", False),
}


@dataclass(slots=True)
class Doom:
    """Kills this process when its step was reached often enough."""

    mark: Path
    turns: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_due(self) -> bool:
        """Count one more; whether it is the one."""
        with self._lock:
            self.turns -= 1
            return self.turns == 0

    def strike(self) -> None:
        """Die."""
        self.mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _after(doom: Doom, owner: type, name: str, *, waits: bool) -> None:
    done = getattr(owner, name)

    @functools.wraps(done)
    def plain(*args: Any, **kwargs: Any) -> Any:
        said = done(*args, **kwargs)
        if doom.is_due():
            doom.strike()
        return said

    @functools.wraps(done)
    async def waiting(*args: Any, **kwargs: Any) -> Any:
        said = await done(*args, **kwargs)
        if doom.is_due():
            doom.strike()
        return said

    setattr(owner, name, waiting if waits else plain)


def _within(doom: Doom, step: Step, share: float) -> None:
    original, path = Wire.ask, _PATHS[step]

    def asking(self: Wire, ask: Ask, token: str | None) -> tuple[int, Reply]:
        reaps = ask.path.endswith(reaping(""))
        if ask.path.startswith(path) and reaps == (step is Step.REAPING) and doom.is_due():
            timer = threading.Timer(share * _REQUEST_S, doom.strike)
            timer.start()
            said = original(self, ask, token)
            timer.join()  # what was answered is told to nobody
            return said
        return original(self, ask, token)

    Wire.ask = asking  # type: ignore[method-assign]


def _calling(doom: Doom, share: float) -> None:
    executed = postgres._executed  # noqa: SLF001 - a victim is wrapped where it has no door

    async def executing(*args: Any) -> Any:
        if doom.is_due():
            asyncio.get_running_loop().call_later(share * _STATEMENT_S, doom.strike)
            await executed(*args)
            await asyncio.Event().wait()
        return await executed(*args)

    postgres._executed = executing  # type: ignore[assignment]  # noqa: SLF001 - the same


def _committed(doom: Doom) -> None:
    committed = postgres._committed  # noqa: SLF001 - the same

    async def committing(transaction: Any) -> None:
        await committed(transaction)
        if doom.is_due():
            doom.strike()

    postgres._committed = committing  # noqa: SLF001 - the same


def arm(step: Step, doom: Doom, share: float) -> None:
    """Wrap what is wrapped for this step."""
    if step in _PATHS:
        _within(doom, step, share)
    elif step is Step.CALLING:
        _calling(doom, share)
    elif step is Step.COMMITTED:
        _committed(doom)
    else:
        owner, name, waits = _AFTER[step]
        _after(doom, owner, name, waits=waits)


if __name__ == "__main__":
    named, turn, part, place, *words = sys.argv[1:]
    # Of a commit only the database knows; who looks at it from beside strikes then.
    if named not in {"NONE", Step.COMMITTING.name}:
        arm(Step[named], Doom(Path(place), int(turn)), float(part))
    ostiary(words)

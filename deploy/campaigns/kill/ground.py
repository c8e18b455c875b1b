"""Where a campaign happens: one gateway on a file, or two on one PostgreSQL, and the tool before which they stand."""

import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from deploy.campaigns.kill.house import House, HouseError
from deploy.campaigns.kill.load import Load
from deploy.campaigns.kill.logs import Log, PostgresLog, SqliteLog
from deploy.servers.postgres import SUPERUSER, Postgres, postgres
from loadtests.load import ROOT
from loadtests.processes import serving

_DATABASE: Final = "log"
_SECRET_FILE: Final = "postgres.password"  # noqa: S105 - a file's name
_SETTINGS: Final = """
[audit.postgres]
url = "{url}&user={user}"
password = {{ file = "{password}" }}
"""
_REST_S: Final = 30.0
_LOOK_S: Final = 0.02


class Store(StrEnum):
    """Where the log lies."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


@dataclass(frozen=True, slots=True)
class Ground:
    """Gateways that write one log, all of them up.

    Attributes:
        houses: the gateways.
        log: their log, as the judge reads it.
        journal: what the tool notes.
    """

    houses: Sequence[House]
    log: Log
    journal: Path

    async def rest(self, load: Load) -> None:
        """Wait until nothing is under way where others live on: not at them, and not as what the dead one left.

        Raises:
            HouseError: something stays open.
        """
        if not isinstance(self.log, PostgresLog):
            return
        load.door.clear()
        deadline = time.monotonic() + _REST_S
        while load.busy or await asyncio.to_thread(self.log.open_calls):
            if time.monotonic() > deadline:
                raise HouseError("calls are still open half a minute after a death: the other gateway did not end them")
            await asyncio.sleep(_LOOK_S)


@contextlib.asynccontextmanager
async def laid_out(folder: Path, store: Store, command: Sequence[str]) -> AsyncIterator[Ground]:
    """The tool and the gateways, up.

    Raises:
        HouseError, BenchmarkError, ServerError: they are not.
    """
    names = ("a", "b") if store is Store.POSTGRES else ("a",)
    houses = [House(folder / name, command) for name in names]
    async with contextlib.AsyncExitStack() as stack:
        server = stack.enter_context(_database()) if store is Store.POSTGRES else None
        log = SqliteLog(houses[0].database) if server is None else PostgresLog(server)
        where = str(houses[0].database) if server is None else f"{server.url}&user={SUPERUSER}"
        tool = [sys.executable, "-m", "deploy.campaigns.kill.tool", str(folder / "journal.jsonl"), where]
        environment = {"PYTHONPATH": str(ROOT)} | ({} if server is None else {"PGPASSWORD": server.password})
        _, said = stack.enter_context(serving(tool, folder, "tool", environment))
        for house in houses:
            house.furnish(said["url"], "" if server is None else _settings(folder, server))
            if house is not houses[0]:
                house.state.mkdir(mode=0o700)
                shutil.copytree(houses[0].state / "keys", house.state / "keys")
            await house.begin()
            stack.push_async_callback(house.put_away)
            await house.ready()
        yield Ground(houses, log, folder / "journal.jsonl")


@contextlib.contextmanager
def _database() -> Iterator[Postgres]:
    with postgres() as server:
        server.run(f"create database {_DATABASE}")
        yield replace(server, database=_DATABASE)


def _settings(folder: Path, server: Postgres) -> str:
    password = folder / _SECRET_FILE
    password.touch(0o600)
    password.write_text(server.password, "utf-8")
    return _SETTINGS.format(url=server.url, user=SUPERUSER, password=password)

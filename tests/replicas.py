"""Two gateways' books on one PostgreSQL, for tests."""

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deploy.servers.postgres import Postgres
from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.storage.postgres_database import Server
from gateway.adapters.ledger.storage.postgres_site import PostgresSite
from gateway.core.call import Principal
from gateway.core.decision import Decision, Effect
from gateway.core.desk import RunRequest
from gateway.core.errors import Denied
from gateway.core.tool import Measure
from gateway.core.usage import Usage
from tests.evidence import make_decision, make_principal, make_tool
from tests.ledgers import Books, Walk, open_books
from tests.stores import log_database

PERSON = make_principal(agent=None, scopes=frozenset({"runs"}))
PAY = make_tool("pay", measures=(Measure("amount", "/amount", "/currency"),))


@dataclass(frozen=True, slots=True)
class Sites:
    """Makes places of gateways on one log: each with a folder of its own, and the keys of the first."""

    folder: Path
    server: Postgres
    target: Server

    def site(self, name: str) -> PostgresSite:
        """The place of the gateway ``name``."""
        folder = self.folder / name
        first = self.folder / "a" / "keys"
        if first.exists() and not folder.exists():
            shutil.copytree(first, folder / "keys")
        return PostgresSite(folder, self.target)

    def run(self, statement: str) -> None:
        """Do something to the database behind the gateways' back."""
        replace(self.server, database=self.target.database).run(statement)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database answers."""
        return replace(self.server, database=self.target.database).run(query)[0]

    def cut(self, books: Books) -> None:
        """End the session the books are written with, as a server or a network does."""
        self.run(
            "select pg_terminate_backend(l.pid) from pg_locks l join ostiary.replicas r on l.objid = r.num "
            f"where l.locktype = 'advisory' and l.objsubid = 2 and r.id = '{books.site.replica}'"
        )

    def cut_all(self) -> None:
        """End all sessions of gateways."""
        self.run(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'ostiary' and datname = current_database()"
        )


@pytest.fixture
def sites(tmp_path: Path, real_postgres: Postgres) -> Sites:
    """A database for one log."""
    return Sites(tmp_path, real_postgres, log_database(real_postgres, f"both_{tmp_path.name}"[:60].lower()))


@pytest.fixture
async def both(sites: Sites) -> AsyncIterator[tuple[Books, Books]]:
    """The open books of two gateways."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_books(sites.site("a"), SystemClock()))
        second = await stack.enter_async_context(open_books(sites.site("b"), SystemClock()))
        yield first, second


async def opened(books: Books) -> Principal:
    """The principal of a run's token."""
    run = await books.runs.start(PERSON, RunRequest("pay", "test-agent"))
    return make_principal(run=run.id)


def paying(books: Books, principal: Principal, session: str | None = None, amount: int = 100) -> Walk:
    """A payment under the rule "3 calls and 500 a run"."""

    async def rule(usage: Usage) -> Decision:
        spent = usage.sums.get("up.pay", Counter())["amount.EUR"]
        await asyncio.sleep(0)
        fits = usage.calls["up.pay"] < 3 and spent + amount <= 500
        return make_decision(Effect.ALLOW if fits else Effect.DENY)

    arguments = {"amount": amount, "currency": "EUR"}
    return Walk(books, PAY, arguments, principal=principal, rule=rule, more={"session": session})


async def made(*walks: Walk) -> int:
    """How many of these calls, made at once, were let through; the others were denied."""
    done = await asyncio.gather(*(walk.go() for walk in walks), return_exceptions=True)
    failed = [one for one in done if isinstance(one, BaseException)]
    assert {type(one) for one in failed} <= {Denied}, failed
    return len(done) - len(failed)

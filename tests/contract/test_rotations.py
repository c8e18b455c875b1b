"""Rotations on the log: due by the clock, done by one gateway, told when they fail; and what a kill leaves."""

import asyncio
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from anyio import to_thread
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.identity import (
    Grant,
    IssuerKeyRotation,
    IssuerTerms,
    LocalIdentity,
    LocalIssuer,
    Trust,
    create_key,
    former,
    load_key,
)
from gateway.adapters.ledger.books.rotations import Books as Kept
from gateway.adapters.ledger.books.rotations import Rotations
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.storage import postgres_database, postgres_places
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.adapters.ledger.storage.site import Site
from gateway.core.errors import Conflict, NotFound, Unauthenticated, Unavailable
from gateway.core.rotation import KeyKind
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import Books, Walk, content, open_books
from tests.replicas import Sites, both, sites
from tests.stores import real_postgres, site

__all__ = ["both", "real_postgres", "site", "sites"]

ADMIN = make_principal(agent=None, scopes=frozenset({"admin"}))
DAY = 86_400


@dataclass
class Replaced:
    """A key that counts how often it was replaced; ``trouble`` keeps it from being."""

    kind: KeyKind = KeyKind.DATABASE
    subject: str = "database/erp"
    every_h: int = 24
    times: int = 0
    settled: int = 0
    trouble: Exception | None = None
    during: Callable[[], None] = field(default=lambda: None)

    async def since_us(self) -> int | None:
        """The log knows."""
        return None

    async def settle(self) -> None:
        """Count it."""
        self.settled += 1

    async def rotate(self) -> None:
        """Count it."""
        if self.trouble is not None:
            raise self.trouble
        await asyncio.sleep(0)
        self.during()
        self.times += 1


@dataclass
class Ages:
    """Remembers the ages that were told."""

    told: dict[tuple[str, str], float] = field(default_factory=dict)

    def key_age(self, kind: str, subject: str, seconds: float) -> None:
        """Note one."""
        self.told[kind, subject] = seconds


def rotations(books: Books, key: Replaced, ages: Ages | None = None) -> Rotations:
    """What replaces ``key``; its rounds are the test's."""
    places = getattr(books, "places", None)
    return Rotations(Kept(books.ledger, books.reader, Scribe(books.clock, books.keys), places), ages or Ages(), [key])


async def test_a_key_is_replaced_when_its_time_is_up_and_not_before(site: Site) -> None:
    """Counted from the log's beginning, then from the last time; a restart knows it; the age is a metric."""
    clock, key, ages = StepClock(), Replaced(), Ages()
    async with open_books(site, clock) as books:
        room = rotations(books, key, ages)
        await room.look()
        clock.advance(DAY - 10)
        await room.look()
        assert (key.times, key.settled) == (0, 1)
        clock.advance(20)
        await room.look()
        assert (key.times, ages.told["database", "database/erp"]) == (1, 0)
        clock.advance(3600)
        await room.look()
        assert (key.times, ages.told["database", "database/erp"]) == (1, 3600)
        assert [one["body"] for one in books.records("rotation.done")] == [
            {"kind": "database", "subject": "database/erp"}
        ]
    async with open_books(site, clock) as books:
        await rotations(books, key).look()
        assert key.times == 1
        clock.advance(DAY)
        await rotations(books, key).look()
        assert (key.times, books.verify().findings) == (2, [])


async def test_a_key_without_a_schedule_is_replaced_on_demand_only(site: Site) -> None:
    """However old it is; by whom is recorded."""
    clock, key = StepClock(), Replaced(every_h=0)
    async with open_books(site, clock) as books:
        room = rotations(books, key)
        clock.advance(1000 * DAY)
        await room.look()
        assert key.times == 0
        (standing,) = await room.rotate(ADMIN, KeyKind.DATABASE)
        assert (key.times, standing.since_us) == (1, clock.now_us())
        assert books.records("rotation.done")[0]["actor"]["authn"] == "local"
        with pytest.raises(NotFound):
            await room.rotate(ADMIN, KeyKind.SECRET_ID)


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [(Unavailable("no", cause_code="vault_slow"), "vault_slow"), (RuntimeError("a bug"), "internal")],
)
async def test_a_failure_is_recorded_and_tried_again(site: Site, trouble: Exception, cause: str) -> None:
    """Ten minutes later, not in each round; the standing says why until it has gone well, and that it is overdue."""
    clock, key = StepClock(), Replaced(trouble=trouble)
    async with open_books(site, clock) as books:
        room = rotations(books, key)
        clock.advance(DAY * 1.3)
        await room.look()
        (standing,) = await room.standings()
        assert (standing.failed, standing.is_overdue(clock.now_us())) == (cause, True)
        key.trouble = None
        clock.advance(60)
        await room.look()
        assert key.times == 0
        clock.advance(600)
        await room.look()
        (standing,) = await room.standings()
        assert (key.times, standing.failed, standing.is_overdue(clock.now_us())) == (1, None, False)
        assert [one["body"]["cause"] for one in books.records("rotation.failed")] == [cause]


@contextmanager
def nothing_written() -> Iterator[None]:
    """This process can write no byte to any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_what_was_replaced_is_recorded_also_where_the_log_failed_meanwhile(tmp_path: Path) -> None:
    """Whoever asked hears that it could not be recorded; the record follows, and it is not replaced once more."""
    clock, key = StepClock(), Replaced()
    async with open_books(tmp_path / "s", clock) as books:
        room = rotations(books, key)
        clock.advance(DAY + 1)
        with ExitStack() as disk:
            key.during = lambda: disk.enter_context(nothing_written())
            with pytest.raises(Unavailable):
                await room.rotate(ADMIN, KeyKind.DATABASE)
        await Walk(books).go()
        assert [one["actor"]["authn"] for one in books.records("rotation.done")] == ["local"]
        await room.look()
        assert key.times == 1


@dataclass
class Slow(Replaced):
    """One that takes its time."""

    begun: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def rotate(self) -> None:
        """Wait until it may go on."""
        self.begun.set()
        await self.goes_on.wait()
        await super().rotate()


@pytest.mark.parametrize("is_quick", [True, False])
@pytest.mark.parametrize("is_asked", [True, False])
async def test_a_rotation_that_a_stop_cuts_off_is_recorded(
    tmp_path: Path, is_quick: bool, is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As done where it came to its end meanwhile, else as failed with that cause; whoever asks later is told."""
    clock, key = StepClock(), Slow()
    if not is_quick:
        monkeypatch.setattr("gateway.adapters.ledger.books.rotations._END_S", 0.01)
    async with open_books(tmp_path, clock) as books:
        clock.advance(DAY + 1)
        room = rotations(books, key)
        waiter = asyncio.create_task(room.rotate(ADMIN, KeyKind.DATABASE) if is_asked else room.look())
        await key.begun.wait()
        waiter.cancel()
        if is_quick:
            key.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        (standing,) = await room.standings()
        said = [(one["type"], one["body"].get("cause")) for one in books.records() if one["type"] != "key"]
        assert said == [("rotation.done", None) if is_quick else ("rotation.failed", "cut_off")]
        assert (key.times, standing.failed) == ((1, None) if is_quick else (0, "cut_off"))


async def test_a_stop_while_the_log_cannot_be_written_is_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is owed, and nothing keeps the gateway from ending."""
    clock, key = StepClock(), Slow()
    monkeypatch.setattr("gateway.adapters.ledger.books.rotations._END_S", 0.01)
    async with open_books(tmp_path / "s", clock) as books:
        room = rotations(books, key)
        clock.advance(DAY + 1)
        waiter = asyncio.create_task(room.look())
        await key.begun.wait()
        with closing(sqlite3.connect(tmp_path / "s" / DATABASE)) as db:
            db.execute("create trigger full before insert on records begin select raise(abort, 'no'); end")
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            db.execute("drop trigger full")
        await Walk(books).go()
        assert [one["body"]["cause"] for one in books.records("rotation.failed")] == ["cut_off"]


async def test_of_several_gateways_one_replaces_what_is_due(sites: Sites) -> None:
    """Both find it due at the same moment; the second sees in its turn that it was done."""
    clock, key = StepClock(), Replaced()
    async with open_books(sites.site("a"), clock) as first, open_books(sites.site("b"), clock) as second:
        clock.advance(DAY + 1)
        places = [books.site.places() for books in (first, second)]
        assert None not in places
        async with places[0], places[1]:  # type: ignore[union-attr]
            rooms = [
                Rotations(Kept(books.ledger, books.reader, Scribe(clock, books.keys), place), Ages(), [key])
                for books, place in zip((first, second), places, strict=True)
            ]
            await asyncio.gather(*(room.look() for room in rooms))
        assert key.times == 1
        assert len(first.records("rotation.done")) == 1


async def test_a_turn_lasts_as_long_as_it_takes(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also longer than a transaction may be idle: it is not lost, and the next one has its turn afterwards."""
    monkeypatch.setattr(postgres_places, "_STIR_S", 0.02)
    monkeypatch.setitem(postgres_database._SETTINGS, "idle_in_transaction_session_timeout", "1000")
    places = sites.site("a").places()
    began = "select extract(epoch from clock_timestamp())::float8"
    async with places:
        ((since,),) = await to_thread.run_sync(sites.rows, began)
        async with places.alone("rotation"):
            while (await to_thread.run_sync(sites.rows, began))[0][0] < since + 1.6:
                assert not await to_thread.run_sync(sites.rows, "select 1 where false")
        async with places.alone("rotation"):
            held = "select count(*) from pg_locks where locktype = 'advisory' and granted"
            assert (await to_thread.run_sync(sites.rows, held))[0][0] == 1


@dataclass
class Issuer:
    """A local issuer with a key on disk, as one process has it."""

    folder: Path
    clock: StepClock
    others: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Start."""
        trust = Trust("urn:ostiary:local", frozenset({"ostiary"}))
        key = load_key(self.folder / "issuer.pem")
        self.issuer, self.identity = LocalIssuer(self.clock, trust, key), LocalIdentity(self.clock, trust, [])
        for old, until_s in former(self.folder, self.clock.now_us() // 1_000_000):
            self.identity.trust(old, until_s)
        self.identity.trust(key.public_key(), None)
        terms = IssuerTerms(0, 2, self._others)
        self.rotation = IssuerKeyRotation(self.folder, self.clock, self.issuer, self.identity, terms)

    async def _others(self) -> frozenset[str]:
        return self.others

    def token(self) -> str:
        """One of a day."""
        return self.issuer.issue(self.issuer.principal(Grant("dora", ttl_s=DAY)))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the issuer's first key."""
    create_key(tmp_path / "issuer.pem")
    return tmp_path


def names(folder: Path) -> list[str]:
    """What lies there."""
    return sorted(path.name for path in folder.iterdir())


async def test_tokens_of_a_replaced_key_are_good_for_its_overlap(keys: Path) -> None:
    """Here and in the next process, also those that were seen before; then not; those of the new key all along."""
    clock = StepClock()
    one = Issuer(keys, clock)
    old = one.token()
    one.identity.verify(old)
    await one.rotation.rotate()
    new = one.token()
    for process in (one, Issuer(keys, clock)):
        assert process.identity.verify(old).user == process.identity.verify(new).user == "dora"
    clock.advance(2 * 3600)
    for process in (one, Issuer(keys, clock)):
        with pytest.raises(Unauthenticated):
            process.identity.verify(old)
        assert process.identity.verify(new).user == "dora"
    await one.rotation.rotate()
    assert len(names(keys / "issuer-old")) == 1  # the one whose time is over is gone


async def test_the_secret_half_of_a_replaced_key_is_gone(keys: Path) -> None:
    """Nobody can make a token of it any more; what is kept of it is public."""
    one = Issuer(keys, StepClock())
    before = (keys / "issuer.pem").read_bytes()
    await one.rotation.rotate()
    assert before not in content(keys)
    assert names(keys) == ["issuer-old", "issuer.pem"]


async def test_an_issuers_key_that_others_take_is_not_replaced(keys: Path) -> None:
    """They would refuse the new one's tokens; nothing is made."""
    one = Issuer(keys, StepClock(), frozenset({"another"}))
    with pytest.raises(Conflict):
        await one.rotation.rotate()
    assert names(keys) == ["issuer.pem"]


async def test_who_is_killed_before_the_key_is_in_place_goes_on_with_the_old_one(keys: Path) -> None:
    """The new key lies beside, and the old public half is kept already: the next start clears up."""
    one = Issuer(keys, StepClock())
    old = one.token()
    one.rotation._prepare(Ed25519PrivateKey.generate())
    again = Issuer(keys, one.clock)
    assert again.identity.verify(old).user == again.identity.verify(again.token()).user == "dora"
    await again.rotation.settle()
    assert not (keys / "issuer-next.pem").exists()
    await again.rotation.rotate()
    assert again.identity.verify(old).user == again.identity.verify(again.token()).user == "dora"

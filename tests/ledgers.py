"""The real ledger for tests: opened in a folder, walked through as the pipeline does, and read back."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.adapters.ledger.books.approvals import ApprovalRegistry, Archive, Terms
from gateway.adapters.ledger.books.erasing import Custodian
from gateway.adapters.ledger.books.patrol import together
from gateway.adapters.ledger.books.pins import PinRegistry
from gateway.adapters.ledger.books.reviewers import ReviewerRegistry
from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms
from gateway.adapters.ledger.books.runs import RunRegistry
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.entry import Clean
from gateway.adapters.ledger.keyring.keys import LogKeys, create_or_load, payload_key_in
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.signed_log import SignedLog
from gateway.adapters.ledger.storage.places import Places
from gateway.adapters.ledger.storage.site import Folder, Site, sited
from gateway.adapters.ledger.tree import LogTree
from gateway.adapters.ledger.verification.report import Report
from gateway.adapters.ledger.verification.verify import Means, verify
from gateway.core.call import Answer, Call, Intent, Permit, Principal, Quota, Redacted, Resolved
from gateway.core.decision import Decision
from gateway.core.errors import Denied, GatewayError
from gateway.core.measures import amounts
from gateway.core.ports import Clock
from gateway.core.tool import Tool
from gateway.core.usage import Usage
from tests.clock import StepClock
from tests.evidence import make_call, make_decision, make_principal, make_tool
from tests.log_schema import conforming

TERMS = Terms(url="http://gateway.test")
ORIGIN = "gateway.test/log"
Act = Callable[[Intent], Awaitable[None]]
T = TypeVar("T")
Rule = Callable[[Usage], Awaitable[Decision]]


@dataclass(slots=True)
class Tally:
    """A meter that remembers."""

    calls: list[tuple[str, str]] = field(default_factory=list)

    def called(self, tool: str, outcome: str, seconds: float) -> None:
        """Remember."""
        self.calls.append((tool, outcome))

    def decided(self, effect: str, reason: str, seconds: float) -> None:
        """Nothing."""

    def unauthenticated(self, code: str) -> None:
        """Nothing."""

    def unwitnessed(self, since_s: float) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class Books:
    """An open ledger and all that stands on it."""

    site: Site
    keys: LogKeys
    clock: Clock
    ledger: Ledger
    reader: LogReader
    tree: LogTree
    runs: RunRegistry
    log: SignedLog
    meter: Tally
    reviewers: ReviewerRegistry
    approvals: ApprovalRegistry
    custodian: Custodian
    room: KeyRoom
    pins: PinRegistry
    places: Places | None = None

    @property
    def folder(self) -> Path:
        """The state folder."""
        return self.site.folder

    def records(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All records, or those of one type."""
        return [record for record in read_records(self.site) if kind in (None, record["type"])]

    def types(self, call_id: str | None = None) -> list[str]:
        """The types of all records, or of one call's."""
        return [record["type"] for record in self.records() if call_id in (None, record["call_id"])]

    def verify(self) -> Report:
        """What the offline verifier says."""
        return check(self.site)


@asynccontextmanager
async def open_books(
    place: Path | Site, clock: Clock | None = None, reserve_bytes: int = 0, clean: Clean = str
) -> AsyncIterator[Books]:
    """Open (or make) the ledger in ``place``; ``clean`` redacts what upstreams say."""
    ticking = clock or StepClock()
    kept = sited(place)
    keys = create_or_load(kept.folder / "keys", ORIGIN)
    meter = Tally()
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(Ledger(kept, keys, ticking, reserve_bytes))
        reader = await stack.enter_async_context(LogReader(kept, keys, writer=ledger))
        patrol = await together(stack, kept, ledger, reader)
        places = None if patrol is None else patrol.places
        runs = await stack.enter_async_context(RunRegistry(ledger, reader, keys, ticking, places))
        reviewers = ReviewerRegistry(ledger, reader, keys, ticking, places)
        await reviewers.load()
        pins = PinRegistry(ledger, reader, keys, ticking, places)
        await pins.sync()
        archive = Archive(ledger, reader, runs, reviewers, keys, ticking, is_shared=places is not None)
        approvals = await stack.enter_async_context(ApprovalRegistry(archive, TERMS))
        log = SignedLog(ledger, runs, Scribe(ticking, keys), meter, clean)
        if patrol is not None:
            patrol.remind(runs, approvals)
        yield Books(
            site=kept,
            keys=keys,
            clock=ticking,
            ledger=ledger,
            reader=reader,
            tree=LogTree(reader),
            runs=runs,
            log=log,
            meter=meter,
            reviewers=reviewers,
            approvals=approvals,
            custodian=Custodian(ledger, reader, keys, ticking, (runs, approvals)),
            room=KeyRoom(ledger, keys, ticking, KeyTerms()),
            places=places,
            pins=pins,
        )


def read_records(place: Path | Site) -> list[dict[str, Any]]:
    """All records of a log, decoded, in log order."""
    rows = asked(place, "select leaf from records order by idx")
    return [conforming(msgspec.json.decode(entry)) for (entry,) in rows]


def asked(place: Path | Site, query: str) -> list[Any]:
    """What the database of a log answers."""
    site = sited(place)

    def run() -> list[Any]:
        with closing(site.reader()) as db:
            return list(db.execute(query).fetchall())

    return run() if isinstance(site, Folder) else aside(run)


def aside(work: Callable[[], T]) -> T:
    """What ``work`` returns, done where no event loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def content(folder: Path) -> bytes:
    """All bytes of all files in a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def check(place: Path | Site) -> Report:
    """Verify a log with its own public key, as deep as it goes."""
    folder = sited(place).folder
    vkey, kek = (folder / "keys" / "log.vkey").read_text(), payload_key_in(folder / "keys")
    return aside(lambda: verify(place, vkey, Means(kek=kek, deep=True)))


async def nothing(intent: Intent) -> None:
    """An upstream that does nothing."""


@dataclass(slots=True)
class Walk:
    """One call on its way through the ledger, as ``pipeline.handle`` leads it.

    Attributes:
        act: what happens between intent and completion.
        rule: decides by the run's usage, in place of ``decision``.
        refusal: raised after the decision and the reservation, as a limit does.
        meanwhile: happens between the reservation and the intent.
    """

    books: Books
    tool: Tool = field(default_factory=make_tool)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    principal: Principal = field(default_factory=make_principal)
    decision: Decision = field(default_factory=make_decision)
    act: Act = nothing
    rule: Rule | None = None
    refusal: GatewayError | None = None
    meanwhile: Callable[[], None] | None = None
    fault: GatewayError | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    value: dict[str, Any] = field(default_factory=lambda: {"content": []})
    more: Mapping[str, Any] = field(default_factory=dict)

    def call(self) -> Call:
        """A new call."""
        fields = {"id": self.books.clock.uuid(), "at_us": self.books.clock.now_us()} | dict(self.more)
        return make_call(self.tool.fqn, self.arguments, **fields)

    async def go(self, call: Call | None = None) -> Answer:
        """Make the call."""
        call = call or self.call()
        async with self.books.log.open(call, self.principal) as entry:
            caller = entry.entered(await self.books.runs.enter(call, self.principal))
            target = Resolved(caller, self.tool, self.fault, amounts(self.tool, caller.call.arguments.value))
            async with self.books.runs.section(caller) as section:
                decision = self.decision if self.rule is None else await self.rule(section.usage)
                entry.decided(target, decision)
                self._judge(decision)
                reservation = section.reserve(target)
            try:
                if self.refusal is not None:
                    raise self.refusal
                if self.meanwhile is not None:
                    self.meanwhile()
                intent = await entry.commit(Quota(Permit(target, decision, reservation)))
                await self.act(intent)
                return await entry.complete(Redacted(intent, msgspec.json.encode(self.value), self.value, self.counts))
            finally:
                reservation.release()

    def _judge(self, decision: Decision) -> None:
        if self.fault is not None:
            raise self.fault
        if not decision.passes:
            raise Denied("policy does not allow this call", reasons=decision.reasons)

"""A desk on fakes: runs in a dictionary, tokens in the clear, a log read from a list."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.core.api_keys import ApiKey, KeyWish, digest_of, text_of
from gateway.core.approval import Reviewer
from gateway.core.bundle import Bundle, DenyOnly, Module, Standing, bundled
from gateway.core.call import Principal, Run, RunKind
from gateway.core.custody import Erased, Hold, Named, Seen, Target
from gateway.core.desk import Ballot, Desk, Dossier, Enrolment, LiveLease, LogRecord, Recorded, RunRequest, Whose
from gateway.core.errors import Conflict, Forbidden, GatewayError, NotFound, Unavailable
from gateway.core.extract import Depth, Extract, Extracted, OpenedPayload
from gateway.core.filters import Field, Term, holds
from gateway.core.inquiry import Query, Searched
from gateway.core.rotation import KeyKind, KeyStanding
from gateway.core.snapshots import Snapshot
from gateway.core.tiles import Tile
from tests.clock import StepClock
from tests.fakes.callers import AGENT, FakeIdentity, FakeRuns
from tests.fakes.journal import Journal
from tests.fakes.kills import fake_switch
from tests.fakes.log_keys import FakeKeyDesk, FakeWitnessDesk
from tests.fakes.pins import FakePinDesk


@dataclass(slots=True)
class FakeSnapshots:
    """Keeps states in a dictionary."""

    kept: dict[str, list[Snapshot]] = field(default_factory=dict)

    async def keep(self, by: Principal, run_id: str, label: str, state: bytes) -> Snapshot:
        """One more."""
        found = Snapshot(f"s-{len(self.kept)}", 0, label, state)
        self.kept.setdefault(run_id, []).append(found)
        return found

    async def newest(self, run_id: str) -> Snapshot | None:
        """The last one."""
        found = self.kept.get(run_id)
        return None if found is None else found[-1]


@dataclass(slots=True)
class FakeRunDesk:
    """Opens runs that the given ``FakeRuns`` then knows."""

    clock: StepClock
    runs: FakeRuns
    ended: dict[str, str] = field(default_factory=dict)

    async def start(self, person: Principal, request: RunRequest) -> Run:
        """A new run for the agent."""
        now = self.clock.now_us()
        run = Run(
            id=self.clock.uuid(),
            kind=RunKind.OPENED,
            principal_key=f"{person.issuer}|{person.user}|{request.agent}",
            opened_by=person.user,
            goal=request.goal,
            scope=request.scope,
            budget=request.budget,
            plan=request.plan,
            started_us=now,
            expires_us=request.end_us(now),
        )
        self.runs.opened[run.id] = run
        return run

    async def show(self, run_id: str) -> Run | None:
        """The run, if there is one."""
        return self.runs.opened.get(run_id)

    async def end(self, run_id: str, reason: str) -> None:
        """End the run; the first reason stays."""
        if run_id not in self.runs.opened:
            raise NotFound("no such run")
        self.ended.setdefault(run_id, reason)


@dataclass(slots=True)
class FakeIssuer:
    """Tokens that the given ``FakeIdentity`` then knows."""

    identity: FakeIdentity

    def issue(self, principal: Principal) -> str:
        """A token made of what it stands for."""
        token = f"token-{principal.key}-{principal.run or ''}"
        self.identity.tokens[token] = principal
        return token


@dataclass(slots=True)
class FakeReader:
    """A log given as records; payloads by (call id, role)."""

    records: list[LogRecord] = field(default_factory=list)
    payloads: dict[tuple[str, str], Any] = field(default_factory=dict)
    said: dict[int, tuple[Mapping[str, Any] | None, bytes | None]] = field(default_factory=dict)
    refusal: GatewayError | None = None

    async def search(self, query: Query) -> tuple[LogRecord, ...]:
        """Matching records in log order, unless searches are refused."""
        if self.refusal is not None:
            raise self.refusal
        return tuple(record for record in self.records if _matches(record, query))[: query.limit]

    async def decisions(self, query: Query) -> tuple[Recorded, ...]:
        """Matching decisions, with what ``said`` has of them."""
        found = await self.search(replace(query, type="decision"))
        return tuple(Recorded(record, *self.said.get(record.index, (None, None))) for record in found)

    async def payload(self, call_id: str, role: str) -> Any:
        """The payload, or None."""
        return self.payloads.get((call_id, role))


@dataclass(slots=True)
class FakeTree:
    """The tree of a log given as records: a tree in all but its hashes."""

    reader: FakeReader

    async def checkpoint(self) -> str:
        """A text in the place of a checkpoint."""
        if not self.reader.records:
            raise NotFound("nothing was logged yet")
        return f"fake log\n{len(self.reader.records)}\n"

    async def tile(self, tile: Tile) -> bytes:
        """Its path."""
        if not tile.is_in(len(self.reader.records)):
            raise NotFound("the log has no such tile yet", cause_code="tile")
        return tile.path.encode()

    async def prove(self, index: int, under: str | None = None) -> str:
        """A text in the place of a proof."""
        if index >= len(self.reader.records):
            raise NotFound("the log has no such record yet", cause_code="record")
        return f"proof of {index}\n" if under is None else f"proof of {index} under {under}\n"

    async def extend(self, old: int, new: int | None) -> tuple[int, Sequence[bytes]]:
        """One hash in the place of a proof."""
        size = len(self.reader.records)
        end = size if new is None else new
        if not old <= end <= size:
            raise NotFound("the log has no trees of these sizes, in this order", cause_code="tree_size")
        return end, [bytes(32)]


@dataclass(slots=True)
class FakeExport:
    """Exports a log given as records: no proof leads anywhere."""

    reader: FakeReader

    async def page(self, query: Query, depth: Depth) -> Extract:
        """Matching records, each with one payload where they are opened."""
        size = len(self.reader.records) if depth.size is None else depth.size
        if not self.reader.records or size > len(self.reader.records):
            raise NotFound("the log has no tree of this size yet", cause_code="tree_size")
        found = await self.reader.search(query)
        opened = (OpenedPayload("request", b"secret", "day-0", bytes(32)),) if depth.payloads else ()
        records = tuple(Extracted(one.index, one.leaf, (bytes(32),), opened) for one in found if one.index < size)
        is_last = len(found) < query.limit or len(records) < len(found)
        return Extract("fake+key", size, f"fake log\n{size}\n", records, None if is_last else found[-1].index)


def _matches(record: LogRecord, query: Query) -> bool:
    at_us = int(record.body.get("ts", 0))
    if record.index <= query.after or at_us < (query.since_us or 0):
        return False
    if query.until_us is not None and at_us > query.until_us:
        return False
    return all(_holds(record, term) is not term.negated for term in query.conditions)


def _holds(record: LogRecord, term: Term) -> bool:
    if term.field is Field.REASON:
        return any(holds(term, reason) for reason in record.body.get("reasons", ()))
    name = {Field.RUN: "run_id", Field.CALL: "call_id"}.get(term.field, str(term.field))
    return holds(term, str(record.body.get(name, "")))


class FakeSearches:
    """Keeps what was recorded; refuses where it is told to."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, Searched]] = []
        self.refusal: GatewayError | None = None

    async def record(self, by: Principal, searched: Searched) -> None:
        """Keep it."""
        if self.refusal is not None:
            raise self.refusal
        self.recorded.append((by.user, searched))


class FakeChanges:
    """Keeps what was recorded."""

    def __init__(self) -> None:
        self.recorded: list[tuple[str, str, dict[str, Any]]] = []

    async def record(self, by: Principal, action: str, details: Mapping[str, Any]) -> None:
        """Keep it."""
        self.recorded.append((by.user, action, dict(details)))


@dataclass(slots=True)
class FakeCustody:
    """Erases whatever it is asked to, unless it is held."""

    erased: list[Target] = field(default_factory=list)
    held: dict[str, Hold] = field(default_factory=dict)

    async def erase(self, by: Principal, target: Target, why: str) -> Erased:
        """Remember it."""
        if str(target) in self.held:
            raise Conflict("a legal hold forbids this", cause_code="held")
        self.erased.append(target)
        return Erased(1, 2, complete=target.run is not None)

    async def hold(self, by: Principal, target: Target, why: str) -> Hold:
        """Remember it."""
        self.held[str(target)] = hold = Hold(f"run:{target.run}", 1_750_000_000_000_000, 7, why)
        return hold

    async def release(self, by: Principal, target: Target, why: str) -> None:
        """Forget it."""
        del self.held[str(target)]

    async def holds(self) -> tuple[Hold, ...]:
        """Those remembered."""
        return tuple(self.held.values())

    def pseudonym(self, named: Named) -> str:
        """Their name backwards."""
        return "|".join(named.subject or (str(named.person),))[::-1]


@dataclass(slots=True)
class FakeViews:
    """Keeps who saw what."""

    seen: list[tuple[str, Seen]] = field(default_factory=list)
    trouble: Unavailable | None = None

    async def record(self, by: Principal, seen: Seen) -> None:
        """Keep it."""
        if self.trouble is not None:
            raise self.trouble
        self.seen.append((by.user, seen))


class FakeApprovalDesk:
    """Nothing waits."""

    async def waiting(self, limit: int) -> tuple[tuple[Dossier, ...], int]:
        """Nothing."""
        return (), 0

    async def dossier(self, approval_id: str) -> Dossier:
        """None."""
        raise NotFound("no such approval")

    async def decide(self, approval_id: str, ballot: Ballot) -> Dossier:
        """None."""
        raise NotFound("no such approval")


class FakeReviewerDesk:
    """Nobody reviews."""

    origin = "test"

    def all(self) -> tuple[Reviewer, ...]:
        """Nobody."""
        return ()

    async def enrol(self, by: Principal, wish: Enrolment) -> Reviewer:
        """Never."""
        raise Forbidden("nobody is enrolled here")

    async def revoke(self, by: Principal, name: str) -> Reviewer:
        """Nobody."""
        raise NotFound("no such key was enrolled")


@dataclass(slots=True)
class FakeApiKeyDesk:
    """Makes what it is asked for, and keeps the wishes; there is no key to be shown or revoked."""

    wishes: list[KeyWish] = field(default_factory=list)

    def all(self) -> tuple[ApiKey, ...]:
        """None."""
        return ()

    async def create(self, by: Principal, wish: KeyWish) -> tuple[ApiKey, str]:
        """A key of no chance."""
        self.wishes.append(wish)
        text = text_of(bytes(32))
        who = (wish.user, wish.agent, wish.groups, wish.scopes)
        return ApiKey(by.jti, digest_of(text), wish.name, *who, 0, wish.ttl_s * 1_000_000), text

    async def revoke(self, by: Principal, name: str) -> ApiKey:
        """None."""
        raise NotFound("there is no such key")


class FakeRotationDesk:
    """Nothing is replaced."""

    async def standings(self) -> tuple[KeyStanding, ...]:
        """None."""
        return ()

    async def rotate(self, by: Principal, kind: KeyKind) -> tuple[KeyStanding, ...]:
        """Never."""
        raise NotFound("no such key")


@dataclass(slots=True)
class FakeLeaseDesk:
    """Leases as given; what is revoked is gone, but for the templates that are stuck."""

    leases: list[LiveLease] = field(default_factory=list)
    stuck: frozenset[str] = frozenset()

    def live(self) -> tuple[LiveLease, ...]:
        """Those given."""
        return tuple(self.leases)

    async def revoke(self, whose: Whose) -> tuple[int, int]:
        """Drop those that are meant."""
        meant = [one for one in self.leases if whose.covers(one)]
        self.leases = [one for one in self.leases if not whose.covers(one)]
        pending = sum(one.template in self.stuck for one in meant)
        return len(meant) - pending, pending


@dataclass(slots=True)
class FakePolicyDesk:
    """Bundles as given, the first one in force."""

    bundles: tuple[Bundle, ...] = (bundled([Module("main.rego", "package gateway.main")], {}),)
    problems: tuple[str, ...] = ()
    deny_only: tuple[DenyOnly, ...] = ()

    def standing(self) -> Standing:
        """The first bundle, since the epoch."""
        since = 1 if self.problems else None
        return Standing(self.bundles[0].revision, "fake 1", 0, ("fake",), self.problems, since, self.deny_only)

    async def bundle(self, revision: str) -> Bundle | None:
        """The bundle of that revision."""
        return next((bundle for bundle in self.bundles if bundle.revision == revision), None)


def fake_desk(clock: StepClock | None = None, runs: FakeRuns | None = None) -> Desk:
    """A desk whose parts are all well."""
    journal = Journal()
    identity = FakeIdentity(journal, {"good": AGENT})
    reader = FakeReader()
    return Desk(
        runs=FakeRunDesk(clock or StepClock(), runs or FakeRuns(journal)),
        issuer=FakeIssuer(identity),
        reader=reader,
        tree=FakeTree(reader),
        export=FakeExport(reader),
        searches=FakeSearches(),
        changes=FakeChanges(),
        approvals=FakeApprovalDesk(),
        reviewers=FakeReviewerDesk(),
        api_keys=FakeApiKeyDesk(),
        leases=FakeLeaseDesk(),
        kills=fake_switch(),
        custody=FakeCustody(),
        keys=FakeKeyDesk(),
        rotations=FakeRotationDesk(),
        witnesses=FakeWitnessDesk(),
        views=FakeViews(),
        snapshots=FakeSnapshots(),
        pins=FakePinDesk(),
        policy=FakePolicyDesk(),
        pings={"identity": identity.ping},
        upstreams={},
        metrics=lambda: ("text/plain", b""),
        external_url="http://gateway.test",
    )

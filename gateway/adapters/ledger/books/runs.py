"""The runs: who may call in which, for how long, and what was used so far. All of it is rebuilt from the log."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

from gateway.adapters.ledger.books.lineage import Lineages
from gateway.adapters.ledger.books.proofs import proofs
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader, StoredRun
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.rundoc import read_run, run_payload, started_body
from gateway.adapters.ledger.sections import RunSection, Turns
from gateway.adapters.ledger.storage.places import Budget, Counted, Places
from gateway.core.call import Call, Caller, Principal, Run, RunKind
from gateway.core.canonical import encode
from gateway.core.desk import RunRequest
from gateway.core.errors import Conflict, Forbidden, NotFound, Unavailable
from gateway.core.ports import Clock, Section
from gateway.core.records import SYSTEM, Draft, EventType, Payload, Role, identifier
from gateway.core.usage import DAY_US, Usage

_IDLE_US = 30 * 60 * 1_000_000
_IMPLICIT_US = DAY_US
_TEND_S = 30.0
_KEPT_US = 5 * 60 * 1_000_000
_KEPT_RUNS = 10_000


@dataclass(slots=True, eq=False)
class _Live:
    """A run in memory.

    Attributes:
        last_us: last use.
        holders: calls in progress; a run in use is neither ended for idleness nor dropped from memory.
        section: the run's own ledger; an implicit run's is its lineage's.
        counted: what the log says, where several processes count together.
        turn: held while a call is being decided.
    """

    run: Run
    section: RunSection
    last_us: int
    is_open: bool = True
    counted: Counted = field(default_factory=lambda: Counted(Usage()))
    holders: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class RunRegistry(Tended):
    """Implements ``core.ports.Runs`` and ``core.desk.RunDesk`` on the signed log; an async context manager.

    Runs that nobody uses leave memory and come back from the log; so does everything after a restart.
    """

    def __init__(
        self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock, places: Places | None = None
    ) -> None:
        """``places``: where several processes count together."""
        self._ledger = ledger
        self._reader = reader
        self._keys = keys
        self._clock = clock
        self._scribe = Scribe(clock, keys)
        self._live: OrderedDict[str, _Live] = OrderedDict()
        self._sessions: dict[str, str] = {}
        self._turns = Turns()
        self._places = places
        self._lineages = Lineages(reader, self._scribe, clock, places)
        self._rounds = Rounds(self.tend, _TEND_S, "idle runs could not be ended")
        self._listeners: list[Callable[[str], None]] = []

    def on_end(self, listener: Callable[[str], None]) -> None:
        """Tell ``listener`` the id of each run that has ended here."""
        self._listeners.append(listener)

    async def ping(self) -> None:
        """Return when runs can be started and used.

        Raises:
            Unavailable: the log cannot be written.
        """
        await self._ledger.ping()

    async def enter(self, call: Call, principal: Principal) -> Caller:
        """The run of a call; see ``core.ports.Runs``."""
        if principal.run is not None and call.run not in (None, principal.run):
            raise NotFound("no such run")  # a run token is good for its own run only
        named = principal.run or call.run
        if named is None:
            live = await self._implicit(call, principal)
        else:
            live = await self._named(named, principal)
            live.last_us = self._clock.now_us()
        self._live.move_to_end(live.run.id)
        evidence = call.reported.evidence
        known = await proofs(self._reader, live.run.id, evidence) if evidence else ()
        return Caller(call, principal, live.run, known)

    def section(self, caller: Caller) -> AbstractAsyncContextManager[Section]:
        """Hold whatever ledger counts for calls of the run; see ``core.ports.Runs``."""
        if caller.run.kind is RunKind.IMPLICIT:  # its principal's; the run itself plays no part in it
            return self._lineages.section(caller.principal, caller.call.id)
        return self._deciding(caller)

    async def _loaded(self, run_id: str) -> _Live:
        live = self._live.get(run_id) or await self._load(run_id)
        if live is None:
            raise Unavailable("the run's ledger cannot be read")
        return live

    @asynccontextmanager
    async def _deciding(self, caller: Caller) -> AsyncIterator[RunSection]:
        live = await self._loaded(caller.run.id)
        live.holders += 1
        try:
            async with self._counted(live, caller.call.id) as section:
                yield section
        finally:
            live.holders -= 1

    @asynccontextmanager
    async def _counted(self, live: _Live, call_id: str) -> AsyncIterator[RunSection]:
        async with live.turn:
            if self._places is None:
                yield live.section
                return
            run = live.run
            async with self._places.hold(Budget(f"run:{run.id}", call_id, live.counted, run.id)) as standing:
                if not standing.is_open:
                    live.is_open = False
                    raise NotFound("the run has ended", cause_code="run_ended")
                yield RunSection(standing, run.budget)

    async def keep(self, run_id: str) -> Callable[[], None] | None:
        """``hold`` for a run that may not be in memory; None where it has ended or cannot be read any more.

        Raises:
            Unavailable: the log cannot be read.
        """
        live = await self._load(run_id)
        return self.hold(run_id) if live is not None and live.is_open else None

    def hold(self, run_id: str) -> Callable[[], None]:
        """A call of the run is in progress: the run stays until the returned function is called."""
        live = self._live[run_id]
        live.holders += 1

        def release() -> None:
            live.holders -= 1
            live.last_us = self._clock.now_us()

        return release

    async def start(self, person: Principal, request: RunRequest) -> Run:
        """Open a run; see ``core.desk.RunDesk``.

        Raises:
            Forbidden: an agent asks; only a person's goal is trusted.
        """
        if person.agent is not None or person.run is not None:
            raise Forbidden("a run is opened by a person, with their own token")
        now = self._clock.now_us()
        run = Run(
            id=self._clock.uuid(),
            kind=RunKind.OPENED,
            principal_key=replace(person, agent=request.agent).key,
            opened_by=person.user,
            goal=request.goal,
            scope=request.scope,
            budget=dict(request.budget),
            plan=request.plan,
            started_us=now,
            expires_us=request.end_us(now),
        )
        await self._ledger.append([self._started(run, replace(person, agent=request.agent), None, None)])
        self._remember(run)
        return run

    async def show(self, run_id: str) -> Run | None:
        """The run; see ``core.desk.RunDesk``."""
        live = self._live.get(run_id)
        if live is not None:
            return live.run
        stored = await self._reader.run(run_id)
        return None if stored is None else read_run(run_id, stored.document)

    async def end(self, run_id: str, reason: str) -> None:
        """End a run; see ``core.desk.RunDesk``. Calls in progress still record how they end."""
        live = await self._load(run_id)
        if live is None:
            raise NotFound("no such run")
        await self._end(live, reason)

    def drop(self, runs: frozenset[str]) -> None:
        """Forget ended runs whose payloads were erased."""
        for run_id in runs & self._live.keys():
            # Another process may have ended it; what is in use, as its end is being written, is dropped when it is not.
            if not self._live[run_id].is_open or (self._places is not None and not self._live[run_id].holders):
                del self._live[run_id]

    async def tend(self) -> None:
        """End what is idle or expired, drop from memory what nobody uses; a task of its own calls this now and then."""
        after = ""
        while batch := await self._reader.due_runs(after, self._clock.now_us(), _IDLE_US):
            after = batch[-1][0]
            for run_id, reason in batch:
                await self._tend(run_id, reason)
        self._forget()
        self._lineages.forget()

    async def _tend(self, run_id: str, reason: str) -> None:
        async with self._turns.hold(run_id):  # so that nobody brings it into memory as open meanwhile
            if run_id not in self._live:
                await self._record_end(run_id, reason)
                return
        live = self._live[run_id]
        await self._follow(live)
        # In memory it may have been used since its last record.
        if live.holders == 0 and (over := self._over(live)) is not None:
            await self._end(live, over)

    async def _named(self, run_id: str, principal: Principal) -> _Live:
        live = self._live.get(run_id) or await self._load(run_id)
        await self._follow(live)
        # One answer for a run that is missing, over, or another's: ids tell nothing.
        if live is None or not live.is_open or live.run.principal_key != principal.key:
            raise NotFound("no such run")
        reason = self._over(live)
        if reason is not None:
            await self._end(live, reason)
            raise NotFound("the run has ended", cause_code="run_ended")
        return live

    async def _follow(self, live: _Live | None) -> None:
        """Take over what other processes did with the run."""
        if live is not None and self._places is not None:
            is_open, last_us = await self._reader.standing(live.run.id)
            live.is_open = live.is_open and is_open
            live.last_us = max(live.last_us, last_us)

    async def _implicit(self, call: Call, principal: Principal) -> _Live:
        session = f"{principal.key}|{call.session or principal.jti}"
        live = self._live.get(self._sessions.get(session, ""))
        if self._places is not None:
            await self._follow(live)
        now = self._clock.now_us()
        if live is None or not live.is_open or _over_at(now, live) is not None:
            async with self._turns.hold(session):
                live = await self._resume_or_open(session, call, principal)
                now = self._clock.now_us()
        live.last_us = now
        return live

    async def _resume_or_open(self, session: str, call: Call, principal: Principal) -> _Live:
        binding = self._keys.mark("session", session)
        run_id = self._sessions.get(session) or await self._reader.bound_run(binding)
        live = None if run_id is None else await self._load(run_id)
        await self._follow(live)
        if live is not None and live.is_open:
            reason = self._over(live)
            if reason is None:
                self._sessions[session] = live.run.id
                return live
            await self._end(live, reason)
        now = self._clock.now_us()
        run = Run(
            id=self._clock.uuid(),
            kind=RunKind.IMPLICIT,
            principal_key=principal.key,
            opened_by=principal.user,
            goal=None,
            scope=(),
            budget={},
            plan=(),
            started_us=now,
            expires_us=now + _IMPLICIT_US,
        )
        try:
            await self._ledger.append([self._started(run, principal, call.id, binding)])
        except Conflict:  # another process was first
            return await self._bound(session, binding)
        self._sessions[session] = run.id
        return self._remember(run)

    async def _bound(self, session: str, binding: str) -> _Live:
        run_id = await self._reader.bound_run(binding)
        live = None if run_id is None else await self._load(run_id)
        if live is None or not live.is_open or self._over(live) is not None:
            raise Unavailable("the session's run cannot be read", retry_after=1, cause_code="session_bound")
        self._sessions[session] = live.run.id
        return live

    def _over(self, live: _Live) -> str | None:
        return _over_at(self._clock.now_us(), live)

    async def _load(self, run_id: str) -> _Live | None:
        live = self._live.get(run_id)
        if live is not None:
            return live
        async with self._turns.hold(run_id):
            live = self._live.get(run_id)
            if live is not None:
                return live
            stored = await self._reader.run(run_id)
            run = None if stored is None else read_run(run_id, stored.document)
            return None if stored is None or run is None else self._remember(run, stored)

    def _remember(self, run: Run, stored: StoredRun | None = None) -> _Live:
        section = RunSection(Usage(), run.budget)
        if stored is None:
            live = _Live(run, section, run.started_us)
        else:
            for request in stored.requested if self._places is None else ():
                section.usage.add(request.tool, request.measures)
            live = _Live(run, section, stored.last_us, stored.is_open)
        self._live[run.id] = live
        return live

    async def _end(self, live: _Live, reason: str) -> None:
        if not live.is_open:
            return
        await self._record_end(live.run.id, reason)
        live.is_open = False

    async def _record_end(self, run_id: str, reason: str) -> None:
        # The leaf takes an id only; whoever ends a run may give a sentence, which is payload.
        said = Payload(Role.REASONS, encode({"reason": reason}))
        body = {"reason": identifier(reason)}
        with suppress(NotFound):  # somebody else ended it first
            await self._ledger.append([self._scribe.draft(EventType.RUN_ENDED, Subject(SYSTEM, run_id), body, said)])
        for listener in self._listeners:
            listener(run_id)

    def _started(self, run: Run, principal: Principal, call_id: str | None, binding: str | None) -> Draft:
        subject = Subject(self._scribe.actor(principal), run.id, call_id)
        return self._scribe.draft(EventType.RUN_STARTED, subject, started_body(run, binding), run_payload(run))

    def _forget(self) -> None:
        now, surplus = self._clock.now_us(), len(self._live) - _KEPT_RUNS
        for run_id, live in list(self._live.items()):
            if live.holders or live.turn.locked():
                continue
            if surplus > 0 or not live.is_open or now - live.last_us >= _KEPT_US:
                del self._live[run_id]
                surplus -= 1
        self._sessions = {session: run_id for session, run_id in self._sessions.items() if run_id in self._live}


def _over_at(now: int, live: _Live) -> str | None:
    if now >= live.run.expires_us:
        return "expired"
    if now - live.last_us >= _IDLE_US and live.run.kind is RunKind.IMPLICIT and not live.holders:
        return "idle"
    return None

"""Parked calls: kept in the signed log, decided by people, carried out at most once.

An identical call (same caller, run, pinned tool and arguments) never parks twice: it attaches to what waits already,
and is told what came of it once there is something to tell. What an approval is worth is decided in the transaction
that writes the intent (``claims.py``); what stands here is a copy for those who wait, and where the two may have come
apart the log is read again.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from gateway.adapters.ledger.books import cases
from gateway.adapters.ledger.books.filing import Filing, OutOfStep
from gateway.adapters.ledger.books.inbox import Inbox
from gateway.adapters.ledger.books.parked import Parked, restored
from gateway.adapters.ledger.books.reviewers import ReviewerRegistry
from gateway.adapters.ledger.books.runs import RunRegistry
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.sections import Turns
from gateway.core.approval import OPEN, Action, Grant, Signature, State, Verdict, acting
from gateway.core.ballot import added, counted
from gateway.core.call import Answer, Call, Principal, Resolved, Resumed
from gateway.core.decision import Decision
from gateway.core.desk import Ballot, Dossier
from gateway.core.errors import (
    Conflict,
    Denied,
    GatewayError,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Throttled,
    Unavailable,
)
from gateway.core.ports import Clock
from gateway.core.records import EventType, identifier

_TEND_S = 1.0
_TAKE_OVER_US = 5_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """For how long an approval is good for anything.

    Attributes:
        ttl_s: longest an approval waits and may be used, seconds; a requirement may ask for less.
        replay_s: how long after its end identical calls are told what came of it, seconds.
        url: where the gateway is reached; agents are told where to look.
    """

    ttl_s: int = 3600
    replay_s: int = 600
    url: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """What parked calls are kept with.

    Attributes:
        is_shared: whether other processes write the same log.
    """

    ledger: Ledger
    reader: LogReader
    runs: RunRegistry
    reviewers: ReviewerRegistry
    keys: LogKeys
    clock: Clock
    is_shared: bool = False


class ApprovalRegistry(Tended):
    """Implements ``core.ports.Approvals`` and ``core.desk.ApprovalDesk``; an async context manager."""

    def __init__(self, archive: Archive, terms: Terms) -> None:
        self._files = archive
        self._terms = terms
        scribe = Scribe(archive.clock, archive.keys)
        origin = archive.reviewers.origin
        self._filing = Filing(archive.ledger, archive.keys, archive.clock, scribe, origin, terms.ttl_s)
        self._parked: dict[str, Parked] = {}
        self._by_mark: dict[str, Parked] = {}
        self._erased: set[str] = set()
        self._inbox = Inbox()
        self._turns = Turns()
        self._ready: asyncio.Queue[Parked] = asyncio.Queue()
        self._rounds = Rounds(self._round, _TEND_S, "approvals could not be let lapse")

    async def _begin(self) -> None:
        await self._take_up()  # what the log says waits
        await super()._begin()

    async def ping(self) -> None:
        """Return when calls can be parked.

        Raises:
            Unavailable: the log cannot be written.
        """
        await self._files.ledger.ping()

    # the pipeline's side

    async def principal(self, origin: Resumed) -> Principal:
        """Who was parked; see ``core.ports.Approvals``."""
        return self._granted(origin.approval_id).action.principal

    async def grant(self, call: Call) -> Grant | None:
        """What a resumed call is carried out with; see ``core.ports.Approvals``."""
        if not isinstance(call.origin, Resumed):
            return None
        if self._files.is_shared:  # another process may have revoked a key whose word this counts
            await self._files.reviewers.load()
        return self._granted(call.origin.approval_id)

    async def park(self, target: Resolved, decision: Decision) -> GatewayError:
        """Park a call; see ``core.ports.Approvals``."""
        if isinstance(target.call.origin, Resumed):
            return Denied(
                "policy now asks for more than was approved", reasons=decision.reasons, cause_code="approval_stale"
            )
        mark = self._filing.mark(target)
        async with self._turns.hold(mark):
            known = self._weeded(self._by_mark.get(mark) or await self._park(mark, target, decision))
        return known.word(self._terms.url) or known.told(self._terms.url)

    async def outcome(self, approval_id: str, patience_s: float) -> Answer:
        """What came of it; see ``core.ports.Approvals``."""
        parked = self._found(approval_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while parked.state in OPEN:
                    await parked.moved.wait()
        said = parked.word(self._terms.url) or parked.outcome
        if isinstance(said, Answer):
            return said
        raise said or OutcomeUnknown("what came of the call cannot be read", cause_code="no_record")

    async def check_own(self, principal: Principal, approval_id: str) -> Action:
        """It, where it is the caller's own; see ``core.ports.Approvals``."""
        action = self._found(approval_id).action
        if acting(action.principal) != acting(principal) or principal.run not in {None, action.run}:
            raise NotFound("no such approval", cause_code="approval")
        return action

    async def approved(self) -> Action:
        """The next that may be carried out; see ``core.ports.Approvals``."""
        while True:
            parked = await self._ready.get()
            if parked.state is State.APPROVED:
                parked.in_hand = True
                return parked.action

    async def settle(self, approval_id: str, error: GatewayError | None) -> bool:
        """Note how an attempt ended; see ``core.ports.Approvals``."""
        parked = self._parked.get(approval_id)
        if parked is None:
            return False
        async with parked.turn:
            # Its end is still owed to the log, or was when the attempt was made: nothing is known of this one.
            was_executing = parked.state is State.EXECUTING
            await self._look_up(parked)
            again = parked.state is State.EXECUTING or (
                parked.state is State.APPROVED and (was_executing or self._passes(parked, error))
            )
            if not again and parked.state is State.APPROVED:
                await self._give_up(parked, error)
            parked.in_hand = again
        return again

    # people's side

    async def waiting(self, limit: int) -> tuple[tuple[Dossier, ...], int]:
        """What waits; see ``core.desk.ApprovalDesk``."""
        found = [parked for parked in self._parked.values() if parked.state is State.PENDING]
        oldest = sorted(found, key=lambda one: one.action.requested_us)[:limit]
        return tuple([self._found(parked.action.id).dossier() for parked in oldest]), len(found)

    async def dossier(self, approval_id: str) -> Dossier:
        """One approval; see ``core.desk.ApprovalDesk``."""
        parked = self._found(approval_id)
        if parked.state is State.APPROVED:
            await self._look_up(parked)
        return parked.dossier()

    async def decide(self, approval_id: str, ballot: Ballot) -> Dossier:
        """Take a reviewer's word; see ``core.desk.ApprovalDesk``."""
        parked = self._found(approval_id)
        async with parked.turn, self._files.reviewers.steady():
            if self._files.is_shared:
                await self._renew(parked)
            await self._lapse(parked)
            may_still = {State.PENDING} if ballot.verdict is Verdict.APPROVE else {State.PENDING, State.APPROVED}
            if parked.state not in may_still:
                raise Conflict(f"the approval is {parked.state} already", cause_code="approval_state")
            reviewer = self._files.reviewers.active(ballot.key_id)
            word = counted(parked.action, ballot, reviewer, self._files.clock.now_us())
            signatures, state = added(parked.action, self._good(parked), word)
            try:
                at_us = await self._filing.decide(parked.action, ballot, word, state)
            except OutOfStep:
                await self._look_up(parked)
                raise
            parked.signatures, parked.why = signatures, ballot.reason or parked.why
            self._move(parked, state, at_us)
        return parked.dossier()

    async def follow(self) -> None:
        """Take over what other processes parked, heard, carried out or left behind; a task calls this now and then."""
        now = self._files.clock.now_us()
        found = await cases.stands(self._files.reader, now - self._terms.replay_s * 1_000_000)
        self._erased &= found.keys()
        await self._meet([one for one in found if one not in self._parked and one not in self._erased])
        for approval_id, stand in found.items():
            parked = self._parked.get(approval_id)
            if parked is None:
                continue  # erased
            if (parked.state, parked.at_us) != (stand.state, stand.at_us) and not parked.turn.locked():
                async with parked.turn:
                    await self._files.reviewers.load()
                    await self._renew(parked)
            # Whose process heard the last word carries it out; where that did not happen, the next one tries.
            if parked.state is State.APPROVED and not parked.in_hand and now - stand.at_us >= _TAKE_OVER_US:
                parked.in_hand = True
                self._ready.put_nowait(parked)

    async def _meet(self, unknown: list[str]) -> None:
        # One by one: reading again all that wait, for each that is new, would keep every call waiting.
        if unknown:
            await self._files.reviewers.load()
        for approval_id in unknown:
            case = await cases.case(self._files.reader, approval_id)
            if case is None or case.action is None:
                self._erased.add(approval_id)
            else:
                await self._take(case, carries_out=False)

    async def _renew(self, parked: Parked) -> None:
        case = await self._read_words(parked)
        if case is None:
            return
        if case.stand.state is parked.state:
            parked.at_us = case.stand.at_us
        else:
            await self._look_up(parked)

    async def _read_words(self, parked: Parked) -> cases.Case | None:
        case = await cases.case(self._files.reader, parked.action.id)
        if case is not None:
            holders = {known.key_id: known for known in self._files.reviewers.all()}
            said = restored(case, parked.action, holders.get)
            # It may have ended here since that was read: why it did is not forgotten again.
            parked.signatures, parked.why = said.signatures, said.why or parked.why
        return case

    async def tend(self) -> None:
        """Let lapse what was not used in time, and forget what ended long ago; a task calls this now and then."""
        now = self._files.clock.now_us()
        for parked in list(self._parked.values()):
            if parked.state not in OPEN and not parked.in_hand:
                if now >= parked.at_us + self._terms.replay_s * 1_000_000:
                    self._forget(parked)
            elif now >= parked.action.expires_us:
                async with parked.turn:
                    await self._lapse(parked)

    def drop(self, runs: frozenset[str]) -> None:
        """Forget the approvals of runs whose payloads were erased; open ones stand in the way of that."""
        for parked in list(self._parked.values()):
            if parked.action.run in runs and parked.state not in OPEN and not parked.in_hand:
                self._forget(parked)

    # within

    async def _park(self, mark: str, target: Resolved, decision: Decision) -> Parked:
        self._inbox.check(target.caller.principal, len(target.call.arguments.canonical))
        try:
            action = await self._filing.request(mark, target, decision)
        except OutOfStep:
            # A commit that was reported to have failed is there: what it wrote waits.
            await self._take_up()
            if mark not in self._by_mark:
                raise Unavailable("the approval cannot be read", retry_after=1, cause_code="ledger_record") from None
            return self._by_mark[mark]
        release = self._files.runs.hold(action.run)
        return self._keep(Parked(action, mark, State.PENDING, action.requested_us, release=release))

    def _granted(self, approval_id: str) -> Grant:
        parked = self._found(approval_id)
        # Also where the log was not asked yet: what has lapsed is used for nothing.
        if parked.state is not State.APPROVED or self._files.clock.now_us() >= parked.action.expires_us:
            raise NotFound("the approval cannot be used", cause_code="approval_state")
        return Grant(parked.action, self._good(parked))

    def _good(self, parked: Parked) -> tuple[Signature, ...]:
        """The signatures by keys that are not revoked."""
        active = {known.key_id for known in self._files.reviewers.all() if not known.revoked}
        return tuple(word for word in parked.signatures if word.key_id in active)

    def _passes(self, parked: Parked, error: GatewayError | None) -> bool:
        if self._files.clock.now_us() >= parked.action.expires_us:
            return False
        # Where its end was owed to the log and is there by now, the log's word counts: nothing was sent.
        was_owed = isinstance(error, OutcomeUnknown) and error.cause_code == "ledger"
        return was_owed or isinstance(error, Throttled | Unavailable | NotSent)

    async def _give_up(self, parked: Parked, error: GatewayError | None) -> None:
        if await self._lapse(parked):
            return
        why = "the attempt was broken off" if error is None else error.detail
        cause = "internal" if error is None else error.cause_code
        await self._end(parked, EventType.APPROVAL_VOID, cause, why)

    async def _lapse(self, parked: Parked) -> bool:
        is_over = self._files.clock.now_us() >= parked.action.expires_us
        if is_over and parked.state in {State.PENDING, State.APPROVED}:
            await self._end(parked, EventType.APPROVAL_EXPIRED, "time", None)
            return True
        return False

    async def _end(self, parked: Parked, kind: EventType, cause: str, why: str | None) -> None:
        state = State.VOID if kind is EventType.APPROVAL_VOID else State.EXPIRED
        try:
            at_us = await self._filing.end(parked.action, kind, {"cause": identifier(cause)}, why)
        except OutOfStep:
            await self._look_up(parked)
            return
        parked.why = why or parked.why
        self._move(parked, state, at_us)

    async def _look_up(self, parked: Parked) -> None:
        """Read where it stands, and what is to be told of that."""
        stand = await cases.stand(self._files.reader, parked.action.id)
        if stand is None or stand.state is parked.state:
            return
        if stand.state in {State.REJECTED, State.VOID}:
            # Whoever wrote that is another process, or has not noted it here yet: no end is seen without its reason.
            await self._read_words(parked)
        parked.call_id = stand.call_id
        if stand.state is State.ENDED and stand.call_id is not None:
            parked.outcome = await cases.outcome(self._files.reader, stand.call_id)
        self._move(parked, stand.state, stand.at_us, by_log=True)

    def _move(self, parked: Parked, state: State, at_us: int, *, by_log: bool = False) -> None:
        was_open = parked.state in OPEN
        parked.move(state, at_us)
        if was_open and state not in OPEN:
            parked.let_go()
            self._inbox.count(parked.action, -1)
        if state is State.APPROVED and not by_log and not parked.in_hand:
            self._ready.put_nowait(parked)

    def _keep(self, parked: Parked) -> Parked:
        self._parked[parked.action.id] = self._by_mark[parked.mark] = parked
        if parked.state in OPEN:
            self._inbox.count(parked.action, 1)
        return parked

    def _found(self, approval_id: str) -> Parked:
        parked = self._parked.get(approval_id)
        if parked is None:
            raise NotFound("no such approval", cause_code="approval")
        return self._weeded(parked)

    def _weeded(self, parked: Parked) -> Parked:  # what people look at and agents are told is what counts
        parked.signatures = self._good(parked) if parked.state is State.PENDING else parked.signatures
        return parked

    async def _take_up(self) -> None:
        since = self._files.clock.now_us() - self._terms.replay_s * 1_000_000
        for case in await cases.cases(self._files.reader, since):
            await self._take(case, carries_out=True)

    async def _take(self, case: cases.Case, *, carries_out: bool) -> None:
        if case.action is None or case.id in self._parked:
            return
        holders = {known.key_id: known for known in self._files.reviewers.all()}
        parked = self._keep(restored(case, case.action, holders.get))
        if parked.state in OPEN:
            parked.release = await self._files.runs.keep(parked.action.run)
        if parked.state is State.APPROVED and carries_out:
            self._ready.put_nowait(parked)
        if parked.state is State.ENDED and parked.call_id is not None:
            parked.outcome = await cases.outcome(self._files.reader, parked.call_id)

    def _forget(self, parked: Parked) -> None:
        del self._parked[parked.action.id]
        if self._by_mark.get(parked.mark) is parked:
            del self._by_mark[parked.mark]

    async def _round(self) -> None:
        if self._files.is_shared:
            await self.follow()
        await self.tend()

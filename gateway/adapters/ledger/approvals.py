"""Parked calls: kept in the signed log, decided by people, carried out at most once.

An identical call (same caller, run, pinned tool and arguments) never parks twice: it attaches to what waits already,
and is told what came of it once there is something to tell. What an approval is worth is decided in the transaction
that writes the intent (``claims.py``); what stands here is a copy for those who wait.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from gateway.adapters.ledger import cases
from gateway.adapters.ledger.actiondoc import action_payload, requested_body
from gateway.adapters.ledger.claims import Stand
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.parked import Parked, restored
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.reviewers import ReviewerRegistry
from gateway.adapters.ledger.runs import RunRegistry
from gateway.adapters.ledger.sections import Turns
from gateway.core.approval import OPEN, Action, Grant, Reviewer, Signature, State, Verdict, action_hash
from gateway.core.ballot import added, counted
from gateway.core.call import Answer, Call, Principal, Resolved, Resumed
from gateway.core.canonical import encode
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
from gateway.core.records import SYSTEM, Draft, EventType, Payload, Role, identifier

_TEND_S = 1.0
_MOST_EACH = 100
_MOST = 10_000
_MOST_ATTEMPTS = 8
_NONCE_SIZE = 16
_MAX_NAME = 256
_LOG = logging.getLogger("gateway.approvals")


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
    """What parked calls are kept with."""

    ledger: Ledger
    reader: LogReader
    runs: RunRegistry
    reviewers: ReviewerRegistry
    keys: LogKeys
    clock: Clock


class ApprovalRegistry:
    """Implements ``core.ports.Approvals`` and ``core.desk.ApprovalDesk``; an async context manager."""

    def __init__(self, archive: Archive, terms: Terms) -> None:
        self._files = archive
        self._terms = terms
        self._scribe = Scribe(archive.clock, archive.keys)
        self._parked: dict[str, Parked] = {}
        self._by_mark: dict[str, Parked] = {}
        self._waiting: Counter[str] = Counter()
        self._turns = Turns()
        self._ready: asyncio.Queue[Parked] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Take up what the log says waits.

        Raises:
            Unavailable: the log cannot be read.
        """
        since = self._files.clock.now_us() - self._terms.replay_s * 1_000_000
        for case in await cases.cases(self._files.reader, since):
            if case.action is not None:
                await self._restore(restored(case, case.action, self._holder))
        self._task = asyncio.create_task(self._keep_tending())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def ping(self) -> None:
        """Return when calls can be parked.

        Raises:
            Unavailable: the log cannot be written.
        """
        await self._files.ledger.ping()

    # the pipeline's side

    async def principal(self, origin: Resumed) -> Principal:
        """Who was parked; see ``core.ports.Approvals``."""
        return self._found(origin.approval_id).grant().action.principal

    async def grant(self, call: Call) -> Grant | None:
        """What a resumed call is carried out with; see ``core.ports.Approvals``."""
        return self._found(call.origin.approval_id).grant() if isinstance(call.origin, Resumed) else None

    async def park(self, target: Resolved, decision: Decision) -> GatewayError:
        """Park a call; see ``core.ports.Approvals``."""
        if isinstance(target.call.origin, Resumed):
            return Denied(
                "policy now asks for more than was approved", reasons=decision.reasons, cause_code="approval_stale"
            )
        mark = self._mark(target)
        async with self._turns.hold(mark):
            known = self._by_mark.get(mark)
            if known is None:
                known = await self._park(mark, target, decision)
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

    async def check_own(self, principal: Principal, approval_id: str) -> None:
        """Return where it is the caller's own; see ``core.ports.Approvals``."""
        action = self._found(approval_id).action
        if action.principal.key != principal.key or principal.run not in {None, action.run}:
            raise NotFound("no such approval", cause_code="approval")

    async def approved(self) -> Action:
        """The next that may be carried out; see ``core.ports.Approvals``."""
        while True:
            parked = await self._ready.get()
            if parked.state is State.APPROVED:
                return parked.action

    async def settle(self, approval_id: str, error: GatewayError | None) -> bool:
        """Note how an attempt ended; see ``core.ports.Approvals``."""
        parked = self._found(approval_id)
        stand = await cases.stand(self._files.reader, approval_id)
        if stand is None or stand.state is not State.APPROVED:
            await self._used(parked, stand)
            return False
        parked.move(State.APPROVED, stand.at_us)
        parked.attempts += 1
        in_time = self._files.clock.now_us() < parked.action.expires_us
        if isinstance(error, Throttled | Unavailable | NotSent) and in_time and parked.attempts < _MOST_ATTEMPTS:
            return True
        why = "the attempt was broken off" if error is None else error.detail
        cause = "internal" if error is None else error.cause_code
        await self._end(parked, EventType.APPROVAL_VOID, {"cause": identifier(cause)}, why)
        return False

    # people's side

    async def waiting(self) -> tuple[Dossier, ...]:
        """What waits; see ``core.desk.ApprovalDesk``."""
        found = [parked for parked in self._parked.values() if parked.state is State.PENDING]
        return tuple(parked.dossier() for parked in sorted(found, key=lambda one: one.action.requested_us))

    async def dossier(self, approval_id: str) -> Dossier:
        """One approval; see ``core.desk.ApprovalDesk``."""
        return self._found(approval_id).dossier()

    async def decide(self, approval_id: str, ballot: Ballot) -> Dossier:
        """Take a reviewer's word; see ``core.desk.ApprovalDesk``."""
        parked = self._found(approval_id)
        async with parked.turn:
            if parked.state is State.PENDING and self._files.clock.now_us() >= parked.action.expires_us:
                await self._end(parked, EventType.APPROVAL_EXPIRED, {})
            may_still = {State.PENDING} if ballot.verdict is Verdict.APPROVE else {State.PENDING, State.APPROVED}
            if parked.state not in may_still:
                raise Conflict(f"the approval is {parked.state} already", cause_code="approval_state")
            reviewer = self._files.reviewers.active(ballot.key_id)
            word = counted(parked.action, ballot, reviewer, self._files.clock.now_us())
            signatures, state = added(parked.action, parked.signatures, word)
            draft = self._decided(parked, ballot, word, state)
            await self._files.ledger.append([draft])
            parked.signatures, parked.why = signatures, ballot.reason or parked.why
            self._moved(parked, state, draft.at_us)
        return parked.dossier()

    # within

    async def _park(self, mark: str, target: Resolved, decision: Decision) -> Parked:
        key = target.caller.principal.key
        if self._waiting[key] >= _MOST_EACH or self._waiting.total() >= _MOST:
            raise Throttled("too many calls wait for approval", retry_after=60, cause_code="approvals_waiting")
        action = self._action(target, decision)
        subject = Subject(self._scribe.actor(action.principal), action.run, action.call_id)
        body = requested_body(action, mark)
        draft = self._scribe.draft(EventType.APPROVAL_REQUESTED, subject, body, action_payload(action))
        await self._files.ledger.append([draft])
        parked = Parked(action, mark, State.PENDING, draft.at_us, release=self._files.runs.hold(action.run))
        self._keep(parked)
        return parked

    def _action(self, target: Resolved, decision: Decision) -> Action:
        now = self._files.clock.now_us()
        asked = [need.ttl_s for need in decision.requirements if need.ttl_s is not None]
        ends = now + min([self._terms.ttl_s, *asked]) * 1_000_000
        return Action(
            id=self._files.clock.uuid(),
            nonce=self._files.clock.random(_NONCE_SIZE).hex(),
            call_id=target.call.id,
            principal=target.caller.principal,
            run=target.caller.run.id,
            channel=target.call.channel,
            tool=target.tool.fqn,
            definition=target.tool.digest,
            arguments=target.call.arguments,
            requirements=decision.requirements,
            reasons=decision.reasons,
            revision=decision.revision,
            requested_us=now,
            expires_us=min(ends, target.caller.run.expires_us),
        )

    def _mark(self, target: Resolved) -> str:
        who, run = target.caller.principal.key, target.caller.run.id
        parts = [who, run, target.tool.fqn, target.tool.digest, target.call.arguments.digest]
        return self._files.keys.mark("action", encode(parts).decode())

    def _decided(self, parked: Parked, ballot: Ballot, word: Signature, state: State) -> Draft:
        action = parked.action
        body = {
            "approval": action.id,
            "action_hash": action_hash(action.statement(), ballot.verdict, ballot.reason).hex(),
            "key": word.key_id,
            "person": self._files.keys.mark("person", word.person),
            "signature": ballot.signature.hex(),
            "state": state,
            "tool": action.tool[:_MAX_NAME],
            "verdict": word.verdict,
        }
        return self._said(parked, EventType.APPROVAL_DECIDED, body, ballot.reason)

    def _said(self, parked: Parked, kind: EventType, body: Mapping[str, Any], reason: str | None) -> Draft:
        payloads = [] if reason is None else [Payload(Role.REASONS, encode({"reason": reason}))]
        # The person behind a word is in its body; they are nobody the pseudonyms of callers know.
        return self._scribe.draft(kind, Subject(SYSTEM, parked.action.run, parked.action.call_id), body, *payloads)

    async def _end(self, parked: Parked, kind: EventType, body: Mapping[str, Any], why: str | None = None) -> None:
        state = State.VOID if kind is EventType.APPROVAL_VOID else State.EXPIRED
        said = {"approval": parked.action.id, "tool": parked.action.tool[:_MAX_NAME], **body}
        draft = self._said(parked, kind, said, why)
        await self._files.ledger.append([draft])
        parked.why = why or parked.why
        self._moved(parked, state, draft.at_us)

    async def _used(self, parked: Parked, stand: Stand | None) -> None:
        if stand is None or stand.state in OPEN:
            _LOG.error("approval %s was tried and is still %s", parked.action.id, stand and stand.state)
            return
        parked.call_id = stand.call_id
        if stand.call_id is not None:
            parked.outcome = await cases.outcome(self._files.reader, stand.call_id)
        self._moved(parked, stand.state, stand.at_us)

    def _moved(self, parked: Parked, state: State, at_us: int) -> None:
        if state not in OPEN:
            parked.let_go()
            self._waiting[parked.action.principal.key] -= 1
        parked.move(state, at_us)
        if state is State.APPROVED:
            self._ready.put_nowait(parked)

    def _keep(self, parked: Parked) -> None:
        self._parked[parked.action.id] = self._by_mark[parked.mark] = parked
        if parked.state in OPEN:
            self._waiting[parked.action.principal.key] += 1

    def _found(self, approval_id: str) -> Parked:
        parked = self._parked.get(approval_id)
        if parked is None:
            raise NotFound("no such approval", cause_code="approval")
        return parked

    def _holder(self, key_id: str) -> Reviewer | None:
        return next((known for known in self._files.reviewers.all() if known.key_id == key_id), None)

    async def _restore(self, parked: Parked) -> None:
        self._keep(parked)
        if parked.state in OPEN:
            parked.release = await self._files.runs.keep(parked.action.run)
        if parked.state is State.APPROVED:
            self._ready.put_nowait(parked)
        if parked.state is State.ENDED and parked.call_id is not None:
            parked.outcome = await cases.outcome(self._files.reader, parked.call_id)

    async def tend(self) -> None:
        """Let lapse what nobody decided in time, and forget what ended long ago; a task calls this now and then."""
        now = self._files.clock.now_us()
        for parked in list(self._parked.values()):
            if parked.state is State.PENDING and now >= parked.action.expires_us:
                async with parked.turn:
                    if parked.state is State.PENDING:
                        await self._end(parked, EventType.APPROVAL_EXPIRED, {})
            elif parked.state not in OPEN and now >= parked.at_us + self._terms.replay_s * 1_000_000:
                self._forget(parked)

    def _forget(self, parked: Parked) -> None:
        del self._parked[parked.action.id]
        if self._by_mark.get(parked.mark) is parked:
            del self._by_mark[parked.mark]

    async def _keep_tending(self) -> None:
        while True:
            await asyncio.sleep(_TEND_S)
            try:
                await self.tend()
            except Unavailable:
                _LOG.warning("approvals could not be let lapse: the log is unavailable")

"""The one door: every tool call of every surface goes through ``handle``.

Read it top to bottom; each line needs the evidence the line above produced (``core/call.py``), so a stage cannot be
dropped or moved without ``mypy --strict`` saying so. ``permit_for`` is the only maker of ``Permit``.
"""

from collections.abc import Awaitable, Container, Iterable, Sequence
from typing import NoReturn

from msgspec import Struct

from gateway.core import asking, policy_input
from gateway.core.advice import Advice, Word
from gateway.core.approval import Grant, with_approval
from gateway.core.call import Answer, Call, Permit, Principal, Resolved, Resumed
from gateway.core.decision import Decision, Effect, Evaluation, Phase, as_listing, as_missing, fold, folded, in_mode
from gateway.core.errors import (
    Denied,
    GatewayError,
    InvalidArguments,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownTool,
)
from gateway.core.ports import Entry, Ports
from gateway.core.tool import ConnectorKind, Kind, Tool
from gateway.core.under_way import carried_out
from gateway.core.usage import Usage


async def handle(call: Call, ports: Ports) -> Answer:
    """Carry out one tool call, or refuse it.

    Raises:
        GatewayError: every refusal and failure. Only ``OutcomeUnknown``, ``Tainted`` and ``ToolFailed`` (but not
            ``NotSent``) mean that an effect may have happened.
    """
    principal = await _principal(call, ports)  # failing here is counted, not logged
    began = ports.pace.begin()
    try:
        async with ports.audit.open(call, principal) as entry:  # record: every path ends here
            caller = entry.entered(await ports.runs.enter(call, principal))  # nothing runs outside a run
            target = ports.catalog.resolve(caller)  # pinned definition
            permit = await permit_for(target, entry, ports)  # decide, ask people, reserve
            with permit.reservation:  # given back, unless the intent keeps it
                async with ports.limits.spend(permit) as quota:  # rate, concurrency
                    if call.continuation is not None:  # what the upstream asked for, if this call brings it
                        await asking.answered(call.continuation, quota, entry, ports)
                    intent = await entry.commit(quota)  # durable BEFORE any effect; uses the approval up
                    with carried_out(intent, entry, ports) as watch:  # whoever leaves; a kill ends it
                        async with ports.broker.lease(intent) as lease:  # credential for this call
                            await watch.look(lease)  # nothing is handed out once a kill has taken effect
                            raw = await ports.catalog.invoke(lease)
                        verified = ports.verifier.verify(raw)  # output contract first ...
                        output = await ports.redactor.redact(verified)  # ... then secrets
                        output = await asking.permitted(output, entry, ports)  # ... and what is asked of the client
                        return await entry.complete(output)  # durable BEFORE the answer
    except UnknownTool:
        await ports.pace.beat(began)  # hidden and missing at the same moment
        raise


def _principal(call: Call, ports: Ports) -> Awaitable[Principal]:
    return _parked(call.origin, ports) if isinstance(call.origin, Resumed) else ports.identity.authenticate(call)


async def _parked(origin: Resumed, ports: Ports) -> Principal:
    # A parked call is resumed as who it was parked for: the credential was checked then and may have expired since.
    principal = await ports.approvals.principal(origin)
    if not ports.identity.vouches(principal):
        raise Unauthenticated("who vouched for the caller is not trusted any more", cause_code="issuer")
    return principal


async def advise(call: Call, ports: Ports) -> Advice:
    """What policy says of what an agent is about to do itself. Nothing is executed, reserved, leased or limited.

    Decided as a call is, so that hidden and unknown are alike here, too. That it may not is an error, as for a call.

    Raises:
        GatewayError: every refusal; nothing has happened, and the agent is to do nothing.
    """
    principal = await ports.identity.authenticate(call)
    began = ports.pace.begin()
    try:
        async with ports.audit.consult(call, principal) as entry:
            caller = entry.entered(await ports.runs.enter(call, principal))
            target = ports.catalog.resolve(caller)
            stopped = await ports.kills.check(caller)
            async with ports.runs.section(caller) as section:  # read, and left as it was
                verdict = await _decide(target, section.usage, None, ports)
            entry.decided(verdict.target, verdict.decision)
            _judge(verdict, stopped)
            return await entry.advise(_word(verdict))  # durable BEFORE the answer
    except UnknownTool:
        await ports.pace.beat(began)
        raise


async def reconsider(call: Call, ports: Ports) -> None:
    """Return where policy lets this call go now, that was let go before and waits for its client; it is not made again.

    Raises:
        GatewayError: every refusal, which leaves a record; what waits is to be taken back.
    """
    try:
        principal = await ports.identity.authenticate(call)
        caller = await ports.runs.enter(call, principal)
        target = ports.catalog.resolve(caller)
        stopped = await ports.kills.check(caller)
        async with ports.runs.section(caller) as section:  # read, and left as it was
            verdict = await _decide(target, section.usage, None, ports)
        _judge(verdict, stopped)
        if not verdict.decision.passes:
            raise Denied("policy does not allow this call any more", reasons=verdict.decision.reasons)
    except GatewayError as error:
        await refuse(call, error, ports)


async def refuse(call: Call, error: GatewayError, ports: Ports) -> NoReturn:
    """Refuse a request that is no call at all (bad bytes, bad envelope): authenticated callers get a record of it.

    Raises:
        GatewayError: always; ``Unauthenticated`` where the credential is not good, otherwise ``error``.
    """
    principal = await ports.identity.authenticate(call)
    async with ports.audit.open(call, principal):
        raise error


async def listing(call: Call, ports: Ports, kinds: Container[Kind] = (Kind.TOOL,)) -> tuple[Tool, ...]:
    """What of these kinds the caller may know of, by phase=list decisions; a tool whose decision fails is hidden.

    Raises:
        Unauthenticated: no good credential.
        Killed: the caller is stopped.
        Unavailable: policy cannot be asked.
    """
    return await visible(call, ports, [tool for tool in ports.catalog.tools() if tool.kind in kinds])


async def visible(call: Call, ports: Ports, tools: Iterable[Tool]) -> tuple[Tool, ...]:
    """Those of ``tools`` that the caller may know of now; as for ``listing``. None where what is called is stopped."""
    principal = await ports.identity.authenticate(call)
    caller = await ports.runs.enter(call, principal)
    if await ports.kills.check(caller) is not None and call.tool:
        return ()
    targets = [Resolved(caller, tool, None) for tool in tools if caller.run.covers(tool.decided_fqn)]
    at_us = ports.clock.now_us()
    inputs = [policy_input.listing(target, ports.settings, at_us) for target in targets]
    decision_id = ports.clock.uuid()
    evaluation = await ports.policy.evaluate(decision_id, inputs)
    decisions = fold(decision_id, inputs, evaluation)
    return tuple(
        t.tool
        for t, d in zip(targets, decisions, strict=True)
        if in_mode(d, t.tool, observe=ports.settings.observe).passes
    )


async def permit_for(target: Resolved, entry: Entry, ports: Ports) -> Permit:
    """Decide, and hold the call's place in its run's ledger: whoever asked keeps it or gives it back.

    Raises:
        UnknownTool: no such tool, or policy hides it from this caller.
        GatewayError: the arguments' own fault, once the caller is known to see the tool.
        Denied: policy says no.
        Pending: policy asks for people, and the call now waits for them.
        Killed: operators have stopped the agent, the user, the tool, the run or everything.
        Unavailable: policy cannot be asked or its answer cannot be used, or nobody can say what is stopped.
    """
    caller = target.caller
    stopped = await ports.kills.check(caller)  # before anything is decided
    grant = await ports.approvals.grant(caller.call) if isinstance(caller.call.origin, Resumed) else None
    async with ports.runs.section(caller) as section:
        verdict = await _decide(target, section.usage, grant, ports)
        target, decision = verdict.target, verdict.decision
        entry.decided(target, decision)
        _judge(verdict, stopped)
        _carried_out_here(target)
        if grant is not None:
            _held_to(grant, target)
        reservation = section.reserve(target) if decision.passes else None
    if reservation is None:
        _check_can_wait(target, decision)
        raise await ports.approvals.park(target, decision)
    return Permit(target, decision, reservation)


class _Verdict(Struct, frozen=True):
    """What is known before a call is judged.

    Attributes:
        target: the tool, with checked arguments where the caller may know of it.
        decision: the one that rules, and is recorded: the phase=call decision where the tool may be known of and its
            arguments have no fault, otherwise the phase=list decision: may the caller know of the tool?
        fault: what is wrong with the arguments; only callers who may know of the tool hear of it.
    """

    target: Resolved
    decision: Decision
    fault: GatewayError | None


async def _decide(target: Resolved, usage: Usage, grant: Grant | None, ports: Ports) -> _Verdict:
    started = ports.clock.monotonic()
    verdict = await _verdict(target, usage, grant, ports)
    decision = verdict.decision
    ports.meter.decided(decision.effect, decision.reasons[0].id, ports.clock.monotonic() - started)
    return verdict


async def _verdict(asked: Resolved, usage: Usage, grant: Grant | None, ports: Ports) -> _Verdict:
    # First the listing alone, for tools that exist and tools that do not: hidden and unknown take the same way and end
    # here, and nothing of what they were called with has been looked at, by schema, redactor or rules.
    settings, moment = ports.settings, _Moment(ports.clock.uuid(), ports.clock.now_us())
    # Of a tool that may be known of, whose rules read nothing that differs, both answers are there already.
    met = policy_input.meeting(asked, settings)
    known = ports.policy.known(met.listing)
    listed = None if known is not None and asked.tool.listed else await _listed(asked, moment, ports)
    if listed is not None and not listed.passes:
        return _Verdict(asked, listed, None)
    target = ports.catalog.checked(asked)
    is_same = target.tool is asked.tool
    if not is_same:
        met = policy_input.meeting(target, settings)
    fault, call = await _fault(target, ports), b""
    if fault is None:
        try:
            call = met.calling(target, usage, moment.at_us, () if grant is None else grant.signatures)
        except TooLarge as error:
            fault = error
    if fault is not None:
        return _Verdict(target, listed or await _listed(asked, moment, ports), fault)
    # Again, as the bundle may be another one meanwhile, or the tool.
    known = ports.policy.known(met.listing) if is_same else None
    if known is None:
        # The call together with the listing, so that one revision says both.
        again = policy_input.listing(target, settings, moment.at_us)
        evaluation = await _evaluated(moment.id, [again, call], ports)
        listed, decision = _decided(moment.id, [again, call], evaluation, target, ports)
        if not listed.passes:
            return _Verdict(target, as_listing(listed), None)
    else:
        decision = in_mode(folded(moment.id, call, known), target.tool, observe=settings.observe)
    return _Verdict(target, decision if grant is None else with_approval(decision, grant, target), None)


class _Moment(Struct, frozen=True):
    """Of one decision: its id, and the time policy is told."""

    id: str
    at_us: int


async def _listed(target: Resolved, moment: _Moment, ports: Ports) -> Decision:
    inputs = [policy_input.listing(target, ports.settings, moment.at_us)]
    (listed,) = _decided(moment.id, inputs, await ports.policy.evaluate(moment.id, inputs), target, ports)
    # Where a list covers the name of no tool, it is denied all the same: both leave the same kind of record.
    return as_listing(listed if target.tool.listed else as_missing(listed))


def _decided(
    decision_id: str, inputs: Sequence[bytes], evaluation: Evaluation, target: Resolved, ports: Ports
) -> list[Decision]:
    observe = ports.settings.observe
    return [in_mode(said, target.tool, observe=observe) for said in fold(decision_id, inputs, evaluation)]


async def _fault(target: Resolved, ports: Ports) -> GatewayError | None:
    # What is wrong with the call itself, in the order of who finds it: its surface, the tool's schema, the redactor.
    call = target.caller.call
    fault = target.fault if call.objection is None else call.objection() or target.fault
    # An agent is never given a secret: one that has one is on its way out with it, or finds out whether it is one.
    if fault is None and await ports.redactor.holds(call.arguments.canonical):
        return InvalidArguments("an argument holds a value that this gateway keeps secret", cause_code="known_secret")
    return fault


async def _evaluated(decision_id: str, inputs: Sequence[bytes], ports: Ports) -> Evaluation:
    try:
        return await ports.policy.evaluate(decision_id, inputs)
    except Unavailable:
        # A call document that hangs or kills the engine takes the listing's answer along. That would show a hidden tool
        # whose rules can be made to hang, so listing is asked alone; where that fails, too, nobody gets an answer.
        alone = await ports.policy.evaluate(decision_id, inputs[:1])
    faults = (*alone.faults, "engine.unavailable")
    return Evaluation((*alone.results, None), faults, alone.revision, alone.engine)


def _judge(verdict: _Verdict, stopped: GatewayError | None) -> None:
    # What is known of the call alone is said only to those who may know of the tool.
    target, decision = verdict.target, verdict.decision
    is_of_call = decision.phase is Phase.CALL
    if not is_of_call:
        _usable(decision)
    if not (target.tool.listed and (is_of_call or decision.passes)):
        raise UnknownTool(f"no such {target.tool.kind}")
    if stopped is not None:
        raise stopped
    if verdict.fault is not None:
        raise verdict.fault
    _usable(decision)
    if not decision.passes and decision.effect is not Effect.NEEDS_APPROVAL:
        raise Denied("policy does not allow this call", reasons=decision.reasons)


def _word(verdict: _Verdict) -> Word:
    tool, decision = verdict.target.tool, verdict.decision
    if tool.connector is not ConnectorKind.HOOK:
        raise Denied("this goes through the gateway: call it there", cause_code="not_a_hook")
    bound = decision.obligations
    if bound.timeout_s is not None or bound.per_minute is not None:
        # What policy lets go only under a condition does not go where nobody sees to it.
        raise Denied(
            "policy binds this to what only the gateway can see to", reasons=decision.reasons, cause_code="unbound"
        )
    if decision.passes:
        return Word.ALLOW
    if tool.binding.get("approval") == Word.ASK:
        return Word.ASK
    raise Denied(
        "policy wants people's approval of this, which only a call of the gateway's own tools can wait for",
        reasons=decision.reasons,
        cause_code="approval_needed",
    )


def _carried_out_here(target: Resolved) -> None:
    # No surface lets such a name in; if one did, the door would stay shut all the same.
    if target.tool.connector is ConnectorKind.HOOK:
        raise UnknownTool(f"no such {target.tool.kind}")


def _check_can_wait(target: Resolved, decision: Decision) -> None:
    # Whoever is to be told of changes is there now: a person's word later on would find nobody.
    if target.tool.kind is Kind.SUBSCRIPTION:
        raise Denied("a subscription waits for nobody", reasons=decision.reasons, cause_code="approval_needed")


def _held_to(grant: Grant, target: Resolved) -> None:
    # What people signed is this action and no other, also where policy would now let another one go alone.
    if not grant.action.is_of(target):
        raise Denied("the tool is not the one that was approved any more", cause_code="approval_stale")


def _usable(decision: Decision) -> None:
    if decision.faulty:
        raise Unavailable(
            "policy could not decide", reasons=decision.reasons, retry_after=1, cause_code="policy_unavailable"
        )

"""The Approvals port in memory: a call that needs people is parked; tests say what people said."""

from dataclasses import dataclass, field

from anyio import sleep_forever

from gateway.core.approval import Action, Grant, Signature
from gateway.core.call import Answer, Call, Principal, Resolved, Resumed
from gateway.core.decision import Decision
from gateway.core.errors import Denied, GatewayError, NotFound, Pending
from tests.fakes.journal import Journal


@dataclass(slots=True)
class FakeApprovals:
    """Parks calls by their digest; ``sign`` approves one, ``outcomes`` is what came of one."""

    journal: Journal
    actions: dict[str, Action] = field(default_factory=dict)
    signatures: dict[str, tuple[Signature, ...]] = field(default_factory=dict)
    outcomes: dict[str, Answer | GatewayError] = field(default_factory=dict)
    settled: list[tuple[str, GatewayError | None]] = field(default_factory=list)

    def sign(self, approval_id: str, *words: Signature) -> Resumed:
        """People have signed: the origin of a call that carries it out."""
        self.signatures[approval_id] = words
        return Resumed(approval_id)

    async def principal(self, origin: Resumed) -> Principal:
        """Who was parked."""
        await self.journal.reach("approvals.principal")
        return self._signed(origin.approval_id).action.principal

    async def grant(self, call: Call) -> Grant | None:
        """The action of a resumed call."""
        return self._signed(call.origin.approval_id) if isinstance(call.origin, Resumed) else None

    async def park(self, target: Resolved, decision: Decision) -> GatewayError:
        """Keep the call, or find it kept."""
        await self.journal.reach("approvals.park")
        if isinstance(target.call.origin, Resumed):
            return Denied("stale", cause_code="approval_stale")
        found = next((action for action in self.actions.values() if action.is_of(target)), None)
        action = found or _action(f"approval-{len(self.actions)}", target, decision)
        self.actions[action.id] = action
        return Pending("waiting", action.id, url="http://gateway.test", retry_after=5, reasons=decision.reasons)

    async def outcome(self, approval_id: str, patience_s: float) -> Answer:
        """What a test put there."""
        found = self.outcomes.get(approval_id)
        if isinstance(found, Answer):
            return found
        raise found or Pending("waiting", approval_id, url="http://gateway.test", retry_after=5)

    async def check_own(self, principal: Principal, approval_id: str) -> Action:
        """Only who was parked."""
        if approval_id not in self.actions or self.actions[approval_id].principal.key != principal.key:
            raise NotFound("no such approval")
        return self.actions[approval_id]

    async def approved(self) -> Action:
        """Nothing by itself: tests resume calls."""
        await sleep_forever()
        raise AssertionError

    async def settle(self, approval_id: str, error: GatewayError | None) -> bool:
        """Keep it."""
        self.settled.append((approval_id, error))
        return False

    async def ping(self) -> None:
        """Reach the step ``approvals.ping``."""
        await self.journal.reach("approvals.ping")

    def _signed(self, approval_id: str) -> Grant:
        if approval_id not in self.signatures:
            raise NotFound("the approval cannot be used")
        return Grant(self.actions[approval_id], self.signatures[approval_id])


def _action(name: str, target: Resolved, decision: Decision) -> Action:
    return Action(
        id=name,
        origin="test",
        nonce="00",
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
        requested_us=target.call.at_us,
        expires_us=target.call.at_us + 3_600_000_000,
        reported=target.call.reported,
    )

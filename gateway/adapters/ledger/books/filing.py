"""Writes what happens to approvals: a request, a reviewer's word, an end without use."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.adapters.ledger.actiondoc import action_payload, requested_body
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.core.approval import Action, Signature, State
from gateway.core.call import Resolved
from gateway.core.canonical import encode
from gateway.core.decision import Decision
from gateway.core.desk import Ballot
from gateway.core.errors import Conflict, Unavailable
from gateway.core.ports import Clock
from gateway.core.records import SYSTEM, Draft, EventType, Payload, Role
from gateway.core.signing import statement_hash

_NONCE_SIZE = 16


class OutOfStep(Conflict):
    """The log refused the record: an approval stands otherwise there than was thought here."""


@dataclass(frozen=True, slots=True)
class Filing:
    """The writing side of approvals.

    Attributes:
        origin: the log's name in what reviewers sign.
        ttl_s: longest an approval waits and may be used, seconds.
    """

    ledger: Ledger
    keys: LogKeys
    clock: Clock
    scribe: Scribe
    origin: str
    ttl_s: int

    def mark(self, target: Resolved) -> str:
        """Keyed hash of what an action is: identical calls have the same."""
        who, run = target.caller.principal, target.caller.run.id
        parts = [who.key, run, target.tool.fqn, target.tool.digest, target.call.arguments.digest, *who.delegation]
        return self.keys.mark("action", encode(parts).decode())

    async def request(self, mark: str, target: Resolved, decision: Decision) -> Action:
        """The call as an action that waits, durably.

        Raises:
            Unavailable: the log cannot be written.
            OutOfStep: one like it waits already.
        """
        action = self._action(target, decision)
        subject = Subject(self.scribe.actor(action.principal), action.run, action.call_id)
        body = requested_body(action, mark)
        await self._append(self.scribe.draft(EventType.APPROVAL_REQUESTED, subject, body, action_payload(action)))
        return action

    async def decide(self, action: Action, ballot: Ballot, word: Signature, state: State) -> int:
        """A reviewer's word and the state it leads to, durably; when, microseconds.

        Raises:
            Unavailable: the log cannot be written.
            OutOfStep: it does not wait any more.
        """
        body = {
            "key": word.key_id,
            "person": self.keys.mark("person", word.person),
            "signature": ballot.signature.hex(),
            "state": state,
            "statement": statement_hash(action.statement(), ballot.reason).hex(),
            "verdict": word.verdict,
        }
        return await self._said(action, EventType.APPROVAL_DECIDED, body, ballot.reason)

    async def end(self, action: Action, kind: EventType, body: Mapping[str, Any], why: str | None = None) -> int:
        """The end of an approval that is not used, durably; when, microseconds.

        Raises:
            Unavailable: the log cannot be written.
            OutOfStep: it has moved meanwhile.
        """
        return await self._said(action, kind, body, why)

    async def _said(self, action: Action, kind: EventType, body: Mapping[str, Any], reason: str | None) -> int:
        payloads = [] if reason is None else [Payload(Role.REASONS, encode({"reason": reason}))]
        said = {"approval": action.id, "tool": action.tool, **body}
        # Who said it stands in the body: reviewers are nobody the pseudonyms of callers know.
        draft = self.scribe.draft(kind, Subject(SYSTEM, action.run, action.call_id), said, *payloads)
        await self._append(draft)
        return draft.at_us

    async def _append(self, draft: Draft) -> None:
        try:
            await self.ledger.append([draft])
        except Unavailable as error:
            if error.cause_code == "ledger_record":
                raise OutOfStep("the approval has moved meanwhile", cause_code="approval_state") from error
            raise

    def _action(self, target: Resolved, decision: Decision) -> Action:
        now = self.clock.now_us()
        asked = [need.ttl_s for need in decision.requirements if need.ttl_s is not None]
        ends = now + min([self.ttl_s, *asked]) * 1_000_000
        return Action(
            id=self.clock.uuid(),
            origin=self.origin,
            nonce=self.clock.random(_NONCE_SIZE).hex(),
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
            reported=target.call.reported,
        )

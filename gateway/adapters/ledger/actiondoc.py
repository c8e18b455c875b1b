"""A parked call as its ``approval.requested`` record holds it: marks and numbers in the leaf, the action sealed."""

from typing import Any

import msgspec

from gateway.core import canonical
from gateway.core.approval import Action
from gateway.core.call import Channel, Principal, Reported
from gateway.core.canonical import encode
from gateway.core.decision import Requirement
from gateway.core.errors import Reason
from gateway.core.records import MAX_REASONS, Payload, Role, identifier
from gateway.core.signing import statement_hash


class _Who(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuer: str
    user: str
    agent: str | None
    groups: tuple[str, ...]
    scopes: tuple[str, ...]
    auth_method: str
    jti: str
    expires_us: int
    run: str | None
    delegation: tuple[str, ...] = ()


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    origin: str
    nonce: str
    call_id: str
    principal: _Who
    run: str
    channel: Channel
    tool: str
    definition: str
    arguments: msgspec.Raw
    requirements: tuple[Requirement, ...]
    reasons: tuple[Reason, ...]
    revision: str
    requested_us: int
    expires_us: int
    reported: Reported = Reported()


def action_payload(action: Action) -> Payload:
    """The action, to be sealed."""
    who = action.principal
    document = _Document(
        id=action.id,
        origin=action.origin,
        nonce=action.nonce,
        call_id=action.call_id,
        principal=_Who(
            issuer=who.issuer,
            user=who.user,
            agent=who.agent,
            groups=tuple(sorted(who.groups)),
            scopes=tuple(sorted(who.scopes)),
            auth_method=who.auth_method,
            jti=who.jti,
            expires_us=who.expires_us,
            run=who.run,
            delegation=who.delegation,
        ),
        run=action.run,
        channel=action.channel,
        tool=action.tool,
        definition=action.definition,
        arguments=msgspec.Raw(action.arguments.canonical),
        requirements=action.requirements,
        reasons=action.reasons,
        revision=action.revision,
        requested_us=action.requested_us,
        expires_us=action.expires_us,
        reported=action.reported,
    )
    return Payload(Role.ACTION, encode(document))


def requested_body(action: Action, mark: str) -> dict[str, Any]:
    """Leaf of an ``approval.requested``; ``mark`` is the keyed hash of what the action is."""
    return {
        "approval": action.id,
        "action": mark,
        "definition": action.definition,
        "expires_us": action.expires_us,
        "persons": max((need.quorum for need in action.requirements), default=1),
        "requirements": [identifier(need.id) for need in action.requirements[:MAX_REASONS]],
        "revision": identifier(action.revision),
        "statement": statement_hash(action.statement()).hex(),
        "tool": action.tool,
    }


def read_action(content: bytes) -> Action:
    """The action from its opened payload.

    Raises:
        msgspec.DecodeError, GatewayError: not an action.
    """
    stored = msgspec.json.decode(content, type=_Document)
    who = stored.principal
    principal = Principal(
        issuer=who.issuer,
        user=who.user,
        agent=who.agent,
        groups=frozenset(who.groups),
        scopes=frozenset(who.scopes),
        auth_method=who.auth_method,
        jti=who.jti,
        expires_us=who.expires_us,
        run=who.run,
        delegation=who.delegation,
    )
    return Action(
        id=stored.id,
        origin=stored.origin,
        nonce=stored.nonce,
        call_id=stored.call_id,
        principal=principal,
        run=stored.run,
        channel=stored.channel,
        tool=stored.tool,
        definition=stored.definition,
        arguments=canonical.arguments(canonical.parse(bytes(stored.arguments))),
        requirements=stored.requirements,
        reasons=stored.reasons,
        revision=stored.revision,
        requested_us=stored.requested_us,
        expires_us=stored.expires_us,
        reported=stored.reported,
    )

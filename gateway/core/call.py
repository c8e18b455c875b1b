"""The evidence chain: each stage of the pipeline takes what the stage before it produced.

``Call -> Caller -> Resolved -> Permit -> Quota -> Intent -> Lease -> Raw -> Verified -> Redacted -> Answer``

Each link holds the one before it, so there is no way to hand a stage one call's permit with another call's arguments,
and ``mypy --strict`` refuses a pipeline that drops or moves a stage. ``tests/arch`` says which module makes which link.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from gateway.core.canonical import Arguments
from gateway.core.decision import Decision
from gateway.core.errors import GatewayError
from gateway.core.flow import Flow
from gateway.core.following import Subscription
from gateway.core.mcpwire.asking import Question
from gateway.core.tool import EffectClass, Tool
from gateway.core.usage import Reservation


class Channel(StrEnum):
    """The surface a call came in by."""

    MCP = "mcp"
    REST = "rest"


class RunKind(StrEnum):
    """How a run came to be: a person opened it with their own token, or a plain client's session implied it."""

    OPENED = "opened"
    IMPLICIT = "implicit"


@dataclass(frozen=True)  # without slots, so that its digest is made once
class Live:
    """A call whose caller is on the line. The token is never stored, logged or forwarded."""

    token: str = field(repr=False)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the token, by which it is known where it is not kept."""
        return sha256(self.token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Resumed:
    """A parked call whose approval was given. Who calls and what comes from what was parked, never from a request."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class Reported:
    """What an agent says of its own call, besides the arguments. Unproven: policy may only ever get stricter by it.

    Attributes:
        confidence_pct: how sure it is that the call is right, 0..100; None = it did not say.
        score_pct: how risky it thinks the call is, 0..100; None = it did not say.
        evidence: ids of earlier calls that are to support this one; which of them do is the gateway's to find out.
    """

    confidence_pct: int | None = None
    score_pct: int | None = None
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Continuation:
    """A call that is made again because its upstream asked for input first.

    Attributes:
        state: what the upstream gave along, sent back as it is; None where it gave nothing.
        questions: what it asked, by its own names.
        answers: the client's answers, by the same names; unproven words, checked before they leave.
    """

    state: str | None
    questions: Mapping[str, Question]
    answers: Mapping[str, Arguments]


class Call(Struct, frozen=True):
    """One request for a tool, as it arrived; nothing in it is trusted.

    Attributes:
        id: UUIDv7 made by the gateway.
        at_us: arrival, microseconds since the epoch.
        origin: the credential it came with, or the approval it was parked under.
        channel: the surface.
        tool: ``server.tool`` as asked for.
        arguments: parsed strictly, not yet checked against any schema.
        run: run named by header or ``_meta``, if any.
        session: ``Mcp-Session-Id``, if any.
        client: what the client says of itself (name, version, protocol); hints only.
        reported: what the agent says of this call.
        objection: says what its surface finds wrong with it, or None. Asked only once the caller is known to see the
            tool: what looking takes, and what is found, would tell of one that is hidden.
        flow: the line to its caller while it is carried out; None where there is none.
        continuation: what it brings for an upstream that asked for it; None = it is no such call.
        subscription: who is told of changes from then on, where the call begins or ends a subscription.
    """

    id: str
    at_us: int
    origin: Live | Resumed
    channel: Channel
    tool: str
    arguments: Arguments
    run: str | None = None
    session: str | None = None
    client: Mapping[str, str] = msgspec.field(default_factory=dict)
    reported: Reported = Reported()
    objection: Callable[[], GatewayError | None] | None = None
    flow: Flow | None = None
    continuation: Continuation | None = None
    subscription: Subscription | None = None

    def __repr__(self) -> str:  # what its surface knows of it holds the request's header fields
        return f"Call(id={self.id!r}, origin={self.origin!r}, tool={self.tool!r}, run={self.run!r})"


@dataclass(frozen=True)  # without slots, so that its name is made once
class Principal:
    """Who is calling, from a verified credential.

    Attributes:
        issuer: who vouches.
        user: the person or system the agent acts for.
        agent: the agent's id; None where a person calls with their own token.
        groups: groups of the user.
        scopes: what the credential may do at the gateway: ``tools``, ``runs``, ``audit``, ``admin``.
        auth_method: ``local``, ``oidc``, or ``unix_socket`` for the local operator.
        jti: id of the credential.
        expires_us: end of the credential, microseconds.
        run: run this credential is bound to, where it is a run token.
        delegation: who acts, the present actor first, where the issuer says so (RFC 8693 ``act``); empty = it does not.
    """

    issuer: str
    user: str
    agent: str | None
    groups: frozenset[str]
    scopes: frozenset[str]
    auth_method: str
    jti: str
    expires_us: int
    run: str | None = None
    delegation: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Stable name of (issuer, user, agent): what limits, sessions and caches are kept by."""
        return f"{self.issuer}|{self.user}|{self.agent or ''}"


@dataclass(frozen=True, slots=True)
class Run:
    """The run a call belongs to; nothing runs outside one.

    Attributes:
        id: UUIDv7.
        kind: opened by a person, or implied by a session.
        principal_key: ``Principal.key`` of the agent that may use it.
        opened_by: user who opened it; their goal is trusted only when ``kind`` is ``opened``.
        goal: what the person asked for; None for an implicit run.
        scope: tool patterns the run is limited to; empty = no further limit.
        budget: most calls the run may make, by name (``calls``); empty = no budget.
        plan: tools the person expects, where they committed a plan.
        started_us: start, microseconds.
        expires_us: end, microseconds.
    """

    id: str
    kind: RunKind
    principal_key: str
    opened_by: str
    goal: str | None
    scope: tuple[str, ...]
    budget: Mapping[str, int]
    plan: tuple[str, ...]
    started_us: int
    expires_us: int

    def covers(self, fqn: str) -> bool:
        """Whether the run's scope admits the tool ``server.tool`` (patterns as in ``erp.*``)."""
        return not self.scope or any(fnmatchcase(fqn, pattern) for pattern in self.scope)


@dataclass(frozen=True, slots=True)
class Proof:
    """An earlier call of the same run that was carried out, and of which the tool did not say that it failed."""

    call_id: str
    tool: str


class Caller(Struct, frozen=True):
    """A call with its verified principal, inside a run. Made by the run registry only.

    Attributes:
        proofs: those of the calls it names as evidence that the log bears out.
    """

    call: Call
    principal: Principal
    run: Run
    proofs: tuple[Proof, ...] = ()


class Resolved(Struct, frozen=True):
    """A caller with the pinned tool it asked for. Made by the catalogue only.

    A tool that does not exist resolves to an unlisted one, and nothing of the arguments is looked at before policy has
    said whether this caller may know of the tool at all: until then all names cost the same.

    Attributes:
        fault: what is wrong with the arguments, once they were checked, or None.
        amounts: what the tool's measures find in them, by measure; empty where there is a fault.
    """

    caller: Caller
    tool: Tool
    fault: GatewayError | None
    amounts: Mapping[str, int] = msgspec.field(default_factory=dict)

    @property
    def call(self) -> Call:
        """The call that was resolved."""
        return self.caller.call


class Permit(Struct, frozen=True):
    """Policy allows exactly this call. Made by ``pipeline.permit_for`` only."""

    target: Resolved
    decision: Decision
    reservation: Reservation


class Quota(Struct, frozen=True):
    """A permitted call that holds its place under every limit. Made by the limiter only."""

    permit: Permit


class Intent(Struct, frozen=True):
    """The durable word that this call is about to leave. Made by the ledger's commit only."""

    quota: Quota
    record_id: str

    @property
    def tool(self) -> Tool:
        """The tool about to be called."""
        return self.quota.permit.target.tool

    @property
    def call(self) -> Call:
        """The call about to be made."""
        return self.quota.permit.target.caller.call

    @property
    def approval_id(self) -> str | None:
        """The approval this call uses up, or None where it needs none."""
        return self.call.origin.approval_id if isinstance(self.call.origin, Resumed) else None

    @property
    def decision(self) -> Decision:
        """The decision that allows it."""
        return self.quota.permit.decision

    @property
    def timeout_s(self) -> float:
        """Longest the connector may take, seconds: the stricter of catalogue and policy."""
        permit = self.quota.permit
        own, asked = permit.target.tool.limits.timeout_s, permit.decision.obligations.timeout_s
        return own if asked is None else min(own, asked)

    @property
    def shielded(self) -> bool:
        """Whether the call goes on when its caller leaves: everything but a read does."""
        return self.quota.permit.target.tool.effect is not EffectClass.READ


@dataclass(frozen=True, slots=True)
class Login:
    """A user of an upstream that exists for one call; the password is known to the redactor.

    Attributes:
        chain: where the user is a client certificate: it and its issuers in PEM; then the password is its private key,
            PKCS 8 in base64, and the user its common name. None = there is no certificate.
    """

    user: str
    password: str = field(repr=False)
    chain: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Handout:
    """A credential as the process of one call finds it.

    Attributes:
        variable: environment variable that holds the text, or the path of a file that does.
        text: the credential; what is secret of it is known to the redactor.
        in_file: whether the variable holds a path.
    """

    variable: str
    text: str = field(repr=False)
    in_file: bool = False


class Lease(Struct, frozen=True):
    """An intent with the credential for this one call. Made by the broker only.

    Attributes:
        intent: what it was minted for.
        headers: header fields to send upstream; the values are known to the redactor.
        login: user minted for this call, where the tool's credential is a lease template.
        is_passing: the header fields are this caller's alone and end with the call, so that nothing that was opened
            with them is kept.
        handout: what a process of this call alone is started with.
    """

    intent: Intent
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    login: Login | None = None
    is_passing: bool = False
    handout: Handout | None = None

    def __repr__(self) -> str:  # without the header fields, which are secret
        return f"Lease(intent={self.intent!r}, login={self.login!r}, handout={self.handout!r})"


class Raw(Struct, frozen=True):
    """What a connector brought back, unchecked.

    Attributes:
        lease: the call it answers.
        body: JSON text of a tool result object: ``content`` (list), optional ``structuredContent`` and ``isError``.
        value: the same, parsed.
    """

    lease: Lease
    body: bytes
    value: dict[str, Any]


class Verified(Struct, frozen=True):
    """A result that keeps the tool's output contract. Made by the verifier only."""

    raw: Raw


class Redacted(Struct, frozen=True):
    """A verified result without secrets. Made by the redactor only.

    Attributes:
        intent: the call it answers.
        body: JSON text of the result object, the upstream's own bytes where nothing was redacted.
        value: the same, parsed.
        counts: how many values were taken out, by rule.
    """

    intent: Intent
    body: bytes
    value: dict[str, Any]
    counts: Mapping[str, int]


class Answer(Struct, frozen=True):
    """What the caller gets. Made by the entry's durable completion only.

    Attributes:
        call_id: for ``ostiary explain``.
        body: JSON text of the result object.
        is_error: whether the tool itself said that it failed.
        redactions: how many values were taken out.
        replayed: whether this is the recorded outcome of an earlier execution, told again: nothing was executed now.
    """

    call_id: str
    run_id: str
    body: bytes
    is_error: bool
    redactions: int
    replayed: bool = False

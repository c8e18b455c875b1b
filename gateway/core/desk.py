"""What the surfaces need besides the pipeline: opening runs, issuing run tokens, reading the log, being well.

Nothing here reaches a tool. ``app.py`` builds the one ``Desk`` beside the one ``Ports``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.core.api_keys import ApiKeyDesk
from gateway.core.approval import Action, Reviewer, Signature, State, Verdict
from gateway.core.bundle import PolicyDesk
from gateway.core.call import Principal, Run
from gateway.core.connections import ConnectionDesk, NoConnections
from gateway.core.custody import CustodyDesk, Views
from gateway.core.extract import Depth, Extract
from gateway.core.inquiry import Query, Searches
from gateway.core.kills import KillDesk
from gateway.core.log_keys import KeyDesk
from gateway.core.pinning import PinDesk
from gateway.core.rotation import RotationDesk
from gateway.core.snapshots import SnapshotDesk
from gateway.core.tiles import Tile
from gateway.core.witnessing import WitnessDesk


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a person asks for when they open a run.

    Attributes:
        goal: the task in the person's words; trusted, because their own token opened the run.
        agent: id of the agent that may work in the run.
        scope: tool patterns (``erp.*``) the run is limited to; empty = no further limit.
        budget: upper bounds by name; ``calls`` = most calls.
        plan: tools the person expects to be used.
        ttl_s: how long the run may last, seconds.
        until_us: the end of the credential it is opened with, microseconds; None = that has none.
    """

    goal: str
    agent: str
    scope: tuple[str, ...] = ()
    budget: Mapping[str, int] = field(default_factory=dict)
    plan: tuple[str, ...] = ()
    ttl_s: int = 3600
    until_us: int | None = None

    def end_us(self, now_us: int) -> int:
        """When a run that begins now ends."""
        asked_us = now_us + self.ttl_s * 1_000_000
        return asked_us if self.until_us is None else min(asked_us, self.until_us)


class RunDesk(Protocol):
    """Opens and closes runs. Closed: what is not durable did not happen."""

    async def start(self, person: Principal, request: RunRequest) -> Run:
        """Record ``run.started`` durably and return the run.

        Raises:
            Unavailable: the log cannot be written.
        """

    async def show(self, run_id: str) -> Run | None:
        """The run, or None where there is none."""

    async def end(self, run_id: str, reason: str) -> None:
        """Record ``run.ended{count, reason}``; a run that has ended stays so.

        Raises:
            NotFound: no such run.
        """


class TokenIssuer(Protocol):
    """The local issuer of bearer tokens (JWT, ``typ: at+jwt``, Ed25519)."""

    def issue(self, principal: Principal) -> str:
        """A signed token that authenticates as ``principal`` until ``expires_us``."""


class Changes(Protocol):
    """Records what administrators change. Closed: a change that cannot be recorded is not made."""

    async def record(self, by: Principal, action: str, details: Mapping[str, Any]) -> None:
        """Write ``admin.change`` durably, before the change takes effect; ``details`` are sealed.

        Args:
            by: who changes something.
            action: an enumeration, e.g. ``token.issued``.
            details: what exactly, as JSON values; no secrets.

        Raises:
            Unavailable: the log cannot be written.
        """


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of the log.

    Attributes:
        index: place in the log, from 0.
        leaf: the stored bytes; what the Merkle tree commits to.
        body: the leaf, decoded.
    """

    index: int
    leaf: bytes
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded decision, with what was sealed beside it.

    Attributes:
        record: the ``decision`` record.
        said: its ``reasons`` payload, or None where its key was destroyed.
        document: the input that was decided on; None where it was not kept whole or its key was destroyed.
    """

    record: LogRecord
    said: Mapping[str, Any] | None
    document: bytes | None


Ping = Callable[[], Awaitable[None]]


class AuditReader(Protocol):
    """Reads the log. Reading never changes it."""

    async def search(self, query: Query) -> tuple[LogRecord, ...]:
        """Matching records in log order."""

    async def decisions(self, query: Query) -> tuple[Recorded, ...]:
        """Matching ``decision`` records in log order, with what policy read and said."""

    async def payload(self, call_id: str, role: str) -> Any:
        """A sealed payload, opened and decoded: ``role`` is ``request``, ``reasons``, ``error`` or ``result``.

        Returns None where there is none or where its key was destroyed.
        """


class LogTree(Protocol):
    """The log's Merkle tree, for whoever checks it. Nothing it says has to be believed: a checkpoint signs for all."""

    async def checkpoint(self) -> str:
        """The newest signed checkpoint (C2SP signed note).

        Raises:
            NotFound: nothing was logged yet.
        """

    async def tile(self, tile: Tile) -> bytes:
        """Hashes of a tile, or the entries of a bundle.

        Raises:
            NotFound: the tree is not so large.
        """

    async def prove(self, index: int, under: str | None = None) -> str:
        """The ``.tlog-proof`` of a record; the record is its extra data.

        ``under``: a checkpoint of the log, with cosignatures, up to which it is where the record stands below that;
        otherwise it is up to the newest one.

        Raises:
            NotFound: no such record.
        """

    async def extend(self, old: int, new: int | None) -> tuple[int, Sequence[bytes]]:
        """Size of the newer tree (the newest where None) and the proof that the tree of ``old`` records begins it.

        Raises:
            NotFound: the log has no trees of these sizes.
        """


class LogExport(Protocol):
    """Takes records out of the log in a form that strangers can check. Reading never changes it."""

    async def page(self, query: Query, depth: Depth) -> Extract:
        """Matching records in log order, as many as a page holds; ``query.after`` goes on.

        Raises:
            NotFound: nothing was logged yet, or the log is smaller than ``depth.size``.
        """


@dataclass(frozen=True, slots=True)
class Dossier:
    """An approval as people see it.

    Attributes:
        signatures: who has signed so far.
        missing: how many persons' signatures each requirement lacks, in their order.
        why: why it was rejected, lapsed or could not be used.
        call_id: the call it was used for, or None.
    """

    action: Action
    state: State
    signatures: tuple[Signature, ...]
    missing: tuple[int, ...]
    why: str | None
    call_id: str | None


@dataclass(frozen=True, slots=True)
class Ballot:
    """A reviewer's signed word on an approval.

    Attributes:
        key_id: the enrolled key.
        signature: Ed25519, over ``signing.approval_message``.
        reason: for the agent, where the word is a rejection.
    """

    verdict: Verdict
    key_id: str
    signature: bytes
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A key to be enrolled.

    Attributes:
        public: raw Ed25519 public key, 32 bytes.
        person: who holds it.
        accounts: (issuer, user) of the person; they approve no call made in their own name.
        nonce: hex, chosen by who asks.
        signed_by: id of an enrolled key.
        signature: that key's, over ``signing.enrolment_message``.
    """

    public: bytes
    person: str
    roles: tuple[str, ...]
    accounts: tuple[tuple[str, str], ...]
    nonce: str
    signed_by: str | None = None
    signature: bytes | None = None


class ApprovalDesk(Protocol):
    """What people do with parked calls. Closed: a word that cannot be recorded was not said."""

    async def waiting(self, limit: int) -> tuple[tuple[Dossier, ...], int]:
        """The oldest approvals that wait for people, at most ``limit``, and how many wait altogether."""

    async def dossier(self, approval_id: str) -> Dossier:
        """One approval.

        Raises:
            NotFound: no such approval, or it ended too long ago.
        """

    async def decide(self, approval_id: str, ballot: Ballot) -> Dossier:
        """Record a reviewer's word; the last signature needed lets the call be carried out.

        Raises:
            NotFound: no such approval.
            InvalidArguments: an approval with a reason.
            Conflict: it does not wait any more, or the person has said so already.
            Forbidden: the key is not enrolled, the signature is of something else, the person has no role that counts,
                or they would approve their own call.
        """


@dataclass(frozen=True, slots=True)
class LiveLease:
    """A credential that was minted for a call and is in use.

    Attributes:
        template: lease template.
        since_us: when it was minted.
    """

    template: str
    run: str | None
    call: str | None
    agent: str | None
    user: str | None
    tool: str | None
    since_us: int


@dataclass(frozen=True, slots=True)
class Whose:
    """Which credentials are meant: all given members must match; none given = every one."""

    agent: str | None = None
    user: str | None = None
    tool: str | None = None
    run: str | None = None

    def covers(self, lease: LiveLease) -> bool:
        """Whether ``lease`` is meant."""
        pairs = (
            (self.agent, lease.agent),
            (self.user, lease.user),
            (self.tool, lease.tool),
            (self.run, lease.run),
        )
        return all(wanted is None or wanted == given for wanted, given in pairs)


class LeaseDesk(Protocol):
    """The minted credentials in use."""

    def live(self) -> tuple[LiveLease, ...]:
        """Those in use at this moment, oldest first."""

    async def revoke(self, whose: Whose) -> tuple[int, int]:
        """End those that are meant, now, whatever their calls are doing: (ended, could not be ended yet).

        What could not be ended yet is tried again until it is.
        """


class ReviewerDesk(Protocol):
    """The keys that may approve.

    Attributes:
        origin: the log's name in what they sign.
    """

    origin: str

    def all(self) -> tuple[Reviewer, ...]:
        """Every key that was ever enrolled, revoked ones too."""

    async def enrol(self, by: Principal, wish: Enrolment) -> Reviewer:
        """Enrol a key, durably. The first needs no signature.

        Raises:
            Conflict: this key was enrolled before.
            Forbidden: no enrolled key has signed exactly this.
            InvalidArguments: not a key.
        """

    async def revoke(self, by: Principal, name: str) -> Reviewer:
        """Let a key count no more, from now on.

        Raises:
            NotFound: it was never enrolled.
            Conflict: it is revoked.
        """


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything the surfaces may use besides the pipeline.

    Attributes:
        pings: by part name, the readiness check of each part the gateway cannot do without; raises ``Unavailable``.
        upstreams: by server name, the same for each upstream; one that is down does not make the gateway unready.
        metrics: the metrics page as (content type, text).
        external_url: where callers reach the gateway, no trailing slash; never taken from the Host header.
        snapshots: the states that agents keep of their runs.
        pins: which tools are approved, and which wait for it.
        foreign_issuers: by their name in the settings, whether the keys of each are at hand; as for upstreams.
        connections: accounts that persons have at other services.
        state_key: seals what clients keep between two requests, 32 bytes; empty = each process has one of its own.
    """

    runs: RunDesk
    issuer: TokenIssuer
    reader: AuditReader
    tree: LogTree
    export: LogExport
    searches: Searches
    changes: Changes
    approvals: ApprovalDesk
    reviewers: ReviewerDesk
    api_keys: ApiKeyDesk
    leases: LeaseDesk
    kills: KillDesk
    custody: CustodyDesk
    keys: KeyDesk
    rotations: RotationDesk
    witnesses: WitnessDesk
    views: Views
    policy: PolicyDesk
    pings: Mapping[str, Ping]
    upstreams: Mapping[str, Ping]
    metrics: Callable[[], tuple[str, bytes]]
    external_url: str
    snapshots: SnapshotDesk
    pins: PinDesk
    foreign_issuers: Mapping[str, Ping] = field(default_factory=dict)
    connections: ConnectionDesk = field(default_factory=NoConnections)
    state_key: bytes = field(default=b"", repr=False)

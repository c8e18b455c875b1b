"""The parts that share the log: the ledger and all that is kept in it, opened together."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from gateway.adapters.ledger.books import rotations
from gateway.adapters.ledger.books.activations import Activations
from gateway.adapters.ledger.books.api_keys import ApiKeyRegistry
from gateway.adapters.ledger.books.approvals import ApprovalRegistry, Archive, Terms
from gateway.adapters.ledger.books.changes import ChangeLog
from gateway.adapters.ledger.books.connections import ConnectionLog
from gateway.adapters.ledger.books.erasing import Custodian
from gateway.adapters.ledger.books.kills import KillRegistry
from gateway.adapters.ledger.books.leases import SignedLeaseJournal
from gateway.adapters.ledger.books.patrol import together
from gateway.adapters.ledger.books.pins import PinRegistry
from gateway.adapters.ledger.books.retention import Retention
from gateway.adapters.ledger.books.reviewers import ReviewerRegistry
from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms, Others, Overlap
from gateway.adapters.ledger.books.runs import RunRegistry
from gateway.adapters.ledger.books.searches import SearchLog
from gateway.adapters.ledger.books.snapshots import Snapshots
from gateway.adapters.ledger.books.viewing import ViewLog
from gateway.adapters.ledger.books.witnessing import Log, Rhythm, Witnessing
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.entry import Clean
from gateway.adapters.ledger.exporting import LogExport
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.signed_log import SignedLog
from gateway.adapters.ledger.storage.site import Site
from gateway.adapters.ledger.tree import LogTree
from gateway.adapters.witnesses import HttpWitness
from gateway.core.cosigning import CosignerKey, Witness
from gateway.core.known import KnownValues
from gateway.core.ports import Clock, Meter
from gateway.core.witnessing import WitnessMeter
from gateway.parts import acquainting, joining, stores, unlocking
from gateway.settings import GatewaySettings

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Books:
    """The open parts."""

    log: SignedLog
    runs: RunRegistry
    reader: LogReader
    tree: LogTree
    export: LogExport
    searches: SearchLog
    changes: ChangeLog
    reviewers: ReviewerRegistry
    api_keys: ApiKeyRegistry
    rotations: rotations.Books
    others: Others
    approvals: ApprovalRegistry
    leases: SignedLeaseJournal
    connections: ConnectionLog
    kills: KillRegistry
    activations: Activations
    custodian: Custodian
    keys: KeyRoom
    witnesses: Witnessing
    views: ViewLog
    snapshots: Snapshots
    pins: PinRegistry

    @property
    def state_key(self) -> bytes:
        """Seals what clients keep for the gateways on this log between two requests, 32 bytes."""
        return self.rotations.scribe.keys.state_key


class LogMeter(Meter, WitnessMeter, Protocol):
    """What is told to operators."""


@dataclass(frozen=True, slots=True)
class Means:
    """What the log needs of the other parts.

    Attributes:
        clean: takes known secrets out of texts.
        url: where the gateway is reached.
        known: the secrets that are known.
    """

    clock: Clock
    meter: LogMeter
    clean: Clean
    url: str
    known: KnownValues


async def opened(settings: GatewaySettings, means: Means, stack: AsyncExitStack) -> Books:
    """Open the log in the state folder and what stands on it; ``stack`` closes them.

    Raises:
        StateRefused, SettingsError: the log, or where it lies, cannot be used.
        Unavailable: it cannot be read, or its keys not without a vault that is not there.
    """
    clock, site = means.clock, stores.site(settings)
    keys = await unlocking.log_keys(settings, means.known, clock)
    ledger = await _ledger(settings, means, keys, site, stack)
    reader, asked = await _readers(ledger, site, keys, stack)
    patrol = await together(stack, site, ledger, reader)
    places = None if patrol is None else patrol.places
    runs = await stack.enter_async_context(RunRegistry(ledger, reader, keys, clock, places))
    reviewers = ReviewerRegistry(ledger, reader, keys, clock, places)
    await reviewers.load()
    shared, others = rotations.Books(ledger, reader, Scribe(clock, keys), places), partial(asked.ask, site.others)
    api_keys = await stack.enter_async_context(_api_keys(settings, shared))
    kills = _kills(settings, shared, keys, reviewers)
    archive = Archive(ledger, reader, runs, reviewers, keys, clock, is_shared=places is not None)
    approvals = await stack.enter_async_context(ApprovalRegistry(archive, _terms(settings, means.url)))
    room, witnesses = await _countersigned(settings, Log(ledger, asked, keys, clock), others, means, stack)
    custodian = Custodian(ledger, asked, keys, clock, (runs, approvals))
    if patrol is not None:
        patrol.remind(runs, approvals)
    await stack.enter_async_context(Retention(custodian, clock, settings.audit.retention_days))
    return Books(
        log=SignedLog(ledger, runs, Scribe(clock, keys), means.meter, means.clean),
        runs=runs,
        reader=asked,
        tree=LogTree(asked),
        export=LogExport(asked, keys),
        searches=SearchLog(ledger, keys, clock),
        changes=ChangeLog(ledger, keys, clock),
        reviewers=reviewers,
        api_keys=api_keys,
        rotations=shared,
        others=others,
        approvals=approvals,
        leases=SignedLeaseJournal(ledger, reader, keys, clock),
        connections=ConnectionLog(ledger, keys, clock),
        kills=await stack.enter_async_context(kills),
        activations=Activations(ledger, reader, keys, clock),
        custodian=custodian,
        keys=room,
        witnesses=witnesses,
        views=ViewLog(ledger, keys, clock),
        snapshots=Snapshots(ledger, reader, keys, clock),
        pins=await _pinned(PinRegistry(ledger, asked, keys, clock, places)),
    )


async def _ledger(settings: GatewaySettings, means: Means, keys: LogKeys, site: Site, stack: AsyncExitStack) -> Ledger:
    keys.ring.learn = acquainting.learner(means.known)
    made = partial(Ledger, site, keys, means.clock, settings.audit.reserve_mb * _MIB)
    return await joining.ledger(joining.Means(settings, keys, means.known, means.clock), made, stack)


async def _readers(ledger: Ledger, site: Site, keys: LogKeys, stack: AsyncExitStack) -> tuple[LogReader, LogReader]:
    calls = await stack.enter_async_context(LogReader(site, keys, writer=ledger, is_hasty=True))
    # Another one for people who search, export and erase: no call waits until they have found what they look for.
    return calls, await stack.enter_async_context(LogReader(site, keys, writer=ledger))


def _api_keys(settings: GatewaySettings, shared: rotations.Books) -> ApiKeyRegistry:
    is_shared, issuer = shared.places is not None, settings.identity.issuer
    return ApiKeyRegistry(shared.ledger, shared.reader, shared.scribe, issuer, is_shared=is_shared)


def _kills(
    settings: GatewaySettings, shared: rotations.Books, keys: LogKeys, reviewers: ReviewerRegistry
) -> KillRegistry:
    foreign = any("admin" in issuer.scopes.values() for issuer in settings.identity.issuers.values())
    registry = KillRegistry(shared.ledger, shared.reader, keys, shared.scribe.clock, settings.kill.lift_quorum)
    return registry.among(shared.places, reviewers, foreign=foreign)


def _terms(settings: GatewaySettings, url: str) -> Terms:
    return Terms(settings.approvals.ttl_s, settings.approvals.replay_s, url)


async def _pinned(pins: PinRegistry) -> PinRegistry:
    """The registry, which has read what was approved."""
    await pins.sync()
    return pins


async def _countersigned(
    settings: GatewaySettings, log: Log, others: Others, means: Means, stack: AsyncExitStack
) -> tuple[KeyRoom, Witnessing]:
    """The log's keys and its witnesses, at work."""
    given = settings.log
    named = tuple(Witness(one.name, CosignerKey.parse(one.vkey), one.url) for one in given.witness)
    room = KeyRoom(log.ledger, log.keys, log.clock, KeyTerms(given.key_overlap_h, named, given.threshold), others)
    await stack.enter_async_context(Overlap(room))
    cosigners = [await stack.enter_async_context(HttpWitness(witness)) for witness in named]
    rhythm, shared = Rhythm(given.witness_every_s, given.threshold), replace(log, is_shared=log.ledger.replica != "")
    return room, await stack.enter_async_context(Witnessing(shared, cosigners, rhythm, means.meter))

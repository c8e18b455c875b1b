"""The composition root: settings in, a running gateway out. The one place that knows every part."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import logs
from gateway.adapters.clock import SystemClock
from gateway.adapters.credentials import CredentialBroker, StaticCredential, StaticCredentials
from gateway.adapters.killing import KillSwitch
from gateway.adapters.limiter import MemoryLimits, OverallLimits
from gateway.adapters.metrics import PrometheusMeter
from gateway.adapters.pace import EvenPace
from gateway.adapters.redaction import Scrubbers
from gateway.core.catalog import Catalog, Shelf
from gateway.core.connections import NoConnections
from gateway.core.connector import Connector
from gateway.core.desk import Desk
from gateway.core.known import KnownValues
from gateway.core.ports import Pingable, PipelineSettings, Ports
from gateway.core.redact import Aside, Redactor
from gateway.core.rotation import RotationDesk
from gateway.core.tool import Tool
from gateway.core.verify import Verifier
from gateway.edge import asgi
from gateway.edge.resuming import Resumption
from gateway.findings import Finding
from gateway.parts import (
    acquainting,
    books,
    boxes,
    checking,
    engines,
    identities,
    minting,
    policies,
    rotating,
    shadowing,
    stopping,
    upstreams,
)
from gateway.parts.pin_room import PinRoom
from gateway.parts.policies import Policies
from gateway.parts.stock import Stock
from gateway.serving import hardening, listening
from gateway.settings import GatewaySettings, SettingsError

_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class Served:
    """Where a gateway listens."""

    url: str
    mcp_url: str
    admin_socket: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What a gateway is made of.

    Attributes:
        ports: what the pipeline works with.
        desk: what the surfaces work with besides.
        stock: keeps the catalogue up to date.
        policies: keeps the policy up to date.
        trials: mints a login of each lease template and plans the statements that use it.
    """

    ports: Ports
    desk: Desk
    stock: Stock
    policies: Policies
    trials: Callable[[Iterable[Tool]], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A composed gateway."""

    app: ASGIApp
    parts: Parts


@asynccontextmanager
async def opened(settings: GatewaySettings, url: str, operator_socket: str | None = None) -> AsyncIterator[Gateway]:
    """A gateway with every part started; all are stopped, newest first, on exit.

    ``operator_socket`` is the path of the socket whose file mode alone authenticates the local operator.

    Raises:
        SettingsError: the configuration cannot be used.
        StateRefused, KeyFileError: the state folder cannot be used.
        GatewayError: a part is not there.
    """
    async with AsyncExitStack() as stack:
        parts = await _assembled(settings, url, stack)
        options = asgi.Options(
            issuer=settings.identity.issuer,
            run_max_s=settings.identity.run_max_s,
            allowed_hosts=settings.listen.allowed_hosts,
            per_minute=settings.limits.edge_per_minute,
            operator_socket=operator_socket,
            open_metrics=settings.listen.open_metrics,
            issuers=tuple(one.issuer for one in settings.identity.issuers.values()),
            scopes=identities.scopes(settings),
            parked=settings.limits.parking,
        )
        await stack.enter_async_context(Resumption(parts.ports))
        yield Gateway(asgi.build(parts.ports, parts.desk, options), parts)


async def serve(
    settings: GatewaySettings, *, ready: Callable[[Served], None], until: Callable[[], Awaitable[object]]
) -> None:
    """Serve on TCP and the admin socket; ``ready`` is called once calls are taken, then ``until`` is awaited.

    Raises:
        SettingsError, StateRefused, KeyFileError, GatewayError, OSError: it cannot start; nothing is left behind.
    """
    with listening.sockets(settings) as (tcp, unix):
        url = listening.url(settings, tcp)
        admin_socket = str(settings.state / listening.ADMIN_SOCKET)
        async with opened(settings, url, admin_socket) as gateway:
            server = listening.Server(settings, gateway.app)
            async with server.running([tcp, unix]):
                hardening.settle_memory()
                ready(Served(url, f"{url}/mcp", admin_socket))
                await until()


async def check(settings: GatewaySettings) -> list[Finding]:
    """Start every part without listening, ask each whether it can serve, and say what to do where it cannot."""
    # Nobody waits for the gateway to listen: slow upstreams get the time to say what they have.
    patient = settings.discovery.model_copy(update={"start_s": max(settings.discovery.start_s, _PATIENCE_S)})
    try:
        async with opened(settings.model_copy(update={"discovery": patient}), "http://127.0.0.1") as gateway:
            parts = gateway.parts
            findings = [*await checking.answers(parts.desk), *parts.stock.strays()]
            tools = parts.ports.catalog.tools()
            odd = parts.policies.odd_entries({tool.fqn for tool in tools})
            findings += [*await parts.trials(tools), *odd, *checking.unsigned(parts.desk, tools)]
            accepted = parts.policies.accepted
        return [*findings, *await shadowing.findings(settings), *await boxes.findings(settings, accepted)]
    except SettingsError as error:
        return [Finding("settings", ok=False, text=problem, fix="correct the named key") for problem in error.problems]


def build(settings: GatewaySettings) -> ASGIApp:
    """The gateway as an ASGI application that starts and stops with its life span, for other servers than ours."""
    return _Hosted(settings)


async def _assembled(settings: GatewaySettings, url: str, stack: AsyncExitStack) -> Parts:
    clock, meter, pace = SystemClock(), PrometheusMeter(), await stack.enter_async_context(EvenPace())
    known, redactor = _redaction(settings, await stack.enter_async_context(Scrubbers()))
    acquainting.configured(settings, known)
    record = await books.opened(settings, books.Means(clock, meter, redactor.text, url, known), stack)
    acquainting.own_keys(settings.state / "keys", known)
    watch = policies.Means(clock, record.activations.record, known, meter.policy_stale)
    watched, active = await policies.opened(settings, watch, engines.maker(settings.policy, known), stack)
    vouching, static = identities.opened(settings, clock, record.api_keys, stack), _static(settings, known)
    vault = await minting.connected(settings, known, clock, stack)
    replaced = rotating.Means(record, vouching, vault, clock, meter, known)
    shared = await rotating.shared(settings, replaced, stack)
    lenders = minting.Means(vault, record.leases, known, clock, meter, record.connections)
    lending = await minting.opened(settings, lenders, stack)
    if lending.leases is not None:
        record.runs.on_end(lending.leases.run_ended)
    connected = await upstreams.connect(settings, static, known, stack)
    catalog, verifier, publish = _catalogue(connected, meter)
    stock = await stack.enter_async_context(upstreams.stocked(settings, connected, record.pins, publish))
    supplies = stopping.Supplies(lending.leases, catalog.tools, meter, known, clock)
    kills = await stopping.opened(settings, record.kills, supplies, stack)
    pin_room = PinRoom(stock, record.pins, record.reviewers, settings.governance.pin_roles)
    ports = Ports(
        clock=clock,
        identity=vouching.identity,
        kills=kills,
        runs=record.runs,
        catalog=catalog,
        policy=await shadowing.opened(settings, active, meter, stack),
        approvals=record.approvals,
        limits=MemoryLimits(clock, OverallLimits(settings.limits.principal_per_minute, settings.limits.concurrency)),
        broker=CredentialBroker(static, lending.leases),
        verifier=verifier,
        redactor=redactor,
        audit=record.log,
        pace=pace,
        meter=meter,
        settings=_pipeline_settings(settings),
    )
    rotations = await rotating.opened(settings, replaced, shared, stack)
    beside = _Beside(vouching, lending, kills, watched, connected.all, meter, rotations, pin_room)
    desk = _desk(settings, record, ports, beside, url)
    glass = partial(stopping.trial, settings, known, clock)
    trials = partial(checking.trials, settings, vault, (lending, glass), connected.all)
    return Parts(ports, desk, stock, watched, trials)


@dataclass(frozen=True, slots=True)
class _Beside:
    """Parts that only the desk needs."""

    vouching: identities.Vouching
    lending: minting.Lending
    kills: KillSwitch
    policy: Policies
    connectors: Mapping[str, Connector]
    meter: PrometheusMeter
    rotations: RotationDesk
    pins: PinRoom


def _desk(settings: GatewaySettings, record: books.Books, ports: Ports, beside: _Beside, url: str) -> Desk:
    return Desk(
        runs=record.runs,
        issuer=beside.vouching.issuer,
        foreign_issuers=beside.vouching.pings,
        reader=record.reader,
        tree=record.tree,
        export=record.export,
        searches=record.searches,
        changes=record.changes,
        approvals=record.approvals,
        reviewers=record.reviewers,
        api_keys=record.api_keys,
        leases=beside.lending.leases or minting.NoLeases(),
        kills=beside.kills,
        custody=record.custodian,
        keys=record.keys,
        rotations=beside.rotations,
        witnesses=record.witnesses,
        views=record.views,
        snapshots=record.snapshots,
        pins=beside.pins,
        policy=beside.policy,
        pings={name: part.ping for name, part in _parts(ports).items()},
        upstreams={
            name: minting.reach(name, part, settings, beside.lending.leases) for name, part in beside.connectors.items()
        },
        metrics=beside.meter.page,
        external_url=url,
        state_key=record.state_key,
        connections=NoConnections() if beside.lending.persons is None else beside.lending.persons.desk,
    )


def _static(settings: GatewaySettings, known: KnownValues) -> StaticCredentials:
    given = {
        name: StaticCredential(header=one.header, env=one.env, file=one.file, prefix=one.prefix)
        for name, one in settings.credentials.items()
    }
    static = StaticCredentials(given, known)
    static.acquaint()
    return static


def _pipeline_settings(settings: GatewaySettings) -> PipelineSettings:
    observe = settings.policy.mode == "observe"
    return PipelineSettings(settings.environment, settings.region, observe, settings.approvals.hold_s)


def _redaction(settings: GatewaySettings, aside: Aside) -> tuple[KnownValues, Redactor]:
    """The secrets that are known, and what takes them out of texts, the gateway's own output included."""
    known = acquainting.named(settings)
    redactor = Redactor(known, aside=aside)
    logs.configure(redactor.text)
    return known, redactor


def _catalogue(
    connected: upstreams.Upstreams, meter: PrometheusMeter
) -> tuple[Catalog, Verifier, Callable[[Sequence[Shelf]], None]]:
    """The catalogue and what holds answers against it, both empty, and what puts a generation of tools in force.

    Calls under way keep the tool they were resolved with.
    """
    catalog, verifier = Catalog(connected.all, asyncio.get_running_loop().time), Verifier()

    def publish(shelves: Sequence[Shelf]) -> None:
        verifier.prepare(shelf.tool for shelf in shelves if shelf.quarantine is None)
        catalog.replace(shelves)
        meter.admit([tool.fqn for tool in catalog.tools()])
        meter.quarantined(sum(shelf.quarantine is not None for shelf in shelves))

    return catalog, verifier, publish


def _parts(ports: Ports) -> dict[str, Pingable]:
    return {
        "identity": ports.identity,
        "audit": ports.audit,
        "runs": ports.runs,
        "policy": ports.policy,
        "approvals": ports.approvals,
        "catalogue": ports.catalog,
        "credentials": ports.broker,
    }


class _Hosted:
    """``build``'s application: assembled when the server's life span starts."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        url = self._settings.listen.external_url or "http://127.0.0.1"
        async with opened(self._settings, url) as gateway:
            self._app = gateway.app
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self._app = None
        await send({"type": "lifespan.shutdown.complete"})

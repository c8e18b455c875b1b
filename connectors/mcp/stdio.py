"""MCP over a child process's pipes, both eras: one supervised process, many calls at a time.

A process that dies takes its calls with it as ``OutcomeUnknown`` and is started again, after a pause that grows while
it keeps dying. No per-call credential can be given to a process that all callers share, so a call that brings another
one than the process was started with is refused before anything is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import TracebackType
from typing import Any, Self

from anyio import Event, create_task_group, current_time, fail_after, move_on_after, sleep

from connectors.mcp import following, piped, results
from connectors.mcp.dialect import Client, Dialect, call_members, call_method, handshake_dialect, stateless_dialect
from connectors.mcp.faults import Fault, Lost, Refused, Unprepared, call_error, raise_unavailable
from connectors.mcp.following import Following
from connectors.mcp.hearing import Ear, wanted
from connectors.mcp.holding import Bounds
from connectors.mcp.listing import ListingLimits, all_offered
from connectors.mcp.multiplex import Multiplex
from connectors.mcp.process import Child, Command, Ears, running
from gateway.core.call import Handout, Lease, Raw
from gateway.core.errors import NotSent
from gateway.core.flow import Flow
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import Kind


@dataclass(frozen=True, slots=True)
class StdioOptions:
    """How an upstream is used.

    Attributes:
        client: what the gateway says of itself.
        setup_timeout_s: longest from the start of the process to its first words.
        ping_timeout_s: longest a ping may take.
        first_pause_s: pause before a process that died is started again; doubled each time it dies early.
        longest_pause_s: where the doubling ends.
        steady_s: a life of this length counts as healthy, and the pause starts over.
        listing: bounds of discovery.
        lent: what the process was started with, for the one call that brings the very same; None = for all that bring
            nothing.
        dialect: what another life of the same program was found to speak.
        following: bounds of what callers follow, all together.
    """

    client: Client = field(default_factory=Client)
    setup_timeout_s: float = 20.0
    ping_timeout_s: float = 5.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    steady_s: float = 60.0
    listing: ListingLimits = field(default_factory=ListingLimits)
    lent: Handout | None = None
    dialect: Dialect | None = None
    following: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class _Line:
    """An open line to the process."""

    multiplex: Multiplex
    dialect: Dialect

    async def ask(self, method: str, members: bytes = b"", flow: Flow | None = None) -> bytes:
        if flow is None:
            return await self.multiplex.ask(method, self.dialect.params(members))
        ear = Ear(flow, self.multiplex.next_id())
        params = self.dialect.params(members, wanted(ear, self.dialect, shared=True))
        return await self.multiplex.ask(method, params, ear.token, ear)


class StdioConnector:
    """One MCP server as a child process; a ``Discovering`` connector and async context manager.

    Args:
        command: what to run.
        log: told what the process writes to its standard error (untrusted text) and how it fares.
        options: times and bounds.
    """

    def __init__(self, command: Command, log: Callable[[str], None], options: StdioOptions | None = None) -> None:
        self._command = command
        self._log = log
        self._options = options or StdioOptions()
        self._ids = count(1)
        self._dialect = self._options.dialect
        self._probing = True
        self._line: _Line | None = None
        self._following = Following(piped.Pipes(self._session), self._options.following)
        self._pid: int | None = None
        self._why = "process_down"  # how its last life ended

    async def __aenter__(self) -> Self:
        """Start the process; whether it comes up is seen by the first who needs it."""
        self._settled = Event()
        self._tasks = await create_task_group().__aenter__()
        self._tasks.start_soon(self._supervise)
        await self._following.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process; returns when it is gone."""
        try:
            await self._following.__aexit__(None, None, None)
        finally:
            self._tasks.cancel_scope.cancel()
            # The group is not told of the body's error, which it would wrap in a group of errors.
            await self._tasks.__aexit__(None, None, None)

    @property
    def era(self) -> Era | None:
        """The upstream's era, None while it is not known."""
        return None if self._dialect is None else self._dialect.era

    @property
    def dialect(self) -> Dialect | None:
        """How it is spoken to, None while it is not known."""
        return self._dialect

    @property
    def pid(self) -> int | None:
        """Id of the process that serves now."""
        return self._pid

    @property
    def is_followed(self) -> bool:
        """Whether somebody waits for news of the process."""
        return not self._following.is_idle

    async def invoke(self, lease: Lease) -> Raw:
        """Carry out the call; see ``core.connector.Connector``."""
        return await self.carried_out(lease)

    async def carried_out(self, lease: Lease) -> Raw:
        """The same, for a connector that gives each call a process of its own.

        Raises:
            NotSent: the process was not started with the call's credential.
        """
        if lease.headers or lease.handout is not self._options.lent:
            raise NotSent("the upstream takes no per-call credential", cause_code="credential_unsupported")
        intent = lease.intent
        if intent.tool.kind is Kind.SUBSCRIPTION:
            return await self._followed(lease)
        members = call_members(intent.tool, intent.call)
        try:
            # Less than the call's own time: while nothing has left, it must not look as if something had.
            line = await self._reached(min(self._options.setup_timeout_s, intent.timeout_s / 2))
            return results.raw(lease, await line.ask(call_method(intent.tool.kind), members, intent.call.flow))
        except Fault as fault:
            raise call_error(fault) from fault

    async def _followed(self, lease: Lease) -> Raw:
        if self._options.lent is not None:
            raise NotSent("a subscription outlives the call's process", cause_code="credential_passing")
        try:
            await following.carried_out(self._following, lease.intent.call, piped.EVERYBODY)
        except Fault as fault:
            raise call_error(fault) from fault
        return results.raw(lease, b"{}")

    async def discover(self) -> Sequence[dict[str, Any]]:
        """The upstream's tool definitions; see ``core.connector.Discovering``."""

        async def page(method: str, members: bytes, cap: int) -> bytes:
            body = await line.ask(method, members)
            if len(body) > cap:
                raise Lost("listing_too_large")
            return body

        try:
            with fail_after(self._options.setup_timeout_s * 2):
                line = await self._reached(self._options.setup_timeout_s)
                return await all_offered(page, self._options.listing, line.dialect.offers)
        except Fault as fault:
            raise_unavailable(fault)
        except TimeoutError:
            raise_unavailable(Lost("timeout"))

    async def ping(self) -> None:
        """Return when the process answers; see ``core.connector.Connector``."""
        try:
            with fail_after(self._options.ping_timeout_s):
                line = await self._reached(self._options.ping_timeout_s)
                await line.ask("server/discover" if line.dialect.stateless else "ping")
        except Refused as refusal:
            if refusal.code != eras.METHOD_NOT_FOUND:  # whoever says so is there
                raise_unavailable(refusal)
        except Fault as fault:
            raise_unavailable(fault)
        except TimeoutError:
            raise_unavailable(Lost("timeout"))

    async def _session(self, wait_s: float) -> piped.PipeSession:
        line = await self._reached(wait_s)
        return piped.PipeSession(line.multiplex, line.dialect)

    async def _reached(self, wait_s: float) -> _Line:
        with move_on_after(wait_s):
            await self._settled.wait()
        if self._line is None:
            raise Unprepared(self._why)
        return self._line

    # -- the life of the process

    async def _supervise(self) -> None:
        pause = self._options.first_pause_s
        while True:
            began = current_time()
            self._why = cause = await self._live()
            if current_time() - began > self._options.steady_s:
                pause = self._options.first_pause_s
            self._log(f"ended ({cause}); starts again in {pause:g} s")
            # Between two lives callers are told at once, rather than kept waiting.
            self._settled.set()
            await sleep(pause)
            pause = min(pause * 2, self._options.longest_pause_s)
            self._settled = Event()

    async def _live(self) -> str:
        child: Child | None = None

        def send(message: bytes) -> None:
            if child is None:
                raise Unprepared("process_down")
            child.send(message)

        multiplex = Multiplex(send, self._ids, self._log)
        ears = Ears(multiplex.take, self._log, lambda: multiplex.close("process_died"))
        try:
            async with running(self._command, ears) as child:
                cause = await self._serve(child, multiplex)
        except Fault as fault:
            cause = fault.cause
        finally:
            self._line = self._pid = None
            multiplex.close("process_died")
        return (None if child is None else child.start_fault) or cause

    async def _serve(self, child: Child, multiplex: Multiplex) -> str:
        try:
            with fail_after(self._options.setup_timeout_s):
                dialect = await self._agree(multiplex)
        except TimeoutError:
            return "setup_timeout"
        self._dialect, self._pid = dialect, child.pid
        self._line = _Line(multiplex, dialect)
        self._settled.set()
        await child.gone.wait()
        return "process_died"

    async def _agree(self, multiplex: Multiplex) -> Dialect:
        known = self._dialect
        if self._probing and (known is None or known.stateless):
            # Some servers die of a method they do not know: the next life then begins with the handshake.
            self._probing = False
            dialect = await self._probe(multiplex)
            self._probing = True
            if dialect is not None:
                return dialect
        self._probing, self._dialect = True, None
        return await self._initialise(multiplex)

    async def _probe(self, multiplex: Multiplex) -> Dialect | None:
        dialect = self._options.client.stateless()
        try:
            # Half of the time: a server that does not answer what it does not know is still asked the old way.
            with fail_after(self._options.setup_timeout_s / 2):
                result = await multiplex.ask("server/discover", dialect.params(b""))
        except (TimeoutError, Refused):
            return None
        return stateless_dialect(self._options.client, result)

    async def _initialise(self, multiplex: Multiplex) -> Dialect:
        try:
            result = await multiplex.ask("initialize", self._options.client.handshake_params())
        except Refused as refusal:
            # The probe came too early for a slow start and settled the era meanwhile: then it is asked again.
            dialect = await self._probe(multiplex) if refusal.code == eras.UNSUPPORTED_VERSION else None
            if dialect is None:
                raise
            return dialect
        dialect = handshake_dialect(result)
        multiplex.tell("notifications/initialized")
        return dialect

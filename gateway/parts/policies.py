"""The policy in force: put together from its sources, looked after, and replaced whole when they change.

What cannot be used never comes into force: the last good bundle stays, and what is wrong with its successor is shown.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self

from anyio import Lock, create_task_group, sleep, to_thread
from anyio.abc import TaskGroup

from gateway.adapters.rego.bundles.store import Revisions
from gateway.adapters.rego.lists import idle, unmatched
from gateway.core.bundle import Bundle, BundleError, Standing
from gateway.core.errors import GatewayError
from gateway.core.known import KnownValues
from gateway.core.ports import Clock, PolicyEngine
from gateway.findings import Finding
from gateway.parts.policy_sources import Sources
from gateway.settings import GatewaySettings

_LOG = logging.getLogger("ostiary.policy")
_REVISIONS = "policies"


class Servant(Protocol):
    """An engine that is running."""

    @property
    def engine(self) -> str:
        """Engine and version."""

    async def serve(self, bundle: Bundle, allow: Callable[[], Awaitable[None]]) -> None:
        """Put ``bundle`` in force once it was found good and ``allow`` has returned; ``BundleError`` otherwise."""


Record = Callable[[str, str, Sequence[str]], Awaitable[None]]
"""Writes durably which (revision, engine, origin) comes into force."""


@dataclass(frozen=True, slots=True)
class Means:
    """What looking after policy needs of the other parts.

    Attributes:
        record: writes what comes into force.
        known: secrets that are taken out of everything.
        failing: is told whether what the sources hold is not in force.
        pause: waits so many seconds.
    """

    clock: Clock
    record: Record
    known: KnownValues
    failing: Callable[[bool], None]
    pause: Callable[[float], Awaitable[None]] = sleep


class Policies:
    """Implements ``core.bundle.PolicyDesk``; an async context manager that keeps looking while it is open.

    Failure mode, closed: a source that is broken, unsigned or out of reach changes nothing.
    """

    def __init__(self, settings: GatewaySettings, means: Means) -> None:
        self._sources = Sources(settings, means.known, means.clock)
        self._is_shipped = settings.policy.shipped
        self._store = Revisions(settings.state / _REVISIONS)
        self._means = means
        self._servant: Servant | None = None
        self._bundle: Bundle | None = None
        self._standing = Standing("", "", 0, self._sources.origin)
        self._looking: TaskGroup | None = None
        self._turn = Lock()

    @property
    def accepted(self) -> tuple[str, ...]:
        """What the shipped package lets the sandbox lack; another package may accept less, never more."""
        sandbox = self._facts().get("sandbox", {})
        return tuple(sandbox.get("accept_missing", ()))

    def odd_entries(self, tools: Collection[str]) -> list[Finding]:
        """Entries of the shipped packages' data that name no tool of ``tools``: they bind nothing, and look as if."""
        data = {"gateway": self._facts()}
        fix = "correct the name, or declare the tool in the catalogue"
        wrong = [
            Finding("policy data", ok=False, text=f"no such tool: {odd}", fix=fix) for odd in unmatched(data, tools)
        ]
        unused = (Finding("policy data", ok=True, text=f"matches no tool yet: {odd}") for odd in idle(data, tools))
        return [*wrong, *unused]

    def _facts(self) -> dict[str, Any]:
        found = json.loads(self.current.data).get("gateway", {}) if self._is_shipped else {}
        return dict(found)

    async def first(self) -> Bundle:
        """What the sources hold now, for an engine to start with.

        Raises:
            SettingsError: it cannot be used.
        """
        self._bundle = await self._sources.first()
        return self._bundle

    async def begin(self, servant: Servant) -> None:
        """``servant`` serves what ``first`` gave; from now on it is given what comes later.

        Raises:
            GatewayError: what is in force cannot be kept or recorded.
        """
        self._servant = servant
        await self._activated(self.current)
        if self._sources.problems:
            self._say(self._sources.problems)

    async def __aenter__(self) -> Self:
        """Start looking at the sources."""
        self._looking = create_task_group()
        await self._looking.__aenter__()
        # Each apart, so that an address that answers slowly keeps neither the folders nor other addresses waiting.
        for far, every_s in self._sources.rhythms.items():
            self._looking.start_soon(self._keep_looking, every_s, far)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel_scope.cancel()
            await self._looking.__aexit__(None, None, None)

    @property
    def current(self) -> Bundle:
        """The bundle in force."""
        assert self._bundle is not None
        return self._bundle

    def standing(self) -> Standing:
        """What is in force; see ``core.bundle.PolicyDesk``."""
        return self._standing

    async def bundle(self, revision: str) -> Bundle | None:
        """A bundle that is or was in force; see ``core.bundle.PolicyDesk``."""
        return await to_thread.run_sync(self._store.get, revision)

    async def look(self, far: str | None = None) -> None:
        """Look at the folders that are due, or at one address, and put in force what they hold, if it is good and new.

        A source that is broken or out of reach keeps what it held last; what the others hold comes into force.
        """
        if not await self._sources.look(far) and not self._standing.problems:
            return
        async with self._turn:
            self._say((*self._sources.problems, *await self._taken()))

    async def _keep_looking(self, every_s: float, far: str | None) -> None:
        while True:
            await self._means.pause(every_s)
            try:
                await self.look(far)
            # Looking is all that keeps policy up to date: a fault of it is shown and it goes on.
            except Exception as error:  # noqa: BLE001 - see above
                _LOG.exception("looking at the sources of policy failed")
                self._say((f"looking at the sources failed: {type(error).__name__}",))

    async def _taken(self) -> tuple[str, ...]:
        """Put what the sources hold in force; what is wrong with it, or nothing."""
        try:
            bundle = await to_thread.run_sync(self._sources.joined)
            # Also where a layer is newly held to restrict: what is in force was not looked at for that.
            before = self.current
            is_new = (bundle.revision, bundle.deny_only) != (before.revision, before.deny_only)
            if is_new and self._servant is not None:
                await self._servant.serve(bundle, lambda: self._activated(bundle))
        except BundleError as error:
            return error.problems
        except (GatewayError, OSError) as error:
            return (f"it cannot be put on record: {error}",)
        return ()

    async def _activated(self, bundle: Bundle) -> None:
        # Kept and recorded first: no decision may ever name a revision nobody can look up.
        assert self._servant is not None
        await to_thread.run_sync(self._store.keep, bundle)
        engine = self._servant.engine
        await self._means.record(bundle.revision, engine, self._standing.origin)
        self._bundle = bundle
        since = self._means.clock.now_us()
        held = {layer.origin for layer in bundle.deny_only}
        for layer in self._standing.deny_only:
            if layer.origin not in held:
                _LOG.warning("policy layer %s is no longer deny-only", layer.origin)
        self._standing = replace(
            self._standing, revision=bundle.revision, engine=engine, since_us=since, deny_only=bundle.deny_only
        )
        _LOG.info("policy %s is in force", bundle.revision)

    def _say(self, problems: tuple[str, ...]) -> None:
        self._means.failing(bool(problems))
        if problems == self._standing.problems:
            return
        since = self._standing.problems_since_us or self._means.clock.now_us()
        self._standing = replace(self._standing, problems=problems, problems_since_us=since if problems else None)
        for problem in problems:
            _LOG.error("newer policy is not in force: %s", problem)


class Engine(Servant, PolicyEngine, Protocol):
    """What decides, and can be given another bundle."""


async def opened(
    settings: GatewaySettings,
    means: Means,
    make: Callable[[Bundle], AbstractAsyncContextManager[Engine]],
    stack: AsyncExitStack,
) -> tuple[Policies, Engine]:
    """The engine on what the sources hold now, and who looks after it; ``stack`` ends both.

    Raises:
        SettingsError, BundleError: there is no policy to serve.
        GatewayError: what is in force cannot be recorded.
    """
    policies = Policies(settings, means)
    engine = await stack.enter_async_context(make(await policies.first()))
    await policies.begin(engine)
    return await stack.enter_async_context(policies), engine

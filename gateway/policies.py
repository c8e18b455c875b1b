"""The policy in force: put together from its sources, looked after, and replaced whole when they change.

What cannot be used never comes into force: the last good bundle stays, and what is wrong with its successor is shown.
"""

import json
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp
from anyio import create_task_group, sleep, to_thread
from anyio.abc import TaskGroup

from gateway.adapters.credentials import SecretSource, read_secret
from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import signatures
from gateway.adapters.rego.bundles.sources import HttpSource, PathSource, Source
from gateway.adapters.rego.bundles.store import Revisions
from gateway.adapters.rego.layers import Layer
from gateway.adapters.rego.lists import idle, unmatched
from gateway.core.bundle import Bundle, BundleError, Standing
from gateway.core.errors import GatewayError
from gateway.core.known import KnownValues
from gateway.core.ports import Clock, PolicyEngine
from gateway.findings import Finding
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings_policy import PolicySourceSection

_LOG = logging.getLogger("ostiary.policy")
_REVISIONS, _KEPT = "policies", "policy-sources"


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


@dataclass(slots=True)
class _Watched:
    """A source, the layer it had last, and when it is looked at again."""

    source: Source
    every_s: float
    layer: Layer | None = None
    problem: tuple[str, ...] = ()
    due: float = 0.0


class Policies:
    """Implements ``core.bundle.PolicyDesk``; an async context manager that keeps looking while it is open.

    Failure mode, closed: a source that is broken, unsigned or out of reach changes nothing.
    """

    def __init__(self, settings: GatewaySettings, means: Means) -> None:
        self._data: Mapping[str, Any] = settings.policy.data
        self._is_shipped = settings.policy.shipped
        self._watched = list(_sources(settings, means.known))
        self._store = Revisions(settings.state / _REVISIONS)
        self._means = means
        self._servant: Servant | None = None
        self._bundle: Bundle | None = None
        self._standing = Standing("", "", 0, tuple(one.source.origin for one in self._watched))
        self._looking: TaskGroup | None = None

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
        await self._look(self._watched)
        problems = [problem for one in self._watched for problem in one.problem]
        try:
            if problems:
                raise BundleError(*problems)
            self._bundle = self._joined()
        except BundleError as error:
            raise SettingsError([f"policy: {problem}" for problem in error.problems]) from None
        return self._bundle

    async def begin(self, servant: Servant) -> None:
        """``servant`` serves what ``first`` gave; from now on it is given what comes later.

        Raises:
            GatewayError: what is in force cannot be kept or recorded.
        """
        self._servant = servant
        await self._activated(self.current)

    async def __aenter__(self) -> Self:
        """Start looking at the sources."""
        self._looking = create_task_group()
        await self._looking.__aenter__()
        periods = [one.every_s for one in self._watched if one.every_s > 0]
        if periods:
            self._looking.start_soon(self._keep_looking, min(periods))
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

    async def look(self) -> None:
        """Look at the sources that are due, and put in force what they hold, if it is good and new."""
        now = self._means.clock.monotonic()
        due = [one for one in self._watched if one.every_s > 0 and now >= one.due]
        before = [(one.layer, one.problem) for one in due]
        await self._look(due)
        if [(one.layer, one.problem) for one in due] == before and not self._standing.problems:
            return
        problems = tuple(problem for one in self._watched for problem in one.problem)
        if not problems:
            problems = await self._taken()
        self._say(problems)

    async def _keep_looking(self, every_s: float) -> None:
        while True:
            await self._means.pause(every_s)
            try:
                await self.look()
            # Looking is all that keeps policy up to date: a fault of it is shown and it goes on.
            except Exception as error:  # noqa: BLE001 - see above
                _LOG.exception("looking at the sources of policy failed")
                self._say((f"looking at the sources failed: {type(error).__name__}",))

    async def _look(self, due: Sequence[_Watched]) -> None:
        for one in due:
            one.due = self._means.clock.monotonic() + one.every_s
            try:
                one.layer = await one.source.look() or one.layer
                one.problem = ()
            except BundleError as error:
                one.problem = error.problems

    def _joined(self) -> Bundle:
        return layers.joined([one.layer for one in self._watched if one.layer is not None], self._data)

    async def _taken(self) -> tuple[str, ...]:
        """Put what the sources hold in force; what is wrong with it, or nothing."""
        try:
            bundle = await to_thread.run_sync(self._joined)
            if bundle.revision != self.current.revision and self._servant is not None:
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
        self._standing = replace(self._standing, revision=bundle.revision, engine=engine, since_us=since)
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


def _sources(settings: GatewaySettings, known: KnownValues) -> Iterator[_Watched]:
    every_s = settings.policy.reload_s
    if settings.policy.shipped:
        yield _Watched(PathSource(layers.shipped()), 0.0)
    yield from (_Watched(PathSource(path), every_s) for path in settings.policy.bundles)
    for name, section in settings.policy.sources.items():
        key = _public_key(name, section)
        if section.path is not None:
            yield _Watched(PathSource(section.path, key), every_s)
        elif section.url is not None and key is not None:
            kept = settings.state / _KEPT / f"{name}.tar.gz"
            token = _token(name, section, known)
            yield _Watched(HttpSource(name, section.url, key, kept, _session(section), token), section.poll_s)


def _public_key(name: str, section: PolicySourceSection) -> bytes | None:
    if section.public_key is None:
        return None
    try:
        pem = section.public_key.read_bytes()
        signatures.fit_key(f"policy.sources.{name}.public_key", pem)
    except OSError as error:
        raise SettingsError([f"policy.sources.{name}.public_key: {error.strerror}"]) from None
    except BundleError as error:
        raise SettingsError(list(error.problems)) from None
    return pem


def _token(name: str, section: PolicySourceSection, known: KnownValues) -> Callable[[], str] | None:
    given = section.token
    if given is None:
        return None
    source = SecretSource(env=given.env, file=given.file)

    def read() -> str:
        value = read_secret(f"policy.sources.{name}.token", source, os.environ)
        known.add(value)
        return value

    return read


def _session(section: PolicySourceSection) -> Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]]:
    tls = None if section.ca_certificate is None else ssl.create_default_context(cafile=str(section.ca_certificate))

    def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls or True), trust_env=False)

    return make

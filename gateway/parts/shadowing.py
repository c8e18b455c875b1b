"""A candidate policy in the shadow of the one in force: started beside it, and never in its way."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from anyio import create_task_group, sleep, to_thread
from anyio.lowlevel import checkpoint

from gateway.adapters.clock import SystemClock
from gateway.adapters.metrics import PrometheusMeter
from gateway.adapters.rego.engine import EngineSettings, RegoEngine
from gateway.adapters.rego.shadow import Shadow, ShadowMeter
from gateway.core.bundle import BundleError
from gateway.core.known import KnownValues
from gateway.core.ports import PolicyEngine
from gateway.findings import Finding
from gateway.parts.policy_sources import Sources
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.policy import ShadowSection

_PERCENT = 100
_LOG = logging.getLogger("ostiary.policy.shadow")
Pause = Callable[[float], Awaitable[None]]


async def opened(
    settings: GatewaySettings, active: PolicyEngine, meter: PrometheusMeter, stack: AsyncExitStack
) -> PolicyEngine:
    """The engine that is asked: ``active``, watched where the settings name a shadow; ``stack`` ends it.

    A shadow that cannot be started is logged and shown by ``findings``; the gateway starts all the same.
    """
    section = settings.policy.shadow
    if section is None:
        return active
    told = ShadowMeter(meter.shadowed, meter.shadow_watching)

    def candidate() -> AbstractAsyncContextManager[PolicyEngine]:
        return served(settings, section)

    return await stack.enter_async_context(Shadow(active, candidate, section.sample_pct / _PERCENT, told))


async def findings(settings: GatewaySettings) -> list[Finding]:
    """Whether the policy in the shadow can be started, where there is one."""
    section = settings.policy.shadow
    if section is None:
        return []
    try:
        async with served(settings, section):
            return [Finding("policy shadow", ok=True, text=f"watched on {section.sample_pct} % of the questions")]
    except BundleError as error:
        fix = "correct it, or take [policy.shadow] out; calls do not depend on it"
        return [Finding("policy shadow", ok=False, text=problem, fix=fix) for problem in error.problems]


@asynccontextmanager
async def served(
    settings: GatewaySettings, section: ShadowSection, pause: Pause = sleep
) -> AsyncIterator[PolicyEngine]:
    """The candidate, as its folders and archives are now and from then on; ``pause`` waits so many seconds.

    Raises:
        BundleError: it cannot be served.
    """
    policy = settings.policy.model_copy(update={"bundles": section.bundles, "sources": {}})
    sources = Sources(settings.model_copy(update={"policy": policy}), KnownValues(), SystemClock(), keep=False)
    try:
        bundle = await sources.first()
    except SettingsError as error:
        raise BundleError(*error.problems) from None
    async with (
        RegoEngine(bundle, EngineSettings(1, settings.policy.deadline_ms / 1000)) as engine,
        create_task_group() as following,
    ):
        for every_s in sources.rhythms.values():
            following.start_soon(_follow, engine, sources, partial(pause, every_s))
        yield engine
        following.cancel_scope.cancel()


async def _follow(engine: RegoEngine, sources: Sources, pause: Callable[[], Awaitable[None]]) -> None:
    """Serve what the sources hold; what is broken is logged once, and the last good candidate stays."""
    known: tuple[str, ...] = ()
    while True:
        await pause()
        if not await sources.look():
            continue
        problems = await _taken(engine, sources)
        for problem in problems:
            if problem not in known:
                _LOG.error("the policy in the shadow was changed and cannot be served: %s", problem)
        known = problems


async def _taken(engine: RegoEngine, sources: Sources) -> tuple[str, ...]:
    try:
        bundle = await to_thread.run_sync(sources.joined)
        if bundle.revision != engine.revision:
            await engine.serve(bundle, checkpoint)
            _LOG.info("policy %s is in the shadow", bundle.revision)
    except BundleError as error:
        return (*sources.problems, *error.problems)
    return sources.problems

"""A candidate policy in the shadow of the one in force: started beside it, and never in its way."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from anyio import to_thread

from gateway.adapters.metrics import PrometheusMeter
from gateway.adapters.rego import layers
from gateway.adapters.rego.engine import EngineSettings, RegoEngine
from gateway.adapters.rego.shadow import Shadow, ShadowMeter
from gateway.core.bundle import Bundle, BundleError
from gateway.core.ports import PolicyEngine
from gateway.findings import Finding
from gateway.policy_sources import SAID_BY
from gateway.settings import GatewaySettings
from gateway.settings_policy import ShadowSection, tables

_PERCENT = 100


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
        return _candidate(settings, section)

    return await stack.enter_async_context(Shadow(active, candidate, section.sample_pct / _PERCENT, told))


async def findings(settings: GatewaySettings) -> list[Finding]:
    """Whether the policy in the shadow can be started, where there is one."""
    section = settings.policy.shadow
    if section is None:
        return []
    try:
        async with _candidate(settings, section):
            return [Finding("policy shadow", ok=True, text=f"watched on {section.sample_pct} % of the questions")]
    except BundleError as error:
        fix = "correct it, or take [policy.shadow] out; calls do not depend on it"
        return [Finding("policy shadow", ok=False, text=problem, fix=fix) for problem in error.problems]


def _read(settings: GatewaySettings, section: ShadowSection) -> Bundle:
    shipped = [layers.read(layers.shipped())] if settings.policy.shipped else []
    own = [(layers.read(one.path), one.deny_only) for one in tables(section.bundles)]
    held = [layer.restricted(SAID_BY) if deny_only else layer for layer, deny_only in own]
    return layers.joined([*shipped, *held], settings.policy.data)


@asynccontextmanager
async def _candidate(settings: GatewaySettings, section: ShadowSection) -> AsyncIterator[PolicyEngine]:
    bundle = await to_thread.run_sync(_read, settings, section)
    async with RegoEngine(bundle, EngineSettings(1, settings.policy.deadline_ms / 1000)) as engine:
        yield engine

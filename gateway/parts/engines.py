"""Which policy engine decides: own workers, or an OPA server. Part of the composition root."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from gateway.adapters.opa import Examination, OpaEngine, OpaSettings
from gateway.adapters.rego.engine import EngineSettings, RegoEngine
from gateway.adapters.rego.preflight import examine, preflight
from gateway.adapters.rego.probe import PROBES
from gateway.core.bundle import Bundle, BundleError
from gateway.core.known import KnownValues
from gateway.parts.tokens import Token
from gateway.settings.policy import PolicySection

_WHAT = "policy.opa.token"


def maker(
    settings: PolicySection, known: KnownValues
) -> Callable[[Bundle], AbstractAsyncContextManager[RegoEngine | OpaEngine]]:
    """Makes the engine that serves a bundle; ``known`` learns the secrets it uses."""
    embedded = EngineSettings(settings.workers, settings.deadline_ms / 1000)
    if settings.engine == "embedded":
        return lambda bundle: RegoEngine(bundle, embedded)
    asked = OpaSettings(
        url=settings.opa.url,
        deadline_s=settings.deadline_ms / 1000,
        connections=settings.opa.connections,
        token=None if settings.opa.token is None else Token(_WHAT, settings.opa.token, known),
        ca_certificate=settings.opa.ca_certificate,
    )
    examination = Examination(partial(examined, embedded=embedded), PROBES[0])
    return lambda bundle: OpaEngine(bundle, asked, examination)


async def examined(bundle: Bundle, embedded: EngineSettings) -> None:
    """What OPA is trusted with has passed what the embedded engine asks for.

    Raises:
        BundleError: it has not.
    """
    found = await examine(bundle.modules, bundle.deny_only)
    if found.findings:
        raise BundleError(*(str(finding) for finding in found.findings))
    await preflight(bundle, embedded.pool())

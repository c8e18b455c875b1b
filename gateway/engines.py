"""Which policy engine decides: own workers, or an OPA server. Part of the composition root."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from gateway.adapters.credentials import SecretSource, read_secret
from gateway.adapters.opa import Examination, OpaEngine, OpaSettings
from gateway.adapters.rego.engine import EngineSettings, RegoEngine
from gateway.adapters.rego.preflight import examine, preflight
from gateway.adapters.rego.probe import PROBES
from gateway.core.bundle import Bundle, BundleError
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.core.needles import UnfitSecret
from gateway.sections import SecretReference
from gateway.settings_policy import PolicySection

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
        token=None if settings.opa.token is None else Token(settings.opa.token, known),
        ca_certificate=settings.opa.ca_certificate,
    )
    examination = Examination(partial(examined, embedded=embedded), PROBES[0])
    return lambda bundle: OpaEngine(bundle, asked, examination)


async def examined(bundle: Bundle, embedded: EngineSettings) -> None:
    """What OPA is trusted with has passed what the embedded engine asks for.

    Raises:
        BundleError: it has not.
    """
    found = await examine(bundle.modules)
    if found.findings:
        raise BundleError(*(str(finding) for finding in found.findings))
    await preflight(bundle, embedded.pool())


class Token:
    """Reads OPA's token, so that it may be rotated, and makes it known to the redactor before it is used."""

    def __init__(self, given: SecretReference, known: KnownValues) -> None:
        self._source = SecretSource(env=given.env, file=given.file)
        self._known = known
        self._last: str | None = None

    def __call__(self) -> str:
        """The token as of now.

        Raises:
            Unavailable: it cannot be read, or not be kept secret.
        """
        value = read_secret(_WHAT, self._source, os.environ)
        if value == self._last:
            return value
        try:
            self._known.lend(value)
        except UnfitSecret as error:
            raise Unavailable(f"{_WHAT} cannot be kept secret: {error}", cause_code="credential") from None
        if self._last is not None:
            self._known.retire(self._last)
        self._last = value
        return value

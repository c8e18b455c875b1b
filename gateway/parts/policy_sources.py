"""Where the policy of a gateway comes from: the sources of its settings, looked at together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from anyio import create_task_group

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import signatures
from gateway.adapters.rego.bundles.sources import HttpSource, PathSource, Source
from gateway.adapters.rego.layers import Layer
from gateway.core.bundle import Bundle, BundleError
from gateway.core.known import KnownValues
from gateway.core.ports import Clock
from gateway.parts import clients
from gateway.parts.tokens import Token
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.policy import PolicySourceSection, tables

_KEPT = "policy-sources"
# The operator's word, which no bundle takes back.
SAID_BY = "gateway.toml"


@dataclass(slots=True)
class _Watched:
    """A source, the layer it had last, and when it is looked at again.

    Attributes:
        far: its name where it is fetched; None where it is on this machine.
        deny_only: by the operator's word.
    """

    source: Source
    every_s: float
    far: str | None = None
    deny_only: bool = False
    layer: Layer | None = None
    problem: tuple[str, ...] = ()
    due: float = 0.0


class Sources:
    """All sources of one gateway. What is wrong with one of them makes nothing of what it held before.

    Raises:
        SettingsError: a key cannot be used.
    """

    def __init__(self, settings: GatewaySettings, known: KnownValues, clock: Clock, *, keep: bool = True) -> None:
        """``keep``: whether what is fetched is kept in the state folder; only the gateway itself writes there."""
        self._data: Mapping[str, Any] = settings.policy.data
        self._watched = list(_sources(settings, known, keep=keep))
        self._clock = clock

    @property
    def origin(self) -> tuple[str, ...]:
        """Their places, in their order."""
        return tuple(one.source.origin for one in self._watched)

    @property
    def rhythms(self) -> Mapping[str | None, float]:
        """How often there is something to look at, seconds: at each address by its name, and on this machine (None)."""
        found: dict[str | None, float] = {}
        for one in self._watched:
            if one.every_s > 0:
                found[one.far] = min(one.every_s, found.get(one.far, one.every_s))
        return found

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with any of them now."""
        return tuple(problem for one in self._watched for problem in one.problem)

    async def first(self) -> Bundle:
        """What they hold now.

        Raises:
            SettingsError: it cannot be used.
        """
        async with create_task_group() as looking:
            for far in {one.far for one in self._watched}:
                looking.start_soon(self._look, [one for one in self._watched if one.far == far])
        try:
            missing = [problem for one in self._watched if one.layer is None for problem in one.problem]
            if missing:
                raise BundleError(*missing)
            return self.joined()
        except BundleError as error:
            raise SettingsError([f"policy: {problem}" for problem in error.problems]) from None

    async def look(self, far: str | None = None) -> bool:
        """Look at those of this machine that are due, or at the address; whether anything is other than it was."""
        now = self._clock.monotonic()
        due = [one for one in self._watched if one.far == far and one.every_s > 0 and now >= one.due]
        before = [(one.layer, one.problem) for one in due]
        await self._look(due)
        return [(one.layer, one.problem) for one in due] != before

    def joined(self) -> Bundle:
        """One bundle of what they held last.

        Raises:
            BundleError: it does not go together.
        """
        held = [_held(one, one.layer) for one in self._watched if one.layer is not None]
        return layers.joined(held, self._data)

    async def _look(self, due: Sequence[_Watched]) -> None:
        for one in due:
            one.due = self._clock.monotonic() + one.every_s
            try:
                one.layer = await one.source.look() or one.layer
                one.problem = one.source.behind
            except BundleError as error:
                one.problem = error.problems


def _sources(settings: GatewaySettings, known: KnownValues, *, keep: bool) -> Iterator[_Watched]:
    every_s = settings.policy.reload_s
    if settings.policy.shipped:
        yield _Watched(PathSource(layers.shipped()), 0.0)
    for bundle in tables(settings.policy.bundles):
        yield _Watched(PathSource(bundle.path), every_s, deny_only=bundle.deny_only)
    for name, section in settings.policy.sources.items():
        key = _public_key(name, section)
        if section.path is not None:
            yield _Watched(PathSource(section.path, key), every_s, deny_only=section.deny_only)
        elif section.url is not None and key is not None:
            kept = settings.state / _KEPT / f"{name}.tar.gz" if keep else None
            what = f"policy.sources.{name}.token"
            token = None if section.token is None else Token(what, section.token, known)
            session = clients.session(f"policy.sources.{name}.ca_certificate", section.ca_certificate)
            source = HttpSource(name, section.url, key, kept, session, token)
            yield _Watched(source, section.poll_s, name, section.deny_only)


def _held(watched: _Watched, layer: Layer) -> Layer:
    named = replace(layer, origin=watched.source.origin)
    return named.restricted(SAID_BY) if watched.deny_only else named


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

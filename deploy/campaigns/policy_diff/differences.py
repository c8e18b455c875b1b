"""Two engines, the same bundle, the same documents: where what they say differs."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.campaigns.policy_diff.embedded import Embedded
from deploy.campaigns.policy_diff.oracle import Oracle, Spoken
from gateway.adapters.rego.gallery import Starter, starters
from gateway.adapters.rego.layers import load, shipped
from gateway.adapters.rego.preflight import examine
from gateway.adapters.rego.routing import Routes
from gateway.core.bundle import Bundle, BundleError, Module, bundled
from gateway.core.decision import Decision, Evaluation, fold

_LITERAL: Final = re.compile(r'"([^"\\\n%]{1,40})"')
# Ids of a package's reasons, as its METADATA lists them.
_IDS: Final = re.compile(r"^#     - ([a-z_]+\.[a-z_]+)$", re.MULTILINE)
_SHIPPED: Final = "shipped"
_ALL: Final = "gallery"


class Difference(AssertionError):
    """The engines do not agree; the message holds all that is needed to see it again."""


@dataclass(frozen=True, slots=True)
class Package:
    """A bundle whose packages are compared.

    Attributes:
        name: of the folder, or ``shipped``.
        bundle: with the data that comes with it.
        routes: of its modules.
        words: strings its rules compare with.
        ids: of the reasons that its rules can give, as far as they are listed.
    """

    name: str
    bundle: Bundle
    routes: Routes
    words: tuple[str, ...]
    ids: tuple[str, ...] = ()


async def packages() -> list[Package]:
    """The shipped packages; with them each starter package of the gallery, as a copy of it is served; and all together.

    Raises:
        BundleError: one of them has findings.
    """
    taken = {name: [starter] for name, starter in starters().items()}
    named = {_SHIPPED: [], **taken, _ALL: list(starters().values())}
    return [await package(name, served(found)) for name, found in named.items()]


def served(found: Sequence[Starter]) -> Bundle:
    """The shipped packages and copies of these, each with its example as settings.

    A folder of the gallery is no layer: its settings would stand at the root of the data, where no rule reads them.
    """
    plain = load([shipped()])
    rules = [
        Module(f"{starter.name}/{name}", text)
        for starter in found
        for name, text in starter.files.items()
        if name.endswith(".rego")
    ]
    house = {starter.name: json.loads(starter.files["data.json"]) for starter in found}
    return bundled([*plain.modules, *rules], {**json.loads(plain.data), **({"house": house} if house else {})})


async def package(name: str, bundle: Bundle) -> Package:
    """A bundle to compare.

    Raises:
        BundleError: it has findings.
    """
    examined = await examine(bundle.modules)
    if examined.findings:
        raise BundleError(*(str(finding) for finding in examined.findings))
    words = sorted({word for module in bundle.modules for word in _LITERAL.findall(module.text)})
    ids = sorted({known for module in bundle.modules for known in _IDS.findall(module.text)})
    return Package(name, bundle, examined.routes, tuple(words), tuple(ids))


@dataclass(slots=True)
class Comparison:
    """Compares the embedded engine with the oracle.

    Attributes:
        counts: inputs, effects, faults, answers from memory, reason ids.
    """

    package: Package
    oracle: Oracle
    counts: Counter[str] = field(default_factory=Counter)

    def compare(self, data: Mapping[str, Any], documents: Sequence[bytes]) -> None:
        """Ask both.

        Raises:
            Difference: they do not say the same.
        """
        bundle = bundled(self.package.bundle.modules, data)
        embedded = Embedded(self.package.routes)
        embedded.load(bundle)
        self.oracle.load(bundle)
        for document in documents:
            one, other = embedded.ask(document), self.oracle.ask(document)
            decision = _decision(document, one)
            problem = _difference(decision, _decision(document, other), one, other)
            if problem is not None:
                raise Difference(_described(self.package.name, data, document, (problem, one, other)))
            self._count(decision)
        self.counts["bundles"] += 1
        self.counts["recalled"] += embedded.recalled

    def _count(self, decision: Decision) -> None:
        self.counts["inputs"] += 1
        self.counts[f"effect {decision.effect}"] += 1
        # What is required is compared also where the call is denied.
        heard = {reason.id for reason in decision.reasons} | {need.id for need in decision.requirements}
        self.counts.update(f"reason {known}" for known in heard)


def _decision(document: bytes, said: Spoken) -> Decision:
    (decision,) = fold("d", [document], Evaluation((said.result,), (said.fault,), "r", "e"))
    return decision


def _difference(one: Decision, other: Decision, said: Spoken, heard: Spoken) -> str | None:
    for name, facts in (
        ("effect", _effect),
        ("reasons", _reasons),
        ("requirements", _required),
        ("obligations", _bound),
    ):
        if facts(one) != facts(other):
            return name
    same = said.result is None or heard.result is None or plain(said.result) == plain(heard.result)
    return None if same else "result"


def _effect(decision: Decision) -> str:
    return decision.effect


def _reasons(decision: Decision) -> list[Any]:
    return sorted((reason.id, reason.package, reason.msg, reason.fact or "") for reason in decision.reasons)


def _required(decision: Decision) -> list[str]:
    return sorted(map(repr, decision.requirements))


def _bound(decision: Decision) -> str:
    return repr(decision.obligations)


def plain(result: bytes) -> str:
    """A result in one form: numbers by value, sets sorted (JSON has them as arrays, so arrays are, too)."""
    return json.dumps(_plain(json.loads(result)), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_plain(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _described(name: str, data: Mapping[str, Any], document: bytes, found: tuple[str, Spoken, Spoken]) -> str:
    def lines() -> Iterator[str]:
        problem, embedded, oracle = found
        yield f"{name}: {problem} differs"
        yield f"data: {json.dumps(data, ensure_ascii=True)}"
        yield f"input: {json.dumps(json.loads(document), ensure_ascii=True)}"
        for who, said in (("embedded", embedded), ("opa", oracle)):
            yield f"{who}: {said.fault or said.result!r} {said.words}"

    return "\n".join(lines())

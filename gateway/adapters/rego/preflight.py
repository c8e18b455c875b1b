"""What a bundle must pass before it is served: it parses, the lint finds nothing, and it answers plain questions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.adapters.rego import lint_layers
from gateway.adapters.rego.culprits import culprit
from gateway.adapters.rego.examination import answers
from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.layers import package, shipped
from gateway.adapters.rego.lint import lint
from gateway.adapters.rego.misread import misreads
from gateway.adapters.rego.nesting import too_deep
from gateway.adapters.rego.pool import Pool, PoolSettings
from gateway.adapters.rego.probe import PROBES
from gateway.adapters.rego.routing import NOWHERE, Routes, routes
from gateway.adapters.rego.trees import Source, source
from gateway.core.bundle import Bundle, BundleError, DenyOnly, Module
from gateway.core.decision import Evaluation, fold
from gateway.core.errors import Unavailable

PARSE_DEADLINE_S = 30.0
PROBE_DEADLINE_S = 2.0
_PLACE = re.compile(r"--> (.+?):(\d+):\d+")
_ERROR = re.compile(r"^error: (.*)$", re.MULTILINE)
_V0 = ("keyword is required", "keyword required")


async def preflight(bundle: Bundle, settings: PoolSettings) -> None:
    """Ask the bundle two plain questions in a worker that is thrown away, with time to spare.

    Raises:
        BundleError: the engine refuses the bundle, or hangs, crashes or finds no usable decision on a plain question.
    """
    patient = PoolSettings(settings.command, 1, PROBE_DEADLINE_S, 1, 2 * PROBE_DEADLINE_S)
    pool = Pool(bundle, patient, lambda _event: None)
    try:
        await pool.start()
        verdicts = await pool.ask("preflight", [(b"", probe) for probe in PROBES]).answer
    except OSError as error:
        raise BundleError(f"the policy worker fails on this bundle: {error}") from None
    except Unavailable:
        raise BundleError("the bundle hangs or crashes the engine on a plain question") from None
    finally:
        await pool.close()
    results, faults = tuple(verdict.result for verdict in verdicts), tuple(verdict.fault for verdict in verdicts)
    places = ", ".join(verdict.place for verdict in verdicts if verdict.place)
    decisions = fold("preflight", PROBES, Evaluation(results, faults, bundle.revision, pool.engine))
    for decision, result in zip(decisions, results, strict=True):
        if decision.faulty:
            where, words = culprit(bundle, result or b"")
            raise BundleError(f"{places or where}: a plain question gives {decision.reasons[0].id}{words}")


@dataclass(frozen=True, slots=True)
class Examined:
    """What the syntax trees of a bundle say.

    Attributes:
        findings: what is wrong with it, by file and line.
        routes: which of its packages a document concerns; nothing is known of a bundle with findings.
    """

    findings: list[Finding]
    routes: Routes


async def examine(modules: Sequence[Module], deny_only: Sequence[DenyOnly] = ()) -> Examined:
    """Parse and lint modules in a throw-away child; ``deny_only`` are their layers that may only restrict."""
    parsed = await parse(modules)
    main = (shipped() / "main.rego").read_text("utf-8")
    plain = [module.name for module in modules if module.text == main]
    findings = sorted(parsed.findings) or sorted(
        [
            *_misnamed(modules, parsed.sources),
            *lint(parsed.sources, parsed.builtins),
            *lint_layers.lint(parsed.sources, deny_only, plain),
            *misreads(parsed.sources),
        ]
    )
    return Examined(findings, NOWHERE if findings else routes(parsed.sources, plain=bool(plain)))


def _misnamed(modules: Sequence[Module], sources: Sequence[Source]) -> list[Finding]:
    # Who owns a package is told from its text, before it is parsed: what reads otherwise there could stand anywhere.
    # A dot inside of a name would make it another one wherever names are joined: what reads it would not be seen.
    steps = {module.name: package(module) for module in modules}
    read = {name: ".".join(("data", *own)) for name, own in steps.items() if not any("." in step for step in own)}
    words = "GW008", "write the package plainly, on one line of its own: `package gateway.policies.NAME`"
    return [Finding(found.file, 1, *words) for found in sources if read.get(found.file) != found.package]


@dataclass(slots=True)
class Parsed:
    """Modules the engine parsed, and what is wrong with the others.

    Attributes:
        sources: those that parse.
        findings: syntax errors.
        builtins: functions the engine has.
    """

    sources: list[Source] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    builtins: frozenset[str] = frozenset()


async def parse(modules: Sequence[Module]) -> Parsed:
    """Parse modules in a throw-away child."""
    if deep := [finding for module in modules if (finding := too_deep(module))]:
        return Parsed(findings=deep)
    request = {"task": "parse", "modules": [[module.name, module.text] for module in modules]}
    texts = {module.name: module.text for module in modules}
    parsed = Parsed()
    said, ending = await answers(request, PARSE_DEADLINE_S)
    for answer in said:
        if "builtins" in answer:
            parsed.builtins = frozenset(answer["builtins"])
        elif "error" in answer:
            parsed.findings.append(_syntax(answer["file"], answer["error"]))
        else:
            parsed.sources.append(source(answer["file"], texts[answer["file"]], answer["ast"]))
    if ending or len(said) != len(modules) + 1:
        # The module after the last one answered for is the one the parser hung on or died of.
        culprit = modules[min(max(len(said) - 1, 0), len(modules) - 1)].name if modules else ""
        parsed.findings.append(Finding(culprit, 0, "GW000", f"the engine {ending or 'fails'} while parsing this file"))
    return parsed


def _syntax(file: str, error: str) -> Finding:
    place, words = _PLACE.search(error), _ERROR.search(error)
    message = words[1] if words else error.splitlines()[-1]
    rule = "GW007" if any(sign in message for sign in _V0) else "GW000"
    return Finding(file, int(place[2]) if place else 0, rule, message)

"""``make bench NAME=policy``: what a decision costs, in the gateway's process and in the policy worker.

CPU time, not wall time, of the engine as the gateway runs it: same loop, one worker, real frames. Every round measures
each case once, in a shuffled order; figures are medians over the rounds, judged at the reference's speed as in
``one_door``.

Run: ``python -m loadtests.policy``; ``--rounds 1`` looks without writing evidence.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import uvloop

from gateway.adapters.rego.engine import EngineSettings, RegoEngine
from gateway.adapters.rego.layers import gallery, load, shipped
from gateway.core.bundle import Bundle, Module, bundled
from gateway.core.canonical import encode
from gateway.core.decision import fold
from loadtests import evidence
from loadtests.load import REFERENCE_PROBE_MS, ROOT, probe_ms, spread
from loadtests.processes import BenchmarkError, cpu

EVIDENCE: Final = ROOT / "docs" / "evidence" / "policy-speed.json"
PAGE: Final = ROOT / "docs" / "performance.md"
MARKS: Final = ("<!-- figures:policy -->", "<!-- /figures:policy -->")
LEAST_ROUNDS: Final = 5
CONNECTIONS: Final = (1, 16)
REMEMBERED, ONE, ALL, WITH_GALLERY = "remembered", "one package", "all packages", "all packages and the gallery"

_BOTH: Final = {"allow": ["up.*", "pay.*"]}
_LIMIT: Final = {"calls_per_run": 10**9, "sums_per_run": {"amount.EUR": 10**12}}
_RULES: Final[dict[str, Any]] = {
    "scope": {
        "agents": {"bench": _BOTH | {"deny": ["up.purge_*"]}},
        "groups": {"finance": _BOTH},
        "users": {"*": {"allow": ["time.*"]}},
    },
    "limits": {"up.limited": _LIMIT, "pay.transfer": _LIMIT},
    "approval": {"tools": {"pay.transfer": {"quorum": 2, "roles": ["cfo"]}}},
}
_TOOLS: Final = {
    REMEMBERED: ("up", "echo", "read"),
    ONE: ("up", "limited", "write"),
    ALL: ("pay", "transfer", "money"),
    WITH_GALLERY: ("pay", "transfer", "money"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and how many questions are under way at a time."""

    name: str
    connections: int


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU per question, microseconds, and how fast a core was just before and after."""

    questions: int
    gateway_us: float
    worker_us: float
    probe_ms: float

    @property
    def slowness(self) -> float:
        """How much longer a core took than the reference does."""
        return self.probe_ms / REFERENCE_PROBE_MS

    @property
    def reference_gateway_us(self) -> float:
        """At the reference's speed."""
        return self.gateway_us / self.slowness

    @property
    def reference_worker_us(self) -> float:
        """At the reference's speed."""
        return self.worker_us / self.slowness


def question(name: str, number: int) -> list[bytes]:
    """The documents of one question.

    A call as the pipeline asks it: may the tool be known of, and may it be called. Where all packages are to be
    evaluated, it is the call alone, of a run of its own, so that nothing can be remembered of it.
    """
    server, tool, effect = _TOOLS[name]
    whole = name in {ALL, WITH_GALLERY}
    run: dict[str, Any] = {"id": f"run-{number}" if whole else "run", "kind": "implicit", "opened_by": "dora"}
    listing: dict[str, Any] = {
        "schema": "gateway.input/v1",
        "phase": "list",
        "kind": "tool",
        "time": {"us": 1767225600000000 + number, "rfc3339": f"2026-01-01T00:00:00.{number % 1000000:06d}Z"},
        "context": {"env": "production", "region": "eu", "channel": "mcp"},
        "principal": {"kind": "agent", "id": "bench", "auth": {"method": "local", "issuer": "ostiary"}},
        "agent": {"id": "bench"},
        "on_behalf_of": {"id": "dora", "groups": ["accounts-payable", "finance"]},
        "run": run,
        "tool": {
            "server": server,
            "name": tool,
            "fqn": f"{server}.{tool}",
            "connector": "mcp",
            "digest": "0" * 64,
            "effect": effect,
            "reversible": False,
            "open_world": True,
            "labels": ["internal"],
            "vendor": {"name": "unspecified", "region": "unspecified"},
            "price": {"micros": 0, "currency": "EUR"},
        },
    }
    past = {"calls": {f"{server}.{tool}": number % 100}, "sums": {}, "amounts": {"amount.EUR": 100 + number}}
    call = listing | {
        "phase": "call",
        "args": {"amount": 100 + number, "currency": "EUR", "invoice": f"INV-{number}", "text": "x" * 100},
        "args_digest": f"{number:064x}",
        "run": run | past,
    }
    return [encode(call)] if whole else [encode(listing), encode(call)]


def cases() -> dict[str, Bundle]:
    """The bundle each case is asked of."""
    plain = load([shipped()], {"gateway": _RULES})
    found = dict.fromkeys((REMEMBERED, ONE, ALL), plain)
    # As `ostiary policy new` copies them: the example settings of each below data.house.
    folders = sorted(path.parent for path in gallery().glob("*/data.json"))
    data = {folder.name: json.loads((folder / "data.json").read_text("utf-8")) for folder in folders}
    whole = load([shipped()], {"gateway": _RULES, "house": data})
    modules = [
        Module(f"{path.parent.name}/{path.name}", path.read_text("utf-8")) for path in gallery().glob("*/*.rego")
    ]
    found[WITH_GALLERY] = bundled([*whole.modules, *modules], json.loads(whole.data))
    return found


async def measure(bundle: Bundle, case: Case, count: int) -> Sample:
    """Ask ``count`` questions of an engine of its own, so many at a time.

    Raises:
        BenchmarkError: an answer was a fault.
    """
    asked = [question(case.name, number) for number in range(count)]
    async with RegoEngine(bundle, EngineSettings(workers=1, deadline_s=5.0)) as engine:
        for warm in asked[:20]:
            said = fold("warm", warm, await engine.evaluate("warm", warm))
            if any(decision.faulty for decision in said):
                raise BenchmarkError(f"{case.name}: {said[-1].reasons[0].id}")
        left = iter(asked[20:])

        async def client() -> None:
            for documents in left:
                await engine.evaluate("01900000-0000-7000-8000-000000000000", documents)

        (pid,) = engine.pids
        earlier, worker, began = probe_ms(), cpu(pid).process, time.process_time()
        await asyncio.gather(*(client() for _ in range(case.connections)))
        own, theirs = time.process_time() - began, cpu(pid).process - worker
        return Sample(count - 20, own / (count - 20) * 1e6, theirs / (count - 20) * 1e6, (earlier + probe_ms()) / 2)


def figures(rounds: Sequence[dict[Case, Sample]]) -> list[dict[str, Any]]:
    """Medians over the rounds, with least and most."""
    names = ("gateway_us", "worker_us", "reference_gateway_us", "reference_worker_us", "probe_ms")
    return [
        asdict(case) | {name: spread([getattr(each[case], name) for each in rounds]) for name in names}
        for case in rounds[0]
    ]


def targets(found: Sequence[dict[str, Any]]) -> list[evidence.Target]:
    """The promises; the worse of the two loads is judged where both count."""

    def worst(name: str, figure: str, connections: Sequence[int] = CONNECTIONS) -> float:
        chosen = [one for one in found if one["name"] == name and one["connections"] in connections]
        return float(max(one[figure]["median"] for one in chosen))

    judged = (
        ("gateway's share of a question, c = 16", 40, worst(ONE, "reference_gateway_us", (16,))),
        ("gateway's share of a question, c = 1", 100, worst(ONE, "reference_gateway_us", (1,))),
        ("worker, a call that concerns one package", 200, worst(ONE, "reference_worker_us")),
        ("worker, a call that concerns all packages", 1000, worst(ALL, "reference_worker_us")),
    )
    return [evidence.Target(name, f"<= {limit} us", value, value <= limit) for name, limit, value in judged]


def table(document: dict[str, Any]) -> str:
    """The evidence as Markdown."""
    about, counts = document["conditions"], document["counts"]
    lines = [
        f"{counts['rounds']} rounds, {counts['questions']:,} questions, seed {document['seed']}.",
        f"{about['cores']} cores ({about['processor']}), Python {about['python']}.",
        "CPU in microseconds, medians over the rounds, [least, most] in brackets.",
        "",
        "| a call whose answer is | c | gateway | worker | at reference speed |",
        "|---|---|---|---|---|",
        *(_row(one) for one in document["figures"]),
        "",
        "| target | limit | measured | |",
        "|---|---|---|---|",
        *(
            f"| {each['figure']} | {each['limit']} | {each['value']:.0f} | {'met' if each['met'] else '**missed**'} |"
            for each in document["targets"]
        ),
    ]
    return "\n".join(lines)


def _row(one: dict[str, Any]) -> str:
    words = {REMEMBERED: "remembered", ONE: "made by one package, the others' remembered"}
    label = words.get(one["name"], f"made by {one['name']}")
    cells = [
        f"{one[name]['median']:.0f} [{one[name]['min']:.0f}, {one[name]['max']:.0f}]"
        for name in ("gateway_us", "worker_us")
    ]
    reference = " / ".join(f"{one[name]['median']:.0f}" for name in ("reference_gateway_us", "reference_worker_us"))
    return f"| {label} | {one['connections']} | {cells[0]} | {cells[1]} | {reference} |"


async def campaign(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, as evidence.

    Raises:
        BenchmarkError: the run is void.
    """
    began, order, covered = time.monotonic(), random.Random(options.seed), evidence.sources_digest()
    bundles = cases()
    wanted = [Case(name, connections) for name in bundles for connections in CONNECTIONS]
    rounds: list[dict[Case, Sample]] = []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds}", flush=True)
        taken = {}
        for case in order.sample(wanted, len(wanted)):
            taken[case] = one = await measure(bundles[case.name], case, options.questions)
            at = f"{one.reference_gateway_us:6.1f} / {one.reference_worker_us:6.1f} at reference speed"
            print(f"  {case.name:30} c={case.connections:<3} {one.gateway_us:6.1f} / {one.worker_us:6.1f} us, {at}")
        rounds.append({case: taken[case] for case in wanted})
    found = figures(rounds)
    judged = targets(found)
    return {
        "campaign": "policy-speed",
        "commit": evidence.commit(),
        "covered": list(evidence.COVERED),
        "digest": covered,
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "counts": {"rounds": len(rounds), "questions": sum(one.questions for each in rounds for one in each.values())},
        "conditions": evidence.conditions(ROOT, {}),
        "figures": found,
        "targets": [asdict(target) for target in judged],
        "verdict": "passed" if all(target.met for target in judged) else "failed",
    }


def main() -> int:
    """Measure, print, and write the evidence; 0 when every target is met, 1 when one is missed, 2 for a void run."""
    options = _options()
    try:
        document: dict[str, Any] = uvloop.run(campaign(options))
    except BenchmarkError as error:
        print(f"void: {error}", file=sys.stderr)
        return 2
    text = table(document)
    print(f"\n{text}\n")
    if options.rounds < LEAST_ROUNDS:
        print(f"no evidence is written: it takes {LEAST_ROUNDS} rounds")
        return 0
    if document["digest"] != evidence.sources_digest():
        print("void: the covered sources were changed during the run", file=sys.stderr)
        return 2
    EVIDENCE.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    evidence.write_table(PAGE, text, MARKS)
    print(f"written: {EVIDENCE}, {PAGE}")
    return 0 if document["verdict"] == "passed" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a policy decision costs.")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--questions", type=int, default=2000, help="of one case in one round (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the cases")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

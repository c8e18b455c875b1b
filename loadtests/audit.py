"""``make bench NAME=audit``: how fast records become durable, searches of a log of a million, how fast it is verified.

Sixty-four callers at once write a log of their own. The large log is written by the gateway's own writer into a
temporary folder, searched through the gateway's own reader, and verified as ``ostiary audit verify`` does; then the
folder is removed. Searches take any value of their kind, from any cursor, and each answer is checked to hold what was
asked for.

Run: ``python -m loadtests.audit``; fewer ``--records`` look without writing evidence.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from gateway.adapters.ledger.keyring.keys import LogKeys, create_or_load
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.verification.verify import verify
from gateway.core.filters import parse
from gateway.core.inquiry import Query
from gateway.serving.hardening import settle_memory
from loadtests import evidence
from loadtests.big_log import AGENTS, REFUSALS, START_US, TOOLS, BigLog, build
from loadtests.load import REFERENCE_PROBE_MS, ROOT, fdatasync_p50_us, probe_ms
from loadtests.processes import BenchmarkError
from loadtests.writers import CALLERS, written

EVIDENCE: Final = ROOT / "docs" / "evidence" / "audit-speed.json"
PAGE: Final = ROOT / "docs" / "performance.md"
MARKS: Final = ("<!-- figures:audit -->", "<!-- /figures:audit -->")
RECORDS: Final = 1_000_000
_P99_MS: Final = 20.0
_VERIFIED: Final = 50_000.0
_DURABLE: Final = 5_000.0
_CPU_US: Final = 60.0
_CALLS: Final = 20_000
# A page of records as the API answers it by default.
_PAGE: Final = 100
_TAKEN_BACK: Final = 0.8  # how far into the log a cursor may be
Ask = Callable[[random.Random, BigLog], str]


def _moment(chance: random.Random, log: BigLog) -> str:
    seconds = (START_US + chance.randrange(log.end_us - START_US)) // 1_000_000
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _span(chance: random.Random, log: BigLog) -> str:
    first, last = sorted((_moment(chance, log), _moment(chance, log)))
    return f"since:{first} until:{last}"


# What is judged: each is found by an index, or by being wherever one looks.
JUDGED: Final[Mapping[str, Ask]] = {
    "nothing asked": lambda _, __: "",
    "tool": lambda chance, _: f"tool:{chance.choice(TOOLS)}",
    "tool, a pattern": lambda chance, _: f"tool:{chance.choice(TOOLS).split('.')[0]}.*",
    "tool, none such": lambda _, __: "tool:none.*",
    "agent": lambda chance, _: f"agent:{chance.choice(AGENTS)}",
    "agent, a pattern": lambda chance, _: f"agent:agent-{chance.randrange(2)}*",
    "effect": lambda _, __: "effect:deny",
    "type, a rare one": lambda _, __: "type:tool.failed",
    "type, a common one": lambda _, __: "type:decision",
    "type, a pattern": lambda _, __: "type:run.*",
    "reason": lambda chance, _: f"reason:{chance.choice(list(REFUSALS))}",
    "reason, a pattern": lambda _, __: "reason:limits.*",
    "call": lambda chance, log: f"call:{chance.choice(log.calls)}",
    "run": lambda chance, log: f"run:{chance.choice(log.runs)}",
    "since": lambda chance, log: f"since:{_moment(chance, log)}",
    "until": lambda chance, log: f"until:{_moment(chance, log)}",
    "since and until": _span,
    "since and effect": lambda chance, log: f"since:{_moment(chance, log)} effect:deny",
    "since and tool": lambda chance, log: f"since:{_moment(chance, log)} tool:{chance.choice(TOOLS)}",
    "tool left out": lambda chance, _: f"-tool:{chance.choice(TOOLS)}",
}
# What is shown only: nothing in the log keeps what is common to two terms, so the records of one are walked.
SHOWN: Final[Mapping[str, Ask]] = {
    "tool and agent": lambda chance, _: f"tool:{chance.choice(TOOLS)} agent:{chance.choice(AGENTS)}",
    "tool, agent and effect": lambda chance, _: (
        f"tool:{chance.choice(TOOLS)} agent:{chance.choice(AGENTS)} effect:deny"
    ),
    "tool and reason": lambda chance, _: f"tool:{chance.choice(TOOLS)} reason:payments.office_hours",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """Searches of one kind; milliseconds as measured.

    Attributes:
        found: records in all answers.
    """

    name: str
    judged: bool
    searches: int
    found: int
    p50_ms: float
    p99_ms: float
    p50_cpu_ms: float
    p99_cpu_ms: float


async def searched(reader: LogReader, log: BigLog, options: argparse.Namespace) -> list[Figure]:
    """Every kind of search, each ``options.searches`` times, in a shuffled order.

    Raises:
        BenchmarkError: an answer holds what was not asked for, or all answers of a kind are empty.
    """
    chance = random.Random(options.seed)
    kinds = {**JUDGED, **SHOWN}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    found = dict.fromkeys(kinds, 0)
    turns = [name for name in kinds for _ in range(options.searches)]
    chance.shuffle(turns)
    for name in turns:
        text = kinds[name](chance, log)
        after = -1 if chance.random() < 0.5 else chance.randrange(round(log.size * _TAKEN_BACK))
        began, cpu = time.perf_counter(), time.process_time()
        asked = parse(text, log.end_us)
        query = Query(terms=asked.terms, since_us=asked.since_us, until_us=asked.until_us, after=after, limit=_PAGE)
        records = await reader.search(query)
        times[name].append(((time.perf_counter() - began) * 1e3, (time.process_time() - cpu) * 1e3))
        found[name] += len(records)
        if any(record.index <= after or not _is_between(record.body["ts"], query) for record in records):
            raise BenchmarkError(f"{text}: a record that was not asked for")
    empty = [name for name, count in found.items() if not count and name != "tool, none such"]
    if empty:
        raise BenchmarkError(f"nothing was ever found by {', '.join(empty)}")
    return [_figure(name, times[name], found[name]) for name in kinds]


def _is_between(at_us: int, query: Query) -> bool:
    return (query.since_us or 0) <= at_us and (query.until_us is None or at_us <= query.until_us)


def _figure(name: str, times: Sequence[tuple[float, float]], found: int) -> Figure:
    wall, cpu = (sorted(each) for each in zip(*times, strict=True))
    half, last = len(times) // 2, min(len(times) - 1, len(times) * 99 // 100)
    return Figure(name, name in JUDGED, len(times), found, wall[half], wall[last], cpu[half], cpu[last])


def verified(folder: Path, keys: LogKeys) -> dict[str, float]:
    """Records verified a second, by the wall and by CPU time.

    Raises:
        BenchmarkError: the log is not sound.
    """
    began, cpu = time.perf_counter(), time.process_time()
    report = verify(folder, keys.signer.key.text)
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    if not report.ok:
        raise BenchmarkError(f"the log is not sound: {report.findings[0].problem}")
    return {
        "records": report.size,
        "payloads": report.payloads,
        "seconds": seconds,
        "per_second": report.size / seconds,
        "cpu_us": used / report.size * 1e6,
    }


def targets(
    found: Sequence[Figure], made: Mapping[str, float], check: Mapping[str, float], slowness: Mapping[str, float]
) -> list[evidence.Target]:
    """The promises, at the reference's speed; the slowest kind of search that is judged counts."""
    p99 = max(one.p99_ms for one in found if one.judged) / slowness["searching"]
    pace = check["per_second"] * slowness["verifying"]
    durable, cost = made["per_second"] * slowness["writing"], made["cpu_us"] / slowness["writing"]
    return [
        evidence.Target(
            f"durable records a second, {CALLERS} callers", f">= {_DURABLE:,.0f}", durable, durable >= _DURABLE
        ),
        evidence.Target("CPU a durable record", f"<= {_CPU_US:.0f} us", cost, cost <= _CPU_US),
        evidence.Target("an indexed search of a million records, p99", f"<= {_P99_MS:.0f} ms", p99, p99 <= _P99_MS),
        evidence.Target("records verified a second", f">= {_VERIFIED:,.0f}", pace, pace >= _VERIFIED),
    ]


def table(document: Mapping[str, Any]) -> str:
    """The evidence as Markdown."""
    check, made = document["verification"], document["writing"]
    lines = [
        *_circumstances(document),
        "",
        "| searched by | found by an index | p50, ms | p99, ms | CPU, ms: p50 | p99 |",
        "|---|---|---|---|---|---|",
        *(_row(one) for one in document["figures"]),
        "",
        f"Verified: {check['per_second']:,.0f} records a second, {check['cpu_us']:.1f} us of CPU a record;",
        f"{check['payloads']:,} sealed payloads among them.",
        f"Written by {CALLERS} callers who each wait for their own: {made['per_second']:,.0f} durable records",
        f"a second, {made['cpu_us']:.0f} us of CPU a record.",
        "",
        "| target | limit | at reference speed | |",
        "|---|---|---|---|",
        *(
            f"| {each['figure']} | {each['limit']} | {each['value']:,.1f} | {'met' if each['met'] else '**missed**'} |"
            for each in document["targets"]
        ),
    ]
    return "\n".join(lines)


def _circumstances(document: Mapping[str, Any]) -> list[str]:
    about, built, probe = document["conditions"], document["log"], document["probe_ms"]
    searches = document["counts"]["searches"]
    return [
        f"{built['records']:,} records ({built['megabytes']:,.0f} MB), {searches:,} searches for pages of {_PAGE},",
        f"seed {document['seed']}. {about['cores']} cores ({about['processor']}), Python {about['python']},",
        f"log on {about['file_system']}.",
        f"Speed probe {probe['writing']:.0f} ms while writing, {probe['searching']:.0f} ms while searching,",
        f"{probe['verifying']:.0f} ms while verifying; load average {document['load_average']:.1f};",
        f"fdatasync p50 {document['fdatasync_p50_us']:.0f} us.",
    ]


def _row(one: Mapping[str, Any]) -> str:
    times = " | ".join(f"{one[name]:.2f}" for name in ("p50_ms", "p99_ms", "p50_cpu_ms", "p99_cpu_ms"))
    return f"| {one['name']} | {'yes' if one['judged'] else 'in part'} | {times} |"


async def campaign(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Write, search and verify: the evidence.

    Raises:
        BenchmarkError: the run is void.
    """
    began, covered = time.monotonic(), evidence.sources_digest()
    keys = create_or_load(folder / "keys", "bench.test/log")
    sync = fdatasync_p50_us(folder)
    print(f"{CALLERS} callers write", flush=True)
    settle_memory()  # as the gateway does when it has started
    probes = [probe_ms()]
    made = await written(folder / "written", keys, _CALLS, options.seed)
    probes.append(probe_ms())
    print(f"writing {options.records:,} records", flush=True)
    log = build(folder, keys, options.records, options.seed)
    built = {"records": log.size, "megabytes": (folder / "log.db").stat().st_size / 1e6}
    print("searching", flush=True)
    probes.append(probe_ms())
    async with LogReader(folder, keys) as reader:
        found = await searched(reader, log, options)
    probes.append(probe_ms())
    print("verifying", flush=True)
    check = verified(folder, keys)
    probes.append(probe_ms())
    probe = {
        name: (probes[at] + probes[at + 1]) / 2 for name, at in (("writing", 0), ("searching", 2), ("verifying", 3))
    }
    judged = targets(found, made, check, {name: value / REFERENCE_PROBE_MS for name, value in probe.items()})
    return {
        "campaign": "audit-speed",
        "commit": evidence.commit(),
        "covered": list(evidence.COVERED),
        "digest": covered,
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "counts": {"searches": sum(one.searches for one in found)},
        "conditions": evidence.conditions(folder, {}),
        "log": built,
        "writing": made,
        "probe_ms": probe,
        "load_average": os.getloadavg()[0],
        "fdatasync_p50_us": sync,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "figures": [asdict(one) for one in found],
        "verification": check,
        "targets": [asdict(target) for target in judged],
        "verdict": "passed" if all(target.met for target in judged) else "failed",
    }


def main() -> int:
    """Measure, print, and write the evidence; 0 when every target is met, 1 when one is missed, 2 for a void run."""
    options = _options()
    try:
        with tempfile.TemporaryDirectory(prefix="ostiary-audit-", dir=options.folder) as folder:
            document = uvloop.run(campaign(options, Path(folder)))
    except BenchmarkError as error:
        print(f"void: {error}", file=sys.stderr)
        return 2
    text = table(document)
    print(f"\n{text}\n")
    if options.records < RECORDS:
        print(f"no evidence is written: it takes {RECORDS:,} records")
        return 0
    if document["digest"] != evidence.sources_digest():
        print("void: the covered sources were changed during the run", file=sys.stderr)
        return 2
    EVIDENCE.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    evidence.write_table(PAGE, text, MARKS)
    print(f"written: {EVIDENCE}, {PAGE}")
    return 0 if document["verdict"] == "passed" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What searching and verifying a large log costs.")
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--searches", type=int, default=200, help="of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is written and searched for")
    parser.add_argument("--folder", help="where the temporary folder is made; about 2 GB")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

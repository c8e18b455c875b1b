"""``make bench``: what a governed call costs, against the upstream itself and against FastMCP's proxy.

Every round loads every door once, in a shuffled order, so that what else the machine does falls on all of them alike.
Only ratios within one run mean anything: the same code differs by a factor of two from one hour to the next.

Run: ``python -m loadtests.one_door``; ``--doors direct,ostiary`` looks without writing evidence.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from loadtests import evidence
from loadtests.load import HANDSHAKE, ROOT, STATELESS, Door, Load, fdatasync_p50_us, measure, probe_ms
from loadtests.processes import BenchmarkError, memory, serving

MANY: Final = 16
VENVS: Final = Path(os.environ.get("OSTIARY_VENVS", ROOT / ".venvs"))
OSTIARY: Final = Path(sys.executable).with_name("ostiary")
EVIDENCE: Final = ROOT / "docs" / "evidence" / "one-door.json"
PAGE: Final = ROOT / "docs" / "performance.md"
# On shared machines the same code takes twice as long from one second to the next. Many short loads, each with the
# speed of a core just before and just after it, scatter less than few long ones in the same time.
LEAST_ROUNDS: Final = 15

# Every control is on; the limits are out of the way, not off: each is still counted.
GATEWAY: Final = """\
state = "state"
catalogue = ["catalogue.toml"]
known_secrets = ["BENCH_SECRET"]

[listen]
port = 0

[policy]
deadline_ms = 1000

[limits]
principal_per_minute = 100_000_000
edge_per_minute = 100_000_000

[upstreams.up]
kind = "mcp"
url = "@UPSTREAM@"
trust = "first_use"
credential = "bench"

[credentials.bench]
header = "Authorization"
prefix = "Bearer "
env = "BENCH_KEY"

[policy.data.gateway.scope.agents.bench]
allow = ["up.*"]

[policy.data.gateway.scope.users."*"]
allow = ["up.*"]
"""
CATALOGUE: Final = """\
[[tool]]
server = "up"
name = "@TOOL@"
effect = "read"
open_world = false
labels = ["internal"]
limits = { per_minute = 100_000_000, concurrency = 64, timeout_s = 10 }
"""
LOADS: Final = (
    *(
        Load(door, version, connections)
        for version in (STATELESS, HANDSHAKE)
        for door in ("direct", "ostiary")
        for connections in (1, MANY)
    ),
    Load("ostiary", STATELESS, MANY, runs=MANY),
    # Peers are slow: few calls to warm up with, and few calls.
    *(
        Load("fastmcp-shared", version, connections, warmup=3)
        for version in (STATELESS, HANDSHAKE)
        for connections in (1, MANY)
    ),
    Load("fastmcp-default", STATELESS, 1, calls=20, warmup=1),
    Load("fastmcp-default", HANDSHAKE, 1, calls=20, warmup=1),
)
DOORS: Final = ("direct", "ostiary", "fastmcp-shared", "fastmcp-default")


@contextlib.contextmanager
def doors(folder: Path, names: Collection[str]) -> Iterator[tuple[dict[str, Door], dict[str, str]]]:
    """The upstream and every door before it, running; yields them and the versions of what runs.

    Raises:
        BenchmarkError: one did not start.
    """
    versions = {name: importlib.metadata.version(name) for name in ("ostiary", "uvicorn", "uvloop", "aiohttp")}
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-m", "loadtests.upstream"]
        pid, said = stack.enter_context(serving(command, folder, "upstream", {"PYTHONPATH": str(ROOT)}))
        url = said["url"]
        found = {"direct": Door("direct", url, "echo", pid)}
        for mode in ("shared", "default"):
            name = f"fastmcp-{mode}"
            if name in names:
                # -P: "mcp" is to be the package, not the benchmark of that name beside the script.
                command = [
                    str(VENVS / "peers" / "bin" / "python"),
                    "-P",
                    str(ROOT / "loadtests" / "peers.py"),
                    mode,
                    url,
                ]
                pid, said = stack.enter_context(serving(command, folder, name))
                found[name] = Door(name, said["url"], "echo", pid)
                versions |= said["versions"]
        if "ostiary" in names:
            found["ostiary"] = stack.enter_context(ostiary(folder, url))
        yield found, versions


@contextlib.contextmanager
def ostiary(folder: Path, upstream: str, tools: Sequence[str] = ("echo",), runs: int = MANY) -> Iterator[Door]:
    """The gateway as an operator starts it, with these tools of the upstream, and a token for each of ``runs``.

    Raises:
        BenchmarkError: it did not start, or gave no token.
    """
    config = folder / "gateway.toml"
    config.write_text(GATEWAY.replace("@UPSTREAM@", upstream), "utf-8")
    catalogue = "\n".join(CATALOGUE.replace("@TOOL@", tool) for tool in tools)
    (folder / "catalogue.toml").write_text(catalogue, "utf-8")
    secrets = {"BENCH_SECRET": "bs-5d1c0e7a9b3f2846", "BENCH_KEY": "bk-0f6b2d9c4e8a1735"}
    command = [str(OSTIARY), "serve", "--config", str(config), "--json"]
    with serving(command, folder, "ostiary", secrets) as (pid, said):
        tokens = tuple(token(config) for _ in range(runs))
        yield Door("ostiary", said["mcp_url"], "up__echo", pid, tokens)


def token(config: Path) -> str:
    """A standing token of the agent ``bench``; each is a run of its own.

    Raises:
        BenchmarkError: none was issued.
    """
    command = [str(OSTIARY), "token", "issue", "--user", "bench", "--agent", "bench", "--scope", "tools"]
    command += ["--ttl", "7200", "--config", str(config), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"no token was issued: {done.stderr}")
    issued: str = json.loads(done.stdout.splitlines()[-1])["token"]
    return issued


def one_round(
    found: Mapping[str, Door], loads: Sequence[Load], folder: Path, seconds: float, order: random.Random
) -> evidence.Round:
    """Load every door that was found once, in a shuffled order.

    Raises:
        BenchmarkError: an answer was not right.
    """
    synced, before = fdatasync_p50_us(folder), probe_ms()
    loads = [load for load in loads if load.door in found]
    samples = {}
    for load in order.sample(loads, len(loads)):
        samples[load] = sample = measure(found[load.door], load, seconds, order.randrange(1 << 30))
        print(
            f"  {load.door:16} {load.version} c={load.connections:<3} runs={load.runs:<3}"
            f" cpu {sample.cpu_process_us / 1e3:7.3f} / {sample.cpu_tree_us / 1e3:7.3f} ms"
            f"  p50 {sample.p50_us / 1e3:8.2f}  p99 {sample.p99_us / 1e3:8.2f} ms  {sample.per_second:8,.0f}/s",
            flush=True,
        )
    return evidence.Round({load: samples[load] for load in loads}, synced, (before, probe_ms()), os.getloadavg())


def campaign(options: argparse.Namespace) -> evidence.Run:
    """Run all rounds.

    Raises:
        BenchmarkError: the run is void.
    """
    started, order, covered = time.monotonic(), random.Random(options.seed), evidence.sources_digest()
    with tempfile.TemporaryDirectory(prefix="ostiary-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        found, versions = stack.enter_context(doors(folder, options.doors))
        rounds = []
        for number in range(options.rounds):
            print(f"round {number + 1} of {options.rounds}", flush=True)
            rounds.append(one_round(found, LOADS, folder, options.seconds, order))
        return evidence.Run(
            seed=options.seed,
            seconds=time.monotonic() - started,
            digest=covered,
            rounds=rounds,
            memory=memory(found["ostiary"].pid) if "ostiary" in found else [],
            conditions=evidence.conditions(folder, versions),
        )


def main() -> int:
    """Measure, print, and write the evidence; 0 when every target is met, 1 when one is missed, 2 for a void run."""
    options = _options()
    try:
        run = campaign(options)
    except BenchmarkError as error:
        print(f"void: {error}", file=sys.stderr)
        return 2
    if set(options.doors) != set(DOORS) or options.rounds < LEAST_ROUNDS:
        print(f"no evidence is written: it takes every door and {LEAST_ROUNDS} rounds")
        return 0
    if run.digest != evidence.sources_digest():
        print("void: the covered sources were changed during the run", file=sys.stderr)
        return 2
    document = evidence.document(run)
    table = evidence.table(document)
    EVIDENCE.parent.mkdir(parents=True, exist_ok=True)
    EVIDENCE.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    evidence.write_table(PAGE, table)
    print(f"\n{table}\n\nwritten: {EVIDENCE}, {PAGE}")
    return 0 if document["verdict"] == "passed" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a governed call costs.")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=1.0, help="longest time of one load")
    parser.add_argument("--seed", type=int, default=1, help="of the loads' order and the texts sent")
    parser.add_argument("--doors", type=lambda text: text.split(","), default=list(DOORS), help=",".join(DOORS))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

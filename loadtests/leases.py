"""``make bench NAME=leases``: what a call with a minted login takes, against minting, connecting and revoking bare.

A real OpenBao mints users of a real PostgreSQL. In turn, so that the machine's moods meet all three alike: a login bare
(``bare_lease.py``), a call of a tool that has a login for each call, and a call of a tool that needs none. What the
leased call takes longer than the other is what leasing adds; it is judged against the bare login of the same turn.

Then many callers at once, more than the gateway asks its vault for at a time: they wait their turn, and each is served.

Run: ``python -m loadtests.leases``; ``--turns 20`` looks without writing evidence.
"""

import argparse
import asyncio
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.servers.erp import MINTED, Erp, erp
from deploy.servers.process import ServerError
from loadtests import evidence
from loadtests.bare_lease import BareLeases, Parts
from loadtests.load import ROOT, probe_ms
from loadtests.processes import BenchmarkError, serving

EVIDENCE: Final = ROOT / "docs" / "evidence" / "lease-speed.json"
PAGE: Final = ROOT / "docs" / "performance.md"
MARKS: Final = ("<!-- figures:leases -->", "<!-- /figures:leases -->")
LEAST_TURNS: Final = 300
CALLERS: Final = 48
_WARM: Final = 10
_CALLS_EACH: Final = 6
_MOST: Final = 1.5
_AGENT: Final = "bench"
_PARTS: Final = ("mint", "session", "revoke", "whole")
_OSTIARY: Final = (sys.executable, "-m", "gateway")
_LEASED, _PLAIN = "erp.one", "books.one"
_DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Turn:
    """One of each, microseconds."""

    bare: Parts
    leased: float
    plain: float

    @property
    def ratio(self) -> float:
        """What leasing added to the call, in bare logins."""
        return (self.leased - self.plain) / self.bare.whole


@dataclass(frozen=True, slots=True)
class Crowd:
    """Many callers at once; times in microseconds."""

    callers: int
    calls: int
    per_second: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls tools of one gateway over REST, and checks each answer."""

    http: httpx.AsyncClient

    async def call(self, tool: str) -> float:
        """How long it took, microseconds.

        Raises:
            BenchmarkError: the answer is not the right one.
        """
        began = time.perf_counter_ns()
        answer = await self.http.post(f"/v1/tools/{tool}/call", json={"arguments": {}})
        took = (time.perf_counter_ns() - began) / 1e3
        if answer.status_code != httpx.codes.OK or '"one":1' not in answer.text.replace(" ", ""):
            raise BenchmarkError(f"{tool}: {answer.status_code} {answer.text[:300]}")
        return took


def furnish(folder: Path, servers: Erp) -> Path:
    """Keys and settings of a gateway before the two servers; returns the file of settings."""
    if subprocess.run([*_OSTIARY, "init", str(folder)], capture_output=True, check=False).returncode:
        raise BenchmarkError("ostiary init failed")
    with closing(sqlite3.connect(folder / "books.db")) as books:
        books.execute("CREATE TABLE words (a)")
    page = folder / "gateway.toml"
    page.write_text(
        f"""
state = "state"
catalogue = ["{Path(__file__).with_name("leases.toml")}"]
[listen]
port = 0
[policy.data.gateway.scope.agents.{_AGENT}]
allow = ["*"]
[policy.data.gateway.scope.users.dora]
allow = ["*"]
[upstreams.books]
kind = "sql"
database = "books.db"
"""
        + servers.gateway_toml()
    )
    return page


def token(admin_socket: str) -> str:
    """A token of the agent, of the gateway's operator."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=admin_socket), base_url="http://localhost") as operator:
        wish = {"user": "dora", "agent": _AGENT, "scopes": ["tools"], "ttl_s": 3600}
        answer = operator.post("/v1/tokens", json=wish)
    if answer.status_code != httpx.codes.CREATED:
        raise BenchmarkError(f"no token: {answer.text}")
    return str(answer.json()["token"])


async def turns(caller: Caller, bare: BareLeases, count: int, seed: int) -> list[Turn]:
    """``count`` turns after some that do not count; the three of a turn in a shuffled order."""
    chance, found = random.Random(seed), list[Turn]()
    for number in range(_WARM + count):
        took: dict[str, float] = {}
        parts = None
        for what in chance.sample(("bare", _LEASED, _PLAIN), 3):
            if what == "bare":
                parts = await bare.once()
            else:
                took[what] = await caller.call(what)
        assert parts is not None
        if number >= _WARM:
            found.append(Turn(parts, took[_LEASED], took[_PLAIN]))
        if number % 50 == 0:
            print(f"turn {number} of {_WARM + count}", flush=True)
    return found


async def crowd(caller: Caller) -> Crowd:
    """``CALLERS`` callers at once, each one call after the other."""

    async def one() -> list[float]:
        return [await caller.call(_LEASED) for _ in range(_CALLS_EACH)]

    began = time.perf_counter()
    took = [each for mine in await asyncio.gather(*(one() for _ in range(CALLERS))) for each in mine]
    seconds = time.perf_counter() - began
    hundredths = statistics.quantiles(took, n=100)
    return Crowd(CALLERS, len(took), len(took) / seconds, hundredths[49], hundredths[98])


async def measured(servers: Erp, said: Mapping[str, Any], options: argparse.Namespace) -> tuple[list[Turn], Crowd]:
    """Everything, by one gateway."""
    headers = {"authorization": f"Bearer {token(said['admin_socket'])}"}
    limits = httpx.Limits(max_connections=CALLERS, max_keepalive_connections=CALLERS)
    async with httpx.AsyncClient(
        base_url=said["url"], headers=headers, timeout=_DEADLINE_S, limits=limits, verify=False, trust_env=False
    ) as http:
        caller, bare = Caller(http), BareLeases(servers)
        try:
            found = await turns(caller, bare, options.turns, options.seed)
        finally:
            bare.close()
        print(f"{CALLERS} callers at once", flush=True)
        return found, await crowd(caller)


def document(found: Sequence[Turn], many: Crowd, taken: Mapping[str, Any]) -> dict[str, Any]:
    """The evidence."""
    ratio = statistics.median(turn.ratio for turn in found)
    target = evidence.Target("a leased call adds, in bare logins", f"<= {_MOST} x", ratio, met=ratio <= _MOST)
    return {
        "campaign": "lease-speed",
        "commit": evidence.commit(),
        "covered": list(evidence.COVERED),
        **taken,
        "counts": {"turns": len(found), "callers": many.callers, "calls at once": many.calls},
        "figures": {
            "bare_us": {name: _spread([getattr(turn.bare, name) for turn in found]) for name in _PARTS},
            "leased_us": _spread([turn.leased for turn in found]),
            "plain_us": _spread([turn.plain for turn in found]),
            "ratio": _spread([turn.ratio for turn in found]),
            "crowd": asdict(many),
        },
        "targets": [asdict(target)],
        "verdict": "passed" if target.met else "failed",
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    tenths = statistics.quantiles(values, n=10)
    return {"p10": round(tenths[0], 3), "median": round(statistics.median(values), 3), "p90": round(tenths[8], 3)}


def table(said: Mapping[str, Any]) -> str:
    """The evidence as Markdown."""
    found, conditions, (target,) = said["figures"], said["conditions"], said["targets"]
    rows = [
        ("mint a login, bare", found["bare_us"]["mint"]),
        ("connect, ask, close, bare", found["bare_us"]["session"]),
        ("revoke it, bare", found["bare_us"]["revoke"]),
        ("**a bare login**", found["bare_us"]["whole"]),
        ("a governed call that needs no login", found["plain_us"]),
        ("**a governed call with its own login**", found["leased_us"]),
    ]
    many = found["crowd"]
    return "\n".join(
        [
            f"{said['counts']['turns']} turns, every answer checked, seed {said['seed']}. {conditions['cores']} cores",
            f"({conditions['processor']}), Python {conditions['python']}; speed probe {said['probe_ms']:.0f} ms; load",
            f"average {said['load_average']:.1f}. Medians, [10 %, 90 %].",
            "",
            "| | ms |",
            "|---|---|",
            *(f"| {name} | {_ms(each)} |" for name, each in rows),
            "",
            f"{many['callers']} callers at once: {many['per_second']:.0f} leased calls a second, p50",
            f"{many['p50_us'] / 1e3:.0f} ms, p99 {many['p99_us'] / 1e3:.0f} ms, none refused.",
            "",
            "| target | limit | measured | |",
            "|---|---|---|---|",
            (
                f"| {target['figure']} | {target['limit']} | {target['value']:.2f} | "
                f"{'met' if target['met'] else '**missed**'} |"
            ),
        ]
    )


def _ms(each: Mapping[str, float]) -> str:
    return f"{each['median'] / 1e3:.2f} [{each['p10'] / 1e3:.2f}, {each['p90'] / 1e3:.2f}]"


def main() -> int:
    """Run from the command line; the exit code: 1 = the target is missed, 2 = the run is void."""
    options = _options()
    began, digest = time.monotonic(), evidence.sources_digest()
    try:
        with tempfile.TemporaryDirectory(prefix="ostiary-bench-") as name, erp() as servers:
            folder = Path(name)
            page = furnish(folder, servers)
            probes = [probe_ms()]
            command = [*_OSTIARY, "serve", "--config", str(page), "--json"]
            with serving(command, folder, "gateway", servers.environment) as (_, said):
                found, many = asyncio.run(measured(servers, said, options))
            probes.append(probe_ms())
            left = servers.postgres.run(MINTED)[0]
            conditions = evidence.conditions(folder, {})
    except (BenchmarkError, ServerError) as error:
        print(f"void: {error}", file=sys.stderr)
        return 2
    if left:
        print(f"void: logins are left behind: {left}", file=sys.stderr)
        return 2
    taken = {
        "digest": digest,
        "seed": options.seed,
        "seconds": round(time.monotonic() - began, 1),
        "conditions": conditions,
        "probe_ms": statistics.mean(probes),
        "load_average": os.getloadavg()[0],
    }
    return _written(document(found, many, taken), options)


def _written(said: Mapping[str, Any], options: argparse.Namespace) -> int:
    text = table(said)
    print(text)
    if options.turns < LEAST_TURNS:
        print(f"not written: fewer than {LEAST_TURNS} turns")
    elif said["digest"] != evidence.sources_digest():
        print("void: the covered sources were changed during the run", file=sys.stderr)
        return 2
    else:
        EVIDENCE.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
        evidence.write_table(PAGE, text, MARKS)
        print(f"written: {EVIDENCE}, {PAGE}")
    return 0 if said["verdict"] == "passed" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a call with a login of its own takes.")
    parser.add_argument("--turns", type=int, default=LEAST_TURNS, help="of one of each (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the order within a turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""``python -m deploy.campaigns.hidden_timing [--seed N] [--pairs N]``: ``make campaign NAME=hidden-timing``.

Fewer pairs than ``WHOLE`` show something and prove nothing: only a whole campaign leaves evidence.
"""

import argparse
import contextlib
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.campaigns import evidence
from deploy.campaigns.hidden_timing.campaign import Caller, findings
from deploy.campaigns.hidden_timing.doors import WrongAnswerError
from deploy.campaigns.hidden_timing.judge import ALARM, FLIPS
from loadtests.processes import BenchmarkError, serving

WHOLE: Final = 4000
_HERE: Final = Path(__file__).parent


def main() -> int:
    """Run the campaign; 0 = passed, 1 = a gap, 2 = void."""
    parser = argparse.ArgumentParser(prog="python -m deploy.campaigns.hidden_timing", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the order within pairs")
    parser.add_argument("--pairs", type=int, default=WHOLE, help="in each situation (%(default)s)")
    asked = parser.parse_args()
    digest = evidence.sources_digest()
    try:
        document = {"digest": digest, **_conduct(asked.seed, asked.pairs)}
    except (WrongAnswerError, BenchmarkError, httpx.HTTPError) as error:
        sys.stdout.write(f"void: {error}\n")
        return 2
    if asked.pairs >= WHOLE:
        if evidence.sources_digest() != digest:
            sys.stdout.write("the sources changed while the campaign ran: it shows nothing of either\n")
            return 2
        sys.stdout.write(f"evidence: {evidence.write('hidden-timing', document)}\n")
    sys.stdout.write(f"{document['verdict']}: {document['counts']}, {document['seconds']} s\n")
    return 0 if document["verdict"] == evidence.PASSED else 1


def _conduct(seed: int, pairs: int) -> dict[str, Any]:
    began, found = time.monotonic(), {}
    with _gateway() as (url, operator):
        caller = Caller(url, operator, random.Random(seed), pairs)  # noqa: S311  the order of pairs is no secret
        for situation, finding in findings(caller, seed):
            found[situation.label] = finding
            sys.stdout.write(
                f"  {situation.label:38} {finding.median_us:7.0f} us; hidden {finding.gap_us:+7.2f}, no tool"
                f" {finding.alike_us:+7.2f}, noise {finding.noise_us:6.2f} us, p {finding.p:.3f}\n"
            )
            sys.stdout.flush()
    passed = all(finding.is_hidden and finding.is_quiet for finding in found.values())
    return {
        "seed": seed,
        "counts": {"situations": len(found), "pairs": sum(one.pairs for one in found.values())},
        "method": f"median of paired differences against {FLIPS} sign flips of pairs of two names of no tool;"
        f" a false alarm in {ALARM:.0%} of campaigns",
        "situations": {label: finding.document() for label, finding in sorted(found.items())},
        "seconds": round(time.monotonic() - began, 1),
        "verdict": evidence.PASSED if passed else evidence.FAILED,
    }


@contextlib.contextmanager
def _gateway() -> Iterator[tuple[str, httpx.Client]]:
    with tempfile.TemporaryDirectory(prefix="ostiary-hidden-") as name:
        folder = Path(name)
        for file in ("gateway.toml", "catalogue.toml"):
            (folder / file).write_bytes((_HERE / file).read_bytes())
        with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
            database.execute("CREATE TABLE ledger (month TEXT, total INT)")
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(folder / "gateway.toml"), "--json"]
        with serving(command, folder, "ostiary") as (_, said):
            transport = httpx.HTTPTransport(uds=said["admin_socket"])
            with httpx.Client(transport=transport, base_url="http://localhost", timeout=60) as operator:
                yield said["url"], operator


if __name__ == "__main__":
    sys.exit(main())

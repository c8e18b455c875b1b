"""``python -m deploy.campaigns.faults [--seed N] [--runs N] [--jobs N] [--fault NAME]``: fault injection.

A series shorter than the whole grid of faults and points shows something and proves nothing: only a whole one leaves
evidence, in ``docs/evidence/faults.json``.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import count, islice
from typing import Final

from deploy.campaigns import evidence
from deploy.campaigns.faults.campaign import Options, conduct
from deploy.campaigns.faults.plan import GRID, Fault, plan

WHOLE: Final = 1200


def main() -> int:
    """Run the campaign; 0 = passed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.campaigns.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--runs", type=int, default=WHOLE, help="how many (%(default)s)")
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time (%(default)s)")
    parser.add_argument("--fault", type=Fault, choices=tuple(Fault), help="only runs with this fault")
    asked = parser.parse_args()
    options = Options(_seeds(asked), asked.jobs)
    digest, began = evidence.sources_digest(), time.monotonic()
    tally = conduct(options)
    document = {"digest": digest, **tally.document(options, time.monotonic() - began)}
    for reason in document["hollow"]:
        sys.stdout.write(f"hollow: {reason}\n")
    if asked.fault is None and asked.runs >= max(WHOLE, len(GRID)):
        if evidence.sources_digest() != digest:
            sys.stdout.write("the sources changed while the campaign ran: it shows nothing of either\n")
            return 1
        sys.stdout.write(f"evidence: {evidence.write('faults', document)}\n")
    said = ", ".join(f"{document['counts'].get(name, 0)} {name}" for name in ("runs", "calls", "intents", "requests"))
    sys.stdout.write(f"{document['verdict']}: {said}, {document['seconds']} s\n")
    return 0 if document["verdict"] == evidence.PASSED else 1


def _seeds(asked: argparse.Namespace) -> Sequence[int]:
    if asked.fault is None:
        return range(asked.seed, asked.seed + asked.runs)
    return list(islice((seed for seed in count(asked.seed) if plan(seed).fault is asked.fault), asked.runs))


if __name__ == "__main__":
    sys.exit(main())

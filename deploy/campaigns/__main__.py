"""``python -m deploy.campaigns NAME [--seed N] [--runs N] [--jobs N]``; what ``make campaign NAME=...`` runs.

A series shorter than the whole grid of a campaign shows something and proves nothing: only a whole one leaves evidence.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from deploy.campaigns import evidence
from deploy.campaigns.faults.campaign import Options, conduct
from deploy.campaigns.faults.plan import GRID

WHOLE: Final = 1200


def faults(asked: argparse.Namespace) -> int:
    """Fault injection on the real parts."""
    runs = asked.runs or WHOLE
    options = Options(seed=asked.seed, runs=runs, jobs=asked.jobs)
    began = time.monotonic()
    tally = conduct(options)
    document = tally.document(options, time.monotonic() - began)
    for reason in document["hollow"]:
        sys.stdout.write(f"hollow: {reason}\n")
    if runs >= max(WHOLE, len(GRID)):
        sys.stdout.write(f"evidence: {evidence.write('faults', document)}\n")
    counts = document["counts"]
    sys.stdout.write(
        f"{document['verdict']}: {counts['runs']} runs, {counts.get('calls', 0)} calls, {counts.get('intents', 0)} intents,"
        f" {counts.get('requests', 0)} requests received, {document['seconds']} s\n"
    )
    return 0 if document["verdict"] == evidence.PASSED else 1


CAMPAIGNS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = MappingProxyType({"faults": faults})


def main() -> int:
    """Run the campaign that is asked for; 0 = passed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.campaigns", description=__doc__)
    parser.add_argument("name", choices=sorted(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--runs", type=int, default=0, help="how many; 0 = the whole campaign")
    parser.add_argument("--jobs", type=int, default=4, help="runs at a time")
    asked = parser.parse_args()
    return CAMPAIGNS[asked.name](asked)


if __name__ == "__main__":
    sys.exit(main())

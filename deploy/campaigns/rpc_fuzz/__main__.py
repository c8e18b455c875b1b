"""``python -m deploy.campaigns.rpc_fuzz [--seed N] [--cases N] [--conversation N]``: ``make campaign NAME=rpc-fuzz``.

Fewer cases than ``WHOLE`` show something and prove nothing: only a whole campaign leaves evidence.
"""

import argparse
import asyncio
import sys
import time
from typing import Final

import uvloop

from deploy.campaigns import evidence
from deploy.campaigns.rpc_fuzz.campaign import STEPS, Options, conducted

WHOLE: Final = 500_000


def main() -> int:
    """Run the campaign; 0 = passed, 1 = something was found, or the sources changed meanwhile."""
    parser = argparse.ArgumentParser(prog="python -m deploy.campaigns.rpc_fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the requests")
    parser.add_argument("--cases", type=int, default=WHOLE, help="how many requests (%(default)s)")
    parser.add_argument("--conversation", type=int, help="only this one: the second number of a case's name")
    asked = parser.parse_args()
    digest, began = evidence.sources_digest(), time.monotonic()
    options = Options(asked.seed, asked.cases)
    if asked.conversation is not None:
        options = Options(asked.seed, STEPS, first=asked.conversation, at_once=1)
    # The loop that the gateway runs on.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        tally = runner.run(conducted(options))
    document = {"digest": digest, **tally.document(time.monotonic() - began)}
    for reason in document["hollow"]:
        sys.stdout.write(f"  - hollow: {reason}\n")
    if document["violations"]:
        sys.stdout.write(f'again: make campaign NAME=rpc-fuzz ARGS="--seed {asked.seed} --conversation NUMBER"\n')
    if asked.conversation is None and asked.cases >= WHOLE:
        if evidence.sources_digest() != digest:
            sys.stdout.write("the sources changed while the campaign ran: it shows nothing of either\n")
            return 1
        sys.stdout.write(f"evidence: {evidence.write('rpc-fuzz', document)}\n")
    counts = document["counts"]
    said = ", ".join(f"{counts[name]} {name}" for name in ("cases", "conversations", "received", "violations"))
    sys.stdout.write(f"{document['verdict']}: {said}, {document['seconds']} s\n")
    return 0 if document["verdict"] == evidence.PASSED else 1


if __name__ == "__main__":
    sys.exit(main())

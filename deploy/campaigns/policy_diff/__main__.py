"""``python -m deploy.campaigns.policy_diff [--seed N] [--inputs N] [--jobs N] [--package NAME]``: engine against OPA.

Policy data and input documents are made by Hypothesis over all packages that come with the gateway; the embedded
engine, its memory included, and OPA itself must say the same of each. A whole series leaves evidence in
``docs/evidence/policy-diff.json``; a shorter one shows something and proves nothing.
"""

import argparse
import sys
import time
from typing import Final

from deploy.campaigns import evidence
from deploy.campaigns.policy_diff.campaign import Options, Tally, conduct

WHOLE: Final = 100_000


def main() -> int:
    """Run the campaign; 0 = passed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.campaigns.policy_diff", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first block")
    parser.add_argument("--inputs", type=int, default=WHOLE, help="how many, at least (%(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (%(default)s)")
    parser.add_argument("--package", help="only this one")
    asked = parser.parse_args()
    options = Options(asked.seed, asked.inputs, asked.jobs, asked.package)
    digest, began = evidence.sources_digest(), time.monotonic()
    tally = conduct(options, _say)
    seconds = round(time.monotonic() - began, 1)
    hollow = tally.hollow()
    verdict = evidence.FAILED if tally.differences or hollow else evidence.PASSED
    for reason in hollow:
        _say(f"hollow: {reason}")
    if asked.package is None and asked.inputs >= WHOLE:
        if evidence.sources_digest() != digest:
            _say("the sources changed while the campaign ran: it shows nothing of either")
            return 1
        found = {"digest": digest, "seed": asked.seed, "seconds": seconds, "verdict": verdict}
        _say(f"evidence: {evidence.write('policy-diff', {**found, **_document(tally), 'hollow': hollow})}")
    _say(f"{verdict}: {tally.counts['inputs']} inputs, {tally.counts['bundles']} bundles, {seconds} s")
    return 0 if verdict == evidence.PASSED else 1


def _document(tally: Tally) -> dict[str, object]:
    return {
        "counts": dict(sorted(tally.counts.items())),
        "inputs_by_package": dict(sorted(tally.by_package.items())),
        "differences": tally.differences,
    }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

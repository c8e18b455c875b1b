"""``python -m deploy.campaigns.leases [--seed N] [--kills N]``: ``make campaign NAME=leases``.

Fewer kills than ``WHOLE`` show something and prove nothing: only a whole campaign leaves evidence.
"""

import argparse
import sys
import time
from typing import Any, Final

from deploy.campaigns import evidence
from deploy.campaigns.leases.campaign import Campaign, opened
from deploy.campaigns.leases.life import LifeError
from deploy.campaigns.leases.steps import Step

WHOLE: Final = 200


def main() -> int:
    """Run the campaign; 0 = passed, 1 = something was left, 2 = void."""
    parser = argparse.ArgumentParser(prog="python -m deploy.campaigns.leases", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the steps and turns")
    parser.add_argument("--kills", type=int, default=WHOLE, help="how many (%(default)s)")
    asked = parser.parse_args()
    digest, began = evidence.sources_digest(), time.monotonic()
    with opened(asked.seed, asked.kills, settles=asked.kills >= WHOLE) as campaign:
        try:
            campaign.conduct()
        except LifeError as error:
            campaign.violations.append(str(error))
    document = {"digest": digest, **as_document(campaign, time.monotonic() - began)}
    for line in [*document["violations"], *(f"hollow: {reason}" for reason in document["hollow"])]:
        sys.stdout.write(f"  - {line}\n")
    if asked.kills >= WHOLE:
        if evidence.sources_digest() != digest:
            sys.stdout.write("the sources changed while the campaign ran: it shows nothing of either\n")
            return 2
        sys.stdout.write(f"evidence: {evidence.write('leases', document)}\n")
    said = ", ".join(f"{number} {name}" for name, number in document["counts"].items())
    sys.stdout.write(f"{document['verdict']}: {said}, {document['seconds']} s\n")
    return 0 if document["verdict"] == evidence.PASSED else 1


def hollow(campaign: Campaign) -> list[str]:
    """Why a campaign may have shown nothing; empty where it did, or was too short to tell."""
    kills = campaign.deaths.total()
    found = [f"{kills} of {campaign.kills} deaths only"] if kills < campaign.kills else []
    found += [] if campaign.swept else ["no death left anything for a recovery to end"]
    if campaign.kills >= WHOLE:
        found += [f"no death where {step}" for step in Step if not campaign.deaths[step]]
        found += [] if campaign.unknown else ["no death left a role that the vault did not know"]
        found += [] if campaign.swept * 3 >= kills else [f"{campaign.swept} deaths only left anything"]
    return found


def as_document(campaign: Campaign, seconds: float) -> dict[str, Any]:
    """The evidence."""
    reasons = hollow(campaign)
    counts = {
        "kills": campaign.deaths.total(),
        "looks": campaign.looks,
        "left something": campaign.swept,
        "nameless tokens": len(campaign.nameless),
        "unknown roles": campaign.unknown,
        "dangling leases": len(campaign.dangling),
        "missed": campaign.missed,
        "answered": campaign.house.answered,
        "records": campaign.records,
    }
    return {
        "seed": campaign.seed,
        "seconds": round(seconds, 1),
        "counts": counts,
        "kills_by_step": {str(step): campaign.deaths[step] for step in Step},
        "violations": campaign.violations,
        "hollow": reasons,
        "verdict": evidence.FAILED if campaign.violations or reasons else evidence.PASSED,
    }


if __name__ == "__main__":
    sys.exit(main())

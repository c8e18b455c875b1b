"""``python -m deploy.campaigns.kill [--store S] [--seed N] [--kills N]``: ``make campaign NAME=kill``.

Fewer kills than ``WHOLE`` show something and prove nothing: only a whole campaign leaves evidence.
"""

import argparse
import asyncio
import sys
import time
from typing import Any, Final

from deploy.campaigns import evidence
from deploy.campaigns.kill.campaign import Campaign, Options, opened
from deploy.campaigns.kill.ground import Store
from deploy.campaigns.kill.house import HouseError
from deploy.campaigns.kill.plan import Moment
from deploy.campaigns.kill.wire import WireError
from deploy.servers.process import ServerError
from loadtests.processes import BenchmarkError

WHOLE: Final = {Store.SQLITE: 200, Store.POSTGRES: 40}
NAMES: Final = {Store.SQLITE: "kill", Store.POSTGRES: "kill-postgres"}
_TELLING_KILLS: Final = 20
# How many calls a death cuts off after their intent, at least: with PostgreSQL most of their time is before it.
_SWEPT: Final = {Store.SQLITE: 1.0, Store.POSTGRES: 0.25}


def main() -> int:
    """Run the campaign; 0 = passed, 1 = something was lost, 2 = void."""
    parser = argparse.ArgumentParser(prog="python -m deploy.campaigns.kill", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the calls")
    parser.add_argument("--kills", type=int, help=f"how many ({', '.join(f'{each}: {WHOLE[each]}' for each in WHOLE)})")
    parser.add_argument("--store", type=Store, choices=list(Store), default=Store.SQLITE, help="where the log lies")
    parser.add_argument("--clients", type=int, default=32, help="calls under way at a time (%(default)s)")
    asked = parser.parse_args()
    digest, began = evidence.sources_digest(), time.monotonic()
    whole = WHOLE[asked.store]
    options = Options(asked.seed, whole if asked.kills is None else asked.kills, asked.clients, asked.store)
    try:
        campaign = asyncio.run(conducted(options))
    except (BenchmarkError, ServerError, WireError) as error:
        sys.stdout.write(f"void: {error}\n")
        return 2
    document = {"digest": digest, **as_document(campaign, time.monotonic() - began)}
    for line in [*document["violations"], *(f"hollow: {reason}" for reason in document["hollow"])]:
        sys.stdout.write(f"  - {line}\n")
    if options.kills >= whole:
        if evidence.sources_digest() != digest:
            sys.stdout.write("the sources changed while the campaign ran: it shows nothing of either\n")
            return 2
        sys.stdout.write(f"evidence: {evidence.write(NAMES[asked.store], document)}\n")
    counts = document["counts"]
    said = ", ".join(f"{counts[name]} {name}" for name in ("kills", "told completed", "effects", "swept", "records"))
    sys.stdout.write(f"{document['verdict']}: {said}, {document['seconds']} s\n")
    return 0 if document["verdict"] == evidence.PASSED else 1


async def conducted(options: Options) -> Campaign:
    """A campaign, run to its end or to where its gateway failed.

    Raises:
        BenchmarkError, WireError: it is void.
    """
    async with opened(options) as campaign:
        try:
            await campaign.conduct()
        except HouseError as error:
            campaign.judge.violations.append(str(error))
        return campaign


def hollow(campaign: Campaign) -> list[str]:
    """Why a campaign may have shown nothing; empty where it did, or was too short to tell."""
    counts, kills = campaign.judge.counts, sum(campaign.moments.values())
    found = [f"no {name}" for name in ("swept", "looks", "consistency proofs", "told denied") if not counts[name]]
    if not campaign.load.unanswered:
        found.append("no kill cut off an answer")
    if kills < campaign.options.kills:
        found.append(f"{kills} of {campaign.options.kills} strikes killed a gateway only")
    if kills < _TELLING_KILLS:
        return found
    there = [moment for moment in Moment if moment is not campaign.options.never]
    found += [f"no kill {moment}" for moment in there if not campaign.moments[moment]]
    if counts["swept"] < kills * _SWEPT[campaign.options.store]:
        found.append(f"{counts['swept']} calls were open in {kills} deaths only")
    if counts["told completed"] * 5 < counts["intents"] * 4:
        found.append(f"{counts['told completed']} of {counts['intents']} calls were answered as completed only")
    return found


def as_document(campaign: Campaign, seconds: float) -> dict[str, Any]:
    """The evidence."""
    judge, reasons = campaign.judge, hollow(campaign)
    counts = {"kills": sum(campaign.moments.values()), "unanswered": campaign.load.unanswered} | judge.counts
    return {
        "seed": campaign.options.seed,
        "seconds": round(seconds, 1),
        "counts": {name: counts.get(name, 0) for name in sorted({*counts, "told completed", "effects", "swept"})}
        | {"verified": campaign.verified},
        "clients": campaign.options.clients,
        "store": campaign.options.store,
        "kills_by_moment": {str(moment): campaign.moments[moment] for moment in Moment},
        "commits_a_call": campaign.commits,
        "violations": judge.violations,
        "hollow": reasons,
        "verdict": evidence.FAILED if judge.violations or reasons else evidence.PASSED,
    }


if __name__ == "__main__":
    sys.exit(main())

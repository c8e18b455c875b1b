"""``python -m deploy.demo [--json] [--require-all]``: real servers, an agent, six attacks, and a log that proves it."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from deploy.demo import house, judge, people, records
from deploy.demo.command import CommandFailed
from deploy.demo.screen import Machine, Screen, Terminal
from deploy.demo.story import Play


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo; 0 = all as it must be, 1 = not, or (with ``--require-all``) a step was skipped."""
    asked = _parser().parse_args(words)
    screen: Screen = Machine() if asked.json else Terminal()
    started = time.monotonic()
    screen.title("Ostiary: every tool call of an agent goes through one door")
    try:
        with tempfile.TemporaryDirectory(prefix="ostiary-demo-") as folder:
            found = play(Path(folder), screen, require_all=asked.require_all)
    except CommandFailed as error:
        found = [str(error)]
    screen.end(found, time.monotonic() - started)
    return 1 if found else 0


def play(folder: Path, screen: Screen, *, require_all: bool) -> list[str]:
    """All acts, in a house that is gone afterwards; what was not as it must be."""
    screen.chapter("Real parts, started for you")
    with house.built(folder, screen) as built:
        reviewer = people.enrolled("vera", built.state, folder)
        run = people.opened_run(built.url, built.state)
        acts = Play(built, screen, reviewer, run["run_id"], run["token"])
        acts.work()
        acts.attack()
        acts.lease()
        records.timeline(acts)
        built.stop()
        records.verified(acts)
        found = list(judge.findings(acts))
        if require_all:
            found += [f"{part} was skipped: {why}" for part, why in built.skipped.items()]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploy.demo", description="The product in three minutes.")
    parser.add_argument("--json", action="store_true", help="one JSON object a line; the last one is the verdict")
    parser.add_argument(
        "--require-all",
        action="store_true",
        default=os.environ.get("CI") == "true",
        help="fail where this machine cannot run a step [with CI=true]",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

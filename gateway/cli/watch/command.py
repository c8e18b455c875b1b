"""``ostiary watch``: which rim, and from when on."""

from pathlib import Path

import click

from gateway.cli import reviewer_key
from gateway.cli.moments import ago_or_moment
from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import wants_json
from gateway.cli.watch import lines, terminal
from gateway.cli.watch.approvals import SignedApprovals


@click.command()
@click.option("--since", callback=ago_or_moment, help="Begin there: 15m, 24h, or ISO 8601 [the newest 500 records].")
@click.option("--once", is_flag=True, help="Print what there is and end.")
@reviewer_key.key_option
@reaching
def watch(reach: Reach, since: int | None, key_file: Path | None, *, once: bool) -> None:
    """Follow the calls that pass the door, live.

    In a terminal: a table, with e to explain the selected call, a to approve and r to reject what waits for a
    signature, and ? for all keys. Into a pipe, or with --json: one line a call as it ends; in JSON also one as it is
    decided. Ctrl-C ends it. A gateway that goes away is waited for.
    """
    if once:
        lines.once(reach, since)
    elif wants_json() or not terminal.can_follow():
        lines.follow(reach, since)
    else:
        terminal.follow(reach, since, SignedApprovals(reach, key_file))

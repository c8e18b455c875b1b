"""Commands that change files: what they would do is shown first, and done once somebody agrees."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import click

from gateway.cli.client.bearing import config_option
from gateway.cli.reach import state_option
from gateway.cli.screen import Failed, answer, json_option


class Plan(Protocol):
    """Everything that would be changed."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be."""

    def document(self) -> dict[str, Any]:
        """For machines."""

    def lines(self) -> Sequence[str]:
        """For people."""


def changing_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add ``--dry-run``, ``--yes``, and which gateway it is about."""
    dry_run = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
    yes = click.option("--yes", is_flag=True, help="Do not ask.")
    return dry_run(yes(config_option(state_option(json_option(command)))))


def agreed(made: Plan, already: str, *, dry_run: bool, yes: bool) -> bool:
    """Show what is planned; whether it is to be carried out now. ``already``: where nothing is to be done.

    Raises:
        Failed: whoever was asked said no.
    """
    if made.is_empty:
        answer({**made.document(), "done": False}, [f"{already} already: nothing to do"])
        return False
    for line in made.lines():
        click.echo(line, err=not dry_run)
    if dry_run:
        answer({**made.document(), "done": False}, ["nothing was changed"])
        return False
    if not yes and not click.confirm("Do that?", err=True):
        raise Failed("nothing was changed", "--yes does not ask")
    return True


def done(made: Plan, backup: str, lines: Sequence[str]) -> None:
    """Say that it is carried out; ``backup``: where the files as they were are kept."""
    answer({**made.document(), "done": True, "backup": backup}, lines)

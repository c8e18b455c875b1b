"""``ostiary audit erase``, ``hold`` and ``hash``: what is kept of payloads, what is not, and who is meant."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, columns

_MICRO = 1_000_000
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _target(command: Decorated) -> Decorated:
    """Add the options that say whose payloads are meant, and why."""
    options = (
        click.option("--run", metavar="ID", help="What was recorded in this run."),
        click.option("--subject", "user", metavar="USER", help="What was recorded of this user's runs and requests."),
        click.option("--issuer", help="Who issues the user's tokens [the gateway itself]."),
        click.option("--why", required=True, help="The case; kept sealed. Do not name the person here."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_target
@reaching
def erase(reach: Reach, **given: Any) -> None:
    """Make all payloads of a run, or of a user, unreadable for ever.

    Their data keys are destroyed and the erasure is recorded; the records themselves stay, and still verify. Runs must
    have ended, and nothing of it may be under a legal hold. Copies of the log made before, and what tools were sent,
    are out of reach: see docs/audit-privacy.md.
    """
    found = reach.post("/v1/audit/erasures", _body(given))
    lines = [f"erased {found['runs']} runs, {found['keys']} data keys destroyed"]
    if not found["complete"]:
        lines.append("somebody is reading the log: the last copies leave its files once they are done")
    answer(found, lines)


@click.command("hash")
@click.argument("value")
@click.option("--issuer", help="Who issues the user's tokens [the gateway itself].")
@click.option("--person", is_flag=True, help="VALUE is a reviewer's person, not a user.")
@reaching
def hash_(reach: Reach, value: str, issuer: str | None, *, person: bool) -> None:
    """Tell what VALUE, a user, stands under in records: `search user:...`, the targets of holds, an export.

    That it was asked is recorded. It works in this direction only.
    """
    if person and issuer is not None:
        raise click.UsageError("--issuer goes with a user")
    given = {"person": value} if person else {"user": value, "issuer": issuer}
    body = {name: said for name, said in given.items() if said is not None}
    found = reach.post("/v1/audit/pseudonyms", body)
    answer(found, [found["pseudonym"]])


@click.group()
def hold() -> None:
    """Keep payloads from erasure and retention."""


@hold.command("set")
@_target
@reaching
def set_(reach: Reach, **given: Any) -> None:
    """Hold a run, or all of a user."""
    found = reach.post("/v1/audit/holds", _body(given))
    lines = [f"held   {found['target']}", f"keeps  {found['keys']} data keys now, and what comes later"]
    if not found["keys"]:
        lines.append("the log holds nothing of it: is the name right, and --issuer?")
    answer(found, lines)


@hold.command()
@_target
@reaching
def release(reach: Reach, **given: Any) -> None:
    """Let a hold end."""
    answer(reach.post("/v1/audit/holds/release", _body(given)), ["released"])


@hold.command("list")
@reaching
def list_(reach: Reach) -> None:
    """List the holds in force, oldest first; users by their pseudonyms."""
    found = reach.get("/v1/audit/holds")
    rows = [
        (f"{datetime.fromtimestamp(one['since_us'] / _MICRO, UTC):%Y-%m-%d %H:%M}", one["target"], one.get("why"))
        for one in found["holds"]
    ]
    answer(found, columns(("SINCE", "TARGET", "WHY"), rows))


def _body(given: dict[str, Any]) -> dict[str, Any]:
    if (given["run"] is None) is (given["user"] is None):
        raise click.UsageError("give --run or --subject")
    return {name: value for name, value in given.items() if value is not None}

"""``ostiary run``: the work an agent is given, opened by a person."""

from typing import Any
from urllib.parse import quote

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, shown


@click.group()
def run() -> None:
    """Open, show and end runs."""


@run.command("open")
@click.option("--goal", required=True, help="The task, in your words.")
@click.option("--agent", required=True, help="Agent that is to work on it.")
@click.option("--scope", multiple=True, help="Tool pattern the run is limited to, e.g. 'erp.*'; again for more.")
@click.option("--budget", multiple=True, metavar="NAME=NUMBER", help="Upper bound, e.g. calls=50; again for more.")
@click.option("--plan", multiple=True, help="Tool you expect to be used; again for more.")
@click.option("--ttl", type=click.IntRange(1), help="Life time, seconds [an hour, or what is left of your token].")
@reaching
def open_(reach: Reach, **given: Any) -> None:
    """Open a run; print the token that is given to the agent."""
    body = {
        "goal": given["goal"],
        "agent": given["agent"],
        "scope": list(given["scope"]),
        "budget": _budget(given["budget"]),
        "plan": list(given["plan"]),
        "ttl_s": given["ttl"],
    }
    found = reach.post("/v1/runs", body)
    document = {"run_id": found["run"]["id"], **found}
    answer(document, [f"run    {shown(document['run_id'])}", f"token  {shown(document['token'])}"])


@run.command()
@click.argument("run_id", metavar="ID")
@reaching
def show(reach: Reach, run_id: str) -> None:
    """Show the run ID."""
    found = reach.get(f"/v1/runs/{quote(run_id, safe='')}")
    width = max((len(key) for key in found), default=0)
    answer(found, [f"{key.ljust(width)}  {shown(value)}" for key, value in found.items()])


@run.command()
@click.argument("run_id", metavar="ID")
@reaching
def end(reach: Reach, run_id: str) -> None:
    """End the run ID: no further call is admitted to it."""
    found = reach.post(f"/v1/runs/{quote(run_id, safe='')}/end", {})
    answer(found, [f"ended  {shown(run_id)}"])


def _budget(pairs: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        name, separator, number = pair.partition("=")
        if not separator or not name or not (number.isascii() and number.isdigit()):
            raise click.BadParameter(f"{pair!r} is not NAME=NUMBER", param_hint="--budget")
        found[name] = int(number)
    return found

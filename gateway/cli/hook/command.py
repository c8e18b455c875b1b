"""``ostiary client hook`` and ``pre-tool``."""

import signal
import sys
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.client import door, housing
from gateway.cli.client.agreeing import agreed, changing_options, done
from gateway.cli.client.places import surroundings
from gateway.cli.hook import asking, installing
from gateway.cli.hook.dialects import DIALECTS, Dialect, NotUnderstood, Ruling
from gateway.cli.screen import Failed, Misconfigured

_AGENTS: Final = click.Choice(list(DIALECTS))
_MOST_BYTES: Final = 8 * 1024 * 1024
# All of it; a gateway that takes longer is none. Beyond the second, the process is ended by the system.
_PATIENCE_S: Final = 15.0
_LAST_S: Final = 30


@click.command()
@click.argument("agent", type=_AGENTS)
@click.option("--project", type=click.Path(path_type=Path, file_okay=False), help="Only for this project's folder.")
@click.option("--user", help="Person the agent works for [developer, with `ostiary up`].")
@click.option("--agent-name", help="Name of the agent in policy [dev-agent, with `ostiary up`].")
@changing_options
def hook(agent: str, **given: Any) -> None:
    """Ask the gateway before a coding agent uses its own shell or editor.

    The agent's file of hooks gets one more, and the gateway an upstream that stands for the agent. It is shown first.
    """
    made = installing.plan(_wish(agent, **given))
    if not agreed(made, "in place", dry_run=given["dry_run"], yes=given["yes"]):
        return
    receipt = installing.carry_out(made)
    done(made, str(receipt), installing.told(made, receipt))


def _wish(agent: str, **given: Any) -> installing.Wish:
    project: Path | None = given["project"]
    if project is not None and not project.is_dir():
        raise Misconfigured(f"{project} is no folder", "give the project's folder")
    house = housing.find(given["config"], given["state"])
    who = housing.bearer(house, given["user"], given["agent_name"])
    return installing.Wish(agent, surroundings(project or Path()), project is not None, house, who)


@click.command("pre-tool")
@click.argument("target", metavar="AGENT", type=_AGENTS)
@click.option("--server", help="The upstream that stands for the agent [its name].")
@door.way_options
def pre_tool(target: str, **given: Any) -> None:
    """Answer a coding agent's hook: its question on standard input, the answer on standard output.

    What is no clear yes of the gateway is a no.
    """
    dialect = DIALECTS[target]
    signal.alarm(_LAST_S)  # ends the process, which is a no
    try:
        ruling = _ruling(dialect, given.pop("server") or target, **given)
    # The outermost boundary: an agent takes a program that broke for one that has nothing against it.
    except Exception as error:  # noqa: BLE001
        why = error.format_message() if isinstance(error, Failed) else type(error).__name__
        ruling = Ruling("deny", f"Ostiary could not be asked, so this is not done: {why}")
    finally:
        signal.alarm(0)
    said = dialect.said(ruling)
    if said:
        click.echo(said)


def _ruling(dialect: Dialect, server: str, **given: Any) -> Ruling:
    body = sys.stdin.buffer.read(_MOST_BYTES + 1)
    if len(body) > _MOST_BYTES:
        return Ruling("deny", f"Ostiary: more than {_MOST_BYTES} bytes cannot be asked about")
    try:
        wish = dialect.understood(body)
    except NotUnderstood as why:
        return Ruling("deny", f"Ostiary: the agent's question was not understood: {why}")
    if wish.tool is None:
        return Ruling("allow", "")
    return asking.ruling(door.way(asking.PATH, given), server, wish, _PATIENCE_S)

"""``ostiary client hook`` and ``pre-tool``."""

import signal
import sys
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.client import bearing, door, housing
from gateway.cli.client.places import surroundings
from gateway.cli.hook import asking, installing
from gateway.cli.hook.dialects import DIALECTS, Dialect, NotUnderstood, Ruling
from gateway.cli.reach import state_option
from gateway.cli.screen import Failed, Misconfigured, answer, json_option

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
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="The gateway's configuration file.")
@state_option
@json_option
def hook(agent: str, **given: Any) -> None:
    """Ask the gateway before a coding agent uses its own shell or editor.

    The agent's file of hooks gets one more, and the gateway an upstream that stands for the agent. It is shown first.
    """
    made = installing.plan(_wish(agent, **given))
    if made.is_empty:
        answer({**made.document(), "done": False}, ["in place already: nothing to do"])
        return
    for line in made.lines():
        click.echo(line, err=not given["dry_run"])
    if given["dry_run"]:
        answer({**made.document(), "done": False}, ["nothing was changed"])
        return
    if not given["yes"] and not click.confirm("Do that?", err=True):
        raise Failed("nothing was changed", "--yes does not ask")
    receipt = installing.carry_out(made)
    answer({**made.document(), "done": True, "backup": str(receipt)}, installing.told(made, receipt))


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
@click.option("--url", help="Base URL of a gateway that runs elsewhere.")
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False), help="With --url: a file with the token."
)
@click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="The gateway's configuration file.")
@bearing.who_options
@state_option
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
    if given["url"] is None:
        settings = bearing.settings_of(given["config"], given["state"])
        way = door.of_settings(settings, given["user"], given["agent"], asking.PATH)
    else:
        way = door.of_url(given["url"], given["token_file"], asking.PATH)
    return asking.ruling(way, server, wish, _PATIENCE_S)

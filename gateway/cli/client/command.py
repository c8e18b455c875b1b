"""``ostiary client``: its subcommands."""

import functools
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import click

from gateway.cli.client import bearing, bridge, connecting, door, housing, receipts, undoing
from gateway.cli.client.agreeing import agreed, changing_options, done
from gateway.cli.client.changing import look
from gateway.cli.client.connecting import Plan, Wish
from gateway.cli.client.places import CLIENTS, surroundings
from gateway.cli.hook.command import hook, pre_tool
from gateway.cli.hook.installing import receipt_name
from gateway.cli.reach import state_option
from gateway.cli.screen import Failed, Misconfigured, answer, json_option, shown

_TARGET = "|".join((*CLIENTS, "FILE"))


@click.group()
def client() -> None:
    """Connect agents and editors with one command, and undo it."""


client.add_command(hook)
client.add_command(pre_tool)


@client.command()
@click.argument("target", metavar=_TARGET)
@click.option("--project", type=click.Path(path_type=Path, file_okay=False), default=".", help="Folder of the project.")
@click.option("--user", help="Person the client works for [developer, with `ostiary up`].")
@click.option("--agent", help="Name of the client as an agent [dev-agent, with `ostiary up`].")
@click.option("--leave", multiple=True, metavar="NAME", help="A server that stays where it is; again for more.")
@click.option("--bridge", "bridged", is_flag=True, help="Use the stdio bridge even where the client needs none.")
@changing_options
def connect(target: str, **given: Any) -> None:
    """Move a client's MCP servers behind the gateway, secrets out of its files.

    Each server becomes an upstream in gateway.toml, each secret a file in the state folder that only you can read, and
    the client is told of the gateway instead. It is shown first. All is done, or nothing; `undo` takes it back.
    """
    made = connecting.plan(_wish(target, **given))
    if not agreed(made, "connected", dry_run=given["dry_run"], yes=given["yes"]):
        return
    receipt = connecting.carry_out(made)
    done(made, str(receipt), _next(target, made, receipt))


@client.command()
@click.argument("target", metavar=_TARGET)
@click.option("--force", "forced", is_flag=True, help="Also where files were changed since; copies of those are kept.")
@click.option("--hook", "hooked", is_flag=True, help="Take its hook back, not its servers.")
@bearing.config_option
@state_option
@json_option
def undo(target: str, config: Path | None, state: Path, *, forced: bool, hooked: bool) -> None:
    """Take the newest `connect` or `hook` of a client back: its files as they were, byte for byte."""
    house = housing.find(config, state)
    name = target if target in CLIENTS else str(look(Path(target)).path)
    name = receipt_name(target) if hooked else name
    if not (house.state / "clients").is_dir():
        raise Failed(
            f"{shown(name)} is not connected, as far as this state folder knows", "name its gateway by --state"
        )
    with receipts.alone(house.state) as folder:
        receipt, left = undoing.take_back(name, folder, forced=forced)
    files = [one.path for one in receipt.files]
    said = [f"as before: {shown(path)}" for path in files]
    said += [f"upstream gone: {one}" for one in receipt.added]
    said += [f"what others had changed is kept in {left}"] if left else []
    document = {"client": name, "files": files, "upstreams": receipt.added, "kept": None if left is None else str(left)}
    answer(document, [*said, "start the client and the gateway anew"])


@client.command()
@bearing.who_options
@bearing.config_option
@state_option
def headers(config: Path | None, state: Path, user: str, agent: str) -> None:
    """Print header fields with a fresh token, for clients that ask a command.

    The answer is a JSON object. The token is made with the key in the state folder and lives for eight hours.
    """
    click.echo(bearing.header_fields(bearing.settings_of(config, state), user, agent))


def _wish(target: str, **given: Any) -> Wish:
    around = surroundings(given["project"])
    if not around.project.is_dir():
        raise Misconfigured(f"{given['project']} is no folder", "give the project's folder")
    house = housing.find(given["config"], given["state"])
    return Wish(
        client=target,
        around=around,
        house=house,
        who=housing.bearer(house, given["user"], given["agent"]),
        leave=given["leave"],
        bridged=given["bridged"],
        ask=functools.cache(lambda name: _input(name, may_ask=not given["yes"] and not given["dry_run"])),
    )


def _input(name: str, *, may_ask: bool) -> str:
    variable = f"OSTIARY_INPUT_{re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"
    value = os.environ.get(variable)
    if value is None and may_ask:
        value = click.prompt(f"{shown(name)}, which the client keeps to itself", hide_input=True, err=True)
    if not value:
        raise Misconfigured(f"the value of the input {shown(name)} is not in the file", f"set {variable}")
    return str(value)


def _next(target: str, made: Plan, receipt: Path) -> list[str]:
    house = made.wish.house
    lines = [f"done; copies of the files as they were: {receipt}"]
    if house.is_development:
        lines.append(f"now: ostiary up --state {house.state}")
    else:
        names = [f"{one.name}.*" for one in made.addition.adopted]
        lines.append(f"start the gateway anew: ostiary serve --config {house.config}")
        lines.append(f"nothing is allowed until policy allows it; {made.wish.who.agent} and {made.wish.who.user} need")
        lines.append(f"  allow = {names} in [policy.data.gateway.scope.agents.*] and users.*")
    return [*lines, f"then start the client anew; `ostiary client undo {shown(target)}` takes it back"]


@client.command("bridge")
@click.option("--server", help="One upstream with its own names, instead of all of them.")
@door.way_options
def bridge_(**given: Any) -> None:
    """Speak MCP on standard input and output, for clients that only start programs.

    Messages go to the gateway of --state by its socket, with tokens made as they are needed; or to --url, with a token
    from --token-file, OSTIARY_TOKEN or `ostiary login`.
    """
    path = "/mcp" if given["server"] is None else f"/servers/{quote(given['server'], safe='')}/mcp"
    anyio.run(bridge.run, door.way(path, given), sys.stdin.buffer, sys.stdout.buffer)

"""``ostiary kill``: the kill switch."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, columns, shown

_MICRO = 1_000_000
_reason = click.option("--reason", required=True, help="Why; it is sealed in the log, callers are not told.")


@click.group()
def kill() -> None:
    """Stop an agent, user, tool, run or everything, and lift that."""


def _stopping(kind: str, doc: str) -> Callable[..., None]:
    @click.argument("name")
    @_reason
    @reaching
    def command(reach: Reach, name: str, reason: str) -> None:
        _engage(reach, kind, name, reason)

    command.__doc__ = doc
    return command


kill.command("agent")(_stopping("agent", "Stop an agent, whoever it acts for, also where it acts through others."))
kill.command("user")(_stopping("user", "Stop all agents that act for a person, whoever vouches for them."))
kill.command("tool")(_stopping("tool", "Stop a tool, server.name, or all tools of a server, server.*."))
kill.command("run")(_stopping("run", "Stop one run; its agent may go on in others."))


@kill.command("all")
@_reason
@reaching
def all_(reach: Reach, reason: str) -> None:
    """Stop every call of everybody."""
    _engage(reach, "all", "", reason)


@kill.command("list")
@click.option("--lifted", is_flag=True, help="Those that were lifted, too.")
@reaching
def list_(reach: Reach, *, lifted: bool) -> None:
    """List what is stopped."""
    found = reach.get("/v1/kills")
    kills = [one for one in found["kills"] if lifted or one.get("lifted_us") is None]
    rows = [
        (
            one["kill_id"],
            _moment(one["since_us"]),
            one["kind"],
            one.get("name"),
            one.get("by"),
            "lifted " + _moment(one["lifted_us"]) if one.get("lifted_us") else f"{one['votes']} of {one['needed']}",
            one.get("reason"),
        )
        for one in kills
    ]
    answer({"kills": kills}, columns(("KILL", "SINCE", "KIND", "NAME", "BY", "TO LIFT", "REASON"), rows))


@kill.command()
@click.argument("kill_id")
@_reason
@reaching
def lift(reach: Reach, kill_id: str, reason: str) -> None:
    """Ask for a kill to be lifted; it is when as many persons as needed have asked."""
    found = reach.post(f"/v1/kills/{quote(kill_id, safe='')}/lift", {"reason": reason})
    if found.get("lifted_us") is None:
        missing = found["needed"] - found["votes"]
        answer(found, [f"asked for; still in force: {missing} more must ask, each with an account of their own"])
        return
    answer(found, [f"lifted: {found['kind']} {shown(found.get('name') or '')}".rstrip()])


def _engage(reach: Reach, kind: str, name: str, reason: str) -> None:
    found = reach.post("/v1/kills", {"kind": kind, "name": name, "reason": reason})
    answer(found, _told(found))
    cut = found["cut"]
    if cut["running"] or cut["not_ended"] or cut["unverifiable"]:
        # In force, but something of what was in use may still be: whoever scripts this must not miss it.
        raise click.exceptions.Exit(1)


def _told(found: dict[str, Any]) -> list[str]:
    cut = found["cut"]
    lines = [f"stopped: {found['kind']} {shown(found.get('name') or '')}".rstrip() + f" (kill {found['kill_id']})"]
    lines.append(f"calls broken off: {cut['calls']}" + (f", {cut['running']} not yet gone" if cut["running"] else ""))
    lines.append(f"credentials ended: {cut['ended']}")
    if cut["not_ended"]:
        lines.append(f"credentials the vault still has: {cut['not_ended']}; they are tried again")
    if cut["unverifiable"]:
        lines.append(f"credentials of which the vault says nothing: {cut['unverifiable']}; they are tried again")
    return lines


def _moment(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / _MICRO, UTC):%Y-%m-%d %H:%M:%S}"

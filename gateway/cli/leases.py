"""``ostiary lease``: the minted credentials in use, and ending them at once."""

from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, columns

_MICRO = 1_000_000


@click.group()
def lease() -> None:
    """List and revoke the credentials that are minted for calls."""


@lease.command("list")
@reaching
def list_(reach: Reach) -> None:
    """List those in use, oldest first."""
    found = reach.get("/v1/leases")
    rows = [
        (
            f"{datetime.fromtimestamp(one['since_us'] / _MICRO, UTC):%H:%M:%S}",
            one["template"],
            one.get("agent"),
            one.get("user"),
            one.get("tool"),
            one.get("call_id"),
        )
        for one in found["leases"]
    ]
    answer(found, columns(("SINCE", "TEMPLATE", "AGENT", "USER", "TOOL", "CALL"), rows))


@lease.command()
@click.option("--agent", help="Those of this agent.")
@click.option("--user", help="Those of calls for this person.")
@click.option("--tool", help="Those of this tool, server.name.")
@click.option("--run", help="Those of this run.")
@click.option("--all", "everything", is_flag=True, help="Every one.")
@reaching
def revoke(reach: Reach, *, everything: bool, **whose: Any) -> None:
    """End credentials now, whatever their calls are doing; all given conditions must hold."""
    named = {name: value for name, value in whose.items() if value is not None}
    if bool(named) is everything:
        raise click.UsageError("give --agent, --user, --tool or --run, or else --all")
    found = reach.post("/v1/leases/revoke", named or {"everything": True})
    later = f", {found['pending']} not ended by the vault yet: tried again" if found["pending"] else ""
    answer(found, [f"revoked {found['revoked']}{later}"])

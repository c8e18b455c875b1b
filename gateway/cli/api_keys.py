"""``ostiary key``: API keys for clients that cannot fetch tokens."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import quote

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, columns, shown

_MICRO = 1_000_000
_EPOCH = date(1970, 1, 1)


@click.group()
def key() -> None:
    """Make, list and revoke API keys, for clients without tokens."""


@key.command()
@click.argument("name")
@click.option("--user", required=True, help="Person or system of record the key stands for.")
@click.option("--agent", help="Agent that acts for the user; without it the key is the person's own.")
@click.option("--scope", multiple=True, help="What it may do, no more than you (again for more) [tools].")
@click.option("--group", multiple=True, help="Group of the user; again for more.")
@click.option("--ttl", type=click.IntRange(1), help="Life time, seconds [90 days; what is left of --token].")
@reaching
def create(reach: Reach, name: str, **given: Any) -> None:
    """Make the key NAME and print it, this once: only its hash is kept."""
    scopes = sorted({word for text in given["scope"] for word in text.replace(",", " ").split()}) or ["tools"]
    body: dict[str, Any] = {
        "name": name,
        "user": given["user"],
        "groups": list(given["group"]),
        "scopes": scopes,
    }
    body |= {name: value for name, value in (("agent", given["agent"]), ("ttl_s", given["ttl"])) if value is not None}
    found = reach.post("/v1/api-keys", body)
    answer(found, [found["key"]])
    click.echo(f"it is not shown again; `ostiary key revoke {found['id']}` ends it", err=True)


@key.command("list")
@reaching
def list_(reach: Reach) -> None:
    """List all keys, oldest first."""
    found = reach.get("/v1/api-keys")
    heads = ("ID", "NAME", "USER", "AGENT", "SCOPES", "UNTIL", "LAST USED", "STATE")
    answer(found, columns(heads, [_row(one) for one in found["keys"]]))


@key.command()
@click.argument("key_id")
@reaching
def revoke(reach: Reach, key_id: str) -> None:
    """Let the key KEY_ID count no more, from now on."""
    found = reach.post(f"/v1/api-keys/{quote(key_id, safe='')}/revoke", {})
    answer(found, [f"revoked  {shown(found['id'])}  {shown(found['name'])}"])


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    until = datetime.fromtimestamp(one["expires_us"] / _MICRO, UTC)
    used = None if one.get("used_day") is None else str(_EPOCH + timedelta(days=one["used_day"]))
    state = "revoked" if one["revoked"] else "expired" if until <= datetime.now(UTC) else "active"
    scopes = " ".join(one["scopes"])
    return one["id"], one["name"], one["user"], one.get("agent"), scopes, f"{until:%Y-%m-%d %H:%M}", used, state

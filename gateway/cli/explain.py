"""``ostiary explain``: why a call ended as it did."""

from typing import Any
from urllib.parse import quote

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, shown


@click.command()
@click.argument("call_id")
@reaching
def explain(reach: Reach, call_id: str) -> None:
    """Tell why a call ended as it did.

    Each rule that spoke is shown with its message and the fact it looked at.
    """
    found = reach.get(f"/v1/calls/{quote(call_id, safe='')}/explain")
    answer(found, told(found))


def told(found: dict[str, Any]) -> list[str]:
    """An explanation as lines for people."""
    lines = [
        f"{key.ljust(12)}  {shown(value)}"
        for key, value in found.items()
        if key != "reasons" and value not in (None, [], {})
    ]
    for reason in found.get("reasons") or ():
        lines += ["", f"{shown(reason.get('id'))}  (package {shown(reason.get('package', '?'))})"]
        lines.append(f"  {shown(reason.get('msg', ''))}")
        if reason.get("fact"):
            lines.append(f"  look at: {shown(reason['fact'])}")
    return lines

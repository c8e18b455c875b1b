"""``ostiary rotate``: keys of the running gateway, replaced without losing a call."""

from datetime import UTC, datetime
from typing import Any

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import answer, columns
from gateway.core.rotation import KeyKind

_MICRO = 1_000_000


@click.command()
@click.argument("kind", required=False, type=click.Choice([str(kind) for kind in KeyKind]))
@reaching
def rotate(reach: Reach, kind: str | None) -> None:
    """Replace keys now, or show how old they are.

    Without KIND, all keys that this gateway replaces are listed. Calls go on meanwhile.
    """
    found = reach.get("/v1/rotations") if kind is None else reach.post(f"/v1/rotations/{kind}", {})
    answer(found, columns(("KIND", "WHICH", "SINCE", "EVERY", "STATE"), [_row(one) for one in found["keys"]]))


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    since = f"{datetime.fromtimestamp(one['since_us'] / _MICRO, UTC):%Y-%m-%d %H:%M}"
    every = f"{one['every_h']} h" if one["every_h"] else "on demand"
    state = f"failed: {one['failed']}" if one.get("failed") else "overdue" if one["overdue"] else "ok"
    return one["kind"], one["subject"], since, every, state

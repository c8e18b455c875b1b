"""``ostiary audit keys`` and ``ostiary audit policy``: the log's signing keys, and what others check them with."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from gateway.cli.reach import Reach, reaching
from gateway.cli.screen import Failed, answer, columns

_MICRO = 1_000_000
_PATIENCE_S = 60.0
_LEFT = "its secret half is removed here; other gateways on the log follow, those that are not running as they start"


@click.group()
def keys() -> None:
    """List, rotate and retire the log's signing keys."""


@keys.command("list")
@reaching
def list_(reach: Reach) -> None:
    """List all keys the log ever had, oldest first: the first names the log."""
    found = reach.get("/v1/audit/keys")
    answer(found, _table(found))


@keys.command()
@reaching
def rotate(reach: Reach) -> None:
    """Make a new key, which signs from now on; the old one signs beside it until it is retired.

    That is after [log] key_overlap_h, or by `ostiary audit keys retire`. Auditors go on with the key they have: the old
    one has signed for the new one. Whoever checks with other tools needs the new key, or `ostiary audit policy`, before
    the old one is retired.
    """
    found = reach.post("/v1/audit/keys/rotate", {})
    answer(found, [*_table(found), "hand out the new policy: ostiary audit policy -o tlog-policy"])


@keys.command()
@reaching
def retire(reach: Reach) -> None:
    """Let the older of two keys sign no more, now; its secret half is removed.

    Other gateways on the same log remove theirs within seconds, one that is not running as it starts. Copies of it,
    in backups above all, are yours to destroy.
    """
    found = reach.post("/v1/audit/keys/retire", {})
    answer(found, [*_table(found), _LEFT])


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write [the screen].")
@reaching
def policy(reach: Reach, output: Path | None) -> None:
    """Write the C2SP tlog-policy of the log: keys in force, witnesses and their quorum.

    `ostiary audit verify --policy FILE` takes it as what is trusted, and so do other tools.
    """
    with reach.line(_PATIENCE_S) as line:
        text = line.text("/v1/audit/policy")
    if output is None:
        answer({"policy": text}, text.splitlines())
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise Failed(f"{output} cannot be written: {error.strerror}", "name another file with --output") from None
    answer({"file": str(output), "policy": text}, [f"written: {output}"])


def _table(found: dict[str, Any]) -> list[str]:
    return columns(("KEY", "SIGNS", "SINCE", "UNTIL", "VKEY"), [_row(key) for key in found["keys"]])


def _row(key: dict[str, Any]) -> tuple[object, ...]:
    since = f"{key['since_size']} ({_day(key['since_us'])})"
    until = None if key.get("until_size") is None else f"{key['until_size']} ({_day(key['until_us'])})"
    if key.get("retires_us") is not None:
        until = f"due {_day(key['retires_us'])}"
    return key["key_id"], key["state"], since, until, key["vkey"]


def _day(at_us: int) -> str:
    return f"{datetime.fromtimestamp(at_us / _MICRO, UTC):%Y-%m-%d %H:%M}"

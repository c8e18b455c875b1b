"""``ostiary audit verify``: the log against its public key, without a gateway."""

import base64
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from gateway.adapters.ledger.keys import LOG_VKEY
from gateway.adapters.ledger.verify import Finding, Report
from gateway.adapters.ledger.verify import verify as check_log
from gateway.cli.reach import state_option
from gateway.cli.screen import Misconfigured, answer, json_option, shown


@click.command()
@click.option(
    "--vkey", type=click.Path(path_type=Path), help="The log's public key, kept elsewhere [STATE/keys/log.vkey]."
)
@state_option
@json_option
def verify(state: Path, vkey: Path | None) -> None:
    """Check every record, run, payload and signature of the log.

    Needs no running gateway, and may run beside one. Whoever can change the log can change the key beside it: give the
    copy you keep elsewhere as --vkey. Exit code 1 where anything is not as it was written.
    """
    path = vkey or state / "keys" / LOG_VKEY
    try:
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise Misconfigured(f"the log's public key {path} cannot be read", "name it with --vkey") from None
    report = check_log(state, key)
    answer(_document(report), _lines(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


def _document(report: Report) -> dict[str, Any]:
    point = report.checkpoint
    signed = point and {"origin": point.origin, "size": point.size, "root": base64.b64encode(point.root).decode()}
    return {
        "ok": report.ok,
        "size": report.size,
        "payloads": report.payloads,
        "checkpoint": signed,
        "findings": [asdict(found) for found in report.findings],
        "open_calls": list(report.open_calls),
    }


def _lines(report: Report) -> Iterator[str]:
    for found in report.findings:
        yield _line(found)
    counted = f"{report.size} records, {report.payloads} sealed payloads"
    if not report.ok:
        yield f"NOT SOUND: {len(report.findings)} finding(s) in {counted}"
        return
    if report.checkpoint is None:
        yield f"sound, but nothing is signed yet: {counted}"
        return
    yield f"sound: {counted}"
    yield f"signed by {shown(report.checkpoint.origin)}, root {base64.b64encode(report.checkpoint.root).decode()}"
    if report.open_calls:
        yield f"{len(report.open_calls)} calls have no ending yet: normal while a gateway runs or after it was killed"


def _line(found: Finding) -> str:
    place = "log" if found.index is None else f"record {found.index}"
    return f"{place}{'' if found.id is None else f' ({shown(found.id)})'}: {shown(found.problem)}"

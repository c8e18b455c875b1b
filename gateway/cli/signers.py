"""Who signed a log and up to when, in words."""

from collections.abc import Iterator
from datetime import UTC, datetime

from gateway.adapters.ledger.verification.report import Report
from gateway.cli.screen import shown

_MICRO = 1_000_000


def who_signed(report: Report) -> Iterator[str]:
    """A line for each key and each witness, and one for what the quorum covers."""
    for signer in report.signers:
        name, key_id = signer.vkey.split("+")[:2]
        until = "retired" if signer.retired else "the newest record"
        yield (
            f"  key {shown(name)}+{key_id}: trees of {signer.first} to {signer.last} records, "
            f"from {_moment(signer.since_us)} to {_moment(signer.until_us)} ({until})"
        )
    for word in report.testimonies:
        name, key_id = word.vkey.split("+")[:2]
        yield f"  witness {shown(name)}+{key_id}: up to {word.size} records, at {_moment(word.time_s * _MICRO)}"
    if report.witnessed is not None:
        yield f"  a quorum of the policy's witnesses: up to {report.witnessed} records"
        if report.witnessed < report.size:
            newer = f"records {report.witnessed} to {report.size - 1}"
            yield f"not checked: whether {newer} were shown to others: no quorum has cosigned them yet"


def _moment(at_us: int | None) -> str:
    try:
        return f"{datetime.fromtimestamp((at_us or 0) / _MICRO, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return "a time that cannot be"

"""Moments as people write them on a command line."""

import re
import time
from datetime import UTC, datetime

import click

_AGO = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def ago_or_moment(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Microseconds since the epoch of ``90s``, ``15m``, ``24h``, ``7d`` (ago) or an ISO 8601 time."""
    if value is None:
        return None
    ago = _AGO.fullmatch(value)
    if ago:
        return time.time_ns() // 1000 - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000
    try:
        stamp = datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is neither like 24h nor like 2026-03-02T10:00:00Z") from None
    return round(stamp.timestamp() * 1_000_000)

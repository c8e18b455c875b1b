"""Moments as people write them on a command line."""

import time

import click

from gateway.core.filters import moment


def ago_or_moment(_: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Microseconds since the epoch, as ``since:`` and ``until:`` of a query read them."""
    if value is None:
        return None
    found = moment(value, time.time_ns() // 1000, last="--until" in parameter.opts)
    if found is None:
        raise click.BadParameter(f"{value!r} is neither like 24h nor like 2026-03-02T10:00:00Z")
    return found

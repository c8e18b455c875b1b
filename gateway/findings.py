"""What ``check`` and ``doctor`` report: one part each."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One part that was looked at.

    Attributes:
        part: its name.
        ok: whether it can be relied on.
        text: what was found.
        fix: what to do where it is not ok.
    """

    part: str
    ok: bool
    text: str
    fix: str | None = None

"""What was looked at and how it is: one line a part, and under each bad one its fix."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from gateway.cli.screen import shown
from gateway.findings import Finding


def as_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """For machines: ``{"ok": bool, "findings": [...]}``."""
    return {"ok": all(found.ok for found in findings), "findings": [asdict(found) for found in findings]}


def as_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """For people."""
    for found in findings:
        yield f"{'ok  ' if found.ok else 'FAIL'}  {found.part.ljust(16)}  {shown(found.text)}"
        if not found.ok and found.fix:
            yield f"      {''.ljust(16)}  fix: {shown(found.fix)}"

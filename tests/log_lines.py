"""Records as the log has them, for whoever reads the log from outside."""

from typing import Any

START_US = 1_750_000_000_000_000


def entry(index: int, kind: str, call: str | None = "c-1", **body: Any) -> tuple[int, dict[str, Any]]:
    """The record at ``index``."""
    actor = {"agent": body.pop("agent", "ap-agent"), "authn": "local", "user": "p-1"}
    at_us = START_US + index
    return index, {
        "id": f"r-{index}",
        "type": kind,
        "ts": at_us,
        "actor": actor,
        "run_id": "run-1",
        "call_id": call,
        "body": body,
    }


def completed(index: int, call: str, tool: str = "erp.find_order", **body: Any) -> list[tuple[int, dict[str, Any]]]:
    """The three records of a call that went well, the first at ``index``."""
    ended = {"tool": tool, "total_us": 5000, "redactions": 0, "is_error": False} | body
    return [
        entry(
            index, "decision", call, tool=tool, effect="allow", enforced=True, reasons=["scope.allowed"], took_us=900
        ),
        entry(index + 1, "tool.requested", call, **{"class": "read", "tool": tool}),
        entry(index + 2, "tool.completed", call, **ended),
    ]


def denied(index: int, call: str, tool: str = "erp.purge") -> tuple[int, dict[str, Any]]:
    """The one record of a call that policy refused."""
    reasons = ["default.no_allow", "scope.not_granted"]
    return entry(index, "decision", call, tool=tool, effect="deny", reasons=reasons, code="denied", took_us=800)

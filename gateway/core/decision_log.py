"""Recorded decisions as decision-log events of OPA's shape, with what only this log knows in the member ``ostiary``.

Shape: https://www.openpolicyagent.org/docs/management-decision-logs
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from gateway.core.desk import Recorded

PATH = "gateway/main/decision"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = 1_000
_REASON = ("id", "package", "msg", "fact")
_REQUIREMENT = ("id", "msg", "quorum", "roles")


def event(recorded: Recorded, labels: Mapping[str, str]) -> dict[str, Any]:
    """One event, for ``canonical.encode``. What was erased is said to be; what the log never held is absent."""
    record = recorded.record.body
    body = record["body"]
    found = {
        "labels": {"app": "ostiary", **labels},
        "decision_id": body["decision_id"],
        "path": PATH,
        "timestamp": _rfc3339(record["ts"]),
        "bundles": {"ostiary": {"revision": body["revision"]}},
        "result": _result(body, recorded.said),
        "metrics": {"timer_server_handler_ns": body["took_us"] * _US},
        "ostiary": {
            "index": recorded.record.index,
            "call_id": record["call_id"],
            "run_id": record["run_id"],
            "tool": body["tool"],
            "phase": body["phase"],
            "enforced": body["enforced"],
            "engine": body["engine"],
            "input_digest": None if recorded.said is None else recorded.said.get("input_digest"),
            "outcome": body.get("code"),
        },
    }
    # Byte for byte, or the digest would not be that of what policy read: numbers keep the form they were sent in.
    known = {"erased": ["/input"]} if recorded.document is None else {"input": msgspec.Raw(recorded.document)}
    return found | known


def _result(body: Mapping[str, Any], said: Mapping[str, Any] | None) -> dict[str, Any]:
    # Where the words are gone, the ids of the leaf remain.
    if said is None:
        reasons, needs = [{"id": name} for name in body["reasons"]], [{"id": name} for name in body["requirements"]]
        return {"effect": body["effect"], "reasons": reasons, "requirements": needs}
    return {
        "effect": body["effect"],
        "reasons": [_members(reason, _REASON) for reason in said.get("reasons", ())],
        "requirements": [_members(need, _REQUIREMENT) for need in said.get("requirements", ())],
    }


def _members(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: found[name] for name in names if found.get(name) is not None}


def _rfc3339(at_us: int) -> str:
    at = _EPOCH + timedelta(microseconds=at_us)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")

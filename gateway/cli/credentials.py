"""What was minted in a run and how it ended, out of the run's records: for ``ostiary audit run``."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.cli.screen import columns

_HEADS = ("LEASE", "KIND", "ROLE", "TTL", "LEASED", "REVOKED", "HOW", "CALL", "VAULT REQUEST")
_MARK = 16
_LEASED, _PENDING, _REVOKED = "credential.leased", "credential.revoke_pending", "credential.revoked"


def credentials(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each token, login, certificate and reading once, in log order.

    Members: ``lease`` (its mark in the log), ``kind``, ``template``, ``role``, ``ttl_s``, ``call_id`` of the call it
    was minted for, ``leased_us``, ``request`` and ``correlation`` (in the vault's audit log), ``uses`` (calls that had
    it), ``revoked_us`` (None = not as far as the log tells), and ``cause`` of its end, or of what keeps it from ending.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        body = record.get("body") or {}
        if record.get("type") == _LEASED:
            one = found.setdefault(body["mark"], _minted(record, body))
            one["uses"] += 1
        elif record.get("type") in {_PENDING, _REVOKED} and body["mark"] in found:
            one = found[body["mark"]]
            one["cause"], one["correlation"] = body["cause"], body.get("correlation")
            one["revoked_us"] = record["ts"] if record["type"] == _REVOKED else None
    return list(found.values())


def table(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The same for people; no line where there is nothing."""
    rows = [_row(one) for one in found]
    return ["", *columns(_HEADS, rows)] if rows else []


def _minted(record: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lease": body["mark"],
        "kind": body["kind"],
        "template": body["template"],
        "role": body["role"],
        "ttl_s": body["ttl_s"],
        "call_id": record.get("call_id"),
        "leased_us": record["ts"],
        "request": body["request"],
        "correlation": None,
        "uses": 0,
        "revoked_us": None,
        "cause": None,
    }


def _row(one: Mapping[str, Any]) -> tuple[object, ...]:
    cause = one["cause"]
    how = cause if one["revoked_us"] is not None or cause is None else f"pending: {cause}"
    return (
        one["lease"][:_MARK],
        one["kind"],
        one["role"],
        f"{one['ttl_s']} s",
        _when(one["leased_us"]),
        "not yet" if one["revoked_us"] is None else _when(one["revoked_us"]),
        how,
        one["call_id"],
        one["request"],
    )


def _when(stamp_us: int) -> str:
    when = datetime.fromtimestamp(stamp_us / 1_000_000, UTC).isoformat(timespec="milliseconds")
    return when.replace("+00:00", "Z")

"""Two plain questions that every bundle must be able to answer: may a made-up agent list, and call, a made-up tool?"""

from gateway.core.canonical import encode

_LISTING = {
    "schema": "gateway.input/v1",
    "phase": "list",
    "kind": "tool",
    "time": {"us": 1767225600000000, "rfc3339": "2026-01-01T00:00:00.000000Z"},
    "context": {"env": "probe", "region": "unspecified", "channel": "rest"},
    "principal": {"kind": "agent", "id": "probe", "auth": {"method": "local", "issuer": "probe"}},
    "agent": {"id": "probe"},
    "on_behalf_of": {"id": "probe", "groups": []},
    "run": {"id": "00000000-0000-7000-8000-000000000000", "kind": "implicit", "opened_by": "probe"},
    "tool": {
        "server": "probe",
        "name": "probe",
        "fqn": "probe.probe",
        "connector": "mcp",
        "digest": "0" * 64,
        "effect": "read",
        "reversible": False,
        "open_world": True,
        "labels": [],
        "vendor": {"name": "unspecified", "region": "unspecified"},
        "price": {"micros": 0, "currency": "EUR"},
    },
}
_CALLING = _LISTING | {
    "phase": "call",
    "args": {},
    "args_digest": "0" * 64,
    "run": {
        "id": "00000000-0000-7000-8000-000000000000",
        "kind": "implicit",
        "opened_by": "probe",
        "calls": {},
        "sums": {},
        "amounts": {},
    },
}
PROBES = (encode(_LISTING), encode(_CALLING))

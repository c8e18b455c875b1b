"""The break-glass AppRole: what a vault must let the gateway do in an emergency, and nothing else; docs/kill.md."""

import json
from collections.abc import Sequence

from deploy.servers.openbao import Request

ROLE_ID = "ostiary-break-glass"
SECRET_VARIABLE = "GLASS_SECRET_ID"  # noqa: S105 - the name of a variable


def policy(prefixes: Sequence[str]) -> str:
    """Ends and lists the leases of these templates (``database/creds/NAME``), and ends its own token."""
    paths: dict[str, dict[str, list[str]]] = {"auth/token/revoke-self": {"capabilities": ["update"]}}
    for prefix in prefixes:
        paths[f"sys/leases/revoke-prefix/{prefix}"] = {"capabilities": ["update", "sudo"]}
        paths[f"sys/leases/lookup/{prefix}/"] = {"capabilities": ["list", "sudo"]}
    return json.dumps({"path": paths})


def requests(prefixes: Sequence[str], secret_id: str) -> list[Request]:
    """What OpenBao is told at its first start; the AppRole engine is there already."""
    role = {
        "token_policies": [ROLE_ID],
        "token_no_default_policy": True,
        "token_ttl": "60s",
        "token_max_ttl": "60s",
        "token_type": "service",
        "bind_secret_id": True,
    }
    return [
        Request("glass-policy", f"sys/policies/acl/{ROLE_ID}", {"policy": policy(prefixes)}),
        Request("glass", f"auth/approle/role/{ROLE_ID}", role),
        Request("glass-id", f"auth/approle/role/{ROLE_ID}/role-id", {"role_id": ROLE_ID}),
        Request("glass-key", f"auth/approle/role/{ROLE_ID}/custom-secret-id", {"secret_id": secret_id}),
    ]


def settings_toml() -> str:
    """The section of the gateway's settings."""
    return f"""
[vault.break_glass]
role_id = "{ROLE_ID}"
secret_id = {{ env = "{SECRET_VARIABLE}" }}
"""

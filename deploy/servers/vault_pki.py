"""What the gateway needs of a vault whose pki engine issues client certificates, as data: ``docs/credentials.md``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.servers.openbao import Request
from deploy.servers.vault_setup import Entry, tokens, way_in

MOUNT = "pki"


@dataclass(frozen=True, slots=True)
class Issuing:
    """One role of the engine.

    Attributes:
        name: of the role, of the lease template's policy and of its token role.
        domain: the one name certificates are issued for.
        leased: whether the vault keeps a lease of each, by which it is revoked.
    """

    name: str
    domain: str
    ttl_s: int = 120
    leased: bool = True


def requests(roles: Sequence[Issuing], entry: Entry) -> list[Request]:
    """What OpenBao is told at its first start."""
    authority = {"common_name": "ostiary test authority", "key_type": "ec", "key_bits": 256, "ttl": "8760h"}
    return [
        Request("pki", f"sys/mounts/{MOUNT}", {"type": "pki"}),
        Request("authority", f"{MOUNT}/root/generate/internal", authority),
        *(request for role in roles for request in _role(role, entry.period_s)),
        *way_in(gateway_policy(roles), entry),
    ]


def gateway_policy(roles: Sequence[Issuing]) -> str:
    """The policy of the gateway itself: it makes the tokens that issue, and ends them and their leases."""
    leases = {"lease_id": [f"{MOUNT}/issue/{role.name}/*" for role in roles]}
    anything: list[str] = []
    update = ["update"]
    paths: dict[str, Any] = {f"auth/token/create/{role.name}": {"capabilities": ["create", "update"]} for role in roles}
    for word in ("revoke-accessor", "renew-accessor", "revoke-self"):
        paths[f"auth/token/{word}"] = {"capabilities": update}
    paths["sys/leases/revoke"] = {"capabilities": update, "allowed_parameters": leases | {"sync": anything}}
    paths["sys/leases/lookup"] = {"capabilities": update, "allowed_parameters": leases}
    return json.dumps({"path": paths})


def _role(role: Issuing, period_s: int) -> list[Request]:
    settings = {
        "allowed_domains": [role.domain],
        "allow_bare_domains": True,
        "client_flag": True,
        "server_flag": False,
        "key_type": "ec",
        "key_bits": 256,
        "max_ttl": f"{role.ttl_s}s",
        "generate_lease": role.leased,
    }
    policy = json.dumps({"path": {f"{MOUNT}/issue/{role.name}": {"capabilities": ["update"]}}})
    return [Request(f"role-{role.name}", f"{MOUNT}/roles/{role.name}", settings), *tokens(role.name, policy, period_s)]

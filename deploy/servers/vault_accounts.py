"""What the gateway needs of a vault that keeps persons' connections, as data: see ``docs/credentials.md``."""

import json
from collections.abc import Sequence

from deploy.servers.openbao import Request
from deploy.servers.vault_setup import Entry, tokens, way_in

MOUNT = "secret"


def requests(connections: Sequence[str], entry: Entry) -> list[Request]:
    """What the vault is told; each connection's token role and policy are ``NAME-accounts``."""
    found = [Request("kv", f"sys/mounts/{MOUNT}", {"type": "kv", "options": {"version": "2"}})]
    for name in connections:
        found += tokens(f"{name}-accounts", keeping_policy(name), entry.period_s)
    return [*found, *way_in(gateway_policy(connections), entry)]


def keeping_policy(name: str) -> str:
    """The policy of the tokens that keep the connections ``name``: these, and nothing else."""
    paths = {
        f"{MOUNT}/data/ostiary/connections/{name}/+": {"capabilities": ["create", "read", "update"]},
        f"{MOUNT}/metadata/ostiary/connections/{name}/+": {"capabilities": ["create", "update", "delete"]},
    }
    return json.dumps({"path": paths})


def gateway_policy(connections: Sequence[str]) -> str:
    """The policy of the gateway itself: it makes and ends these tokens; it cannot read what is kept."""
    paths = {f"auth/token/create/{name}-accounts": {"capabilities": ["create", "update"]} for name in connections}
    for word in ("revoke-accessor", "renew-accessor", "revoke-self"):
        paths[f"auth/token/{word}"] = {"capabilities": ["update"]}
    return json.dumps({"path": paths})

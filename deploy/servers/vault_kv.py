"""What the gateway needs of a vault whose kv engine holds static secrets, as data: see ``docs/credentials.md``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy.servers.openbao import Request
from deploy.servers.vault_setup import Entry, tokens, way_in

MOUNT = "secret"


@dataclass(frozen=True, slots=True)
class Secret:
    """A static secret, and who may read it.

    Attributes:
        name: of the lease template's policy and token role.
        path: in the engine; the tokens read it and nothing else.
        members: what is kept there.
    """

    name: str
    path: str
    members: Mapping[str, object] = field(repr=False)


def requests(secrets: Sequence[Secret], entry: Entry) -> list[Request]:
    """What OpenBao is told at its first start."""
    return [
        Request("kv", f"sys/mounts/{MOUNT}", {"type": "kv", "options": {"version": "2"}}),
        *(request for secret in secrets for request in _secret(secret, entry.period_s)),
        *way_in(gateway_policy(secrets), entry),
    ]


def gateway_policy(secrets: Sequence[Secret]) -> str:
    """The policy of the gateway itself: it makes and ends the tokens that read; it cannot read."""
    paths = {f"auth/token/create/{secret.name}": {"capabilities": ["create", "update"]} for secret in secrets}
    for word in ("revoke-accessor", "renew-accessor", "revoke-self"):
        paths[f"auth/token/{word}"] = {"capabilities": ["update"]}
    return json.dumps({"path": paths})


def _secret(secret: Secret, period_s: int) -> list[Request]:
    policy = json.dumps({"path": {f"{MOUNT}/data/{secret.path}": {"capabilities": ["read"]}}})
    return [
        Request(f"secret-{secret.name}", f"{MOUNT}/data/{secret.path}", {"data": dict(secret.members)}),
        *tokens(secret.name, policy, period_s),
    ]

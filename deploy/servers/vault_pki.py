"""What the gateway needs of a vault whose pki engine issues client certificates, as data: ``docs/credentials.md``."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.servers.openbao import Request
from deploy.servers.vault_setup import Entry, held, secret_id
from gateway.core.leasing import Provider, Template
from gateway.core.vault_plan import Needs

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
    asked = Needs(tuple(template(role) for role in roles), role_id=entry.role_id, period_s=entry.period_s)
    return [*held(asked), *authority(roles), secret_id(asked.name, entry.secret_id)]


def authority(roles: Sequence[Issuing]) -> list[Request]:
    """The operator's own: an authority, and what it issues."""
    itself = {"common_name": "ostiary test authority", "key_type": "ec", "key_bits": 256, "ttl": "8760h"}
    return [Request("authority", f"{MOUNT}/root/generate/internal", itself), *(_role(role) for role in roles)]


def template(role: Issuing) -> Template:
    """The lease template that has them issued."""
    return Template(role.name, MOUNT, role.name, role.name, role.ttl_s, provider=Provider.PKI, common_name=role.domain)


def _role(role: Issuing) -> Request:
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
    return Request(f"role-{role.name}", f"{MOUNT}/roles/{role.name}", settings)

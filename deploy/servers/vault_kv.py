"""What the gateway needs of a vault whose kv engine holds static secrets, as data: see ``docs/credentials.md``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deploy.servers.openbao import Request
from deploy.servers.vault_setup import Entry, held, secret_id
from gateway.core import vault_policy
from gateway.core.leasing import Provider, Template
from gateway.core.vault_plan import Needs
from gateway.core.vault_policy import Duties

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
    asked = Needs(templates(secrets), role_id=entry.role_id, period_s=entry.period_s)
    return [*held(asked), *values(secrets), secret_id(asked.name, entry.secret_id)]


def values(secrets: Sequence[Secret]) -> list[Request]:
    """The operator's own: what the engine holds."""
    return [Request(f"secret-{one.name}", f"{MOUNT}/data/{one.path}", {"data": dict(one.members)}) for one in secrets]


def gateway_policy(secrets: Sequence[Secret]) -> str:
    """The policy of the gateway itself: it makes and ends the tokens that read; it cannot read."""
    return vault_policy.text(vault_policy.gateway(templates(secrets), Duties()))


def templates(secrets: Sequence[Secret]) -> tuple[Template, ...]:
    """The lease templates that read them."""
    return tuple(
        Template(one.name, MOUNT, one.path, one.name, 120, provider=Provider.KV, member="key") for one in secrets
    )

"""What the gateway needs of a vault that keeps persons' connections, as data: see ``docs/credentials.md``."""

from collections.abc import Sequence

from deploy.servers.openbao import Request
from deploy.servers.vault_setup import Entry, held, secret_id
from gateway.core.leasing import Provider, Template
from gateway.core.vault_plan import Needs

MOUNT = "secret"


def requests(connections: Sequence[str], entry: Entry) -> list[Request]:
    """What the vault is told; each connection's token role and policy are ``NAME-accounts``."""
    asked = Needs(tuple(_template(name) for name in connections), role_id=entry.role_id, period_s=entry.period_s)
    return [*held(asked), secret_id(asked.name, entry.secret_id)]


def _template(name: str) -> Template:
    return Template(f"connection-{name}", MOUNT, name, f"{name}-accounts", 120, provider=Provider.OAUTH_USER)

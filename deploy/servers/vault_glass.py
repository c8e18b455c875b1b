"""The break-glass AppRole as ``ostiary vault apply`` leaves it, and the way in that an operator adds; docs/kill.md."""

from deploy.servers.openbao import Request
from deploy.servers.vault_setup import secret_id

ROLE_ID = "ostiary-break-glass"
SECRET_VARIABLE = "GLASS_SECRET_ID"  # noqa: S105 - the name of a variable


def requests(secret: str) -> list[Request]:
    """What OpenBao is told at its first start besides: policy and AppRole are there with the templates."""
    return [secret_id(ROLE_ID, secret)]


def settings_toml() -> str:
    """The section of the gateway's settings."""
    return f"""
[vault.break_glass]
role_id = "{ROLE_ID}"
secret_id = {{ env = "{SECRET_VARIABLE}" }}
"""

"""What the settings ask of a vault: the one source of its policies, for those who write them and those who check."""

from collections.abc import Iterable

from gateway.core.vault_plan import Needs
from gateway.core.vault_policy import Duties, Transit
from gateway.parts import minting
from gateway.settings import GatewaySettings, SettingsError

_HOUR_S = 3600
_LOGINS_PER_S = 20
_LIVES = 3  # a secret id outlives two rotations that failed


def needs(settings: GatewaySettings) -> Needs:
    """What the vault must hold.

    Raises:
        SettingsError: no vault is configured, or two templates share a name in the vault and not what it means.
    """
    vault = settings.vault
    if vault is None:
        raise SettingsError(["vault: there is no such section, so there is nothing to set up"])
    templates = tuple(minting.templates(settings).values())
    _check_apart(settings)
    rotation = settings.rotation
    return Needs(
        templates=templates,
        duties=duties(settings),
        name=vault.approle_role,
        approle=None if vault.role_id is None else vault.approle_mount,
        role_id=vault.role_id,
        period_s=vault.token_period_s,
        logins_per_s=0 if vault.address.startswith("unix:") else _LOGINS_PER_S,
        secret_id_ttl_s=(rotation.secret_id_h or 0) * _LIVES * _HOUR_S,
    )


def duties(settings: GatewaySettings) -> Duties:
    """What the gateway does at the vault besides minting."""
    audit, rotation, vault = settings.audit, settings.rotation, settings.vault
    transit = None if audit.vault_key is None else Transit(audit.vault_mount, audit.vault_key)
    own = rotation.secret_id_h is not None and vault is not None
    return Duties(
        transit=transit,
        rewraps=transit is not None and rotation.payload_key_h is not None,
        secret_id=f"{vault.approle_mount}/role/{vault.approle_role}" if own and vault is not None else None,
        roots=rotation.databases,
    )


def _check_apart(settings: GatewaySettings) -> None:
    # Two templates that share a policy or a token role could each do what the other may.
    for what in ("token_role", "token_policy"):
        names = [getattr(one, what) for one in minting.templates(settings).values()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SettingsError([f"leases: two templates have the {what.replace('_', ' ')} {twice} in the vault"])
        if _taken(names, settings):
            raise SettingsError([f"leases: a {what.replace('_', ' ')} has a name that the gateway keeps for itself"])


def _taken(names: Iterable[str], settings: GatewaySettings) -> bool:
    own = settings.vault.approle_role if settings.vault is not None else ""
    return any(name in {f"{own}-gateway", f"{own}-admin", f"{own}-break-glass", "root", "default"} for name in names)

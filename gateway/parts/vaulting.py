"""What the settings ask of a vault: the one source of its policies, for those who write them and those who check."""

from collections.abc import Iterable
from typing import Any

from gateway.core import vault_policy
from gateway.core.leasing import VaultFault
from gateway.core.vault_plan import Needs
from gateway.core.vault_policy import Duties, Transit
from gateway.findings import Finding
from gateway.parts import minting, sharing
from gateway.settings import GatewaySettings, SettingsError

_HOUR_S = 3600
_PART = "vault:policy"
_CAPABILITIES = "sys/capabilities-self"
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
        shelf=rotation.shared_keys,
    )


async def findings(settings: GatewaySettings, vault: Any) -> list[Finding]:
    """Whether the gateway's own token may do what it needs, each missing line named, and nothing of what it must not.

    ``vault``: its client; None where none is used. Asked before the templates are tried: also lines that are only
    needed when something goes wrong are missed now and not then.
    """
    if vault is None or settings.vault is None:
        return []
    templates = tuple(minting.templates(settings).values())
    rules = vault_policy.gateway(templates, duties(settings))
    refused = vault_policy.forbidden(templates, settings.vault.approle_role, settings.vault.approle_mount)
    try:
        found = await vault.update(_CAPABILITIES, {"paths": [*(rule.path for rule in rules), *refused]})
    except VaultFault as fault:
        return [Finding(_PART, ok=False, text=fault.detail, fix=fault.fix)]
    missing = [
        Finding(_PART, ok=False, text=f"the gateway may not use {rule.path}", fix=f"allow it: {_line(rule)}")
        for rule in rules
        if not set(rule.capabilities) <= set(found.get(rule.path, ()))
    ]
    fix = "`ostiary vault plan` shows what its policy should be; give its AppRole that policy and no other"
    wide = [
        Finding(_PART, ok=False, text=f"the gateway's token can do more than it needs: {path}", fix=fix)
        for path in refused
        if found.get(path, ["deny"]) != ["deny"]
    ]
    text = f"{len(rules)} lines are there, {len(refused)} other paths are refused"
    return [*([*missing, *wide] or [Finding(_PART, ok=True, text=text)]), *await _shelf(settings, vault)]


async def _shelf(settings: GatewaySettings, vault: Any) -> list[Finding]:
    shelf, part = sharing.shelf(settings, vault), "vault:shared_keys"
    if shelf is None:
        return []
    try:
        await shelf.prove()
    except VaultFault as fault:
        return [Finding(part, ok=False, text=fault.detail, fix=fault.fix)]
    return [Finding(part, ok=True, text="a value was laid there, read and removed")]


def _line(rule: vault_policy.Rule) -> str:
    return " ".join(rule.text.split())


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

"""What is the operator's own in a vault, looked at: roles of databases and authorities, secrets, the audit devices."""

import re
from collections.abc import Mapping
from typing import Any

from gateway.core.leasing import Provider, Template


def audit_problem(devices: Mapping[str, Any]) -> str | None:
    """What is wrong with the audit devices."""
    if devices:
        return None
    return "no audit device: nobody could tell afterwards what was asked of the vault; see deploy/vault/openbao.hcl"


def reaper_problem(template: Template, found: Mapping[str, Any] | None) -> str | None:
    """What is wrong with the role that drops what cut-off mintings of a database template left; None = nothing."""
    where = f"{template.mount}/roles/{template.reaper}"
    if found is None:
        return f"{where} is not there: what a cut-off minting leaves is dropped late (docs/credentials.md)"
    making = " ".join(map(str, found.get("creation_statements") or ())).upper()
    if "PG_TRY_ADVISORY_XACT_LOCK" not in making or "DROP ROLE" not in making or ".ENDED" not in making:
        return f"{where}: creation_statements must keep the ended token from minting, and drop what it left (reap.sql)"
    if _says(making, "CREATE"):
        return f"{where}: creation_statements must make nobody"
    return None


def problem(template: Template, found: Mapping[str, Any] | None) -> str | None:
    """What is wrong with what a template is about, and what to do; None = nothing that can be told by looking."""
    if found is None:
        what = "secret" if template.provider is Provider.KV else "role"
        return f"{template.mount}/ has no {what} {template.role}: {_MAKE[template.provider].format(t=template)}"
    return _PROBLEMS[template.provider](template, found)


def _database(template: Template, found: Mapping[str, Any]) -> str | None:
    where = f"{template.mount}/roles/{template.role}"
    ttl = found.get("default_ttl")
    if not isinstance(ttl, int) or not 0 < ttl <= template.longest_s:
        return f"{where}: default_ttl must be at most {template.longest_s} s (ttl_s of [leases.{template.name}])"
    ending = _ending(found)
    if ending is not None:
        return f"{where}: revocation_statements must {ending} (credentials.md)"
    making = " ".join(map(str, found.get("creation_statements") or ())).upper()
    if "COMMENT ON ROLE" not in making or "SHOBJ_DESCRIPTION" not in making:
        return f"{where}: creation_statements must mark the role, and drop marked ones that ended (credentials.md)"
    if "PG_ADVISORY_XACT_LOCK_SHARED" not in making or ".ENDED" not in making:
        return f"{where}: creation_statements must begin with fence.sql, so that no ended token mints (credentials.md)"
    power = next(
        (word for word in ("SUPERUSER", "CREATEROLE", "BYPASSRLS", "REPLICATION") if _says(making, word)), None
    )
    if power is not None:
        return f"{where}: creation_statements hand out {power}"
    return None


def _ending(found: Mapping[str, Any]) -> str | None:
    ending = " ".join(map(str, found.get("revocation_statements") or ())).upper()
    if "NOLOGIN" not in ending or "PG_TERMINATE_BACKEND" not in ending or "DROP ROLE" not in ending:
        return "say NOLOGIN, end open sessions and drop the role"
    if ending.index("NOLOGIN") < ending.index("PG_TERMINATE_BACKEND"):
        # One that changes its own password has its role's row locked: what says NOLOGIN would wait for it for ever.
        return "end open sessions before they say NOLOGIN, and again afterwards"
    return None


def _says(statements: str, word: str) -> bool:
    # As a word of its own, whatever stands beside it: a semicolon, a comment. NOSUPERUSER is another word.
    return re.search(rf"\b{word}\b", statements) is not None


def _pki(template: Template, found: Mapping[str, Any]) -> str | None:
    where = f"{template.mount}/roles/{template.role}"
    if found.get("allow_any_name"):
        return f"{where}: allow_any_name lets it issue for every name: set allowed_domains={template.common_name}"
    if template.must_revoke and not found.get("generate_lease"):
        return f"{where}: generate_lease=true, or revoke = false in [leases.{template.name}]"
    ttl = found.get("max_ttl")
    if isinstance(ttl, int) and ttl > template.longest_s:
        return f"{where}: max_ttl must be at most {template.longest_s} s (ttl_s of [leases.{template.name}])"
    return None


def _kv(template: Template, found: Mapping[str, Any]) -> str | None:
    newest = (found.get("versions") or {}).get(str(found.get("current_version")), {})
    if newest.get("deletion_time") or newest.get("destroyed"):
        return f"{template.mount}/ has no {template.role} any more: its newest version was deleted"
    return None


_PROBLEMS = {Provider.DATABASE: _database, Provider.PKI: _pki, Provider.KV: _kv}
_MAKE = {
    Provider.DATABASE: "bao write {t.mount}/roles/{t.role} ... (docs/credentials.md)",
    Provider.PKI: "bao write {t.mount}/roles/{t.role} ... (docs/credentials.md)",
    Provider.KV: "bao kv put -mount={t.mount} {t.role} {t.member}=...",
}

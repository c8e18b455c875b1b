"""A login from a database engine: what is asked, and what is wrong where the vault says no."""

from gateway.adapters.vault.wire import Ask, Reply
from gateway.core.leasing import Template, VaultCause, VaultFault

_BAD_REQUEST = 400
_FORBIDDEN = 403
_NOT_FOUND = 404


def question(template: Template) -> Ask:
    """The one request."""
    return Ask(f"{template.mount}/creds/{template.role}", None, ("read",))


def refusal(template: Template, status: int, reply: Reply) -> VaultFault | None:
    """What is wrong where the vault said no; None = nothing that can be told from the status."""
    section = f"[leases.{template.name}]"
    detail = f"the vault mints no login for {template.name!r}"
    if status == _FORBIDDEN:
        fix = (
            f"allow it in the policy {template.token_policy}: {question(template).policy_line}; "
            f"or correct mount and role of {section}"
        )
        return VaultFault(VaultCause.DENIED, "the vault refuses the gateway", fix=fix, undone=True)
    if status == _NOT_FOUND and reply.no_route:
        fix = f"nothing is mounted at {template.mount}/: correct `mount` of {section}"
        return VaultFault(VaultCause.NO_ROLE, detail, fix=fix, undone=True)
    if status in {_BAD_REQUEST, _NOT_FOUND}:
        return no_login(template)
    return None


def no_login(template: Template) -> VaultFault:
    """What is there is no role that mints users with passwords."""
    fix = (
        f"bao read {template.mount}/roles/{template.role} must show a database role with passwords: make it, or "
        f"correct `mount` and `role` of [leases.{template.name}]"
    )
    return VaultFault(VaultCause.NO_ROLE, f"the vault mints no login for {template.name!r}", fix=fix)

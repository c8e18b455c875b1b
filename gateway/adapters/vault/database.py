"""A login from a database engine: what is asked, and what is wrong where the vault says no."""

from gateway.adapters.vault.refusing import BAD_REQUEST, NOT_FOUND, not_let_in
from gateway.adapters.vault.wire import Ask, Reply
from gateway.core.leasing import Template, VaultCause, VaultFault


def question(template: Template) -> Ask:
    """The one request."""
    return Ask(f"{template.mount}/creds/{template.role}", None, ("read",))


def reaping(template: Template) -> Ask:
    """The one request that drops what a token of the same name has left."""
    return Ask(f"{template.mount}/creds/{template.reaper}", None, ("read",))


def no_reaping(template: Template, status: int, reply: Reply) -> VaultFault | None:
    """What is missing where the vault does not reap; None = nothing that can be told from the status."""
    detail = f"the vault cannot drop what lost mintings of {template.name!r} leave"
    shut = not_let_in(template, reaping(template), status, reply, detail)
    if shut is None and status in {BAD_REQUEST, NOT_FOUND}:
        fix = f"make {template.mount}/roles/{template.reaper}, and allow it at the connection (docs/credentials.md)"
        return VaultFault(VaultCause.NO_ROLE, detail, fix=fix, undone=True)
    return shut


def refusal(template: Template, status: int, reply: Reply) -> VaultFault | None:
    """What is wrong where the vault said no; None = nothing that can be told from the status."""
    detail = f"the vault mints no login for {template.name!r}"
    shut = not_let_in(template, question(template), status, reply, detail)
    if shut is None and status in {BAD_REQUEST, NOT_FOUND}:
        return no_login(template)
    return shut


def no_login(template: Template) -> VaultFault:
    """What is there is no role that mints users with passwords."""
    fix = (
        f"bao read {template.mount}/roles/{template.role} must show a database role with passwords: make it, or "
        f"correct `mount` and `role` of [leases.{template.name}]"
    )
    return VaultFault(VaultCause.NO_ROLE, f"the vault mints no login for {template.name!r}", fix=fix)

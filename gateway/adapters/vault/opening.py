"""Minting tokens as they are asked for, and what they must be."""

from gateway.adapters.vault.wire import Auth
from gateway.core.leasing import Template, VaultCause, VaultFault

_TOO_MUCH = frozenset({"root", "default"})
_SERVICE = "service"


def creation(template: Template, name: str) -> dict[str, object]:
    """What a minting token is asked for with; the database's roles are named by what follows ``ostiary-``."""
    words = [word for word in ("ostiary", name, template.name) if word]
    return {"display_name": "-".join(words), "policies": [template.token_policy]}


def misfit(auth: Auth, template: Template) -> str | None:
    """What is wrong with a token that was given, or None."""
    # A token that can do more, or lives on without the gateway, is not what the operator meant.
    if auth.token_type != _SERVICE or not auth.orphan:
        return "its tokens must be of type service, and orphans"
    if _TOO_MUCH & set(auth.token_policies):
        return "its tokens may not have the policies root or default"
    if set(auth.token_policies) != {template.token_policy}:
        return f"its tokens must have the policy {template.token_policy} and no other (`policy` of the lease names it)"
    # What is not renewed must end by itself, and what is used must live on.
    if not auth.renewable or not 0 < auth.lease_duration <= template.longest_s:
        return f"its tokens must be renewable, with a period of at most {template.longest_s} s"
    return None


def no_token_role(template: Template, fault: VaultFault) -> VaultFault:
    """The token role is not there, or does not give the policy."""
    fix = f"auth/token/roles/{template.token_role} must be there and allow the policy {template.token_policy}"
    return VaultFault(VaultCause.NO_ROLE, fault.detail, fix=f"{fix}: see `ostiary vault plan`", undone=fault.undone)


def unfit(template: Template, problem: str) -> VaultFault:
    """The token role gives other tokens than agreed."""
    fix = f"auth/token/roles/{template.token_role}: {problem}"
    return VaultFault(VaultCause.UNFIT, f"the vault's token role for {template.name!r} is not fit for use", fix=fix)

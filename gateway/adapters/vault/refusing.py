"""What is wrong where a vault refuses to mint, whatever its engine."""

from gateway.adapters.vault.wire import Ask, Reply
from gateway.core.leasing import Template, VaultCause, VaultFault

BAD_REQUEST = 400
NOT_FOUND = 404
_FORBIDDEN = 403


def not_let_in(template: Template, ask: Ask, status: int, reply: Reply, detail: str) -> VaultFault | None:
    """The policy says no, or nothing is mounted there; None = it is neither. ``detail``: what is not minted."""
    section = f"[leases.{template.name}]"
    if status == _FORBIDDEN:
        fix = (
            f"allow it in the policy {template.token_policy}: {ask.policy_line}; or correct mount and role of {section}"
        )
        return VaultFault(VaultCause.DENIED, "the vault refuses the gateway", fix=fix, undone=True)
    if status == NOT_FOUND and reply.no_route:
        fix = f"nothing is mounted at {template.mount}/: correct `mount` of {section}"
        return VaultFault(VaultCause.NO_ROLE, detail, fix=fix, undone=True)
    return None

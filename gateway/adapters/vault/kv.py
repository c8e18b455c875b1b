"""A value out of a kv engine, version 2: what is asked, and what an answer must be."""

from typing import Any

from gateway.adapters.vault.wire import Ask, Reply
from gateway.core.call import Login
from gateway.core.leasing import MintedLogin, MintingToken, Template, VaultCause, VaultFault

_NOT_FOUND = 404


def question(template: Template) -> Ask:
    """The one request."""
    return Ask(f"{template.mount}/data/{template.role}", None, ("read",))


def denied(template: Template) -> VaultFault:
    """The token may not read it."""
    fix = (
        f"allow it in the policy {template.token_policy}: {question(template).policy_line}; "
        f"or correct mount and path of [leases.{template.name}]"
    )
    return VaultFault(VaultCause.DENIED, "the vault refuses the gateway", fix=fix, undone=True)


def value(template: Template, token: MintingToken, status: int, reply: Reply) -> MintedLogin:
    """What was read, or what is wrong with where it should be.

    Raises:
        VaultFault: ``NO_ROLE`` where nothing is there, ``UNFIT`` where it is no text for a header field.
    """
    if status == _NOT_FOUND:
        raise _absent(template, reply)
    member = _members(template, reply).get(template.member)
    where = f"{template.mount}/{template.role}"
    if member is None:
        fix = f"{where} has no member {template.member!r}: correct `member` of [leases.{template.name}]"
        raise VaultFault(VaultCause.NO_ROLE, _nothing(template), fix=fix, undone=True)
    if not isinstance(member, str) or not member.isascii() or not member.isprintable():
        fix = f"the member {template.member!r} of {where} must be a text of printable ASCII characters"
        raise VaultFault(VaultCause.UNFIT, f"the value for {template.name!r} is not fit for use", fix=fix, undone=True)
    # The token reads this one value, so it names the reading; there is no lease.
    lease_id = f"{template.mount}/data/{template.role}@{token.accessor}"
    return MintedLogin(lease_id, Login("", member), token.period_s, reply.request_id, token.accessor)


def _absent(template: Template, reply: Reply) -> VaultFault:
    if reply.no_route:
        fix = f"nothing is mounted at {template.mount}/: correct `mount` of [leases.{template.name}]"
    else:
        fix = (
            f"{template.mount}/ has no {template.role}, or its newest version was deleted: correct `path` of "
            f"[leases.{template.name}], or bao kv put -mount={template.mount} {template.role} {template.member}=..."
        )
    return VaultFault(VaultCause.NO_ROLE, _nothing(template), fix=fix, undone=True)


def _members(template: Template, reply: Reply) -> dict[str | None, Any]:
    members = (reply.data or {}).get("data")
    if not isinstance(members, dict) or reply.lease_id:
        fix = f"{template.mount}/ must be a kv engine of version 2: correct `mount` of [leases.{template.name}]"
        raise VaultFault(VaultCause.NO_ROLE, _nothing(template), fix=fix)
    return dict(members)


def _nothing(template: Template) -> str:
    return f"the vault has no value for {template.name!r}"

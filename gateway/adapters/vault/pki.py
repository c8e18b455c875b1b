"""A client certificate from a pki engine: what is asked, and what an answer must be."""

from typing import Any

from gateway.adapters.vault.refusing import BAD_REQUEST, NOT_FOUND, not_let_in
from gateway.adapters.vault.wire import Ask, Reply
from gateway.core.call import Login
from gateway.core.leasing import MintedLogin, MintingToken, Template, VaultCause, VaultFault

# Two clocks never agree: a certificate that seems to last so much longer than asked for lasts as long as asked for.
_SKEW_S = 30


def question(template: Template) -> Ask:
    """The one request; the key is made by the vault and leaves it once."""
    body = {
        "common_name": template.common_name,
        "ttl": f"{template.longest_s}s",
        "format": "pem",
        "private_key_format": "pkcs8",
    }
    return Ask(f"{template.mount}/issue/{template.role}", body, ("update",))


def refusal(template: Template, status: int, reply: Reply) -> VaultFault | None:
    """What is wrong where the vault said no; None = nothing that can be told from the status."""
    detail = f"the vault issues no certificate for {template.name!r}"
    shut = not_let_in(template, question(template), status, reply, detail)
    if shut is None and status in {BAD_REQUEST, NOT_FOUND}:
        fix = (
            f"{template.mount}/roles/{template.role} must be a role that allows the name {template.common_name}: "
            f"correct `mount`, `role` and `common_name` of [leases.{template.name}], or the role"
        )
        return VaultFault(VaultCause.NO_ROLE, detail, fix=fix, undone=True)
    return shut


def certificate(template: Template, token: MintingToken, reply: Reply, now_s: int) -> MintedLogin | None:
    """What was issued; None = it is no certificate with its key. ``now_s``: Unix time.

    Raises:
        VaultFault: nothing could revoke it, and the template says that it must be revoked.
    """
    data = reply.data or {}
    key, serial, until_s = _key(data.get("private_key")), data.get("serial_number"), data.get("expiration")
    chain = [data.get("certificate"), *(data.get("ca_chain") or ())]
    if key is None or not isinstance(serial, str) or not isinstance(until_s, int):
        return None
    if not all(isinstance(one, str) for one in chain):
        return None
    login = Login(template.common_name or "", key, "\n".join(chain))
    if reply.lease_id:
        return MintedLogin(reply.lease_id, login, reply.lease_duration, reply.request_id, serial=serial)
    if template.must_revoke:
        fix = (
            f"bao write {template.mount}/roles/{template.role} ... generate_lease=true, "
            f"or set revoke = false in [leases.{template.name}]"
        )
        detail = f"certificates of {template.name!r} could not be revoked after the call"
        raise VaultFault(VaultCause.UNFIT, detail, fix=fix)
    ttl_s = until_s - now_s
    if template.longest_s < ttl_s <= template.longest_s + _SKEW_S:
        ttl_s = template.longest_s
    name = f"{template.mount}/issue/{template.role}@{token.accessor}"
    return MintedLogin(name, login, ttl_s, reply.request_id, token.accessor, serial)


def _key(pem: Any) -> str | None:
    # Without its lines, as the redactor finds a secret also where white space was put into it.
    if not isinstance(pem, str):
        return None
    lines = pem.strip().splitlines()
    if len(lines) < 3 or lines[0] != "-----BEGIN PRIVATE KEY-----":  # noqa: PLR2004
        return None
    return "".join(lines[1:-1])

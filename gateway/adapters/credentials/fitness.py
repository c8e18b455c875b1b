"""Whether what was minted is fit for its call: what is wrong with it, and what the operator does about it."""

from gateway.core.leasing import MintedLogin, Provider, Template, VaultCause, VaultFault
from gateway.core.needles import UnfitSecret

_PASSWORDS = {
    Provider.DATABASE: "give the database connection of the vault a password policy of 20 or more letters and digits",
    Provider.KV: "put a value of 8 to 16,384 characters there",
    Provider.OAUTH_USER: "access tokens of 8 to 8,192 characters can be used",
    Provider.PKI: "let the role make keys of another type",
}


def unfit_secret(template: Template, error: UnfitSecret) -> VaultFault:
    """The redactor could not keep it out of outputs."""
    detail = f"the password cannot be kept out of outputs: {error}"
    return VaultFault(VaultCause.UNFIT, detail, fix=_PASSWORDS[template.provider])


def check_life(template: Template, minted: MintedLogin, lasting_s: float) -> None:
    """Refuse what ends before its call, or could long outlive it.

    Raises:
        VaultFault: it does.
    """
    if template.provider is Provider.KV:
        return  # what was read does not end, whatever becomes of its token
    if lasting_s <= minted.ttl_s <= template.longest_s:
        return
    bounds = (
        f"must be between {lasting_s:.0f} s (the tool's timeout) and {template.longest_s} s "
        f"(ttl_s of [leases.{template.name}])"
    )
    if template.provider is Provider.OAUTH_USER:
        fix = f"the life of the service's access tokens {bounds}: set ttl_s to theirs"
    else:
        which = "max_ttl" if template.provider is Provider.PKI else "default_ttl"
        fix = f"{template.mount}/roles/{template.role}: {which} {bounds}"
    detail = f"credentials of {template.name!r} last {minted.ttl_s} s, which does not fit the tool"
    raise VaultFault(VaultCause.UNFIT, detail, fix=fix)

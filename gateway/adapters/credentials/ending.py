"""How a minted credential ends: by its lease, or, where the vault keeps none, by the token it was read with."""

from gateway.core.leasing import MintedLogin, Vault


async def end(vault: Vault, minted: MintedLogin, *, wait: bool) -> None:
    """Ask for its end; ``wait``: return when it has ended.

    Raises:
        Unavailable: the vault did not say yes.
    """
    if minted.accessor is None:
        await vault.revoke_login(minted.lease_id, wait=wait)
    else:
        await vault.revoke_token(minted.accessor)


async def exists(vault: Vault, minted: MintedLogin) -> bool:
    """Whether the vault still has it. A token cannot be looked up, so its end is asked for, once more if need be.

    Raises:
        Unavailable: the vault cannot be asked.
    """
    if minted.accessor is None:
        return await vault.login_exists(minted.lease_id)
    await vault.revoke_token(minted.accessor)
    return False

"""Where minted credentials come from: the vault, or, of oauth_user, a person's own account at another service.

Either hangs off a minting token of the vault. Where the service revokes, an access token is ended there.
"""

from dataclasses import dataclass

from gateway.core.connections import AccessTokens
from gateway.core.leasing import Holder, MintedLogin, MintingToken, Provider, Template, Vault


@dataclass(frozen=True, slots=True)
class Sources:
    """All of them; implements ``core.leasing.Vault`` for what ends credentials.

    Attributes:
        persons: None where no connection is configured.
    """

    vault: Vault
    persons: AccessTokens | None = None

    async def mint_for(self, holder: Holder, template: Template, token: MintingToken) -> MintedLogin:
        """A new credential of the template for a call of ``holder``.

        Raises:
            Unavailable, NotConnected: there is none.
        """
        if template.provider is not Provider.OAUTH_USER:
            return await self.mint(template, token)
        assert self.persons is not None  # the settings say so
        return await self.persons.mint(template, token, holder)

    async def may_serve(self, template: Template, token: MintingToken, minted: MintedLogin) -> bool:
        """Whether what an earlier call has had may serve another one; not where its person has taken it back.

        Raises:
            Unavailable: that cannot be told.
        """
        if self.persons is None or not self.persons.holds(minted.lease_id):
            return True
        return await self.persons.is_theirs(template, token, minted.lease_id)

    async def open_token(self, template: Template, name: str = "") -> MintingToken:
        """See ``core.leasing.Vault``."""
        return await self.vault.open_token(template, name)

    async def renew_token(self, accessor: str) -> int:
        """See ``core.leasing.Vault``."""
        return await self.vault.renew_token(accessor)

    async def revoke_token(self, accessor: str) -> None:
        """See ``core.leasing.Vault``."""
        await self.vault.revoke_token(accessor)

    async def mint(self, template: Template, token: MintingToken) -> MintedLogin:
        """See ``core.leasing.Vault``."""
        return await self.vault.mint(template, token)

    async def reap(self, template: Template, token: MintingToken) -> None:
        """See ``core.leasing.Vault``."""
        await self.vault.reap(template, token)

    async def revoke_login(self, lease_id: str, *, wait: bool) -> None:
        """End it where it came from; see ``core.leasing.Vault``."""
        if self.persons is not None and self.persons.holds(lease_id):
            await self.persons.revoke(lease_id)
        else:
            await self.vault.revoke_login(lease_id, wait=wait)

    async def login_exists(self, lease_id: str) -> bool:
        """Asked where it came from; see ``core.leasing.Vault``."""
        if self.persons is not None and self.persons.holds(lease_id):
            return self.persons.exists(lease_id)
        return await self.vault.login_exists(lease_id)

    async def ping(self) -> None:
        """See ``core.leasing.Vault``."""
        await self.vault.ping()

"""OpenBao or HashiCorp Vault as the source of minted credentials."""

from gateway.adapters.vault.client import Access, Address, VaultClient
from gateway.adapters.vault.keeping import ConnectionKeeper

__all__ = ["Access", "Address", "ConnectionKeeper", "VaultClient"]

"""OpenBao or HashiCorp Vault as the source of minted credentials."""

from gateway.adapters.vault.client import Access, Address, VaultClient

__all__ = ["Access", "Address", "VaultClient"]

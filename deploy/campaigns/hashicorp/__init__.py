"""The tests of everything that is minted, against a HashiCorp Vault: ``make campaign NAME=hashicorp``."""

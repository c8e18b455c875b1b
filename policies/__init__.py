"""The shipped policy bundle: Rego and JSON only, read as package data by ``gateway.adapters.rego``."""

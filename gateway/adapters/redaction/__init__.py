"""Redaction of large bodies in processes of its own, so that a hostile one holds up nobody else."""

from gateway.adapters.redaction.pool import Options, Scrubbers

__all__ = ["Options", "Scrubbers"]

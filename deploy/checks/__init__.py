"""Checks that need the network, run by `make check`."""

"""Connectors: one file and one test each; they carry out a leased call and bring back what the upstream said."""

"""Hooks of coding agents: what they send and read, what is asked for them, and how they are put in place."""

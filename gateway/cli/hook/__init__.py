"""Hooks of coding agents: what they send and read, the question that is asked for them, and how they are put in place."""

"""Sandboxed execution: bubblewrap boxes, started by a small supervisor process.

``runner`` is the gateway's side. ``supervisor`` and what it imports run in a process of their own and use the standard
library only, so that it stays small and quick to fork.
"""

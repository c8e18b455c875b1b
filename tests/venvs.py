"""Interpreters that run the fixture servers: each needs packages that cannot live beside the gateway's own."""

import os
from pathlib import Path

import pytest


def python(name: str) -> Path:
    """The interpreter of the virtual environment ``name``; skips the test where it is not installed.

    ``mcp2`` has the ``mcp`` SDK 2.x, ``mcp1`` the SDK 1.x and ``mcp-server-sqlite``, ``servers`` has
    ``mcp-server-time`` and ``mcp-server-git``. ``$OSTIARY_VENVS`` names the folder; default ``.venvs`` of the project.
    """
    root = Path(os.environ.get("OSTIARY_VENVS") or Path(__file__).parent.parent / ".venvs")
    path = root / name / "bin" / "python"
    if not path.exists():
        pytest.skip(f"{path} is missing: run `make setup`")
    return path

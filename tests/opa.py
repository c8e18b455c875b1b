"""The real OPA, where there is one: the tests that need it say why they are skipped where there is none."""

import os
import shutil
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


def binary() -> Path | None:
    """The ``opa`` program: ``$OSTIARY_TEST_OPA``, ``.venvs/opa/bin/opa`` of the project, or the first on the path."""
    named = os.environ.get("OSTIARY_TEST_OPA")
    if named:
        return Path(named)
    built = Path(os.environ.get("OSTIARY_VENVS") or _ROOT / ".venvs") / "opa" / "bin" / "opa"
    found = shutil.which("opa")
    return built if built.exists() else Path(found) if found else None


def required() -> Path:
    """The ``opa`` program; skips the test where there is none."""
    found = binary()
    if found is None:
        pytest.skip("there is no opa: `make setup` builds it where Go is installed, or name one in $OSTIARY_TEST_OPA")
    return found

"""The real OPA, where there is one: the tests that need it say why they are skipped where there is none."""

from pathlib import Path

import pytest

from deploy.servers.opa import binary
from deploy.servers.process import ServerError


def required() -> Path:
    """The ``opa`` program; skips the test where there is none."""
    try:
        return binary()
    except ServerError as error:
        pytest.skip(str(error))

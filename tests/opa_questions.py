"""What the tests of the OPA backend ask, and how a question ends that nobody may answer."""

from collections.abc import Awaitable

import pytest

from gateway.core.errors import Unavailable
from tests.rego_demo import RULES, demo, saying

BUNDLE = demo()
OTHER = demo(RULES + "\n# another revision\n")
DOCUMENT = saying("yes")


async def allowed() -> None:
    """A bundle may come into force."""


async def refused(asked: Awaitable[object]) -> str:
    """The words of the error a question ends in."""
    with pytest.raises(Unavailable) as caught:
        await asked
    assert caught.value.cause_code == "policy_unavailable"
    assert caught.value.retry_after == 1
    return caught.value.detail

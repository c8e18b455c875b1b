"""Cancel scopes that are made at once."""

import pytest
from anyio import CancelScope, current_time, sleep_forever

from gateway.core.scopes import scope

pytestmark = pytest.mark.anyio


async def test_they_are_anyios_own() -> None:
    """Shielded or not, with a deadline or without one."""
    assert type(scope()) is type(CancelScope())
    assert not scope().shield
    assert scope(shield=True).shield
    with scope(deadline=current_time()) as late:
        await sleep_forever()
    assert late.cancelled_caught

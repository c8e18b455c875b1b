"""Cancel scopes as anyio gives them, taken by a shorter way."""

import anyio
import pytest

from gateway.core import scopes

pytestmark = pytest.mark.anyio


async def test_a_scope_is_of_the_class_that_anyio_makes() -> None:
    """Also with its bounds."""
    theirs, ours = anyio.CancelScope(deadline=7.0, shield=True), scopes.kind()(deadline=7.0, shield=True)
    assert type(ours) is type(theirs)
    assert (ours.deadline, ours.shield) == (theirs.deadline, theirs.shield)
    assert (scopes.kind()().deadline, scopes.kind()().shield) == (float("inf"), False)


async def test_a_scope_ends_at_its_deadline() -> None:
    """And says so."""
    with scopes.kind()(deadline=anyio.current_time()) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught

"""Places for processes: a share of each user, and who waits for what."""

from functools import partial

from anyio import create_task_group, fail_after, move_on_after
from anyio.lowlevel import checkpoint

from connectors.mcp.places import Crowd, Places

ADA, BOB = "i|ada", "i|bob"


async def test_who_waits_for_a_share_stands_in_nobodys_way() -> None:
    """A user whose share is full queues behind themselves only, however many of them wait."""
    places = Places(Crowd(most=3, each=2))
    with fail_after(30):
        async with create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(places.take, ADA)
            while places.short_of(ADA) != 48:
                await checkpoint()
            assert places.short == -1
            await places.take(BOB)
            tasks.cancel_scope.cancel()
    assert (places.short, places.short_of(ADA)) == (0, 0)
    assert places.busy(ADA).cause_code == "own_processes_busy"
    assert places.busy(BOB).cause_code == "processes_busy"


async def test_a_place_is_handed_on_in_turn() -> None:
    """To a user's own next one, and to the next user."""
    places, got = Places(Crowd(most=2, each=1)), list[str]()

    async def take(user: str, name: str) -> None:
        await places.take(user)
        got.append(name)

    with fail_after(30):
        async with create_task_group() as tasks:
            await take(ADA, "ada 1")
            await take(BOB, "bob 1")
            tasks.start_soon(take, "i|eve", "eve 1")
            tasks.start_soon(take, ADA, "ada 2")
            while places.short_of(ADA) != 1 or places.short != 1:
                await checkpoint()
            places.give(ADA)
            while len(got) < 3:
                await checkpoint()
            assert got[2] == "eve 1"
            places.give(BOB)
    assert got[3] == "ada 2"


async def test_a_place_that_is_on_its_way_is_waited_for_no_more() -> None:
    """Whoever counts what is short in the turn between would end somebody's idle process for nothing."""
    places = Places(Crowd(most=1, each=1))
    await places.take(ADA)
    with fail_after(30):
        async with create_task_group() as tasks:
            tasks.start_soon(places.take, BOB)
            while places.short != 1:
                await checkpoint()
            places.give(ADA)
            assert places.short == 0


async def test_what_is_given_back_leaves_no_trace() -> None:
    """Nor does who has waited in vain; it is told what it waited for."""
    places = Places(Crowd(most=1, each=5))
    await places.take(ADA)
    asked = list[int]()
    with move_on_after(0):
        await places.take(BOB, partial(asked.append, 1))
    assert places.short == 0
    assert "(1)" in places.busy(BOB).detail
    places.give(ADA)
    assert places._shares == {}
    await places.take(BOB)
    places.give(BOB)
    assert (places.short, places._shares) == (-1, {})

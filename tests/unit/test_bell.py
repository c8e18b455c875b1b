"""Bells: who is told that something has happened."""

from gateway.core.bell import Bell


def test_who_listens_is_called_each_time_it_rings() -> None:
    """Once a time, however often they said that they listen; and no more once they said that they do not."""
    bell, told = Bell(), list[str]()

    def wake() -> None:
        told.append("woken")

    bell.forget(wake)  # who never listened
    bell.ring()
    bell.hear(wake)
    bell.hear(wake)
    bell.ring()
    bell.ring()
    assert told == ["woken"] * 2
    bell.forget(wake)
    bell.ring()
    assert told == ["woken"] * 2


def test_who_is_called_may_listen_no_more() -> None:
    """As streams do that end because of what has happened; the others are called all the same."""
    bell, told = Bell(), list[str]()

    def leave(name: str) -> None:
        told.append(name)
        for each in wakes:
            bell.forget(each)

    wakes = [lambda: leave("a"), lambda: leave("b")]
    for wake in wakes:
        bell.hear(wake)
    bell.ring()
    assert sorted(told) == ["a", "b"]
    bell.ring()
    assert sorted(told) == ["a", "b"]

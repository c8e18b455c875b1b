"""Keys handed over between gateways on one real PostgreSQL: whoever is stopped at any step, one set of keys signs."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.core.rotation import KeyKind
from tests.fakes.shelf import FakeShelf
from tests.replicas import Sites, sites
from tests.sharing import ADMIN, KINDS, House, actions, agree, at_rest, house, quick
from tests.waiting import until

__all__ = ["quick", "sites"]


class KilledError(BaseException):
    """The process is gone."""


@dataclass
class Mortal:
    """Counts what a gateway does while it replaces a key, and ends it before one of these steps, so after the last one.

    Attributes:
        at: how many steps it lives.
    """

    at: int
    is_dead: bool = False

    def step(self) -> None:
        """One more."""
        if self.is_dead or self.at == 0:
            self.is_dead = True
            raise KilledError
        self.at -= 1

    def around(self, what: Any) -> Any:
        """``what``, before which the gateway may be ended."""

        async def done(*given: Any) -> Any:
            self.step()
            return await what(*given)

        return done

    def seize(self, one: House) -> None:
        """Let these be the steps of that gateway: records, requests to the vault, files."""
        ledger, shelf, keys = one.books.ledger, one.shelf, (one.key, one.sharing._holders[KeyKind.LOG_KEY])
        parts = {name: self.around(getattr(shelf, name)) for name in ("put", "get", "clear")}
        kept: Any = SimpleNamespace(append=self.around(ledger.append), replica=ledger.replica)
        asked: Any = SimpleNamespace(**parts)
        one.sharing._shelf, one.sharing._books = asked, replace(one.sharing._books, ledger=kept)
        for key in keys:
            for name in ("take", "follow"):
                setattr(key, name, self.around(getattr(key, name)))


@pytest.mark.parametrize("kind", KINDS)
async def test_who_replaces_a_key_may_be_killed_at_any_step(sites: Sites, kind: KeyKind) -> None:
    """Before each record, request and file, and after the last: the other goes on, the next start has the same keys."""
    shelf, tokens, steps = FakeShelf(), list[str](), count()
    async with house(sites, "a", shelf) as one:
        tokens.append(one.token())
    async with house(sites, "b", shelf) as survivor:
        for at in steps:
            mortal = Mortal(at)
            with suppress(KilledError):
                async with house(sites, "a", shelf, is_watched=False) as victim:
                    mortal.seize(victim)
                    await victim.rotate(kind)
            await survivor.books.ledger.append(())  # it signs, whatever came of it
            async with house(sites, "a", shelf) as again:
                await at_rest(survivor, again)
                tokens += [again.token(), survivor.token()]
                check_one_set(again, survivor, tokens)
                if kind is KeyKind.LOG_KEY and len(again.books.keys.ring.history.in_force) > 1:
                    await again.room.retire(ADMIN)
            if not mortal.is_dead:
                break
        assert next(steps) > 6
        assert survivor.books.verify().findings == []


@pytest.mark.parametrize("kind", KINDS)
async def test_who_takes_a_key_may_be_killed_at_any_step(sites: Sites, kind: KeyKind) -> None:
    """The one that replaces goes on without it, and it comes back with the same keys."""
    shelf, tokens = FakeShelf(), list[str]()
    async with house(sites, "a", shelf) as one:
        tokens.append(one.token())
        for at in count():
            mortal = Mortal(at)
            with suppress(KilledError):
                async with house(sites, "b", shelf, is_watched=False) as victim:
                    mortal.seize(victim)
                    await asyncio.gather(one.rotate(kind), until_it_has_it(victim, kind))
            await until(lambda: not one.sharing._mine)
            async with house(sites, "b", shelf) as again:
                await at_rest(one, again)
                tokens += [again.token(), one.token()]
                check_one_set(again, one, tokens)
                if kind is KeyKind.LOG_KEY and len(one.books.keys.ring.history.in_force) > 1:
                    await one.room.retire(ADMIN)
                await again.books.ledger.append(())
            if not mortal.is_dead:
                break
        assert one.books.verify().findings == []


async def until_it_has_it(one: House, kind: KeyKind) -> None:
    """Look again and again, as rounds do, until what is offered is in force and done with."""
    before = len(actions(one))
    while (said := actions(one)[before:]).count("agreed") + said.count("withdrawn") == 0:
        await one.sharing.look()
    await one.sharing.look()


def check_one_set(one: House, other: House, tokens: Sequence[str]) -> None:
    """Both have the same private halves and nothing that is left over, and take every token there ever was."""
    agree(one, other)
    for token in tokens:
        assert {gateway.identity.verify(token).user for gateway in (one, other)} == {"dora"}
    for gateway in (one, other):
        assert not [name for name in gateway.names() if "next" in name or name.endswith(".new")]

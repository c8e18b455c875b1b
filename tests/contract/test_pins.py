"""Pins in the log: on SQLite and on PostgreSQL, over restarts, with two gateways."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.adapters.ledger.storage.site import Site
from gateway.core.errors import Conflict
from gateway.core.pinning import Approval, Cause, Consent, Described, Quarantine
from gateway.core.tool import definition_digest
from tests.evidence import make_principal
from tests.fakes.pins import FakePins
from tests.ledgers import Books, open_books
from tests.replicas import both, sites

__all__ = ["both", "sites"]

PERSON = make_principal(user="vera", agent=None, scopes=frozenset({"admin"}))
URL = "http://up.test/mcp"


def described(name: str, text: str = "as approved") -> Described:
    """A tool as its upstream might describe it."""
    definition: dict[str, Any] = {"name": name, "description": text, "inputSchema": {"type": "object", "x": 0.5}}
    return Described(URL, definition, definition_digest("up", "mcp", URL, {"tool": definition, "binding": {}}))


def approval(name: str, text: str = "as approved", was: str | None = None, digest: str = "") -> Approval:
    """Its approval by a person."""
    found = described(name, text)
    return Approval(f"up.{name}", found, was, ("instruct.must",), Consent(digest or found.digest))


@pytest.fixture
async def books(site: Site) -> AsyncIterator[Books]:
    """Books in which one server was trusted on first use."""
    async with open_books(site) as opened:
        await opened.pins.trust("up", [Approval(f"up.{name}", described(name)) for name in ("a", "b")])
        yield opened


async def test_first_use_is_the_first_time_only(books: Books) -> None:
    """A server that has one pin gets no other by its own word; the records say on whose word, and which words."""
    await books.pins.trust("up", [Approval("up.c", described("c"))])
    assert {name: pin.approved for name, pin in books.pins.of("up").items()} == {n: described(n) for n in ("a", "b")}
    bodies = [record["body"] for record in books.records("tool.pinned")]
    assert [(body["tool"], body["basis"], body["key"]) for body in bodies] == [
        ("up.a", "first_use", None),
        ("up.b", "first_use", None),
    ]
    assert [record["actor"]["authn"] for record in books.records("tool.pinned")] == ["system"] * 2
    assert books.verify().findings == []


async def test_a_pin_replaces_the_one_it_was_made_over(books: Books) -> None:
    """By a person, in spite of what is odd; never over a pin that nobody looked at."""
    was = described("a").digest
    await books.pins.pin(PERSON, approval("a", "new words", was))
    assert books.pins.of("up")["a"].approved == described("a", "new words")
    with pytest.raises(Conflict):
        await books.pins.pin(PERSON, approval("a", "newer words", was))
    with pytest.raises(Conflict):
        await books.pins.pin(PERSON, approval("a", "newer words", None))
    body = books.records("tool.pinned")[-1]["body"]
    assert (body["basis"], body["was"], body["rules"]) == ("person", was, ["instruct.must"])
    assert books.verify().findings == []


async def test_other_words_hold_a_tool_until_the_next_pin(books: Books) -> None:
    """Each wording is recorded once; what is only away leaves nothing behind; the pin lifts it."""
    pinned = described("a").digest
    other = Quarantine("up.a", pinned, Cause.CHANGED, described("a", "other"))
    for _ in range(2):
        await books.pins.quarantine([other, Quarantine("up.b", described("b").digest, Cause.GONE)])
    assert {name: pin.is_changed for name, pin in books.pins.of("up").items()} == {"a": True, "b": False}
    bodies = [record["body"] for record in books.records("tool.quarantined")]
    assert [(body["tool"], body["cause"]) for body in bodies] == [("up.a", "changed"), ("up.b", "gone")]
    await books.pins.pin(PERSON, approval("a", was=pinned))
    assert not books.pins.of("up")["a"].is_changed
    assert books.verify().findings == []


async def test_an_upstream_with_new_words_each_time_does_not_fill_the_log(books: Books) -> None:
    """It is quarantined all the same, and only the first wordings are recorded."""
    for number in range(30):
        now = described("a", f"words {number}")
        await books.pins.quarantine([Quarantine("up.a", described("a").digest, Cause.CHANGED, now)])
    assert len(books.records("tool.quarantined")) == 8
    assert books.pins.of("up")["a"].is_changed


async def test_a_quarantine_of_an_older_pin_says_nothing(books: Books) -> None:
    """Another gateway may be late: what it saw changed was approved meanwhile. So does one of no pin."""
    await books.pins.pin(PERSON, approval("a", "new", described("a").digest))
    late = [Quarantine("up.a", described("a").digest, Cause.CHANGED), Quarantine("up.z", "0" * 64, Cause.CHANGED)]
    await books.pins.quarantine(late)
    assert not books.pins.of("up")["a"].is_changed
    assert books.records("tool.quarantined") == []


@pytest.mark.requirement("TOOL-9")
async def test_pins_and_quarantines_survive_a_restart(site: Site) -> None:
    """What may be used is what the log says, quarantines included."""
    async with open_books(site) as books:
        await books.pins.trust("up", [Approval(f"up.{name}", described(name)) for name in ("a", "b")])
        await books.pins.quarantine([Quarantine("up.a", described("a").digest, Cause.CHANGED, described("a", "x"))])
        before = books.pins.of("up")
    async with open_books(site) as books:
        assert books.pins.of("up") == before
        assert [pin.is_changed for pin in books.pins.of("up").values()] == [True, False]
        await books.pins.quarantine([Quarantine("up.a", described("a").digest, Cause.CHANGED, described("a", "x"))])
        assert len(books.records("tool.quarantined")) == 1


async def test_many_tools_are_pinned_in_several_steps(site: Site) -> None:
    """More than one page of records is read back whole."""
    many = [Approval(f"up.t{number}", described(f"t{number}")) for number in range(1100)]
    async with open_books(site) as books:
        await books.pins.trust("up", many)
        assert len(books.pins.of("up")) == 1100
    async with open_books(site) as books:
        assert len(books.pins.of("up")) == 1100


async def test_two_gateways_come_to_the_same(both: tuple[Books, Books]) -> None:
    """One trusts first; the other learns its pins and quarantines, and cannot pin over what it has not seen."""
    first, second = both
    await first.pins.trust("up", [Approval("up.a", described("a"))])
    await second.pins.trust("up", [Approval("up.a", described("a", "other")), Approval("up.b", described("b"))])
    assert second.pins.of("up") == first.pins.of("up")
    await second.pins.quarantine([Quarantine("up.a", described("a").digest, Cause.CHANGED, described("a", "x"))])
    await first.pins.sync()
    assert first.pins.of("up")["a"].is_changed
    await first.pins.pin(PERSON, approval("a", "x", described("a").digest))
    with pytest.raises(Conflict):
        await second.pins.pin(PERSON, approval("a", "y", described("a").digest))
    assert second.pins.of("up") == first.pins.of("up")
    assert len(first.records("tool.pinned")) == 2
    assert first.verify().findings == []


async def test_the_fake_behaves_like_the_log(books: Books) -> None:
    """What the tests of the stock lean on: the same steps lead to the same pins."""
    fake = FakePins()
    await fake.trust("up", [Approval(f"up.{name}", described(name)) for name in ("a", "b")])
    for pins in (fake, books.pins):
        await pins.trust("up", [Approval("up.c", described("c"))])
        await pins.quarantine([Quarantine("up.a", described("a").digest, Cause.CHANGED)])
        await pins.quarantine([Quarantine("up.b", "0" * 64, Cause.CHANGED)])
        with pytest.raises(Conflict):
            await pins.pin(PERSON, approval("b", "other", "0" * 64))
        await pins.pin(PERSON, approval("b", "other", described("b").digest))
        await pins.sync()
    assert fake.of("up") == books.pins.of("up")

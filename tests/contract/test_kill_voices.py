"""Who may say that a kill ends: different persons, none of them stopped, none of them made up by one of the others."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.adapters.ledger.books.kills import KillRegistry
from gateway.core.api_keys import AUTH_METHOD
from gateway.core.errors import Conflict, Forbidden
from gateway.core.kills import Kill, Kind, target
from tests.approval_world import Person
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.ledgers import Books, open_books

ADA = make_principal(user="ada", agent=None, scopes=frozenset({"admin"}), auth_method="oidc")
MALLORY = replace(ADA, user="mallory")


def registry(books: Books, quorum: int) -> KillRegistry:
    """The kills of these books."""
    return KillRegistry(books.ledger, books.reader, books.keys, books.clock, quorum).among(None, books.reviewers)


async def engaged(kills: KillRegistry, kind: Kind, name: str) -> Kill:
    """A kill that is on disk."""
    kill, written = kills.engage(ADA, target(kind, name), name, "a test")
    await written
    return kill


async def enrolled(books: Books, *accounts: str) -> str:
    """One person with these accounts; the id of their key."""
    person = Person("p-mallory")
    wish = person.enrolment(accounts=[(ADA.issuer, account) for account in accounts])
    return (await books.reviewers.enrol(ADA, wish)).key_id


@pytest.mark.requirement("INC-1")
async def test_no_account_of_who_is_stopped_lifts_anything(tmp_path: Path) -> None:
    """Neither by another account of the same person, nor what else is stopped; when they are free they may."""
    async with open_books(tmp_path / "s", StepClock()) as books, registry(books, 1) as kills:
        await enrolled(books, "mallory", "mal")
        them, another = await engaged(kills, Kind.USER, "Mallory"), await engaged(kills, Kind.AGENT, "planner")
        for account in ("mallory", "mal"):
            for kill in (them, another):
                with pytest.raises(Forbidden):
                    await kills.lift(replace(MALLORY, user=account), kill.id, "it is me")
        assert (await kills.lift(ADA, them.id, "over")).lifted_us is not None
        assert (await kills.lift(MALLORY, another.id, "over")).lifted_us is not None


@pytest.mark.requirement("INC-1")
async def test_two_accounts_of_one_person_are_one_voice(tmp_path: Path) -> None:
    """Also after that person's key was revoked, which they could do themselves."""
    async with open_books(tmp_path / "s", StepClock()) as books, registry(books, 2) as kills:
        key, kill = await enrolled(books, "mallory", "mal"), await engaged(kills, Kind.ALL, "")
        assert (await kills.lift(MALLORY, kill.id, "over")).lifted_us is None
        second = replace(MALLORY, user="mal")
        with pytest.raises(Conflict):
            await kills.lift(second, kill.id, "over")
        await books.reviewers.revoke(ADA, key)
        with pytest.raises(Conflict):
            await kills.lift(second, kill.id, "over")
        assert (await kills.lift(ADA, kill.id, "over")).lifted_us is not None


@pytest.mark.requirement("INC-1")
async def test_an_api_key_has_no_voice(tmp_path: Path) -> None:
    """One administrator makes as many as they like, for whatever user, and would be a quorum alone."""
    async with open_books(tmp_path / "s", StepClock()) as books, registry(books, 2) as kills:
        kill = await engaged(kills, Kind.ALL, "")
        with pytest.raises(Forbidden) as caught:
            await kills.lift(replace(ADA, user="made-up", auth_method=AUTH_METHOD), kill.id, "over")
        assert caught.value.cause_code == "kill_voice"


@pytest.mark.requirement("INC-1")
async def test_made_up_accounts_have_no_voice_where_persons_come_from_elsewhere(tmp_path: Path) -> None:
    """Where a foreign issuer vouches for administrators, those of the gateway's own issuer do not count."""
    async with open_books(tmp_path / "s", StepClock()) as books:
        own = registry(books, 2).among(None, books.reviewers, foreign=True)
        async with own as kills:
            kill = await engaged(kills, Kind.ALL, "")
            assert (await kills.lift(ADA, kill.id, "over")).lifted_us is None
            with pytest.raises(Forbidden) as caught:
                await kills.lift(replace(ADA, user="made-up", auth_method="local"), kill.id, "over")
            assert caught.value.cause_code == "kill_voice"
            operator = replace(ADA, user="operator", auth_method="unix_socket")
            assert (await kills.lift(operator, kill.id, "over")).lifted_us is not None

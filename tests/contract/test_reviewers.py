"""Whose key may approve: enrolments in the log, each but the first signed by a key that is enrolled already."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gateway.adapters.ledger.storage.site import Site
from gateway.core.desk import Enrolment
from gateway.core.errors import Conflict, Forbidden, InvalidArguments, NotFound
from tests.approval_world import OPERATOR, Person
from tests.ledgers import Books, open_books

VERA, PAUL, EVE = Person("vera"), Person("paul"), Person("eve")


@pytest.fixture
async def books(site: Site) -> AsyncIterator[Books]:
    """Books in which Vera's key is enrolled."""
    async with open_books(site) as opened:
        await opened.reviewers.enrol(OPERATOR, VERA.enrolment(roles=["treasurer"]))
        yield opened


async def test_the_first_key_needs_no_signature_and_every_other_one_does(books: Books) -> None:
    """An operator cannot add an approver alone once there is one."""
    with pytest.raises(Forbidden) as caught:
        await books.reviewers.enrol(OPERATOR, EVE.enrolment())
    assert caught.value.cause_code == "unsigned"
    added = await books.reviewers.enrol(OPERATOR, PAUL.enrolment(VERA, origin=books.reviewers.origin, roles=["clerk"]))
    assert (added.person, added.roles, added.enrolled_by) == ("paul", frozenset({"clerk"}), VERA.key_id)
    assert books.verify().findings == []


def forged(kind: str, origin: str) -> Enrolment:
    """An enrolment that must not pass."""
    good = EVE.enrolment(VERA, origin=origin)
    forgeries = {
        "another gateway's": EVE.enrolment(VERA, origin="another log"),
        "self signed": EVE.enrolment(EVE, origin=origin),
        "another person": replace(good, person="vera"),
        "more roles": replace(good, roles=("treasurer",)),
        "another account": replace(good, accounts=(("urn:test", "nobody"),)),
        "another key": replace(good, public=PAUL.public),
        "another nonce": replace(good, nonce="11" * 32),
        "no signature": replace(good, signature=None),
        "broken signature": replace(good, signature=b"\0" * 64),
        "short signature": replace(good, signature=b"\0"),
    }
    return forgeries[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "another gateway's",
        "self signed",
        "another person",
        "more roles",
        "another account",
        "another key",
        "another nonce",
        "no signature",
        "broken signature",
        "short signature",
    ],
)
async def test_what_was_not_signed_is_not_enrolled(books: Books, kind: str) -> None:
    """Each field is bound by the signature, and the signer must be enrolled."""
    with pytest.raises(Forbidden):
        await books.reviewers.enrol(OPERATOR, forged(kind, books.reviewers.origin))
    assert [one.person for one in books.reviewers.all()] == ["vera"]


@pytest.mark.parametrize(
    "flaw",
    [
        {"public": b"short"},
        {"public": bytes([1]).ljust(32, b"\0")},
        {"public": b"\2" * 32},
        {"person": ""},
        {"nonce": ""},
    ],
)
async def test_what_is_no_enrolment_is_told_so(books: Books, flaw: dict[str, Any]) -> None:
    """A key of another size, nobody's name."""
    with pytest.raises(InvalidArguments):
        await books.reviewers.enrol(OPERATOR, replace(EVE.enrolment(VERA, origin=books.reviewers.origin), **flaw))


async def test_a_revoked_key_counts_no_more_and_does_not_come_back(books: Books) -> None:
    """Neither for enrolments nor by being enrolled anew; revoking twice, or what is not there, is told."""
    await books.reviewers.enrol(OPERATOR, PAUL.enrolment(VERA, origin=books.reviewers.origin))
    await books.reviewers.revoke(OPERATOR, VERA.key_id)
    with pytest.raises(Forbidden):
        await books.reviewers.enrol(OPERATOR, EVE.enrolment(VERA, origin=books.reviewers.origin))
    with pytest.raises(Conflict):
        await books.reviewers.enrol(OPERATOR, VERA.enrolment(PAUL, origin=books.reviewers.origin))
    with pytest.raises(Conflict):
        await books.reviewers.revoke(OPERATOR, VERA.key_id)
    with pytest.raises(NotFound):
        await books.reviewers.revoke(OPERATOR, EVE.key_id)
    assert books.verify().findings == []


async def test_keys_survive_a_restart(site: Site) -> None:
    """Who may approve is what the log says."""
    async with open_books(site) as books:
        await books.reviewers.enrol(OPERATOR, VERA.enrolment(roles=["treasurer"], accounts=[("urn:test", "v")]))
        await books.reviewers.enrol(OPERATOR, PAUL.enrolment(VERA, origin=books.reviewers.origin))
        await books.reviewers.revoke(OPERATOR, PAUL.key_id)
        before = books.reviewers.all()
    async with open_books(site) as books:
        assert books.reviewers.all() == before
        assert [(one.person, one.revoked) for one in before] == [("vera", False), ("paul", True)]

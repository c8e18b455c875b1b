"""A log whose own writer lied about people: it holds together, and verification still says what cannot be."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.files import DATABASE
from gateway.core.approval import Action, State, Verdict, action_hash, approval_message
from gateway.core.records import SYSTEM, EventType
from tests.approval_world import Door, Person, open_door

VERA, PAUL, EVE = Person("vera"), Person("paul"), Person("eve")
Body = dict[str, Any]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    """A door at which nobody acts on what is approved."""
    async with open_door(tmp_path, resuming=False) as opened:
        await opened.enrol(VERA, PAUL)
        yield opened


async def write(door: Door, kind: EventType, body: Mapping[str, Any], run: str | None) -> None:
    """Append a record that no code of the gateway would write."""
    scribe = Scribe(door.world.clock, door.books.keys)
    await door.books.ledger.append([scribe.draft(kind, Subject(SYSTEM, run, None), body)])


def honest(door: Door, action: Action, person: Person) -> Body:
    """What an approval by ``person`` says."""
    ballot = person.ballot(action)
    return {
        "approval": action.id,
        "action_hash": action_hash(action.statement(), Verdict.APPROVE).hex(),
        "key": person.key_id,
        "person": door.books.keys.mark("person", person.name),
        "signature": ballot.signature.hex(),
        "state": State.APPROVED,
        "verdict": Verdict.APPROVE,
    }


def _by_a_stranger(body: Body, door: Door, action: Action) -> Body:
    return honest(door, action, EVE)


def _with_no_signature(body: Body, door: Door, action: Action) -> Body:
    return body | {"signature": "00" * 64}


def _with_junk(body: Body, door: Door, action: Action) -> Body:
    return body | {"signature": "not hex"}


def _by_another_person(body: Body, door: Door, action: Action) -> Body:
    return body | {"person": door.books.keys.mark("person", "paul")}


def _a_rejection_that_approves(body: Body, door: Door, action: Action) -> Body:
    word = VERA.ballot(action, Verdict.REJECT)
    hashed = action_hash(action.statement(), Verdict.REJECT).hex()
    return body | {"verdict": Verdict.REJECT, "signature": word.signature.hex(), "action_hash": hashed}


def _of_something_else(body: Body, door: Door, action: Action) -> Body:
    signature = VERA.private.sign(approval_message(b"\1" * 32))
    return body | {"action_hash": "01" * 32, "signature": signature.hex()}


@pytest.mark.parametrize(
    ("lie", "finding"),
    [
        (_by_a_stranger, "not enrolled"),
        (_with_no_signature, "signature is not good"),
        (_with_junk, "signature is not good"),
        (_by_another_person, "not that of the person"),
        (_a_rejection_that_approves, "do not fit"),
        (_of_something_else, "not the action that was asked for"),
    ],
)
async def test_an_approval_nobody_gave_is_found(
    door: Door, lie: Callable[[Body, Door, Action], Body], finding: str
) -> None:
    """Whoever holds the log's key can write such a record, and cannot make it verify."""
    action = await door.parked()
    body = honest(door, action, VERA)
    assert door.books.verify().findings == []
    await write(door, EventType.APPROVAL_DECIDED, lie(body, door, action), action.run)
    assert [finding in found.problem for found in door.books.verify().findings] == [True]


async def test_too_few_persons_are_found(door: Door) -> None:
    """A log that calls an action approved before so many have signed says so itself."""
    need = {"id": "test.approval", "msg": "two must agree", "quorum": 2}
    words = door.world.policy.words[("call", "bank.pay")] | {"require": {"test": [need]}}
    door.world.policy.words[("call", "bank.pay")] = words
    action = await door.parked()
    await write(door, EventType.APPROVAL_DECIDED, honest(door, action, VERA), action.run)
    assert ["fewer persons" in found.problem for found in door.books.verify().findings] == [True]


async def test_an_enrolment_nobody_signed_is_found(door: Door) -> None:
    """An operator who writes themselves into the log is seen in it."""
    body: Body = {
        "algorithm": "ed25519",
        "document": "00" * 32,
        "enrolled_by": None,
        "key": EVE.key_id,
        "person": door.books.keys.mark("person", "eve"),
        "public": EVE.public.hex(),
        "roles": [],
        "signature": None,
    }
    await write(door, EventType.REVIEWER_ENROLLED, body, None)
    await write(door, EventType.REVIEWER_ENROLLED, body | {"enrolled_by": VERA.key_id, "signature": "00" * 64}, None)
    await write(door, EventType.REVIEWER_ENROLLED, body | {"enrolled_by": "77" * 16}, None)
    await write(door, EventType.REVIEWER_ENROLLED, body | {"public": PAUL.public.hex()}, None)
    await write(door, EventType.REVIEWER_REVOKED, {"key": "77" * 16}, None)
    said = [found.problem for found in door.books.verify().findings]
    assert [part in text for part, text in zip(_ENROLMENT_FINDINGS, said, strict=True)] == [True] * len(said)


_ENROLMENT_FINDINGS = (
    "no enrolled key has signed",
    "signature of this enrolment",
    "key that signed this enrolment",
    "not the one its id names",
    "never enrolled",
)


async def test_the_list_of_approvals_is_held_against_the_records(door: Door) -> None:
    """A row that was turned back to let an approval be used again is found."""
    action = await door.parked()
    await door.approve(action, VERA)
    with closing(sqlite3.connect(door.books.folder / DATABASE)) as db, db:
        db.execute("update approvals set state = 'ended'")
    assert ["list of approvals" in found.problem for found in door.books.verify().findings] == [True]

"""A log whose own writer lied about people: it holds together, and verification still says what cannot be."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.storage.files import DATABASE
from gateway.adapters.ledger.verification.report import Report
from gateway.adapters.ledger.verification.verify_approvals import Signatures
from gateway.core.approval import Action, State, Verdict
from gateway.core.errors import Unavailable
from gateway.core.records import SYSTEM, EventType
from gateway.core.signing import key_id, statement_hash, verdict_message
from tests.approval_world import OPERATOR, Door, Person, open_door

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
    return {
        "approval": action.id,
        "key": person.key_id,
        "person": door.books.keys.mark("person", person.name),
        "signature": person.ballot(action).signature.hex(),
        "state": State.APPROVED,
        "statement": statement_hash(action.statement()).hex(),
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
    return body | {"verdict": Verdict.REJECT, "signature": word.signature.hex()}


def _a_rejection_from_an_approval(body: Body, door: Door, action: Action) -> Body:
    return body | {"verdict": Verdict.REJECT, "state": State.REJECTED}


def _of_something_else(body: Body, door: Door, action: Action) -> Body:
    face, other = action.statement(), "01" * 32
    signature = VERA.private.sign(verdict_message(face, Verdict.APPROVE, other))
    return body | {"statement": other, "signature": signature.hex()}


@pytest.mark.parametrize(
    ("lie", "finding"),
    [
        (_by_a_stranger, "not enrolled"),
        (_with_no_signature, "signature is not good"),
        (_with_junk, "signature is not good"),
        (_by_another_person, "not that of the person"),
        (_a_rejection_that_approves, "do not fit"),
        (_a_rejection_from_an_approval, "signature is not good"),
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


async def test_a_signature_is_not_carried_over_to_another_action(door: Door) -> None:
    """A request that copies the hash of one that was signed is not signed: tool and pin are in what was signed."""
    action = await door.parked()
    await door.approve(action, VERA)
    other = {"approval": "forged", "action": "00", "definition": action.definition, "expires_us": action.expires_us}
    other |= {"persons": 1, "requirements": [], "revision": "0", "tool": "bank.close"}
    statement = {"statement": statement_hash(action.statement()).hex()}
    await write(door, EventType.APPROVAL_REQUESTED, other | statement, action.run)
    await write(door, EventType.APPROVAL_DECIDED, honest(door, action, VERA) | {"approval": "forged"}, action.run)
    assert ["signature is not good" in found.problem for found in door.books.verify().findings] == [True]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"tool": "bank.close"}, "another tool"),
        ({"definition": "another pin"}, "another tool"),
    ],
)
async def test_an_approval_that_was_used_for_something_else_is_found(door: Door, change: Body, finding: str) -> None:
    """An intent of another tool or pin, or after the approval's time, does not pass for the approved one."""
    action = await door.parked()
    await door.approve(action, VERA)
    body: Body = {"approval": action.id, "tool": action.tool, "definition": action.definition}
    scribe = Scribe(door.world.clock, door.books.keys)
    subject = Subject(SYSTEM, action.run, "call-forged")
    await door.books.ledger.append([scribe.draft(EventType.TOOL_REQUESTED, subject, body | change)])
    assert [finding in found.problem for found in door.books.verify().findings] == [True]


async def test_an_intent_after_the_approvals_time_is_found(door: Door) -> None:
    """The writer refuses it; a forger's own writer does not, and the verifier does."""
    action = await door.parked()
    await door.approve(action, VERA)
    report = Report()
    book = Signatures(report, door.books.reviewers.origin)
    for index, record in enumerate(door.books.records()):
        book.record(EventType(record["type"]), index, msgspec.json.encode(record), {})
    body = {"approval": action.id, "tool": action.tool, "definition": action.definition}
    late = {
        "id": "x",
        "type": "tool.requested",
        "ts": action.expires_us,
        "run_id": action.run,
        "call_id": "c",
        "body": body,
    }
    book.record(EventType.TOOL_REQUESTED, 99, msgspec.json.encode(late), {})
    assert ["after it had lapsed" in found.problem for found in report.findings] == [True]
    door.world.clock.us = action.expires_us
    with pytest.raises(Unavailable):
        await write(door, EventType.TOOL_REQUESTED, body, action.run)


def enrolment_of(door: Door, person: Person, **other: Any) -> Body:
    """What an enrolment says that nobody signed."""
    return {
        "algorithm": "ed25519",
        "document": person.public.hex(),
        "enrolled_by": None,
        "key": person.key_id,
        "person": door.books.keys.mark("person", person.name),
        "public": person.public.hex(),
        "roles": [],
        "signature": None,
    } | other


async def test_an_enrolment_nobody_signed_is_found(door: Door) -> None:
    """An operator who writes an approver into the log is seen in it, whatever signatures are copied."""
    vera = next(record for record in door.books.records("reviewer.enrolled"))["body"]
    paul = door.books.records("reviewer.enrolled")[1]["body"]
    copied = {"enrolled_by": VERA.key_id, "signature": paul["signature"]}
    weak = bytes([1]).ljust(32, b"\0").hex()
    weak_id = key_id(bytes.fromhex(weak))
    lies: list[tuple[EventType, Body, str]] = [
        (EventType.REVIEWER_ENROLLED, enrolment_of(door, Person("a")), "no enrolled key has signed"),
        (EventType.REVIEWER_ENROLLED, enrolment_of(door, Person("b"), **copied), "signature of this enrolment"),
        (
            EventType.REVIEWER_ENROLLED,
            enrolment_of(door, Person("c"), **copied, document=paul["document"]),
            "enrolled before",
        ),
        (EventType.REVIEWER_ENROLLED, enrolment_of(door, Person("d"), enrolled_by="77" * 16), "key that signed"),
        (EventType.REVIEWER_ENROLLED, enrolment_of(door, EVE, public=PAUL.public.hex()), "not the one its id names"),
        (
            EventType.REVIEWER_ENROLLED,
            enrolment_of(door, EVE, public=weak, key=weak_id),
            "no sound",
        ),
        (EventType.REVIEWER_ENROLLED, vera, "enrolled before"),
        (EventType.REVIEWER_REVOKED, {"key": "77" * 16}, "never enrolled"),
    ]
    for kind, body, _ in lies:
        await write(door, kind, body, None)
    said = [found.problem for found in door.books.verify().findings]
    assert [part in text for (_, _, part), text in zip(lies, said, strict=True)] == [True] * len(lies)


async def test_beginning_anew_is_no_lie_and_is_told(door: Door) -> None:
    """Whoever revokes every key and enrols another one alone is named, though nothing is wrong with the log."""
    for person in (VERA, PAUL):
        await door.books.reviewers.revoke(OPERATOR, person.key_id)
    assert door.books.verify().notices == []
    await door.books.reviewers.enrol(OPERATOR, EVE.enrolment())
    report = door.books.verify()
    assert (report.findings, len(report.notices)) == ([], 1)
    assert EVE.key_id in report.notices[0]


async def test_the_list_of_approvals_is_held_against_the_records(door: Door) -> None:
    """A row that was turned back to let an approval be used again is found."""
    action = await door.parked()
    await door.approve(action, VERA)
    with closing(sqlite3.connect(door.books.folder / DATABASE)) as db, db:
        db.execute("update approvals set state = 'ended'")
    assert ["list of approvals" in found.problem for found in door.books.verify().findings] == [True]

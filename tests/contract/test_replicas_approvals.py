"""Approvals over two gateways: parked once, each word counted once, carried out once, by whoever lives."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.approval import State
from gateway.core.errors import Forbidden
from tests.approval_world import OPERATOR, Door, Person, open_door
from tests.clock import StepClock
from tests.fakes import World
from tests.fakes.rules import ALLOW
from tests.replicas import Sites

VERA, PAUL = Person("vera"), Person("paul")


def asking(**need: Any) -> dict[str, Any]:
    """A policy that asks for people as ``need`` says."""
    return ALLOW | {"require": {"test": [{"id": "test.approval", "msg": "people must agree", **need}]}}


async def test_two_persons_sign_at_two_gateways(sites: Sites) -> None:
    """Each word counts once, whoever heard it; the payment is made once, and both tell what came of it."""
    async with two_doors(sites) as (one, other):
        one.world.policy.words["call", "bank.pay"] = asking(quorum=2)
        await one.enrol(VERA, PAUL)
        action = await one.parked()
        await other.books.approvals.follow()
        await asyncio.gather(
            one.books.approvals.decide(action.id, VERA.ballot(action)),
            other.books.approvals.decide(action.id, PAUL.ballot(action)),
        )
        for door in (one, other):
            await door.reaches(action, State.ENDED)
            assert (await door.knock()).replayed
        assert one.paid() == 1
        assert one.books.verify().findings == []


async def test_an_action_is_parked_once_by_both(sites: Sites) -> None:
    """The same call at both gateways waits as one action."""
    async with two_doors(sites) as (one, other):
        await one.enrol(VERA)
        actions = await asyncio.gather(*(door.parked() for door in (one, other) * 3))
        assert len({action.id for action in actions}) == 1


async def test_what_a_dead_gateway_was_to_carry_out_another_one_does(sites: Sites) -> None:
    """Approved at a gateway that never got to it: after a moment, once."""
    async with two_doors(sites, first_acts=False) as (one, other):
        await one.enrol(VERA)
        action = await one.parked()
        await one.approve(action, VERA)
        await other.books.approvals.follow()
        assert one.paid() == 0
        one.world.clock.advance(10)
        await other.reaches(action, State.ENDED)
        assert one.paid() == 1
        assert other.books.verify().findings == []


async def test_a_key_revoked_at_one_signs_nothing_at_the_other(sites: Sites) -> None:
    """At once: the word is held against the log, not against what this gateway remembers."""
    async with two_doors(sites) as (one, other):
        await one.enrol(VERA, PAUL)
        action = await one.parked()
        await other.books.approvals.follow()
        await one.books.reviewers.revoke(OPERATOR, PAUL.key_id)
        with pytest.raises(Forbidden):
            await other.books.approvals.decide(action.id, PAUL.ballot(action))


async def test_a_key_revoked_after_the_approval_carries_out_nothing_anywhere(sites: Sites) -> None:
    """Approved and known at both, then revoked at one: the other finds no word left that counts, and pays nothing."""
    async with two_doors(sites, first_acts=False) as (one, other):
        await one.enrol(VERA)
        action = await one.parked()
        await one.approve(action, VERA)
        await other.books.approvals.follow()
        await one.books.reviewers.revoke(OPERATOR, VERA.key_id)
        one.world.clock.advance(10)
        await other.reaches(action, State.VOID, State.ENDED)
        assert one.paid() == 0
        assert (await other.books.approvals.dossier(action.id)).state is State.VOID
        assert other.books.verify().findings == []


async def test_several_actions_of_one_are_met_by_the_other(sites: Sites) -> None:
    """All of them, each once: what is asked for again waits already."""
    async with two_doors(sites) as (one, other):
        await one.enrol(VERA)
        calls = [b'{"amount": %d}' % amount for amount in (1, 2, 3)]
        actions = [await one.parked(one.call(arguments)) for arguments in calls]
        await other.books.approvals.follow()
        waiting, size = await other.books.approvals.waiting(10)
        assert [dossier.action.id for dossier in waiting] == [action.id for action in actions]
        assert size == 3
        assert [(await other.parked(other.call(arguments))).id for arguments in calls] == [one.id for one in actions]


@asynccontextmanager
async def two_doors(sites: Sites, *, first_acts: bool = True) -> AsyncIterator[tuple[Door, Door]]:
    """Two gateways before one bank."""
    world = World(clock=StepClock())
    async with (
        open_door(sites.site("a"), world=world, resuming=first_acts) as one,
        open_door(sites.site("b"), world=world) as other,
    ):
        yield one, other

"""A door with real books: parked calls, reviewers with real keys, and an upstream that remembers what reached it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anyio import fail_after, sleep
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.adapters.ledger.storage.site import Site
from gateway.core.approval import Action, State, Verdict
from gateway.core.call import Answer, Call
from gateway.core.desk import Ballot, Dossier, Enrolment
from gateway.core.errors import Pending
from gateway.core.ports import Ports
from gateway.core.signing import approval_message, document_hash, enrolment, enrolment_message, key_id
from gateway.edge.calling import carry_out
from gateway.edge.disconnect import Watched
from gateway.edge.resuming import Resumption
from tests.clock import StepClock
from tests.evidence import make_principal
from tests.fakes import World
from tests.fakes.callers import AGENT
from tests.fakes.rules import APPROVAL
from tests.ledgers import Books, open_books

OPERATOR = make_principal(user="operator", agent=None, scopes=frozenset({"admin"}))
_PATIENCE_S = 10


@dataclass(frozen=True, slots=True)
class Person:
    """A reviewer with a key of their own."""

    name: str
    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def public(self) -> bytes:
        """Raw public half."""
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def key_id(self) -> str:
        """What the key is enrolled as."""
        return key_id(self.public)

    def ballot(self, action: Action, verdict: Verdict = Verdict.APPROVE, reason: str | None = None) -> Ballot:
        """Their signed word on ``action``."""
        message = approval_message(action.statement(), verdict, reason)
        return Ballot(verdict, self.key_id, self.private.sign(message), reason)

    def enrolment(
        self,
        by: "Person | None" = None,
        *,
        origin: str = "",
        roles: Sequence[str] = (),
        accounts: Sequence[tuple[str, str]] = (),
    ) -> Enrolment:
        """The wish to be enrolled in the log ``origin``, signed by ``by``."""
        document = enrolment(self.public, self.name, roles, accounts, "00" * 32)
        wish = Enrolment(self.public, self.name, tuple(roles), tuple(accounts), "00" * 32)
        if by is None:
            return wish
        message = enrolment_message(origin, self.public.hex(), roles, document_hash(document))
        signature = by.private.sign(message)
        return replace(wish, signed_by=by.key_id, signature=signature)


@dataclass(frozen=True, slots=True)
class Door:
    """The door, its books, and the fakes around it."""

    books: Books
    world: World
    ports: Ports

    def call(self, arguments: bytes = b'{"amount": 1}', name: str = "bank.pay") -> Call:
        """A payment as an agent asks for it."""
        return self.world.call(name, arguments)

    async def knock(self, call: Call | None = None) -> Answer:
        """Make the call as a surface does."""
        return await carry_out(call or self.call(), self.ports, Watched(_stays))

    async def parked(self, call: Call | None = None) -> Action:
        """The action of a call that now waits."""
        try:
            await self.knock(call)
        except Pending as error:
            return (await self.books.approvals.dossier(error.approval_id)).action
        raise AssertionError("the call does not wait")

    async def enrol(self, *persons: Person) -> None:
        """Enrol reviewers, each by the first."""
        origin = self.books.reviewers.origin
        for person in persons:
            by = None if person is persons[0] else persons[0]
            await self.books.reviewers.enrol(OPERATOR, person.enrolment(by, origin=origin))

    async def approve(self, action: Action, *persons: Person) -> Dossier:
        """Let each of them approve; the approval after the last."""
        for person in persons:
            await self.books.approvals.decide(action.id, person.ballot(action))
        return await self.books.approvals.dossier(action.id)

    async def reaches(self, action: Action, *states: State) -> Dossier:
        """The approval, once it is in one of ``states``."""
        with fail_after(_PATIENCE_S):
            while (dossier := await self.books.approvals.dossier(action.id)).state not in states:  # noqa: ASYNC110 - no event tells all states
                await sleep(0.005)
        return dossier

    def paid(self) -> int:
        """How many payments reached the bank."""
        return len(self.world.connector.sent)


async def _stays() -> dict[str, Any]:
    await sleep(3600)
    return {}


@asynccontextmanager
async def open_door(
    place: Path | Site, *, clock: StepClock | None = None, world: World | None = None, resuming: bool = True
) -> AsyncIterator[Door]:
    """The door over the log in ``place``, where ``bank.pay`` needs a person.

    Unless ``resuming``, nobody acts on what is approved.
    """
    world = world or World(clock=clock or StepClock())
    world.policy.words.setdefault(("call", "bank.pay"), APPROVAL)
    world.settings = replace(world.settings, hold_s=0.0)
    async with AsyncExitStack() as stack:
        books = await stack.enter_async_context(open_books(place, world.clock))
        far = replace(AGENT, expires_us=world.clock.us + 10**15)
        world.identity.tokens = {"good": far}
        ports = replace(world.ports(), runs=books.runs, audit=books.log, approvals=books.approvals)
        if resuming:
            await stack.enter_async_context(Resumption(ports))
        yield Door(books, world, ports)

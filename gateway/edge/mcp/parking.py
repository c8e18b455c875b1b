"""Calls whose upstream asks while it works, for clients that can be asked between two requests only.

The stateless era has no stream to ask on: the question ends the request, and the call stays where it is, parked, with
its upstream waiting. The client comes back with the answers and the sealed ``requestState``, and the call goes on. A
state is good once. A parked call holds its credential and its places, so there are few of them, and not for long; whose
client does not come back is taken back, as if the client had cancelled it. Where there is no place, a read is
taken back at once and its client told when to come again; the upstream of any other call is told that nobody answers,
and ends it as it sees fit: broken off, nobody would know what it did.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, Final, NoReturn

from anyio import CancelScope, Event, create_task_group, move_on_after
from anyio.lowlevel import checkpoint

from gateway.core.call import Answer, Call, Principal
from gateway.core.canonical import Arguments
from gateway.core.errors import Throttled, ToolFailed
from gateway.core.flow import PARKED, Flow, NotAnswered, Wants
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.asking import Question
from gateway.core.mcpwire.jsonrpc import encode
from gateway.core.ports import Clock, Ports
from gateway.edge.calling import carry_out
from gateway.edge.ears import Stopping
from gateway.edge.faults import ClientGone, InvalidParams
from gateway.edge.mcp.rounds import MOST_ROUNDS
from gateway.edge.mcp.stream import Stream

PARKED_S: Final = 90.0
_ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Room:
    """How many calls may be parked.

    Attributes:
        most: at a time; 0 = none, and no upstream is told that it may ask.
        most_each: of one principal.
    """

    most: int = 64
    most_each: int = 8

    @property
    def most_of_user(self) -> int:
        """Of one user, through however many agents: whoever may open runs may name any number of these."""
        return max(1, self.most // 2)


@dataclass(slots=True, eq=False)
class Slot:
    """One call that can be parked.

    Attributes:
        owner: the caller's ``Principal.key``.
        user: the user whose agent that is, by who vouches for them.
        enter: told before the first question is put; raises ``Throttled`` where there is no room.
        is_read: whether its tool changes nothing.
        stream: the answer on its way to a client that is there now.
        flow: the call's own line.
        call_id: the call.
        open: the questions that wait, by the name they are put under.
        rounds: how often the client has come back.
        until: when it is forgotten, event loop's seconds; None while its client is there.
    """

    owner: str
    user: str
    enter: Callable[["Slot"], None]
    is_read: Callable[[], bool]
    stream: Stream | None
    flow: Flow | None = None
    call_id: str = ""
    open: dict[str, tuple[Question, "asyncio.Future[Arguments]"]] = field(default_factory=dict)
    rounds: int = 0
    until: float | None = None
    _full: Throttled | None = None
    _asked: int = 0
    _scope: CancelScope = field(default_factory=CancelScope)
    _news: Event = field(default_factory=Event)
    _parked: Event = field(default_factory=Event)
    _task: "asyncio.Task[Answer] | None" = None

    @property
    def is_over(self) -> bool:
        """Whether the call has ended."""
        return self._task is not None and self._task.done()

    def start(self, call: Call, ports: Ports, over: Callable[["Slot"], None]) -> None:
        """Carry the call out, beside the request; ``over`` is told when it has ended."""
        self.call_id = call.id
        self._task = asyncio.get_running_loop().create_task(self._carried_out(call, ports))
        self._task.add_done_callback(partial(self._ended, over))

    async def deliver(self, message: bytes) -> None:
        """Send a notice, where somebody is there to hear it."""
        if self.stream is not None:
            await self.stream.event(message)

    async def put(self, question: Question) -> Arguments:
        """What the client answers in another request.

        Raises:
            NotAnswered: it did not come back, and the call is taken back; or too many are parked.
        """
        if self._scope.cancel_called:
            raise NotAnswered("gone")
        try:
            self.enter(self)
        except Throttled as full:
            await self._turn_away(full)
        self._asked += 1
        key = f"question-{self._asked}"
        answer: asyncio.Future[Arguments] = asyncio.get_running_loop().create_future()
        self.open[key] = (question, answer)
        self._news.set()
        try:
            with move_on_after(PARKED_S):
                return await answer
        finally:
            self.open.pop(key, None)
        self.take_back()
        await checkpoint()  # the call ends here; where it is past being taken back, its upstream is told
        raise NotAnswered("no_answer")

    def come_back(self, answers: Mapping[str, Arguments], wants: Wants, stream: Stream) -> None:
        """The client is there again, with what it answers; what it leaves out is asked again."""
        self.rounds += 1
        self.stream, self.until, self._parked = stream, None, Event()
        if self.flow is not None:
            self.flow.wants = wants
        for key, said in answers.items():
            found = self.open.pop(key, None)
            if found is not None and not found[1].done():
                found[1].set_result(said)

    def wait(self) -> None:
        """Its client has the questions, and is away."""
        self.stream, self.until = None, asyncio.get_running_loop().time() + PARKED_S
        self._parked.set()

    async def turn(self) -> None:
        """Return when the call is over, or its upstream asks."""
        while not self.is_over and not self.open:
            self._news = Event()
            await self._news.wait()

    def answer(self) -> Answer:
        """How the call ended.

        Raises:
            Throttled: it was taken back because it could not be parked.
            GatewayError: as ``carry_out`` does.
            ClientGone: as ``carry_out`` does.
        """
        assert self._task is not None
        try:
            return self._task.result()
        except ToolFailed as error:
            if self._full is not None and error.cause_code == PARKED:
                raise self._full from None
            raise

    def take_back(self) -> None:
        """Break the call off as if its client had cancelled it."""
        self.stream = None
        if self.flow is not None:
            self.flow.withdraw()

    def leave(self) -> None:
        """Nobody is there any more: nothing is answered, a read is cancelled, and a committed call goes on."""
        self.stream = None
        self._scope.cancel()
        for _, waiting in self.open.values():
            if not waiting.done():
                waiting.set_exception(NotAnswered("gone"))

    async def rest(self, stopping: Stopping | None) -> None:
        """Return when the call has ended; one that is parked while the gateway stops is taken back."""
        task = self._task
        if task is None or task.done():
            return
        try:
            async with create_task_group() as group:
                if stopping is not None:
                    group.start_soon(self._stopped_by, stopping)
                await asyncio.wait({task})
                group.cancel_scope.cancel()
        except BaseException:
            self.leave()
            with CancelScope(shield=True):
                await asyncio.wait({task})
            raise

    async def _turn_away(self, full: Throttled) -> NoReturn:
        if self.flow is not None and self.is_read():
            self._full = full
            self.flow.withdraw(PARKED)
            await checkpoint()  # it ends here
        raise NotAnswered("too_many_parked")

    def _ended(self, over: Callable[["Slot"], None], task: "asyncio.Task[Answer]") -> None:
        if not task.cancelled():
            task.exception()  # what nobody comes back for is in the log, and no surprise
        self._news.set()
        over(self)

    async def _stopped_by(self, stopping: Stopping) -> None:
        await stopping.wait()
        while self.stream is not None:  # its client is there: it may end as any call under way may
            await self._parked.wait()
        self.take_back()

    async def _carried_out(self, call: Call, ports: Ports) -> Answer:
        with self._scope:
            return await carry_out(call, ports, nullcontext())
        raise ClientGone


class Parking:
    """The parked calls of this process."""

    def __init__(self, clock: Clock, room: Room) -> None:
        """None is parked yet. Each holds one of the gateway's places for calls."""
        self._clock = clock
        self._room = room
        self._parked: dict[str, Slot] = {}
        self._forgetting: dict[str, asyncio.TimerHandle] = {}
        self._inside: set[Slot] = set()

    @property
    def is_open(self) -> bool:
        """Whether any call may be parked."""
        return self._room.most > 0

    def slot(self, caller: Principal, stream: Stream, is_read: Callable[[], bool]) -> Slot:
        """A place for a call of ``caller``, should its upstream ask; ``is_read``: whether its tool changes nothing."""
        return Slot(caller.key, f"{caller.issuer}|{caller.user}", self._enter, is_read, stream)

    def park(self, slot: Slot) -> str:
        """Leave the call as it is; returns the name by which it is taken up again, once."""
        name = self._clock.random(_ID_BYTES).hex()
        slot.wait()
        self._parked[name] = slot
        return name

    def take(self, name: str) -> Slot:
        """The call that was parked under ``name``, which is good for nothing more.

        Raises:
            InvalidParams: there is none: it was taken up before, waited too long, or is another process's.
            ToolFailed: it asks without end.
        """
        slot = self._parked.pop(name, None)
        if slot is None:
            detail = "params.requestState was used, or waited too long: make the call again without it"
            raise InvalidParams(detail, cause_code="request_state")
        timer = self._forgetting.pop(name, None)
        if timer is not None:
            timer.cancel()  # it holds the outcome, which can be large
        if slot.is_over:
            self._let_go(slot)
        if slot.rounds >= MOST_ROUNDS:
            slot.take_back()
            raise ToolFailed("the tool asks for input without end", cause_code="input_rounds")
        return slot

    def over(self, slot: Slot) -> None:
        """The call has ended; where its client is away, its outcome is kept a while."""
        name = next((name for name, parked in self._parked.items() if parked is slot), None)
        if name is None:
            self._let_go(slot)
        else:
            loop = asyncio.get_running_loop()
            slot.until = loop.time() + PARKED_S
            self._forgetting[name] = loop.call_at(slot.until, self._forget, name, slot)

    def _enter(self, slot: Slot) -> None:
        if slot in self._inside:
            return
        own = [one for one in self._inside if one.owner == slot.owner]
        of_user = [one for one in self._inside if one.user == slot.user]
        if len(own) >= self._room.most_each:
            raise _full("too many calls of yours wait for input", own)
        if len(of_user) >= self._room.most_of_user:
            raise _full("too many calls of your user's agents wait for input", of_user)
        if len(self._inside) >= self._room.most:
            raise _full("too many calls wait for input", self._inside)
        self._inside.add(slot)

    def _forget(self, name: str, slot: Slot) -> None:
        self._forgetting.pop(name, None)
        if self._parked.pop(name, None) is not None:
            self._let_go(slot)

    def _let_go(self, slot: Slot) -> None:
        self._inside.discard(slot)


def _full(words: str, those: Collection[Slot]) -> Throttled:
    """How one is turned away: to come again when the first of ``those``, in its way, will have been forgotten."""
    now = asyncio.get_running_loop().time()
    first = min(one.until or now + PARKED_S for one in those)
    detail = f"{words}: answer one of them, or make the call again later"
    return Throttled(detail, retry_after=max(1.0, ceil(first - now)), cause_code=PARKED)


def asking(slot: Slot) -> bytes:
    """The result that asks what waits in ``slot``."""
    asked: dict[str, Any] = {
        key: {"method": question.method, "params": dict(question.params)} for key, (question, _) in slot.open.items()
    }
    return encode({"resultType": eras.RESULT_INPUT_REQUIRED, "inputRequests": asked})

"""A question of a handshake upstream to a stateless client: the call is parked until its client comes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio import Event, create_task_group, fail_after, sleep_forever
from starlette.types import Message

from gateway.core.call import Lease, Raw
from gateway.core.flow import NotAnswered
from gateway.core.kills import Kind
from gateway.edge.ears import STOPPING, Stopping
from gateway.edge.mcp import parking
from tests.edge_world import ADMIN, Edge, modern
from tests.fakes.rules import APPROVAL, DENY
from tests.fakes.upstream import RESULT, FakeConnector
from tests.story.test_edge_asking import ACCEPTED, ASKED, CAPABLE, before
from tests.waiting import until

ELICIT, READ, WRITE = "elicitation/create", "erp__stock", "erp__order"


@dataclass(slots=True)
class Asking(FakeConnector):
    """An upstream of the handshake era that asks so many times during its call, ``at_once`` or one after another.

    Attributes:
        heard: the answers, or why there was none.
        between: waited for after each answer.
        ends: whether its call ended by a cancellation.
    """

    times: int = 1
    at_once: bool = False
    hangs: bool = False
    between: Event | None = None
    heard: list[Any] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    async def invoke(self, lease: Lease) -> Raw:
        """Ask, then answer."""
        self.sent.append(lease)
        try:
            if self.at_once:
                await asyncio.gather(*[self._ask(lease) for _ in range(self.times)])
            else:
                for _ in range(self.times):
                    await self._ask(lease)
                    if self.between is not None:
                        await self.between.wait()
            if self.hangs:
                await sleep_forever()
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        return Raw(lease, json.dumps(RESULT).encode(), dict(RESULT))

    async def _ask(self, lease: Lease) -> None:
        flow = lease.intent.call.flow
        assert flow is not None
        try:
            self.heard.append(json.loads(await flow.ask(ELICIT, json.dumps(ASKED).encode())))
        except NotAnswered as refusal:
            self.heard.append(refusal.cause)


@dataclass(slots=True)
class Talk:
    """A client of the stateless era; each request of it runs on beside the test, as at a real server."""

    edge: Edge
    group: Any
    stopping: Stopping = field(default_factory=Stopping)
    gone: Event = field(default_factory=Event)
    ended: int = 0

    async def call(self, tool: str = READ, token: str = "good", given: Any = None, **params: Any) -> Any:
        """A request's answer."""
        posted = modern("tools/call", {"name": tool, "arguments": given or {}, **params})
        posted["json"]["params"]["_meta"] = CAPABLE
        fields = {"host": "gateway.test", "authorization": f"Bearer {token}", "content-type": "application/json"}
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "query_string": b"",
            "client": ("192.0.2.1", 4711),
            "server": ("127.0.0.1", 8470),
            "headers": [(name.encode(), value.encode()) for name, value in (fields | posted["headers"]).items()],
            STOPPING: self.stopping,
        }
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        said = [json.dumps(posted["json"]).encode()]

        async def receive() -> Message:
            if said:
                return {"type": "http.request", "body": said.pop(), "more_body": False}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message.get("body") and not answer.done():
                answer.set_result(message["body"])

        async def run() -> None:
            await self.edge.app(scope, receive, send)
            self.ended += 1

        self.group.start_soon(run)
        with fail_after(30):
            return json.loads(await answer)

    async def back(self, asked: Any, answers: Any = None, **other: Any) -> Any:
        """Come back with answers to all that a result asks; returns the next answer."""
        given = dict.fromkeys(asked["inputRequests"], ACCEPTED) if answers is None else answers
        return await self.call(requestState=asked["requestState"], inputResponses=given, **other)


@asynccontextmanager
async def talking(edge: Edge) -> AsyncIterator[Talk]:
    """Such a client; its requests must end by themselves."""
    with fail_after(30):
        async with create_task_group() as group:
            yield Talk(edge, group)


def words(answer: Any) -> Any:
    """What an ``isError`` result says."""
    return json.loads(answer["result"]["content"][0]["text"])


@pytest.mark.requirement("TOOL-7", "FLOW-1")
async def test_a_parked_call_goes_on_with_its_answer() -> None:
    """One call upstream, one intent; question and answer are decided on and in the log before they are handed on."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        assert asked["resultType"] == "input_required"
        assert list(asked["inputRequests"].values()) == [{"method": ELICIT, "params": ASKED}]
        assert edge.records() == ["tool.requested", "input.asked"]
        assert upstream.heard == []
        done = await talk.back(asked)
    assert done["result"] == {"resultType": "complete", **RESULT}
    assert (upstream.heard, len(upstream.sent)) == ([ACCEPTED], 1)
    assert edge.records() == ["tool.requested", "input.asked", "input.answered", "tool.completed"]
    assert upstream.sent[0].intent.call.flow.askable == {"elicitation": {}, "sampling": {}}


async def test_a_parked_call_may_ask_again() -> None:
    """Each round has a state of its own; what is not answered is asked again."""
    edge, upstream = before(Asking, times=2)
    async with talking(edge) as talk:
        first = (await talk.call())["result"]
        again = (await talk.back(first, answers={}))["result"]
        assert again["inputRequests"] == first["inputRequests"]
        second = (await talk.back(again))["result"]
        assert second["inputRequests"].keys() != first["inputRequests"].keys()
        assert len({first["requestState"], again["requestState"], second["requestState"]}) == 3
        assert (await talk.back(second))["result"]["content"] == RESULT["content"]
    assert (upstream.heard, len(upstream.sent)) == ([ACCEPTED] * 2, 1)


async def test_questions_at_once_are_asked_at_once() -> None:
    """And one that is asked without end is given up."""
    edge, upstream = before(Asking, times=2, at_once=True)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        if len(asked["inputRequests"]) == 1:
            asked = (await talk.back(asked, answers={}))["result"]
        assert len(asked["inputRequests"]) == 2
        answer: Any = {}
        for _ in range(10):
            answer = await talk.back(asked, answers={})
            if "inputRequests" not in answer["result"]:
                break
            asked = answer["result"]
        assert words(answer)["cause"] == "input_rounds"
    assert upstream.heard in ([], ["gone", "gone"])
    assert upstream.ends == ["cancelled"]
    assert edge.records()[-1] == "tool.failed"


@pytest.mark.requirement("FLOW-1")
async def test_a_state_resumes_its_own_call_once() -> None:
    """Not for another principal, other arguments or another tool, not changed by a bit, and not twice."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        state = asked["requestState"]
        spoilt = asked | {"requestState": state[:-3] + ("A" if state[-3] != "A" else "B") + state[-2:]}
        tries = [
            await talk.back(asked, token="other"),
            await talk.back(asked, given={"sku": "x"}),
            await talk.back(asked, tool=WRITE),
            await talk.back(spoilt),
        ]
        assert "result" in await talk.back(asked)
        tries.append(await talk.back(asked))
    assert {answer["error"]["data"]["cause"] for answer in tries} == {"request_state"}
    assert (upstream.heard, len(upstream.sent)) == ([ACCEPTED], 1)


@pytest.mark.parametrize("why", ["denied", "approval", "hidden", "killed"])
@pytest.mark.parametrize(("tool", "ends"), [(READ, "tool.failed"), (WRITE, "tool.outcome_unknown")])
async def test_coming_back_is_decided_on(why: str, tool: str, ends: str) -> None:
    """Policy may have changed, or somebody may have stopped it: the call is taken back, and the refusal recorded."""
    edge, upstream = before(Asking)
    fqn = tool.replace("__", ".")
    async with talking(edge) as talk:
        asked = (await talk.call(tool))["result"]
        if why == "killed":
            await edge.world.kills.engage(ADMIN, Kind.TOOL, fqn, "a test")
        else:
            phase = "list" if why == "hidden" else "call"
            edge.world.policy.words[phase, fqn] = APPROVAL if why == "approval" else DENY
        answer = await talk.back(asked, tool=tool)
    refusal = answer["error"]["data"]["code"] if "error" in answer else words(answer)["error"]
    assert refusal == {"hidden": "unknown_tool", "killed": "killed"}.get(why, "denied")
    assert (upstream.heard, upstream.ends) == ([], ["cancelled"])
    assert "call.refused" in edge.records()
    assert ends in edge.records()


@pytest.mark.requirement("INC-1")
@pytest.mark.parametrize(("tool", "ends"), [(READ, "tool.failed"), (WRITE, "tool.outcome_unknown")])
async def test_a_kill_ends_a_parked_call(tool: str, ends: str) -> None:
    """At once, with its upstream told; coming back finds that it was stopped."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        asked = (await talk.call(tool))["result"]
        await edge.world.kills.engage(ADMIN, Kind.AGENT, "ap-agent", "a test")
        await until(lambda: upstream.ends == ["cancelled"])
        answer = await talk.back(asked, tool=tool)
    assert words(answer)["cause"] == "kill.agent"
    assert upstream.heard == []
    assert ends in edge.records()


@pytest.mark.parametrize(("tool", "ends"), [(READ, "tool.failed"), (WRITE, "tool.outcome_unknown")])
async def test_a_client_that_does_not_come_back_takes_its_call_back(
    monkeypatch: pytest.MonkeyPatch, tool: str, ends: str
) -> None:
    """After a while: the upstream is told, and the state is good for nothing."""
    monkeypatch.setattr(parking, "PARKED_S", 0.05)
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        asked = (await talk.call(tool))["result"]
        await until(lambda: ends in edge.records())
        assert upstream.ends == ["cancelled"]

        async def tried() -> bool:
            answer = await talk.back(asked, tool=tool)
            return bool(answer.get("error", {}).get("data", {}).get("cause") == "request_state")

        assert await tried() or await tried()


async def test_an_outcome_is_kept_for_a_client_that_is_away() -> None:
    """The upstream went on without its answer: that is what the client finds."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        slots = edge.app._mcp._calls._parking._parked  # type: ignore[attr-defined]
        (slot,) = slots.values()
        for _, waiting in slot.open.values():
            waiting.set_exception(NotAnswered("given_up"))
        await until(lambda: "tool.completed" in edge.records())
        done = await talk.back(asked)
    assert done["result"]["content"] == RESULT["content"]
    assert upstream.heard == ["given_up"]


@pytest.mark.parametrize(("tool", "ends"), [(READ, "tool.failed"), (WRITE, "tool.outcome_unknown")])
async def test_a_gateway_that_stops_takes_parked_calls_back(tool: str, ends: str) -> None:
    """Their ends are in the log before it is gone."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        assert "inputRequests" in (await talk.call(tool))["result"]
        talk.stopping.set()
    assert upstream.ends == ["cancelled"]
    assert edge.records()[-1] == ends


async def test_parked_calls_are_few() -> None:
    """One too many is not asked: its upstream hears so, and a call that may have done something goes on without."""
    edge, upstream = before(Asking)
    async with talking(edge) as talk:
        parked = [(await talk.call(given={"sku": str(at)}))["result"] for at in range(8)]
        assert all("inputRequests" in asked for asked in parked)
        full = await talk.call(WRITE, given={"sku": "more"})
        assert full["result"]["content"] == RESULT["content"]
        assert upstream.heard == ["too_many_parked"]
        for at, asked in enumerate(parked):
            await talk.back(asked, given={"sku": str(at)})
        assert "inputRequests" in (await talk.call(given={"sku": "more"}))["result"]
        talk.stopping.set()


async def test_a_client_that_leaves_before_it_is_asked() -> None:
    """As without questions: a read is cancelled, and nothing stays behind."""
    edge, upstream = before(Asking, hangs=True, times=0)
    async with talking(edge) as talk:
        talk.group.start_soon(_left, talk)
        await until(lambda: len(upstream.sent) == 1)
        talk.gone.set()
        await until(lambda: upstream.ends == ["cancelled"])
        talk.group.cancel_scope.cancel()
    assert edge.records() == ["tool.requested", "tool.outcome_unknown"]


async def test_a_committed_call_goes_on_without_a_client_that_leaves_again() -> None:
    """It came back and left: what the upstream asks then is not answered, and the outcome is in the log."""
    edge, upstream = before(Asking, times=2, between=Event())
    async with talking(edge) as talk:
        asked = (await talk.call(WRITE))["result"]
        talk.group.start_soon(_left_again, talk, asked)
        await until(lambda: upstream.heard == [ACCEPTED])
        talk.gone.set()
        await until(lambda: talk.ended == 1)
        upstream.between.set()
        await until(lambda: talk.ended == 2)
        talk.group.cancel_scope.cancel()
    assert edge.records()[-1] == "tool.completed"
    assert upstream.heard == [ACCEPTED, "gone"]
    assert upstream.ends == []


async def _left(talk: Talk) -> None:
    await talk.call()


async def _left_again(talk: Talk, asked: Any) -> None:
    await talk.back(asked, tool=WRITE)


async def test_an_answer_that_may_not_leave_does_not() -> None:
    """One that breaks its form, or that policy does not let through, reaches no upstream, which is told no more."""
    edge, upstream = before(Asking, times=2)
    async with talking(edge) as talk:
        asked = (await talk.call())["result"]
        bad = {key: {"action": "accept", "content": {"name": 7}} for key in asked["inputRequests"]}
        asked = (await talk.back(asked, answers=bad))["result"]
        edge.world.policy.words["call", "erp.elicitation/stock"] = DENY
        await talk.back(asked)
    assert upstream.heard == ["answer_invalid", "answer_denied"]

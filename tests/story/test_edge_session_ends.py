"""A session that ends while calls, questions and streams are under way in it: nothing waits in vain, nothing stays."""

import asyncio
import gc
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from anyio import Event, fail_after

from gateway.adapters.clock import SystemClock
from gateway.core.call import Lease, Raw
from gateway.core.following import Subscription
from gateway.edge.mcp import session
from gateway.edge.mcp.following import Follow
from gateway.edge.mcp.session import IDLE_S, Session, Sessions
from tests.edge_world import Edge
from tests.evidence import make_call
from tests.fakes.upstream import RESULT
from tests.story.test_edge_asking import ACCEPTED, Pushing, Rounds, Talk, before, hello, talking
from tests.story.test_edge_push import PATIENCE_S, listening
from tests.waiting import until


@dataclass(slots=True)
class Late(Pushing):
    """An upstream that asks when it is told to."""

    asks: Event = field(default_factory=Event)

    async def invoke(self, lease: Lease) -> Raw:
        """Wait, then ask."""
        await self.asks.wait()
        return await Pushing.invoke(self, lease)


async def ended(talk: Talk) -> None:
    """Its client ends the session."""
    assert (await talk.client.delete("/mcp")).status_code == 204


@pytest.mark.requirement("FLOW-1")
@pytest.mark.parametrize("tool", ["erp__stock", "erp__order"])
async def test_a_question_ends_with_its_session(tool: str) -> None:
    """Its answer has no session to come by any more: the upstream is told at once, and the call goes on to its end."""
    edge, upstream = before(Pushing)
    async with talking(edge, tool) as talk:
        question = await talk.call.question()
        await ended(talk)
        await until(lambda: upstream.heard == ["gone"])
        assert await talk.reply(question, result=ACCEPTED) == 404
    assert talk.call.answer["result"] == RESULT
    assert edge.records() == ["tool.requested", "input.asked", "tool.completed"]


async def test_a_question_of_an_idle_session_ends_with_it() -> None:
    """Also where somebody else's request is what finds out."""
    edge, upstream = before(Pushing)
    async with talking(edge) as talk, edge.client() as other:
        await talk.call.question()
        edge.world.clock.advance(IDLE_S + 1)
        await hello(other)
        await until(lambda: upstream.heard == ["gone"])
    assert talk.call.answer["result"] == RESULT


async def test_nobody_is_asked_in_a_session_that_has_ended() -> None:
    """The call that was under way gets its answer on its own stream, and no question before it."""
    edge, upstream = before(Late)
    async with talking(edge) as talk:
        await until(lambda: edge.records() == ["tool.requested"])
        await ended(talk)
        upstream.asks.set()
    assert upstream.heard == ["gone"]
    assert [sorted(event) for event in talk.call.events] == [["id", "jsonrpc", "result"]]


async def test_a_result_that_asks_ends_its_call_where_the_session_has_ended() -> None:
    """There is no further round: the upstream is not called again."""
    edge, upstream = before(Rounds)
    async with talking(edge) as talk:
        await talk.call.question()
        await ended(talk)
    said = json.loads(talk.call.answer["result"]["content"][0]["text"])
    assert (said["error"], said["cause"]) == ("tool_failed", "input_gone")
    assert len(upstream.sent) == 1


async def test_what_an_abandoned_session_follows_ends_without_anybody_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """No request at all finds it out: it ends by itself, and with the last one the looking does."""
    monkeypatch.setattr(session, "IDLE_S", 0.02)
    monkeypatch.setattr(session, "_PAUSE_S", 0.01)
    sessions = Sessions(SystemClock())
    for _ in range(2):
        opened, subscription = sessions.open("ada", None, {}), Subscription(lambda: None)
        opened.follows.keep(Follow("x:page", make_call("erp.subscriptions/x:page"), subscription))
        await until(lambda subscription=subscription: subscription.is_over)  # type: ignore[misc]
        await until(lambda: sessions._sweep is None)
        assert opened.is_over


async def test_sessions_that_end_under_way_leave_nothing_behind() -> None:
    """Calls that ask, open streams, repeated: no task, no place, no entry of any table and no session is left."""
    edge, upstream = before(Pushing)
    mcp = edge.app._mcp  # type: ignore[attr-defined]
    tasks, known = asyncio.all_tasks(), _sessions()
    for _ in range(10):
        await _ended_under_way(edge)
    assert upstream.heard == ["gone"] * 10
    await until(lambda: asyncio.all_tasks() == tasks)
    tables: list[Any] = [mcp._sessions._all, mcp._sessions._own, mcp._calls._questions._open]
    tables.append(mcp._pushing._places._open)
    assert [len(table) for table in tables] == [0] * 4
    assert edge.records() == ["tool.requested", "input.asked", "tool.completed"] * 10
    upstream.sent.clear()  # the test's own
    assert _sessions() == known


async def _ended_under_way(edge: Edge) -> None:
    async with talking(edge, "erp__order") as talk:
        own = {"mcp-session-id": talk.client.headers["mcp-session-id"]}
        async with listening(edge, own, path="/mcp") as stream:
            await talk.call.question()
            await stream.until(silences=1)
            await ended(talk)
            with fail_after(PATIENCE_S):
                await stream.over.wait()


def _sessions() -> int:
    gc.collect()
    return sum(isinstance(found, Session) for found in gc.get_objects())

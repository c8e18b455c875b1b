"""Resources that clients follow: by calls of their own, told while they may be seen, ended with who wanted them."""

from functools import partial
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from gateway.core.errors import ToolFailed
from gateway.core.following import Subscription
from gateway.core.kills import Kind
from gateway.core.mcpwire.following import FILTER, META_SUBSCRIPTION, SUBSCRIBE, UNSUBSCRIBE, UPDATED
from gateway.core.tool import Tool
from gateway.edge.asgi import Options
from gateway.edge.mcp import push
from gateway.edge.mcp.following import MOST, Follow, Follows
from gateway.edge.mcp.session import IDLE_S
from tests.edge_world import ADMIN, AUDITOR, Edge, modern, rpc
from tests.evidence import make_call
from tests.fakes.rules import APPROVAL, DENY
from tests.fakes.upstream import STOCK, tool
from tests.story.test_edge_mcp import opened
from tests.story.test_edge_push import PATIENCE_S, Listening, listen, listening
from tests.waiting import until

PAGE, FOLLOWS = tool("erp.resources/x:page"), tool("erp.subscriptions/x:page")
MANY, FOLLOWS_MANY = tool("erp.resources/y:{id}"), tool("erp.subscriptions/y:{id}")
ERP = "/servers/erp/mcp"


def edge_with_pages(*more: Tool) -> Edge:
    """A server with a resource and a template that can be followed."""
    edge = Edge()
    edge.world.catalog.shelf = (STOCK, PAGE, FOLLOWS, MANY, FOLLOWS_MANY, *more)
    edge.world.connector.result = {}
    return edge


def begun(edge: Edge) -> list[Subscription]:
    """The subscriptions that reached the upstream."""
    calls = [sent.intent.call for sent in edge.world.connector.sent]
    return [call.subscription for call in calls if call.subscription and "ends" not in call.arguments.value]


async def session_at(edge: Edge, path: str = ERP) -> dict[str, str]:
    """The headers of a session."""
    async with edge.client() as client:
        return await opened(client, path)


async def said(edge: Edge, session: dict[str, str], method: str, uri: str = "x:page", path: str = ERP) -> Any:
    """The answer to one request of a session."""
    async with edge.client() as client:
        return (await client.post(path, json=rpc(method, {"uri": uri}), headers=session)).json()


async def told(stream: Listening, messages: int) -> list[Any]:
    """The addresses of so many updates."""
    assert set(await stream.until(messages)) == {UPDATED}
    return [message["params"]["uri"] for message in stream.heard]


def _heard(times: int, *streams: Listening) -> bool:
    return sum(len(stream.heard) for stream in streams) == times


def _heard_else(stream: Listening) -> bool:
    return any(message["method"] != UPDATED for message in stream.heard)


@pytest.mark.requirement("TOOL-7")
@pytest.mark.parametrize(("path", "uri", "own"), [(ERP, "x:page", "x:page"), ("/mcp", "ostiary:erp:y:7", "y:7")])
async def test_a_session_follows_a_resource(path: str, uri: str, own: str) -> None:
    """Decided and recorded as a call of its own kind; told under the address that the client has for it."""
    edge = edge_with_pages()
    session = await session_at(edge, path)
    assert (await said(edge, session, SUBSCRIBE, uri, path))["result"] == {}
    assert edge.records() == ["tool.requested", "tool.completed"]
    asked = [(document["phase"], document["kind"], document["tool"]["fqn"]) for document in edge.world.policy.asked]
    assert asked[-1] == ("call", "subscription", f"erp.subscriptions/{own}")
    assert edge.world.policy.asked[-1]["args"] == {"uri": own}
    (subscription,) = begun(edge)
    subscription.updated()  # nobody listens yet: it is kept
    async with listening(edge, session, path=path) as stream:
        assert await told(stream, 1) == [uri]
        subscription.updated()
        assert await told(stream, 2) == [uri, uri]


async def test_only_who_subscribed_hears() -> None:
    """Not another session of the caller, nor a second stream of the session; nobody else may use the session."""
    edge = edge_with_pages()
    session, second = await session_at(edge), await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    (subscription,) = begun(edge)
    async with (
        listening(edge, session, path=ERP) as one,
        listening(edge, session, path=ERP) as two,
        listening(edge, second, path=ERP) as three,
    ):
        for stream in (one, two, three):
            await stream.until(silences=1)
        for times in range(1, 4):
            subscription.updated()
            await until(partial(_heard, times, one, two))
        edge.world.catalog.restock(*edge.world.catalog.shelf[1:])  # something that all of them hear
        for stream in (one, two, three):
            await until(partial(_heard_else, stream))
    assert (len(three.heard), len(one.heard) + len(two.heard)) == (1, 5)
    async with edge.client("other") as thief:
        for method in (SUBSCRIBE, UNSUBSCRIBE):
            answer = await thief.post(ERP, json=rpc(method, {"uri": "x:page"}), headers=session)
            assert answer.status_code == 404
    assert not subscription.is_over


@pytest.mark.parametrize("what", ["resource", "subscription", "killed", "gone"])
async def test_what_may_not_be_seen_any_more_is_not_told(what: str) -> None:
    """Policy is asked before each word; what is hidden meanwhile is followed no more, and the stream goes on."""
    edge = edge_with_pages()
    session = await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    await said(edge, session, SUBSCRIBE, "y:7")
    hidden, other = begun(edge)
    ended: list[str] = []
    hidden.begun(lambda: ended.append("hidden"))
    async with listening(edge, session, path=ERP) as stream:
        await stream.until(silences=1)
        if what == "killed":
            await edge.world.kills.engage(ADMIN, Kind.TOOL, PAGE.fqn, "a test")
        elif what == "gone":
            edge.world.catalog.shelf = edge.world.catalog.shelf[2:]
        else:
            edge.world.policy.words["list", (PAGE if what == "resource" else FOLLOWS).fqn] = DENY
        hidden.updated()
        await until(lambda: ended == ["hidden"])
        other.updated()
        await until(lambda: any(message["method"] == UPDATED for message in stream.heard))
        assert [message["params"]["uri"] for message in stream.heard if message["method"] == UPDATED] == ["y:7"]
    assert hidden.is_over


@pytest.mark.requirement("TOOL-7")
@pytest.mark.parametrize("why", ["hidden resource", "hidden", "denied", "unknown", "approval", "refused", "killed"])
async def test_what_is_not_followed(why: str) -> None:
    """A resource that may not be seen is not there, whatever else is allowed; nothing reaches the upstream."""
    edge = edge_with_pages()
    session, uri = await session_at(edge), "x:page"
    words = edge.world.policy.words
    if why == "hidden resource":
        words["list", PAGE.fqn] = DENY
    elif why == "hidden":
        words["list", FOLLOWS.fqn] = DENY
    elif why == "denied":
        words["call", FOLLOWS.fqn] = DENY
    elif why == "approval":
        words["call", FOLLOWS.fqn] = APPROVAL
    elif why == "refused":
        edge.world.journal.fail("connector.invoke", ToolFailed("no", cause_code="jsonrpc_-32601"))
    elif why == "killed":
        await edge.world.kills.engage(ADMIN, Kind.TOOL, FOLLOWS.fqn, "a test")
    else:
        uri = "x:none"
    error = (await said(edge, session, SUBSCRIBE, uri))["error"]
    causes = {"denied": "denied", "approval": "approval_needed", "refused": "jsonrpc_-32601", "killed": "kill.tool"}
    assert error["data"].get("cause", error["data"]["code"]) == causes.get(why, "unknown_tool")
    if why not in causes:
        assert error["message"] == "no such subscription"
    assert begun(edge) == []
    assert edge.records()[-1] == ("tool.failed" if why == "refused" else "call.refused")
    async with listening(edge, session, path=ERP) as stream:
        await stream.until(silences=1)
        assert stream.heard == []


async def test_hidden_and_unknown_resources_are_alike() -> None:
    """The same words, the same record, the same number of questions."""
    edge = edge_with_pages()
    session = await session_at(edge)
    edge.world.policy.words["list", PAGE.fqn] = edge.world.policy.words["list", FOLLOWS.fqn] = DENY
    edge.world.policy.words["list", "erp.resources/x:none"] = DENY
    edge.world.policy.words["list", "erp.subscriptions/x:none"] = DENY
    seen = []
    for uri in ("x:page", "x:none"):
        before = edge.world.policy.questions
        error = (await said(edge, session, SUBSCRIBE, uri))["error"]
        seen.append((error["message"], error["data"]["code"], edge.world.policy.questions - before))
    assert seen[0] == seen[1]
    assert edge.world.pace.held == 2


@pytest.mark.parametrize("allowed", [True, False])
async def test_who_wants_to_hear_no_more_does_not(allowed: bool) -> None:
    """The end is decided on and recorded as a call, and nobody is kept from it."""
    edge = edge_with_pages()
    session = await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    (subscription,) = begun(edge)
    if not allowed:
        edge.world.policy.words["call", FOLLOWS.fqn] = DENY
    answer = await said(edge, session, UNSUBSCRIBE)
    assert ("result" in answer) is allowed
    assert edge.world.policy.asked[-1]["args"] == {"uri": "x:page", "ends": True}
    assert subscription.is_over
    assert edge.records()[-1] == ("tool.completed" if allowed else "call.refused")
    if allowed:  # what is not followed can be ended all the same
        assert (await said(edge, session, UNSUBSCRIBE))["result"] == {}


async def test_an_address_is_followed_once_in_a_session() -> None:
    """A second subscription takes the place of the first; so many addresses and no more."""
    edge = edge_with_pages()
    session = await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    await said(edge, session, SUBSCRIBE)
    first, second = begun(edge)
    assert (first.is_over, second.is_over) == (True, False)
    for at in range(MOST - 1):
        assert "result" in await said(edge, session, SUBSCRIBE, f"y:{at}")
    assert (await said(edge, session, SUBSCRIBE, "y:more"))["error"]["data"]["cause"] == "subscriptions"
    assert "result" in await said(edge, session, SUBSCRIBE)
    async with edge.client() as client:
        lost = (await client.post(ERP, json=rpc(SUBSCRIBE, {"uri": "x:page"}))).json()
    assert lost["error"]["data"]["cause"] == "session"


async def test_what_is_begun_at_once_is_bounded_and_said() -> None:
    """Whoever is told that a resource is followed has it followed, and all others are told that it is not."""
    edge = edge_with_pages()
    session = await session_at(edge)
    answers: list[Any] = []

    async def ask(at: int) -> None:
        answers.append(await said(edge, session, SUBSCRIBE, f"y:{at}"))

    async with create_task_group() as group:
        for at in range(MOST + 6):
            group.start_soon(ask, at)
    assert sum("result" in answer for answer in answers) == MOST
    assert {answer["error"]["data"]["cause"] for answer in answers if "error" in answer} == {"subscriptions"}
    assert sum(not subscription.is_over for subscription in begun(edge)) == MOST


async def test_all_ends_with_the_session() -> None:
    """At once, and so does its stream; nothing begun later in it is kept."""
    edge = edge_with_pages()
    session = await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    (subscription,) = begun(edge)
    async with listening(edge, session, path=ERP) as stream:
        await stream.until(silences=1)
        async with edge.client() as client:
            await client.delete(ERP, headers=session)
        assert subscription.is_over
        with fail_after(PATIENCE_S):
            await stream.over.wait()


@pytest.mark.requirement("INC-1")
async def test_who_is_stopped_hears_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within one silence, also where nothing changes: the stream is over, and so is all that was followed."""
    monkeypatch.setattr(push, "_SILENCE_S", 0.01)
    edge = edge_with_pages()
    session = await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    (subscription,) = begun(edge)
    async with listening(edge, session, path=ERP) as stream:
        await stream.until(silences=2)
        await edge.world.kills.engage(ADMIN, Kind.AGENT, "ap-agent", "a test")
        with fail_after(PATIENCE_S):
            await stream.over.wait()
    assert subscription.is_over


async def test_a_session_is_of_use_once_a_kill_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was followed has ended; what is begun anew is followed, and told."""
    monkeypatch.setattr(push, "_SILENCE_S", 0.01)
    edge = edge_with_pages()
    session = await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    async with listening(edge, session, path=ERP) as stream:
        await stream.until(silences=1)
        kill, _ = await edge.world.kills.engage(ADMIN, Kind.AGENT, "ap-agent", "a test")
        with fail_after(PATIENCE_S):
            await stream.over.wait()
    for voter in (ADMIN, AUDITOR):
        await edge.world.kills.lift(voter, kill.id, "over")
    assert (await said(edge, session, SUBSCRIBE))["result"] == {}
    before, again = begun(edge)
    assert (before.is_over, again.is_over) == (True, False)
    async with listening(edge, session, path=ERP) as stream:
        again.updated()
        assert await told(stream, 1) == ["x:page"]


async def test_an_abandoned_session_follows_nothing_for_ever() -> None:
    """Its client went without a word, and none opens another one: any use of a session ends those that are idle."""
    edge = edge_with_pages()
    session, other = await session_at(edge), await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    (subscription,) = begun(edge)
    edge.world.clock.advance(IDLE_S * 0.75)
    await said(edge, other, "ping")
    edge.world.clock.advance(IDLE_S * 0.75)
    await said(edge, other, "ping")
    assert subscription.is_over


async def test_what_is_lost_upstream_is_told_last() -> None:
    """It may have changed; then the stream ends, so that its client begins anew."""
    edge = edge_with_pages()
    session = await session_at(edge)
    await said(edge, session, SUBSCRIBE)
    (subscription,) = begun(edge)
    async with listening(edge, session, path=ERP) as stream:
        await stream.until(silences=1)
        subscription.lost()
        assert await told(stream, 1) == ["x:page"]
        with fail_after(PATIENCE_S):
            await stream.over.wait()
    async with listening(edge, session, path=ERP) as stream:
        await stream.until(silences=1)


@pytest.mark.requirement("TOOL-7")
async def test_a_stateless_client_follows_what_it_names() -> None:
    """Each by a call of its own; what is not followed is not acknowledged; all ends with the stream."""
    edge = edge_with_pages()
    edge.world.policy.words["call", "erp.subscriptions/y:no"] = DENY
    body, named = listen(resourceSubscriptions=["x:page", "y:no", "x:none", "y:7", "x:page"])
    async with listening(edge, named, body, path=ERP) as stream:
        await stream.until(1)
        acknowledged = stream.heard[0]["params"]
        assert acknowledged == {"notifications": {FILTER: ["x:page", "y:7"]}, "_meta": {META_SUBSCRIPTION: "s-1"}}
        assert edge.records().count("tool.completed") == 2
        assert edge.records().count("call.refused") == 2
        assert len({line.call_id for line in edge.world.audit.lines}) == 4
        page, made = begun(edge)
        made.updated()
        await stream.until(2)
        assert stream.heard[1]["params"] == {"uri": "y:7", "_meta": {META_SUBSCRIPTION: "s-1"}}
        page.lost()
        await stream.until(4)
        assert stream.heard[2]["params"]["uri"] == "x:page"
        assert stream.heard[3]["id"] == "s-1"
    assert made.is_over


@pytest.mark.parametrize("why", ["policy", "address", "shape", "many", "accept", "method", "credential"])
async def test_a_stream_that_is_not_begun_follows_nothing(why: str) -> None:
    """Whatever was begun for it before has ended."""
    edge = edge_with_pages()
    wanted: Any = ["x:page", "y:7"]
    if why == "policy":
        edge.world.policy.deadly.add(("list", "erp.resources/y:7"))
    wanted = {"address": ["x:page", ""], "shape": [7], "many": [f"y:{at}" for at in range(MOST + 1)]}.get(why, wanted)
    request = modern("subscriptions/listen", {"notifications": {FILTER: wanted}})
    if why == "accept":
        request["headers"]["accept"] = "application/json"
    if why == "method":
        request = modern(SUBSCRIBE, {"uri": "x:page"})
    async with edge.client("none" if why == "credential" else "good") as client:
        answer = await client.post(ERP, **request)
    assert answer.status_code >= 400
    assert "error" in answer.json()
    assert all(subscription.is_over for subscription in begun(edge))
    assert len(begun(edge)) == {"policy": 1, "address": 1, "accept": 2}.get(why, 0)


async def test_each_resource_that_is_followed_costs_a_request() -> None:
    """A stream that names many is no way around the throttle of calls."""
    edge = Edge(Options(per_minute=60))
    edge.world.catalog.shelf = (STOCK, PAGE, FOLLOWS, MANY, FOLLOWS_MANY)
    edge.world.connector.result = {}
    body, named = listen(resourceSubscriptions=[f"y:{at}" for at in range(40)])
    async with listening(edge, named, body, path=ERP) as stream:
        await stream.until(1)
        async with edge.client() as client:
            answers = [await client.post(ERP, json=rpc("ping")) for _ in range(30)]
    assert 429 in {answer.status_code for answer in answers}


def test_what_begins_after_the_end_ends_at_once() -> None:
    """The session was over before the upstream had agreed."""
    follows, ended = Follows(), list[str]()
    subscription = follows.wish("x:page")
    subscription.begun(lambda: ended.append("x:page"))
    follows.end()
    follows.keep(Follow("x:page", make_call(), subscription))
    assert (ended, follows.held) == (["x:page"], ())

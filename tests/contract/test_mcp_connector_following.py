"""What is followed at an upstream over HTTP, in both eras: one stream a caller, opened again once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from msgspec import structs

from connectors.mcp.holding import Bounds
from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.pool import Pool
from gateway.core.call import Lease
from gateway.core.errors import GatewayError, NotSent, ToolFailed
from gateway.core.following import Subscription
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.following import ACKNOWLEDGED, LISTEN, SUBSCRIBE, UNSUBSCRIBE, UPDATED
from tests.evidence import lease, make_tool
from tests.rawhttp import RawUpstream, Seen, answer, error, http, running, says
from tests.waiting import until

FOLLOW = make_tool("subscriptions/x:{id}")
BOTH = pytest.mark.parametrize("era", list(Era))
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
QUICK = Bounds(first_pause_s=0.01, longest_pause_s=0.02, attempts=3, each=3, streams=2)


@dataclass(slots=True)
class Streams:
    """The streams an upstream has open, the last one last."""

    era: Era
    deaf_to: frozenset[str] = frozenset()
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    gone: int = 0

    async def script(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        """Open one, and keep it."""
        writer.write(_HEAD)
        if self.era is Era.STATELESS:
            asked = seen.message["params"]["notifications"]["resourceSubscriptions"]
            heard = [uri for uri in asked if uri not in self.deaf_to]
            self.say(writer, ACKNOWLEDGED, {"notifications": {"resourceSubscriptions": heard}})
        self.writers.append(writer)
        await writer.drain()
        await seen.client_gone()
        self.gone += 1

    def say(self, writer: asyncio.StreamWriter, method: str, params: Any) -> None:
        """One notification."""
        text = json.dumps({"jsonrpc": "2.0", "method": method, "params": params})
        writer.write(f"event: message\ndata: {text}\n\n".encode())

    def touch(self, uri: str) -> None:
        """A resource has changed."""
        self.say(self.writers[-1], UPDATED, {"uri": uri})

    def cut(self) -> None:
        """End the last one."""
        self.writers[-1].close()


@dataclass(slots=True)
class Upstream:
    """An upstream whose resources can be followed, and the connector to it."""

    raw: RawUpstream
    streams: Streams
    connector: HttpConnector

    async def follow(self, uri: str, whose: str = "", **other: Any) -> Subscription:
        """Begin to follow ``uri`` as the caller with this credential."""
        subscription = Subscription(lambda: None)
        await self.connector.invoke(asking(uri, subscription, whose, **other))
        return subscription

    async def refused(self, uri: str, **other: Any) -> GatewayError:
        """How that ends where it cannot be."""
        with pytest.raises(GatewayError) as caught:
            await self.follow(uri, **other)
        return caught.value

    def asked(self, method: str) -> list[str]:
        """The addresses that were asked for by this method."""
        return [str(seen.message["params"]["uri"]) for seen in self.raw.calls(method)]


def asking(uri: str, subscription: Subscription | None, whose: str = "", *, ends: bool = False) -> Lease:
    """A leased call that begins or ends a subscription."""
    given = {"uri": uri, "ends": True} if ends else {"uri": uri}
    made = lease(replace(FOLLOW, uri=uri), given, {"authorization": f"Bearer {whose}"} if whose else {})
    quota = made.intent.quota
    target = quota.permit.target
    call = structs.replace(target.call, subscription=subscription)
    permit = structs.replace(
        quota.permit, target=structs.replace(target, caller=structs.replace(target.caller, call=call))
    )
    return structs.replace(made, intent=structs.replace(made.intent, quota=structs.replace(quota, permit=permit)))


def by(user: str, agent: str) -> Lease:
    """A call of this user's agent that begins a subscription."""
    made = asking("x:page", Subscription(lambda: None))
    quota = made.intent.quota
    target = quota.permit.target
    principal = replace(target.caller.principal, user=user, agent=agent)
    permit = structs.replace(
        quota.permit, target=structs.replace(target, caller=structs.replace(target.caller, principal=principal))
    )
    return structs.replace(made, intent=structs.replace(made.intent, quota=structs.replace(quota, permit=permit)))


@asynccontextmanager
async def following(era: Era, bounds: Bounds = QUICK, deaf_to: frozenset[str] = frozenset()) -> AsyncIterator[Upstream]:
    """Such an upstream, running."""
    streams = Streams(era, deaf_to)
    async with running(era) as raw, Pool() as pool:
        raw.scripts |= {LISTEN: streams.script, "GET": streams.script}
        raw.scripts |= dict.fromkeys((SUBSCRIBE, UNSUBSCRIBE), says(lambda seen: answer(seen, {})))
        async with HttpConnector(raw.url, pool, HttpOptions(following=bounds)) as connector:
            yield Upstream(raw, streams, connector)


@pytest.mark.requirement("TOOL-7")
@BOTH
async def test_a_change_is_told_to_whoever_follows_it(era: Era) -> None:
    """Of the resource or a part of it, and of no other; a thousand changes are one piece of news."""
    async with following(era) as up:
        page = await up.follow("x:page")
        other = await up.follow("x:other")
        for uri in ("x:pages", "x:page/2", "x:page"):
            up.streams.touch(uri)
        await until(lambda: page.is_news)
        assert not other.is_news
        up.streams.touch("x:other")
        await until(lambda: other.is_news)
        live = len(up.streams.writers) - up.streams.gone
        assert live == 1
        if era is Era.HANDSHAKE:
            assert up.asked(SUBSCRIBE) == ["x:page", "x:other"]
            assert {seen.headers["mcp-session-id"] for seen in up.raw.calls(SUBSCRIBE)} == {"session-1"}


@BOTH
async def test_one_upstream_subscription_serves_the_sessions_of_a_caller(era: Era) -> None:
    """It ends with the last of them, and with it the stream; none of another caller hears by it."""
    async with following(era) as up:
        one, two, theirs = await up.follow("x:a", "ann"), await up.follow("x:a", "ann"), await up.follow("x:a", "bob")
        assert len(up.streams.writers) == 2
        one.end()
        up.streams.say(up.streams.writers[0], UPDATED, {"uri": "x:a"})
        await until(lambda: two.is_news)
        assert not one.is_news
        assert not theirs.is_news
        await up.connector.invoke(asking("x:a", two, "ann", ends=True))
        await until(lambda: up.streams.gone == 1)
        assert two.is_over
        if era is Era.HANDSHAKE:
            assert up.asked(SUBSCRIBE) == ["x:a", "x:a"]
            assert up.asked(UNSUBSCRIBE) == ["x:a"]
        up.streams.touch("x:a")
        await until(lambda: theirs.is_news)


@BOTH
async def test_a_stream_that_ends_is_opened_again(era: Era) -> None:
    """With all that is followed, and nobody knows what was missed: it may have changed."""
    async with following(era) as up:
        page, other = await up.follow("x:page"), await up.follow("x:other")
        for _ in range(2):
            page.is_news = other.is_news = False
            opened = len(up.streams.writers)
            up.streams.cut()
            await until(lambda: page.is_news and other.is_news)
            assert len(up.streams.writers) == opened + 1
        page.is_news = False
        up.streams.touch("x:page")
        await until(lambda: page.is_news)
        assert not page.is_over


async def test_a_session_that_expired_is_made_anew_once() -> None:
    """The upstream does not know it: one new session, in which everything is subscribed to again."""
    async with following(Era.HANDSHAKE) as up:
        page = await up.follow("x:page")
        known = up.raw.scripts["GET"]

        async def only_new(seen: Seen, writer: asyncio.StreamWriter) -> None:
            if seen.headers["mcp-session-id"] == "session-1":
                writer.write(http(b"", status="404 Not Found"))
            else:
                await known(seen, writer)

        up.raw.scripts["GET"] = only_new
        up.streams.cut()
        await until(lambda: page.is_news)
        assert up.raw.sessions == 2
        assert [seen.headers["mcp-session-id"] for seen in up.raw.calls(SUBSCRIBE)] == ["session-1", "session-2"]
        assert not page.is_over


@BOTH
async def test_what_cannot_be_followed_any_more_is_lost(era: Era) -> None:
    """No second new session, no endless attempts: whoever followed it is told, and may begin again."""
    async with following(era) as up:
        page = await up.follow("x:page")
        method = LISTEN if era is Era.STATELESS else "GET"
        known = up.raw.scripts[method]
        up.raw.scripts[method] = says(lambda seen: http(b"", status="404 Not Found"))
        up.streams.cut()
        await until(lambda: page.is_over)
        assert page.is_news
        assert len(up.raw.calls(method)) == 3  # the first, one for the stream that ended, one with a new session
        up.raw.scripts[method] = known
        again = await up.follow("x:page")
        up.streams.touch("x:page")
        await until(lambda: again.is_news)


async def test_one_resource_that_is_gone_takes_no_other_with_it() -> None:
    """Where the upstream does not let it be subscribed to again, the rest is followed on."""
    async with following(Era.HANDSHAKE) as up:
        page, other = await up.follow("x:page"), await up.follow("x:other")

        def some(seen: Seen) -> bytes:
            return error(seen, -32602) if seen.message["params"]["uri"] == "x:page" else answer(seen, {})

        up.raw.scripts[SUBSCRIBE] = says(some)
        up.streams.cut()
        await until(lambda: page.is_over and other.is_news)
        assert not other.is_over


@BOTH
async def test_an_upstream_that_does_not_tell_is_not_followed(era: Era) -> None:
    """It refuses, has no stream, or leaves the address out: the caller is told, and nothing stays open."""
    async with following(era, deaf_to=frozenset({"x:page"})) as up:
        if era is Era.STATELESS:
            assert (await up.refused("x:page")).cause_code == "not_followed"
            up.raw.scripts[LISTEN] = says(lambda seen: error(seen, -32601, "404 Not Found"))
            assert isinstance(await up.refused("x:other"), ToolFailed)
            up.raw.scripts[LISTEN] = says(lambda seen: answer(seen, {"resultType": "complete"}))
            assert (await up.refused("x:other")).cause_code == "stream_ended"
        else:
            up.raw.scripts[SUBSCRIBE] = says(lambda seen: error(seen, -32601))
            assert (await up.refused("x:page")).cause_code == "jsonrpc_-32601"
            await until(lambda: up.streams.gone == len(up.streams.writers))
            up.raw.scripts["GET"] = says(lambda seen: http(b"", status="405 Method Not Allowed"))
            assert (await up.refused("x:page")).cause_code == "http_405"
            up.raw.scripts["GET"] = says(lambda seen: http(b"{}"))
            assert (await up.refused("x:page")).cause_code == "no_stream"
        await until(lambda: up.streams.gone == len(up.streams.writers))


@BOTH
async def test_what_is_followed_is_bounded(era: Era) -> None:
    """Resources for each caller, and streams for each upstream: what is one too many was never sent."""
    async with following(era) as up:
        for at in range(3):
            await up.follow(f"x:{at}", "ann")
        full = await up.refused("x:3", whose="ann")
        assert isinstance(full, NotSent)
        assert full.cause_code == "too_many_subscriptions"
        await up.follow("x:0", "bob")
        assert (await up.refused("x:0", whose="eve")).cause_code == "too_many_streams"


async def test_no_user_has_all_streams() -> None:
    """However many agents follow for them: whoever may open runs may name any number of these."""
    async with following(Era.HANDSHAKE, replace(QUICK, streams=3, streams_each=2)) as up:
        for agent in ("a", "b"):
            await up.connector.invoke(by("ada", agent))
        with pytest.raises(NotSent) as caught:
            await up.connector.invoke(by("ada", "c"))
        assert caught.value.cause_code == "too_many_streams"
        await up.connector.invoke(by("bob", "a"))


async def test_a_credential_that_ends_with_its_call_follows_nothing() -> None:
    """Nor does a call that nobody waits for; an end that nobody follows is an end all the same."""
    async with following(Era.HANDSHAKE) as up:
        made = structs.replace(asking("x:page", Subscription(lambda: None), "ann"), is_passing=True)
        with pytest.raises(NotSent) as caught:
            await up.connector.invoke(made)
        assert caught.value.cause_code == "credential_passing"
        with pytest.raises(NotSent) as caught:
            await up.connector.invoke(asking("x:page", None))
        assert caught.value.cause_code == "no_subscriber"
        assert (await up.connector.invoke(asking("x:page", None, ends=True))).value == {}
        assert up.raw.seen == []


async def test_what_an_upstream_says_besides_changes_nothing() -> None:
    """Requests are declined, garbage ends the stream, and it is opened again."""
    async with following(Era.HANDSHAKE) as up:
        page = await up.follow("x:page")
        writer = up.streams.writers[-1]
        for text in (
            b'{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":7}}',
            b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
            b'{"jsonrpc":"2.0","id":9,"method":"sampling/createMessage","params":{}}',
        ):
            writer.write(b"event: message\ndata: %b\n\n" % text)
        await until(lambda: any(seen.message.get("id") == 9 for seen in up.raw.seen))
        assert not page.is_news
        writer.write(b"event: message\ndata: {\n\n")
        await until(lambda: page.is_news)
        assert len(up.streams.writers) == 2


async def test_a_caller_who_left_meanwhile_leaves_nothing_behind() -> None:
    """The subscription was over before the upstream had agreed: it ends at once."""
    async with following(Era.HANDSHAKE) as up:
        subscription = Subscription(lambda: None)
        subscription.end()
        await up.connector.invoke(asking("x:page", subscription))
        await until(lambda: up.streams.gone == 1)
        assert up.asked(UNSUBSCRIBE) == ["x:page"]


@pytest.mark.parametrize("how", ["lost", "given up"])
async def test_who_begins_while_a_stream_is_down_takes_nobody_with_them(how: str) -> None:
    """Their try to open it again fails, or is given up half-way: those who followed before are taken up after it."""
    async with following(Era.HANDSHAKE) as up:
        page = await up.follow("x:page")
        let, again = asyncio.Event(), asyncio.Event()

        async def script(seen: Seen, writer: asyncio.StreamWriter) -> None:
            if seen.message["params"]["uri"] == "x:slow":
                await let.wait()
            elif not again.is_set():  # of the page, by the one who comes: no answer
                again.set()
                if how == "lost":
                    writer.close()
                await seen.client_gone()
                return
            writer.write(answer(seen, {}))

        up.raw.scripts[SUBSCRIBE] = script
        slow = asyncio.create_task(up.follow("x:slow"))
        await until(lambda: len(up.asked(SUBSCRIBE)) == 2)
        third = asyncio.create_task(up.follow("x:third"))  # waits for its turn
        await asyncio.sleep(0)
        up.streams.cut()
        await until(lambda: up.streams.gone == 1)
        let.set()
        await slow
        await again.wait()
        if how == "given up":
            third.cancel()
        with pytest.raises((GatewayError, asyncio.CancelledError)):
            await third
        await until(lambda: page.is_news)
        page.is_news = False
        up.streams.touch("x:page")
        await until(lambda: page.is_news)

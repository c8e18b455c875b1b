"""What is followed over a pipe that all callers share, in both eras."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import pytest
from msgspec import structs

from connectors.mcp.callers import CallersConnector
from connectors.mcp.holding import Bounds
from connectors.mcp.places import Crowd
from connectors.mcp.process import Command
from connectors.mcp.stdio import StdioConnector, StdioOptions
from gateway.core.call import Handout
from gateway.core.errors import GatewayError, NotSent
from gateway.core.following import Subscription
from gateway.core.mcpwire.eras import Era
from tests.contract.test_mcp_connector_callers import by
from tests.contract.test_mcp_connector_following import asking
from tests.evidence import lease, make_tool
from tests.processes import FIXTURES
from tests.waiting import until, until_asked

BOTH = pytest.mark.parametrize("era", list(Era))
QUICK = StdioOptions(
    first_pause_s=0.01, longest_pause_s=0.1, following=Bounds(first_pause_s=0.05, longest_pause_s=1, attempts=20)
)


C = TypeVar("C", StdioConnector, CallersConnector)


@dataclass(slots=True)
class Process(Generic[C]):
    """A server over pipes, and the connector to it."""

    connector: C

    async def follow(self, uri: str) -> Subscription:
        """Begin to follow ``uri``."""
        subscription = Subscription(lambda: None)
        await self.connector.invoke(asking(uri, subscription))
        return subscription

    async def call(self, name: str, **given: Any) -> str:
        """What a tool says: the methods that were asked so far."""
        result = await self.connector.invoke(lease(make_tool(name), given))
        return str(result.value["content"][0]["text"])


@asynccontextmanager
async def served(era: Era, options: StdioOptions = QUICK) -> AsyncIterator[Process[StdioConnector]]:
    """Such a server, running."""
    argv = [sys.executable, "-I", str(FIXTURES / "following_stdio.py"), era]
    async with StdioConnector(Command(argv), list[str]().append, options) as connector:
        yield Process(connector)


@asynccontextmanager
async def served_each(crowd: Crowd) -> AsyncIterator[Process[CallersConnector]]:
    """Such a server, with a process for each caller."""
    argv = [sys.executable, "-I", str(FIXTURES / "following_stdio.py"), Era.HANDSHAKE]
    async with CallersConnector(Command(argv), list[str]().append, QUICK, crowd) as connector:
        yield Process(connector)


@pytest.mark.requirement("TOOL-7")
@BOTH
async def test_a_change_is_told_over_a_pipe(era: Era) -> None:
    """To all who follow the resource, and to nobody else; a flood of news is news, too."""
    async with served(era) as up:
        one, two, other = await up.follow("x:a"), await up.follow("x:a"), await up.follow("x:b")
        await up.call("touch", uri="x:a")
        await until(lambda: one.is_news and two.is_news)
        assert not other.is_news
        one.end()
        two.is_news = False
        await up.call("touch", uri="x:a")
        await until(lambda: two.is_news)
        two.is_news = False
        await up.call("touch", uri="x:a", times=1000)
        await until(lambda: two.is_news)
        assert not one.is_news


@BOTH
async def test_what_is_followed_outlives_the_process(era: Era) -> None:
    """Its next life is asked again, and what was missed is not known: it may have changed."""
    async with served(era) as up:
        page = await up.follow("x:a")
        with pytest.raises(GatewayError):
            await up.call("die")
        await until(lambda: page.is_news)
        page.is_news = False
        await up.call("touch", uri="x:a")
        await until(lambda: page.is_news)
        assert not page.is_over


async def test_the_last_to_follow_ends_it_at_the_server() -> None:
    """Not the first one: the process knows one client only."""
    async with served(Era.HANDSHAKE) as up:
        one, two = await up.follow("x:a"), await up.follow("x:a")
        one.end()
        assert (await up.call("touch", uri="x:b")).split().count("resources/unsubscribe") == 0
        two.end()
        words = [""]

        async def asked() -> bool:
            words[0] = await up.call("touch", uri="x:b")
            return "resources/unsubscribe" in words[0]

        await until_asked(asked)
        assert words[0].split().count("resources/subscribe") == 1


async def test_a_process_of_one_call_follows_nothing() -> None:
    """It is gone with the call, and so is whoever would tell."""
    handout = Handout("TOKEN", "secret")
    async with served(Era.HANDSHAKE, replace(QUICK, lent=handout)) as up:
        made = structs.replace(asking("x:a", Subscription(lambda: None)), handout=handout)
        with pytest.raises(NotSent) as caught:
            await up.connector.carried_out(made)
    assert caught.value.cause_code == "credential_passing"


async def test_a_process_that_stays_down_loses_what_is_followed() -> None:
    """After some attempts, and whoever followed is told."""
    down = replace(QUICK, first_pause_s=60, longest_pause_s=60, following=Bounds(first_pause_s=0.01, attempts=2))
    async with served(Era.HANDSHAKE, down) as up:
        page = await up.follow("x:a")
        with pytest.raises(GatewayError):
            await up.call("die")
        await until(lambda: page.is_over)
        with pytest.raises(NotSent):
            await up.follow("x:a")


async def test_a_callers_process_is_not_idle_while_it_is_followed() -> None:
    """Its caller hears of it though no call was made for longer than an idle one is kept."""
    async with served_each(Crowd(idle_s=0.01)) as up:
        page = await up.follow("x:a")
        await up.call("touch", uri="x:a", later_s=0.3)
        await until(lambda: page.is_news)
        assert not page.is_over


async def test_a_callers_process_that_makes_room_says_so_to_who_follows_it() -> None:
    """Another caller needs the place: what was followed is lost, and its caller is told."""
    async with served_each(Crowd(most=1)) as up:
        page = await up.follow("x:a")
        await up.connector.invoke(by("bob", "look"))
        await until(lambda: page.is_over)
        assert page.is_news

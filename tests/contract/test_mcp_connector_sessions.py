"""The MCP connector's sessions over HTTP: set-up, era, credentials, listing and ping, when things go wrong."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from anyio import create_task_group, fail_after
from msgspec import structs

from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.listing import ListingLimits
from connectors.mcp.pool import Pool
from gateway.core.call import Lease, Resolved
from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, ToolFailed, Unavailable
from gateway.core.mcpwire.eras import Era
from gateway.core.tool import EffectClass, Tool
from tests.evidence import lease, make_caller, make_intent, make_permit, make_tool
from tests.rawhttp import RawUpstream, Seen, answer, error, http, running, says

ERAS = pytest.mark.parametrize("era", list(Era))
TOOL = make_tool()


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[Pool]:
    """The shared connections."""
    async with Pool() as opened:
        yield opened


async def failing(connector: HttpConnector, tool: Tool = TOOL, **other: Any) -> GatewayError:
    """The error a call ends with; it must come by itself."""
    with pytest.raises(GatewayError) as caught, fail_after(5):
        await connector.invoke(lease(tool, **other))
    return caught.value


SETUP: dict[str, Callable[[Seen], bytes]] = {
    "unauthorised": lambda s: http(b"", status="401 Unauthorized"),
    "broken": lambda s: http(b"", status="500 Oops"),
    "garbage": lambda s: http(b"{"),
    "unknown revision": lambda s: answer(s, {"protocolVersion": "1999-01-01"}),
    "bad session id": lambda s: answer(s, {"protocolVersion": "2025-06-18"}, extra=f"mcp-session-id: {'x' * 2000}\r\n"),
}


@pytest.mark.parametrize("name", SETUP)
async def test_a_handshake_that_fails_leaves_the_call_unsent(name: str, pool: Pool) -> None:
    """Before there is a session no call leaves, and the next call tries afresh."""
    async with (
        running(Era.HANDSHAKE, initialize=says(SETUP[name]), call=says(answer)) as up,
        HttpConnector(up.url, pool) as connector,
    ):
        assert type(await failing(connector)) is NotSent
        assert up.calls("tools/call") == []
        del up.scripts["initialize"]
        await connector.invoke(lease(TOOL))
        assert connector.era is Era.HANDSHAKE


@pytest.mark.parametrize("method", ["server/discover", "initialize"])
async def test_a_handshake_that_stalls_leaves_the_call_unsent(method: str, pool: Pool) -> None:
    """A silent probe falls back to the handshake; a silent handshake ends before the call's own time does."""
    async with running(Era.HANDSHAKE, call=says(answer)) as up:
        up.scripts[method] = up.hang
        async with HttpConnector(up.url, pool, HttpOptions(setup_timeout_s=0.6)) as connector:
            if method == "initialize":
                caught = await failing(connector)
                assert (type(caught), caught.cause_code) == (NotSent, "setup_timeout")
            else:
                await connector.invoke(lease(TOOL))
            assert len(up.calls("tools/call")) == (method != "initialize")


@pytest.mark.parametrize("status", ["401 Unauthorized", "503 Busy"])
async def test_a_shut_door_says_nothing_of_the_era(status: str, pool: Pool) -> None:
    """A probe refused for its credential or for load does not turn a stateless upstream into a handshake one."""
    async with (
        running(Era.STATELESS, discover=says(lambda _: http(b"", status=status)), call=says(answer)) as up,
        HttpConnector(up.url, pool) as connector,
    ):
        assert type(await failing(connector)) is NotSent
        assert up.calls("initialize") == []
        del up.scripts["server/discover"]
        await connector.invoke(lease(TOOL))
        assert connector.era is Era.STATELESS


def unknown_session(seen: Seen) -> bytes:
    """A 404 that names no request."""
    return error(seen, -32001, "404 Not Found", id=None)


async def test_a_read_in_an_expired_session_has_failed_and_the_next_one_starts_afresh(
    pool: Pool,
) -> None:
    """Each attempt needs an intent of its own, so even a read is not sent again; the session is forgotten."""

    def by_session(seen: Seen) -> bytes:
        fresh = seen.headers["mcp-session-id"] == "session-2"
        return answer(seen) if fresh else http(b"", status="404 Not Found")

    async with running(Era.HANDSHAKE, call=says(by_session)) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector)
        assert (type(caught), caught.cause_code) == (ToolFailed, "http_404")
        await connector.invoke(lease(TOOL))
        assert [seen.headers["mcp-session-id"] for seen in up.calls("tools/call")] == ["session-1", "session-2"]


@pytest.mark.parametrize("effect", [effect for effect in EffectClass if effect is not EffectClass.READ])
@pytest.mark.parametrize("reply", [unknown_session, lambda s: http(b"", status="404 Not Found")])
async def test_what_may_have_acted_is_never_sent_again(
    reply: Callable[[Seen], bytes], effect: EffectClass, pool: Pool
) -> None:
    """A proxy that answers 404 for a call it carried out does not make it happen twice; the next call starts afresh."""
    tool = make_tool(effect=effect)
    async with running(Era.HANDSHAKE, call=says(reply)) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector, tool)
        assert (type(caught), caught.cause_code) == (OutcomeUnknown, "session_expired")
        assert (len(up.calls("tools/call")), up.sessions) == (1, 1)
        up.scripts["tools/call"] = says(answer)
        await connector.invoke(lease(tool))
        assert (len(up.calls("tools/call")), up.sessions) == (2, 2)


@pytest.mark.parametrize("effect", list(EffectClass))
async def test_a_404_that_names_the_call_is_its_answer(effect: EffectClass, pool: Pool) -> None:
    """The MCP layer looked at the call: it has failed, and is not sent again whatever its effect."""
    tool = make_tool(effect=effect)
    reply = says(lambda s: error(s, -32001, "404 Not Found"))
    async with running(Era.HANDSHAKE, call=reply) as up, HttpConnector(up.url, pool) as connector:
        caught = await failing(connector, tool)
        assert (type(caught), caught.cause_code) == (ToolFailed, "jsonrpc_-32001")
        assert len(up.calls("tools/call")) == 1
        up.scripts["tools/call"] = says(answer)
        await connector.invoke(lease(tool))
        assert (len(up.calls("tools/call")), up.sessions) == (2, 2)


PINGS: dict[str, Callable[[Seen], bytes]] = {
    "not known": unknown_session,
    "not known, said by name": lambda s: error(s, -32001, "404 Not Found"),
    "no session id": lambda s: http(b"", status="400 Bad Request"),
    "garbage": lambda s: http(b"{"),
}


@pytest.mark.parametrize("name", PINGS)
async def test_an_idle_session_is_tried_before_a_call_that_acts(name: str, pool: Pool) -> None:
    """A session that ended unnoticed costs a ping and a handshake; the call is sent once, in the new session."""
    pay, options = make_tool(effect=EffectClass.MONEY), HttpOptions(trusted_idle_s=0)
    async with (
        running(Era.HANDSHAKE, call=says(answer)) as up,
        HttpConnector(up.url, pool, options) as connector,
    ):
        await connector.invoke(lease(pay))
        up.scripts["ping"] = says(PINGS[name])
        await connector.invoke(lease(pay))
        assert [seen.headers["mcp-session-id"] for seen in up.calls("tools/call")] == ["session-1", "session-2"]
        assert (len(up.calls("ping")), up.sessions) == (1, 2)


async def test_an_idle_session_is_kept_where_the_server_is_there(pool: Pool) -> None:
    """A ping that is answered, or not known, says that the session lives; a shut door leaves the call unsent."""
    pay, options = make_tool(effect=EffectClass.MONEY), HttpOptions(trusted_idle_s=0, setup_timeout_s=0.5)
    async with (
        running(Era.HANDSHAKE, call=says(answer)) as up,
        HttpConnector(up.url, pool, options) as connector,
    ):
        await connector.invoke(lease(pay))
        for reply in (answer, lambda s: error(s, -32601), lambda s: error(s, -32601, "404 Not Found")):
            up.scripts["ping"] = says(reply)
            await connector.invoke(lease(pay))
        assert (len(up.calls("tools/call")), up.sessions) == (4, 1)
        up.scripts["ping"] = says(lambda _: http(b"", status="503 Busy"))
        caught = await failing(connector, pay)
        assert (type(caught), caught.cause_code) == (NotSent, "http_503")
        assert len(up.calls("tools/call")) == 4


async def test_a_session_that_hangs_is_replaced(pool: Pool) -> None:
    """A ping that never ends must not hang every later call: the session is forgotten in time for a new one."""
    pay, options = make_tool(effect=EffectClass.MONEY), HttpOptions(trusted_idle_s=0, setup_timeout_s=1.0)
    async with (
        running(Era.HANDSHAKE, call=says(answer)) as up,
        HttpConnector(up.url, pool, options) as connector,
    ):
        await connector.invoke(lease(pay))
        up.scripts["ping"] = up.hang
        await connector.invoke(lease(pay))
        assert (len(up.calls("tools/call")), up.sessions) == (2, 2)


@ERAS
async def test_an_upstream_of_the_other_era_is_found_out(era: Era, pool: Pool) -> None:
    """An upstream replaced by one of the other era costs at most one refused call, not the connector."""
    async with running(era, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        await connector.invoke(lease(TOOL))
        up.era = Era.STATELESS if era is Era.HANDSHAKE else Era.HANDSHAKE
        up.scripts["tools/call"] = says(lambda s: error(s, -32600, "400 Bad Request", id="server-error"))
        assert type(await failing(connector)) is ToolFailed
        up.scripts["tools/call"] = says(answer)
        await connector.invoke(lease(TOOL))
        assert connector.era is up.era


@pytest.mark.parametrize(
    ("supported", "era", "asked"),
    [(["2026-07-28"], Era.STATELESS, 2), (["2027-01-01"], Era.HANDSHAKE, 1), (7, Era.HANDSHAKE, 1)],
)
async def test_what_an_upstream_offers_is_taken_once(supported: Any, era: Era, asked: int, pool: Pool) -> None:
    """One that refuses our revision and names one that we speak is asked again in that; any other the old way."""
    async with running(era, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:

        def discovered(seen: Seen) -> bytes:
            if len(up.calls("server/discover")) == 1:
                said = {"code": -32022, "message": "no", "data": {"supported": supported}}
                return error(seen, -32022, "400 Bad Request", error=said)
            return answer(seen, {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"})

        up.scripts["server/discover"] = says(discovered)
        await connector.invoke(lease(TOOL))
        assert connector.era is era
        assert len(up.calls("server/discover")) == asked


@pytest.mark.parametrize("era", list(Era))
async def test_tools_with_headers_that_cannot_be_are_left_out(era: Era, pool: Pool) -> None:
    """Where headers mean something only their names are there; the others are, and so is each in the other era."""
    bad = {"name": "bad", "inputSchema": {"properties": {"a": {"type": "object", "x-mcp-header": "A"}}}}
    good = {"name": "good", "inputSchema": {"properties": {"a": {"type": "string", "x-mcp-header": "A"}}}}
    listed = says(lambda seen: answer(seen, {"tools": [bad, good]}))
    async with running(era, list=listed) as up, HttpConnector(up.url, pool) as connector:
        assert await connector.discover() == [{"name": "bad"} if era is Era.STATELESS else bad, good]


async def test_sessions_are_not_shared_between_credentials(pool: Pool) -> None:
    """Two credentials have two sessions, each request carries its own, and no cookie goes from one to the other."""
    cookie = says(lambda s: answer(s, extra="set-cookie: who=alice; Path=/\r\n"))
    async with running(Era.HANDSHAKE, call=cookie) as up, HttpConnector(up.url, pool) as connector:
        for _ in range(2):
            for who in ("alice", "bob"):
                await connector.invoke(lease(TOOL, headers={"Authorization": f"Bearer {who}"}))
        calls = up.calls("tools/call")
        assert {(c.headers["authorization"], c.headers["mcp-session-id"]) for c in calls} == {
            ("Bearer alice", "session-1"),
            ("Bearer bob", "session-2"),
        }
        assert [c for c in up.seen if "cookie" in c.headers] == []
    assert sorted(seen.headers["mcp-session-id"] for seen in up.calls("DELETE")) == ["session-1", "session-2"]


async def test_a_user_with_many_agents_ends_no_session_of_another(pool: Pool) -> None:
    """What a server keeps in a session is lost with it: where there are too many, who has the most makes room."""

    def by(user: str, agent: str) -> Lease:
        made = lease(TOOL)
        target = made.intent.quota.permit.target
        principal = replace(target.caller.principal, user=user, agent=agent)
        caller = make_caller(target.caller.call, principal)
        return structs.replace(made, intent=make_intent(make_permit(Resolved(caller, TOOL, None))))

    async with (
        running(Era.HANDSHAKE, call=says(answer)) as up,
        HttpConnector(up.url, pool, HttpOptions(max_sessions=3)) as connector,
    ):
        await connector.invoke(by("bob", "a"))
        for at in range(10):
            await connector.invoke(by("ada", f"agent-{at}"))
        await connector.invoke(by("eve", "a"))
        await connector.invoke(by("bob", "a"))
        assert up.calls("tools/call")[-1].headers["mcp-session-id"] == "session-1"


async def test_sessions_of_bygone_credentials_are_ended(pool: Pool) -> None:
    """Credentials that live for one call do not pile up sessions."""
    async with (
        running(Era.HANDSHAKE, call=says(answer)) as up,
        HttpConnector(up.url, pool, HttpOptions(max_sessions=2)) as connector,
    ):
        for number in range(4):
            await connector.invoke(lease(TOOL, headers={"authorization": str(number)}))
        assert [seen.headers["authorization"] for seen in up.calls("DELETE")] == ["0", "1"]


async def test_first_calls_at_once_shake_hands_once(pool: Pool) -> None:
    """Many first calls with one credential share one handshake."""
    async with running(Era.HANDSHAKE, call=says(answer)) as up, HttpConnector(up.url, pool) as connector:
        async with create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(connector.invoke, lease(TOOL))
        assert (up.sessions, len(up.calls("tools/call"))) == (1, 10)


@pytest.mark.parametrize("field", ["Mcp-Session-Id", "Content-Type", "mcp-name"])
async def test_a_credential_cannot_set_the_protocols_fields(field: str, pool: Pool) -> None:
    """A credential template that would overwrite the protocol's own header fields is refused before sending."""
    async with running(Era.STATELESS) as up, HttpConnector(up.url, pool) as connector:
        for headers in ({field: "x"}, {"authorization": "a\r\nb: c"}, {"authorization": "ü"}):
            caught = await failing(connector, headers=headers)
            assert (type(caught), caught.cause_code) == (NotSent, "credential_header")
        assert up.seen == []


def listing(up: RawUpstream, pages: dict[str | None, Any]) -> None:
    """Let the upstream list these pages, by cursor."""
    up.scripts["tools/list"] = says(lambda s: answer(s, pages[s.message["params"].get("cursor")]))


@ERAS
async def test_all_pages_are_listed_unchanged(era: Era, pool: Pool) -> None:
    """Definitions come page by page, with members nobody knows left in."""
    tools = [{"name": f"t{n}", "inputSchema": {"type": "object"}, "x": [n, 1.5]} for n in range(3)]
    async with running(era) as up, HttpConnector(up.url, pool) as connector:
        listing(up, {None: {"tools": tools[:2], "nextCursor": "2"}, "2": {"tools": tools[2:]}})
        assert await connector.discover() == tools


ENDLESS = {"tools": [], "nextCursor": "again"}
LISTINGS: dict[str, tuple[dict[str | None, Any], str]] = {
    "no list": ({None: {"tools": {}}}, "listing"),
    "no end": ({None: ENDLESS, "again": ENDLESS}, "too_many_pages"),
    "odd cursor": ({None: {"tools": [], "nextCursor": 1}}, "listing"),
    "too large": ({None: {"tools": [{"name": "x" * 90_000}]}}, "output_too_large"),
}


async def test_a_bad_definition_does_not_hide_the_others(pool: Pool) -> None:
    """What has no name is left out, and of what has one twice all but that: which of the two is meant?"""
    pages: dict[str | None, Any] = {
        None: {"tools": [{"name": "twice", "x": 1}, {}, 5, {"name": 5}, {"name": "good"}], "nextCursor": "2"},
        "2": {"tools": [{"name": "twice", "x": 2}, {"name": "twice", "x": 1}, {"name": "also good"}]},
    }
    async with running(Era.STATELESS) as up, HttpConnector(up.url, pool) as connector:
        listing(up, pages)
        assert await connector.discover() == [{"name": "good"}, {"name": "also good"}, {"name": "twice"}]


@pytest.mark.parametrize("name", LISTINGS)
async def test_a_bad_listing_is_refused_whole(name: str, pool: Pool) -> None:
    """An upstream that cannot list its tools within bounds has none."""
    pages, cause = LISTINGS[name]
    options = HttpOptions(listing=ListingLimits(pages=3, bytes=50_000))
    async with running(Era.STATELESS) as up, HttpConnector(up.url, pool, options) as connector:
        listing(up, pages)
        with pytest.raises(Unavailable) as caught:
            await connector.discover()
        assert caught.value.cause_code == cause


@ERAS
async def test_discovery_and_pings_bring_the_credential_of_the_moment(era: Era, pool: Pool) -> None:
    """The credential is asked for each time, so that one that was changed is used; without it nothing is sent."""
    given = {"authorization": "Bearer one"}

    def credential() -> dict[str, str]:
        if not given:
            raise Unavailable("no credential", cause_code="credential")
        return dict(given)

    options = HttpOptions(credential=credential)
    async with running(era) as up, HttpConnector(up.url, pool, options) as connector:
        listing(up, {None: {"tools": []}})
        for value in ("Bearer one", "Bearer two"):
            given["authorization"], before = value, len(up.seen)
            await connector.discover()
            await connector.ping()
            assert {seen.headers["authorization"] for seen in up.seen[before:]} == {value}
        given.clear()
        before = len(up.seen)
        for asked in (connector.discover, connector.ping):
            with pytest.raises(Unavailable) as caught:
                await asked()
            assert caught.value.cause_code == "credential"
        assert len(up.seen) == before


@ERAS
async def test_ping_tells_whether_the_upstream_answers(era: Era, pool: Pool) -> None:
    """A ping asks each time, survives servers that know no ping, and sees a server that stopped answering."""
    method = "ping" if era is Era.HANDSHAKE else "server/discover"
    options = HttpOptions(ping_timeout_s=0.5)
    async with running(era) as up, HttpConnector(up.url, pool, options) as connector:
        await connector.ping()
        await connector.ping()
        assert len(up.calls(method)) >= 2
        up.scripts[method] = says(lambda s: error(s, -32601))
        await connector.ping()
        up.scripts[method] = up.hang
        with pytest.raises(Unavailable):
            await connector.ping()
        up.scripts[method] = says(lambda s: http(b"", status="503 Busy"))
        with pytest.raises(Unavailable):
            await connector.ping()

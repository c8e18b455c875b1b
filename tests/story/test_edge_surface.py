"""What holds for every surface: Host and Origin, throttle, headers, faults of our own, clients that leave."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.types import Message

from gateway.core.call import Lease
from gateway.core.call import Raw as RawResult
from gateway.core.errors import Throttled, Unavailable
from gateway.edge import disconnect
from gateway.edge.asgi import Options
from gateway.edge.auth import Gate, Visit
from gateway.edge.faults import SessionNotFound
from gateway.edge.mcp.session import Sessions
from gateway.edge.throttle import EdgeThrottle
from tests.clock import StepClock
from tests.edge_world import Edge, Raw, rpc
from tests.fakes.callers import AGENT
from tests.fakes.desk import FakePolicyDesk
from tests.fakes.upstream import STOCK


def with_headers(*pairs: tuple[bytes, bytes]) -> dict[str, Any]:
    """A scope's headers."""
    return {"path": "/livez", "method": "GET", "headers": list(pairs)}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"gateway.test", 200),
        (b"GATEWAY.test:8470", 200),
        (b"localhost:1234", 200),
        (b"127.0.0.1:8470", 200),
        (b"[::1]:8470", 200),
        (b"192.0.2.7", 200),
        (b"extra.test", 200),
        (b"evil.test", 421),
        (b"gateway.test.evil.test", 421),
        (b"gateway.test@evil.test", 421),
        (b"localhost:evil.test", 421),
        (b"", 421),
    ],
)
async def test_foreign_hosts_are_refused(host: bytes, status: int) -> None:
    """A name must be ours; an address cannot be rebound."""
    edge = Edge(Options(version="1", allowed_hosts=("extra.test",)))
    assert await Raw(edge.app, []).run(**with_headers((b"host", host))) == status


async def test_a_foreign_host_is_refused_after_a_good_one() -> None:
    """What is remembered of good hosts lets nobody else in, and nobody out."""
    edge = Edge()
    hosts = (b"gateway.test", b"evil.test", b"gateway.test", b"localhost", b"")
    statuses = [await Raw(edge.app, []).run(**with_headers((b"host", host))) for host in hosts]
    assert statuses == [200, 421, 200, 200, 421]


async def test_no_host_and_two_hosts_are_refused() -> None:
    """Exactly one Host header says whom the request is for."""
    edge = Edge()
    assert await Raw(edge.app, []).run(**with_headers()) == 421
    twice = with_headers((b"host", b"gateway.test"), (b"host", b"gateway.test"))
    assert await Raw(edge.app, []).run(**twice) == 421


@pytest.mark.parametrize(
    ("url", "origin", "status"),
    [
        ("http://gateway.test", b"http://gateway.test", 200),
        ("http://gateway.test", b"https://gateway.test", 403),
        ("http://gateway.test", b"http://localhost:3000", 403),
        ("http://gateway.test", b"null", 403),
        ("http://127.0.0.1:8470", b"http://localhost:3000", 200),
        ("http://127.0.0.1:8470", b"http://evil.test", 403),
        ("http://127.0.0.1:8470", b"http://localhost.evil.test", 403),
    ],
)
async def test_foreign_origins_are_refused(url: str, origin: bytes, status: int) -> None:
    """A web page may call only where it comes from, or from loopback to loopback."""
    edge = Edge(url=url)
    pairs = with_headers((b"host", b"127.0.0.1"), (b"origin", origin))
    assert await Raw(edge.app, []).run(**pairs) == status


@pytest.mark.parametrize(
    "authorization",
    [
        [b"Basic Z29vZA=="],
        [b"Bearer"],
        [b"Bearer good, Bearer good"],
        [b"Bearer g\xc3\xb6"],
        [b"Bearer good", b"Bearer good"],
        [b"Bearer " + b"a" * 9000],
    ],
    ids=["scheme", "empty", "list", "charset", "twice", "long"],
)
async def test_odd_credentials_are_refused_and_counted(authorization: list[bytes]) -> None:
    """One well-formed bearer token or none: anything else is malformed, and never logged."""
    edge = Edge()
    pairs = [(b"host", b"gateway.test"), *((b"authorization", value) for value in authorization)]
    raw = Raw(edge.app, [])
    assert await raw.run(headers=pairs) == 401
    assert edge.world.meter.counts == {"unauthenticated:malformed": 1}
    assert edge.records() == []


async def test_every_answer_is_hardened() -> None:
    """Sniffing, caching and framing are off on good answers and on errors."""
    edge = Edge(url="https://gateway.test")
    async with edge.client() as client:
        for answer in (await client.get("/livez"), await client.get("/nosuch"), await client.post("/mcp")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert "max-age" in answer.headers["strict-transport-security"]


async def test_readiness_asks_every_part_within_a_deadline() -> None:
    """One part that is down makes it 503 and is named by an enumeration; liveness does not care."""
    edge = Edge()
    async with edge.client(None) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready", "parts": {"ledger": "ok", "policy": "ok"}}
        edge.world.journal.fail("audit.ping", Unavailable("/var/secret is full", cause_code="disk"))
        edge.world.journal.fail("policy.ping", RuntimeError("broken"))
        assert (await client.get("/readyz")).status_code == 200, "fresh answers are reused"
        edge.world.clock.advance(2)
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["parts"]) == (503, {"ledger": "disk", "policy": "broken"})
        assert "secret" not in answer.text
        assert (await client.get("/livez")).status_code == 200
        assert (await client.post("/livez")).status_code == 405


async def test_policy_that_is_stale_is_said_to_be_to_auditors() -> None:
    """The last good one answers, so the gateway is ready; others are not told which policy there is."""
    edge = Edge(policy=FakePolicyDesk(problems=("desk.rego:3: broken",)))
    async with edge.client("auditor") as client:
        page = (await client.get("/readyz")).json()
        assert page["status"] == "ready"
        assert page["policy"] == {"revision": edge.policy.standing().revision, "stale": True}
        assert "broken" not in json.dumps(page)
    async with edge.client(None) as client:
        assert "policy" not in (await client.get("/readyz")).json()


async def test_an_upstream_that_is_down_degrades_and_no_more() -> None:
    """The others' tools go on, so the gateway stays in service; only auditors learn which upstream is missing."""
    asked = []

    async def gone() -> None:
        asked.append(1)
        raise Unavailable("nobody answers", cause_code="upstream_down")

    edge = Edge(upstreams={"erp": gone})
    for token in (None, "good"):
        async with edge.client(token) as client:
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
            assert answer.json()["parts"] == {"ledger": "ok", "policy": "ok"}
    for token in ("auditor", "admin"):
        edge.world.clock.advance(2)
        async with edge.client(token) as client:
            assert (await client.get("/readyz")).json()["parts"]["upstream:erp"] == "upstream_down"
    assert asked == [1], "probes do not reach other people's servers more often than every ten seconds"
    async with edge.client("made-up") as client:
        assert (await client.get("/readyz")).status_code == 401


async def test_metrics_need_a_credential_unless_opened() -> None:
    """Their labels name tools."""
    for is_open in (True, False):
        edge = Edge(Options(version="1", open_metrics=is_open))
        async with edge.client(None) as nobody, edge.client("good") as agent, edge.client("auditor") as auditor:
            assert (await nobody.get("/metrics")).status_code == (200 if is_open else 401)
            assert (await agent.get("/metrics")).status_code == (200 if is_open else 403)
            assert (await auditor.get("/metrics")).headers["content-type"].startswith("text/plain")


async def test_what_fails_unexpectedly_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets a bare 500, the operator the whole story."""
    edge = Edge()
    edge.world.journal.fail("identity.authenticate", RuntimeError("a secret detail"))
    with caplog.at_level(logging.ERROR):
        async with edge.client() as client:
            answer = await client.post("/mcp", json=rpc("ping"))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "a secret detail" in caplog.text


async def test_requests_are_throttled_before_they_are_checked() -> None:
    """Strangers share their address's bucket whatever tokens they make up; a proven token has its own."""
    edge = Edge(Options(version="1", per_minute=600, strangers_per_minute=60))
    async with edge.client() as good:
        assert (await good.post("/mcp", json=rpc("ping"))).status_code == 200
        statuses = []
        for number in range(3):
            async with edge.client(f"made-up-{number}") as stranger:
                statuses.append((await stranger.post("/mcp", json=rpc("ping"))).status_code)
        assert statuses == [401, 429, 429]
        assert [(await good.post("/mcp", json=rpc("ping"))).status_code for _ in range(21)] == [200] * 20 + [429]
        answer = await good.post("/mcp", json=rpc("ping"))
        assert int(answer.headers["retry-after"]) >= 1
        edge.world.clock.advance(1)
        assert (await good.post("/mcp", json=rpc("ping"))).status_code == 200
    assert edge.world.journal.steps.count("identity.authenticate") < 30


async def test_refusals_cost_ten_requests() -> None:
    """Each of them is recorded, so one credential cannot fill the log: ten a second in the long run, after a burst."""
    edge = Edge(Options(version="1"))
    wrong = rpc("tools/list", {"cursor": "x"})
    async with edge.client() as client:
        statuses = [(await client.post("/mcp", json=wrong)).json()["error"]["code"] for _ in range(60)]
        assert statuses[:20] == [-32602] * 20
        assert len(edge.records()) in {20, 21}
        assert (await client.post("/mcp", json=rpc("ping"))).status_code == 429
        for _ in range(10):
            before = len(edge.records())
            edge.world.clock.advance(1)
            for _ in range(30):
                await client.post("/mcp", json=wrong)
            assert len(edge.records()) - before <= 11
        edge.world.clock.advance(3)
        assert [(await client.post("/mcp", json=rpc("ping"))).status_code for _ in range(100)] == [200] * 100


async def test_listings_cost_by_the_number_of_tools() -> None:
    """Policy is asked about every tool; the operator's own requests are not counted at all."""
    throttle = EdgeThrottle(StepClock(), 600, 600)
    world = Edge().world
    gate = Gate(world.ports(), throttle, "urn:test")
    visit = Visit(world.call(), AGENT, key=b"key")
    throttle.prove(b"key")
    world.catalog.shelf = (STOCK,) * 1000
    gate.listing(visit)
    assert throttle._proven.buckets[b"key"].tokens == pytest.approx(0.0, abs=0.01)
    gate.listing(Visit(world.call(), AGENT, operator=True))
    assert list(throttle._proven.buckets) == [b"key"]


def test_the_throttles_tables_are_bounded() -> None:
    """Neither addresses nor tokens grow the tables beyond their cap; one IPv6 site is one stranger."""
    throttle = EdgeThrottle(StepClock(), 60, 60)
    for number in range(10_050):
        throttle.admit(b"t%d" % number, f"2001:db8:{number // 65536:x}:{number % 65536:x}::1")
        throttle.prove(number.to_bytes(32))
    assert len(throttle._strangers.buckets) == len(throttle._proven.buckets) == 10_000
    for number in range(2):
        throttle.admit(b"", f"2001:db8:ffff:1::{number}")
    with pytest.raises(Throttled):
        throttle.admit(b"", "2001:db8:ffff:1::2")


async def test_sessions_are_bounded_for_all_and_for_each() -> None:
    """A principal's new session ends their own oldest; only when the table is full, the idlest of who has the most."""
    clock = StepClock()
    sessions = Sessions(clock, most=3, most_each=2)
    first, second = sessions.open("ada", None, {}), sessions.open("ada", None, {})
    sessions.find(first.id, "ada", None)
    third = sessions.open("ada", None, {})
    assert sessions.find(third.id, "ada", None) is third
    assert sessions.find(first.id, "ada", None) is first
    with pytest.raises(SessionNotFound):
        sessions.find(second.id, "ada", None)
    sessions.open("bob", None, {})
    sessions.open("eve", None, {})
    with pytest.raises(SessionNotFound):
        sessions.find(third.id, "ada", None)
    clock.advance(1801)
    sessions.open("zoe", None, {})
    assert len(sessions._all) == len(sessions._own) == 1


async def test_a_user_with_many_agents_ends_no_session_of_another() -> None:
    """Whoever may open runs may name any number of agents: where the table is full, who has the most makes room."""
    clock = StepClock()
    sessions = Sessions(clock, most=4, most_each=2)
    bob = sessions.open("here|bob|helper", None, {})
    for at in range(20):
        sessions.open(f"here|ada|agent-{at}", None, {})
    assert sessions.find(bob.id, "here|bob|helper", None) is bob
    assert len(sessions._all) == 4
    eve = sessions.open("here|eve|", None, {})
    assert sessions.find(eve.id, "here|eve|", None) is eve
    assert sessions.find(bob.id, "here|bob|helper", None) is bob


@asynccontextmanager
async def leaving(edge: Edge, tool: str, gone: anyio.Event) -> AsyncIterator[Raw]:
    """A call whose client leaves when ``gone`` is set."""
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}"}}}}'.encode()
    raw = Raw(edge.app, [{"type": "http.request", "body": body}])
    receive = raw._receive

    async def patient() -> Message:
        if raw.messages:
            return await receive()
        await gone.wait()
        return {"type": "http.disconnect"}

    raw.app = lambda scope, _, send: edge.app(scope, patient, send)
    yield raw


@pytest.mark.parametrize(("tool", "ends"), [("erp__stock", "tool.outcome_unknown"), ("erp__order", "tool.completed")])
async def test_when_the_client_leaves(tool: str, ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read is cancelled and recorded so; a committed write finishes and its outcome is kept."""
    monkeypatch.setattr(disconnect, "PATIENCE_S", 0.0)
    edge, gone, started, finish = Edge(), anyio.Event(), anyio.Event(), anyio.Event()
    invoke = edge.world.connector.invoke

    async def slow(lease: Lease) -> RawResult:
        started.set()
        await finish.wait()
        return await invoke(lease)

    monkeypatch.setattr(type(edge.world.connector), "invoke", lambda _, lease: slow(lease))
    with anyio.fail_after(5):
        async with leaving(edge, tool, gone) as raw, anyio.create_task_group() as group:
            group.start_soon(raw.run)
            await started.wait()
            gone.set()
            await anyio.wait_all_tasks_blocked()
            finish.set()
    assert edge.records()[-1] == ends
    assert len(edge.world.connector.sent) == (1 if ends == "tool.completed" else 0)

"""The contract of each port, on its fake and on its real adapter: what a test learns on fakes holds for the gateway."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from anyio import create_task_group, fail_after
from anyio.lowlevel import checkpoint
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.clock import SystemClock
from gateway.adapters.credentials import CredentialBroker, StaticCredentials
from gateway.adapters.identity import LocalIdentity, LocalIssuer, Trust
from gateway.adapters.limiter import MemoryLimits, OverallLimits
from gateway.adapters.metrics import PrometheusMeter
from gateway.adapters.pace import EvenPace
from gateway.adapters.rego import layers
from gateway.adapters.rego.engine import RegoEngine
from gateway.core import canonical, pipeline, policy_input, schema
from gateway.core.call import Call, Channel, Intent, Lease, Live, Permit, Principal, Quota, Raw, Resolved
from gateway.core.catalog import Catalog, Shelf
from gateway.core.decision import Effect, fold
from gateway.core.errors import Denied, NotFound, Throttled, ToolFailed, Unauthenticated, UnknownTool
from gateway.core.known import KnownValues
from gateway.core.ports import Pingable, PipelineSettings, Ports
from gateway.core.redact import Redactor
from gateway.core.verify import Verifier
from tests.evidence import make_decision
from tests.fakes import World
from tests.fakes.callers import AGENT
from tests.fakes.kills import fake_switch
from tests.fakes.upstream import ORDER, RESULT, STOCK
from tests.ledgers import open_books
from tests.rego_demo import SETTINGS

SECRET = "port-s3cret-81c4"
ERP = {"allow": ["erp.*"]}
OPEN = {"gateway": {"scope": {"agents": {AGENT.agent: ERP}, "users": {AGENT.user: ERP}}}}


@dataclass(frozen=True)
class Side:
    """One set of ports; each lets one call in at a time, knows ``SECRET``, and has the tools of the fake catalogue.

    Attributes:
        ports: the ports.
        token: the credential of ``AGENT``.
        written: the types of the durable records of a call.
    """

    ports: Ports
    token: str
    written: Callable[[str], Sequence[str]]

    def call(self, tool: str = "erp.stock", token: str | None = None, run: str | None = None) -> Call:
        """A call of the agent's."""
        clock, arguments = self.ports.clock, canonical.arguments(canonical.parse(b'{"sku":"A"}'))
        origin = Live(self.token if token is None else token)
        return Call(clock.uuid(), clock.now_us(), origin, Channel.REST, tool, arguments, run)

    async def target(self, call: Call | None = None) -> Resolved:
        """The call with its caller and its tool."""
        call = call or self.call()
        principal = await self.ports.identity.authenticate(call)
        return self.ports.catalog.resolve(await self.ports.runs.enter(call, principal))

    async def permit(self) -> Permit:
        """A permit of a call; policy is another port's."""
        target = await self.target()
        async with self.ports.runs.section(target.caller) as section:
            return Permit(target, make_decision(), section.reserve(target))

    async def raw(self, text: str = "42 in stock") -> Raw:
        """What the upstream brought back."""
        result = {"content": [{"type": "text", "text": text}]}
        intent = Intent(Quota(await self.permit()), "record")
        return Raw(Lease(intent), msgspec.json.encode(result), result)


@asynccontextmanager
async def fake(_: Path) -> AsyncIterator[Side]:
    """The fakes."""
    world = World()
    world.limits.room = 1
    world.redactor.secrets = (SECRET,)
    yield Side(world.ports(), "good", world.audit.types)


@asynccontextmanager
async def real(folder: Path) -> AsyncIterator[Side]:
    """The adapters the gateway runs with."""
    clock, known, world = SystemClock(), KnownValues(), World()
    known.add(SECRET)
    key, trust = Ed25519PrivateKey.generate(), Trust(AGENT.issuer, frozenset({"ostiary"}))
    issuer = LocalIssuer(clock, trust, key)
    far_s = clock.now_us() // 1_000_000 + 600
    token = issuer.issue(replace(AGENT, expires_us=far_s * 1_000_000))
    catalog = Catalog({"erp": world.connector, "bank": world.connector})
    catalog.replace([Shelf(tool, schema.compile(tool.definition["inputSchema"]).problems) for tool in (STOCK, ORDER)])
    async with AsyncExitStack() as stack:
        books = await stack.enter_async_context(open_books(folder / "state", clock))
        policy = RegoEngine(layers.load([layers.shipped()], OPEN), SETTINGS)
        ports = Ports(
            clock=clock,
            identity=LocalIdentity(clock, trust, [key.public_key()]),
            kills=fake_switch(),
            runs=books.runs,
            catalog=catalog,
            policy=await stack.enter_async_context(policy),
            approvals=books.approvals,
            limits=MemoryLimits(clock, OverallLimits(concurrency=1)),
            broker=CredentialBroker(StaticCredentials({}, known)),
            verifier=Verifier(),
            redactor=Redactor(known),
            audit=books.log,
            pace=await stack.enter_async_context(EvenPace()),
            meter=PrometheusMeter(),
            settings=PipelineSettings(),
        )
        yield Side(ports, token, lambda call_id: [kind for kind in books.types(call_id) if kind != "run.started"])


@pytest.fixture(params=[fake, real], ids=["fake", "real"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    """Each set of ports in turn."""
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.mark.requirement("TEST-2")
async def test_every_part_answers_a_ping(side: Side) -> None:
    """Whoever can serve returns."""
    ports = side.ports
    parts: tuple[Pingable, ...] = (ports.identity, ports.runs, ports.catalog, ports.policy, ports.broker, ports.audit)
    pinged = []
    for part in parts:
        await part.ping()
        pinged.append(part)
    assert pinged == list(parts)


@pytest.mark.requirement("TEST-2")
async def test_identity_knows_good_tokens_only(side: Side) -> None:
    """A good token is its principal; anything else is unauthenticated."""
    principal = await side.ports.identity.authenticate(side.call())
    assert (principal.key, principal.scopes) == (AGENT.key, AGENT.scopes)
    for bad in ("", "bad", side.token + "x"):
        with pytest.raises(Unauthenticated):
            await side.ports.identity.authenticate(side.call(token=bad))


@pytest.mark.requirement("TEST-2")
async def test_runs_are_entered_by_their_principal(side: Side) -> None:
    """A call without a name gets the run of its session, each time the same; a run that is not there is not found."""
    first, second = [await side.target() for _ in range(2)]
    assert first.caller.run.id == second.caller.run.id
    assert first.caller.run.principal_key == first.caller.principal.key == AGENT.key
    with pytest.raises(NotFound):
        await side.target(side.call(run="no-such-run"))


@pytest.mark.requirement("TEST-2")
async def test_a_runs_ledger_is_held_by_one_call_at_a_time(side: Side) -> None:
    """A reservation counts for whoever comes next, and no longer once it is released; a kept one stays."""
    target = await side.target()
    order = []

    async def second() -> None:
        async with side.ports.runs.section(target.caller) as section:
            order.append(("second", section.usage.calls["erp.stock"]))

    async with create_task_group() as group, side.ports.runs.section(target.caller) as section:
        group.start_soon(second)
        for _ in range(10):
            await checkpoint()
        released, kept = section.reserve(target), section.reserve(target)
        order.append(("first", section.usage.calls["erp.stock"]))
    assert order == [("first", 2), ("second", 2)]
    kept.keep()
    for reservation in (released, kept):
        reservation.release()
    async with side.ports.runs.section(target.caller) as section:
        assert section.usage.calls["erp.stock"] == 1


@pytest.mark.requirement("TEST-2")
async def test_the_catalogue_resolves_without_raising(side: Side) -> None:
    """A pinned tool is found with its arguments, a missing one is an unlisted stand-in, and the order stays."""
    found, missing = await side.target(), await side.target(side.call("erp.none"))
    assert (found.tool, found.fault) == (STOCK, None)
    assert (missing.tool.fqn, missing.tool.listed) == ("erp.none", False)
    tools = side.ports.catalog.tools()
    assert {"erp.stock", "erp.order"} <= {tool.fqn for tool in tools}
    assert list(tools) == list(side.ports.catalog.tools())


@pytest.mark.requirement("TEST-2")
async def test_an_invocation_answers_its_own_lease(side: Side) -> None:
    """The result belongs to the call it was leased for."""
    lease = (await side.raw()).lease
    raw = await side.ports.catalog.invoke(lease)
    assert raw.lease is lease
    assert raw.value == msgspec.json.decode(raw.body) == RESULT


@pytest.mark.requirement("TEST-2")
async def test_policy_answers_each_input_in_its_place(side: Side) -> None:
    """As many words as questions, under one revision, and the fold can read them."""
    target, other = await side.target(), await side.target(side.call("erp.order"))
    at_us = side.ports.clock.now_us()
    inputs = [policy_input.listing(one, side.ports.settings, at_us) for one in (target, other, target)]
    said = await side.ports.policy.evaluate("d", inputs)
    assert len(said.results) == len(said.faults) == 3
    assert len(said.revision) == 64
    assert [decision.effect for decision in fold("d", inputs, said)] == [Effect.ALLOW] * 3


@pytest.mark.requirement("TEST-2")
async def test_a_limit_lets_in_whom_it_has_room_for(side: Side) -> None:
    """The quota is the permit's; whoever finds no room is throttled with a time to wait; a place comes back on exit."""
    first, second = await side.permit(), await side.permit()
    for _ in range(2):
        async with side.ports.limits.spend(first) as quota:
            assert quota.permit is first
            with pytest.raises(Throttled) as caught:
                async with side.ports.limits.spend(second):
                    raise AssertionError("there was room")
            assert caught.value.retry_after


@pytest.mark.requirement("TEST-2")
async def test_a_lease_is_of_its_intent(side: Side) -> None:
    """The broker leases for one intent, and its exit never loses what happened inside."""
    intent = (await side.raw()).lease.intent
    async with side.ports.broker.lease(intent) as lease:
        assert lease.intent is intent
    with pytest.raises(ToolFailed):
        async with side.ports.broker.lease(intent):
            raise ToolFailed("inside")


@pytest.mark.requirement("TEST-2")
async def test_good_output_is_verified_and_left_alone(side: Side) -> None:
    """What keeps the contract passes, and without a secret in it not a byte changes."""
    raw = await side.raw()
    verified = side.ports.verifier.verify(raw)
    assert verified.raw is raw
    redacted = await side.ports.redactor.redact(verified)
    assert (redacted.body, redacted.value, redacted.intent) == (raw.body, raw.value, raw.lease.intent)
    assert sum(redacted.counts.values()) == 0


@pytest.mark.requirement("TEST-2")
async def test_known_secrets_are_taken_out_and_counted(side: Side) -> None:
    """Body and value say the same, without the secret."""
    redacted = await side.ports.redactor.redact(
        side.ports.verifier.verify(await side.raw(f"the key is {SECRET}, twice {SECRET}"))
    )
    assert SECRET not in redacted.body.decode()
    assert msgspec.json.decode(redacted.body) == redacted.value
    assert sum(redacted.counts.values()) == 2


async def entered(side: Side, principal: Principal, call: Call, error: Exception | None) -> str:
    """Take ``call`` through the log; ``error`` strikes after the intent."""
    async with side.ports.audit.open(call, principal) as entry:
        target = side.ports.catalog.resolve(entry.entered(await side.ports.runs.enter(call, principal)))
        entry.decided(target, make_decision())
        async with side.ports.runs.section(target.caller) as section:
            reservation = section.reserve(target)
        intent = await entry.commit(Quota(Permit(target, make_decision(), reservation)))
        assert side.written(call.id)[-1] == "tool.requested"
        if error is not None:
            raise error
        raw = Raw(Lease(intent), msgspec.json.encode(RESULT), dict(RESULT))
        return (await entry.complete(await side.ports.redactor.redact(side.ports.verifier.verify(raw)))).call_id


@pytest.mark.requirement("TEST-2")
async def test_the_log_ends_each_intent_once(side: Side) -> None:
    """The intent is durable when commit returns, the completion when complete does; an error leaves as it came."""
    good, bad = side.call(), side.call()
    principal = await side.ports.identity.authenticate(good)
    assert await entered(side, principal, good, None) == good.id
    assert side.written(good.id)[-2:] == ["tool.requested", "tool.completed"]
    with pytest.raises(ToolFailed, match="it did not work"):
        await entered(side, principal, bad, ToolFailed("it did not work"))
    assert side.written(bad.id)[-2:] == ["tool.requested", "tool.failed"]


@pytest.mark.requirement("TEST-2")
async def test_the_meter_takes_any_word(side: Side) -> None:
    """It never fails, whatever it is told."""
    for word in ("completed", "", "\x00 odd \ud800", "x" * 10_000):
        side.ports.meter.called(word, word, 0.0)
        side.ports.meter.decided(word, word, -1.0)
        side.ports.meter.unauthenticated(word)
    assert len(side.ports.clock.uuid()) == 36


@pytest.mark.requirement("TEST-2")
async def test_a_whole_call_goes_the_same_way(side: Side) -> None:
    """Through the one door: the same answer to a good call, the same refusal of a missing tool and of a bad token."""
    call, missing = side.call(), side.call("erp.none")
    with fail_after(20):
        answer = await pipeline.handle(call, side.ports)
    assert (answer.call_id, msgspec.json.decode(answer.body)) == (call.id, RESULT)
    assert side.written(call.id)[-2:] == ["tool.requested", "tool.completed"]
    with pytest.raises(UnknownTool):
        await pipeline.handle(missing, side.ports)
    assert len(side.written(missing.id)) == 1
    with pytest.raises(Unauthenticated):
        await pipeline.handle(side.call(token="bad"), side.ports)
    with pytest.raises(Denied):
        await pipeline.refuse(call, Denied("as told"), side.ports)

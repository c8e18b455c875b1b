"""No interleaving of two people's calls mixes them: logins, MCP sessions, connections, answers, errors, records."""

import asyncio
import json
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from connectors.mcp.http import HttpConnector
from connectors.mcp.pool import Pool
from gateway.adapters.credentials import CredentialBroker, StaticCredential, StaticCredentials
from gateway.adapters.credentials.leases import LeaseParts, Leases
from gateway.core.call import Answer
from gateway.core.catalog import Catalog, Shelf
from gateway.core.desk import Whose
from gateway.core.errors import GatewayError
from gateway.core.mcpwire.eras import Era
from gateway.core.pipeline import handle
from gateway.core.ports import Ports
from gateway.core.redact import Redactor
from gateway.core.tool import EffectClass
from gateway.core.verify import Verifier
from tests.evidence import make_tool
from tests.fakes import World
from tests.fakes.callers import AGENT, FakeIdentity
from tests.fakes.kills import fake_switch
from tests.fakes.leases import SHARED, Mint
from tests.ledgers import Books, open_books
from tests.rawhttp import RawUpstream, Seen, answer, error, running
from tests.tiers import tiered

# Each differs from the first in one thing only.
PRINCIPALS = (
    AGENT,
    replace(AGENT, user="bob", jti="t1"),
    replace(AGENT, agent="clerk", jti="t2"),
    replace(AGENT, issuer="elsewhere", jti="t3"),
)
TOOLS = ("srv.lent", "srv.lasting")
WHO = st.integers(0, len(PRINCIPALS) - 1)
_PATIENCE_S = 30.0


@dataclass(slots=True, eq=False)
class Going:
    """A call on its way.

    Attributes:
        mark: a word that only this call's arguments hold.
        how: what the upstream is to do, once it is let go.
        seen: what the upstream saw of it.
        ended: the answer, or the error.
    """

    who: int
    tool: str
    mark: str
    call_id: str = ""
    how: str = "answer"
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Seen | None = None
    task: "asyncio.Task[None] | None" = None
    ended: Answer | GatewayError | None = None


class Mixing(RuleBasedStateMachine):
    """The real pipeline, broker, connector, redactor and log; the upstream waits until it is told how to answer."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(prefix="ostiary-mixing-")
        self.mint = Mint()
        self.opened, self.closing = asyncio.Event(), asyncio.Event()
        self.calls: list[Going] = []
        self.wrong: list[str] = []
        # By what an upstream can tell callers by: whose it is.
        self.owners: dict[str, int] = {}
        self.counted: Counter[str] = Counter()
        self.world = World(clock=self.mint.clock)
        self.house = self.loop.create_task(self._kept())
        self.loop.run_until_complete(self._opened())

    async def _opened(self) -> None:
        opening = self.loop.create_task(self.opened.wait())
        await asyncio.wait((opening, self.house), return_when=asyncio.FIRST_COMPLETED)
        if not self.opened.is_set():
            self.house.result()  # it could not be opened

    async def _kept(self) -> None:
        # What is opened is closed by the same task.
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self.opened.set()
            await self.closing.wait()

    async def _open(self, stack: AsyncExitStack) -> None:
        redactor = Redactor(self.mint.known)
        self.books: Books = await stack.enter_async_context(
            open_books(Path(self.folder.name), self.mint.clock, clean=redactor.text)
        )
        self.upstream: RawUpstream = await stack.enter_async_context(running(Era.HANDSHAKE, call=self._serve))
        pool = await stack.enter_async_context(Pool())
        connector = await stack.enter_async_context(HttpConnector(self.upstream.url, pool))
        template = replace(SHARED, header="X-Login")
        mint = self.mint
        parts = LeaseParts(mint.vault, mint.lines, mint.known, mint.clock, mint.meter)
        self.leases = await stack.enter_async_context(Leases({template.name: template}, parts))
        lasting = StaticCredentials({"key": StaticCredential(env="KEY")}, mint.known, {"KEY": "a-lasting-key-of-all"})
        self.ports = self._ports(connector, CredentialBroker(lasting, self.leases), redactor)

    def _ports(self, connector: HttpConnector, broker: CredentialBroker, redactor: Redactor) -> Ports:
        tools = [
            make_tool("lent", server="srv", credential=SHARED.name, effect=EffectClass.READ),
            make_tool("lasting", server="srv", credential="key", effect=EffectClass.READ),
        ]
        verifier, catalog = Verifier(), Catalog({"srv": connector})
        verifier.prepare(tools)
        catalog.replace([Shelf(tool, lambda _: []) for tool in tools])
        tokens = {f"token-{who}": principal for who, principal in enumerate(PRINCIPALS)}
        world, books = self.world, self.books
        return Ports(
            clock=self.mint.clock,
            identity=FakeIdentity(world.journal, tokens),
            kills=fake_switch(),
            runs=books.runs,
            catalog=catalog,
            policy=world.policy,
            approvals=world.approvals,
            limits=world.limits,
            broker=broker,
            verifier=verifier,
            redactor=redactor,
            audit=books.log,
            pace=world.pace,
            meter=books.meter,
            settings=world.settings,
        )

    @rule(who=WHO, tool=st.sampled_from(TOOLS))
    def begin(self, who: int, tool: str) -> None:
        """A call comes in, and waits at the upstream."""
        going = Going(who, tool, f"mark-{len(self.calls)}-of-{who}")
        self.calls.append(going)
        self.loop.run_until_complete(self._begin(going))

    @rule(which=st.integers(0, 5), how=st.sampled_from(["answer", "answer", "refusal", "is error", "cut", "leave"]))
    def finish(self, which: int, how: str) -> None:
        """One of those that wait is answered, refused, cut off, or left by its caller."""
        waiting = [going for going in self.calls if going.ended is None and going.task is not None]
        if waiting:
            self.loop.run_until_complete(self._finish(waiting[which % len(waiting)], how))

    @rule(who=WHO, tool=st.sampled_from(TOOLS))
    def pass_through(self, who: int, tool: str) -> None:
        """A call comes in and is answered, while others wait."""
        self.begin(who, tool)
        self.loop.run_until_complete(self._finish(self.calls[-1], "answer"))

    @rule(what=st.sampled_from(["time", "time", "time", "cut", "end"]), who=WHO, seconds=st.floats(0.1, 20))
    def disturb(self, what: str, who: int, seconds: float) -> None:
        """Time passes, an operator ends an agent's credentials, or nothing of a run is kept any more."""
        if what == "time":
            self.mint.clock.advance(seconds)
        elif what == "cut":
            self.loop.run_until_complete(self.leases.revoke(Whose(agent=PRINCIPALS[who].agent)))
        else:
            self.loop.run_until_complete(self._end_run(who))

    async def _end_run(self, who: int) -> None:
        runs = {record["run_id"] for record in self.books.records("run.started")}
        for run in sorted(runs)[who : who + 1]:
            self.leases.run_ended(run)

    @invariant()
    def nothing_is_mixed(self) -> None:
        """Whatever came back so far came back to whom it belongs."""
        assert self.wrong == []

    def teardown(self) -> None:
        """Everything ends, and the log is read."""
        for going in self.calls:
            going.let_go.set()
        tasks = [going.task for going in self.calls if going.task is not None]
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=_PATIENCE_S))
        self.loop.run_until_complete(self._read_the_log())
        self.closing.set()
        self.loop.run_until_complete(self.house)
        assert (self.mint.vault.logins, self.mint.vault.tokens) == ({}, {})
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.folder.cleanup()
        assert self.wrong == []

    async def _begin(self, going: Going) -> None:
        going.task = asyncio.create_task(self._call(going))
        arrived = asyncio.create_task(going.arrived.wait())
        await asyncio.wait({going.task, arrived}, timeout=_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()
        self.wrong += [] if going.seen is not None else [f"{going.mark} did not get there: {going.ended}"]

    async def _finish(self, going: Going, how: str) -> None:
        assert going.task is not None
        going.how = how
        if how == "leave":
            going.task.cancel()
        going.let_go.set()
        await asyncio.wait({going.task}, timeout=_PATIENCE_S)
        self.wrong += [] if going.task.done() else [f"{going.mark} did not end"]

    async def _call(self, going: Going) -> None:
        given = json.dumps({"mark": going.mark}).encode()
        call = self.world.call(going.tool, given, token=f"token-{going.who}")
        going.call_id = call.id
        try:
            going.ended = await handle(call, self.ports)
        except GatewayError as failure:
            going.ended = failure
        self._judge(going, going.ended)

    def _judge(self, going: Going, ended: Answer | GatewayError) -> None:
        said = ended.body.decode() if isinstance(ended, Answer) else f"{ended!r} {ended.detail} {vars(ended)}"
        self.counted["answers" if isinstance(ended, Answer) else "errors"] += 1
        if isinstance(ended, Answer) and going.mark not in said:
            self.wrong.append(f"{going.mark} got no answer of its own: {said}")
        self.wrong += [f"{going.mark} was shown {mark}" for mark in self._foreign(going, said)]

    def _foreign(self, going: Going, text: str) -> list[str]:
        return [other.mark for other in self.calls if other.mark != going.mark and f"{other.mark}." in text]

    async def _serve(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        mark = seen.message["params"]["arguments"]["mark"]
        going = next(one for one in self.calls if one.mark == mark)
        going.seen = seen
        self._note_owner(going, seen)
        going.arrived.set()
        await going.let_go.wait()
        login, session = seen.headers.get("x-login"), seen.headers.get("mcp-session-id")
        words = f"{mark}. {login} {session} {self._all_marks_of(going.who)}"
        if going.how == "cut":
            writer.close()
            return
        result = {"content": [{"type": "text", "text": words}], "isError": going.how == "is error"}
        refusal = {"code": -32000, "message": words}
        refused = going.how == "refusal"
        writer.write(error(seen, -32000, error=refusal) if refused else answer(seen, result))
        await writer.drain()

    def _all_marks_of(self, who: int) -> str:
        return f"of {PRINCIPALS[who].key}"

    def _note_owner(self, going: Going, seen: Seen) -> None:
        for name in ("x-login", "mcp-session-id"):
            if (value := seen.headers.get(name)) is not None:
                owner = self.owners.setdefault(f"{name} {value}", going.who)
                self.wrong += [f"{name} of {owner} in a call of {going.who}"] if owner != going.who else []
                self.counted[f"reused {name}"] += sum(
                    other is not going and other.seen is not None and other.seen.headers.get(name) == value
                    for other in self.calls
                )

    async def _read_the_log(self) -> None:
        faces: dict[int, set[tuple[Any, ...]]] = {}
        for going in self.calls:
            records = [record for record in self.books.records() if record["call_id"] == going.call_id]
            for record in records:
                faces.setdefault(going.who, set()).add((json.dumps(record["actor"], sort_keys=True), record["run_id"]))
            for role in ("arguments", "result", "error"):
                sealed = json.dumps(await self.books.reader.payload(going.call_id, role))
                self.wrong += [f"the {role} of {going.mark} have {mark}" for mark in self._foreign(going, sealed)]
        for who, mine in faces.items():
            others = {face for other, theirs in faces.items() if other != who for face in theirs}
            self.wrong += [f"records of {who} look like another's: {mine & others}"] if mine & others else []


@pytest.mark.parametrize("lives", tiered([8], deep=[50]))
def test_no_interleaving_mixes_two_principals(lives: int) -> None:
    """Issuer, user, agent: whatever differs, login, session, answer, error and record do; nothing is left."""
    counted: Counter[str] = Counter()

    class Counted(Mixing):
        def teardown(self) -> None:
            counted.update(self.counted)
            super().teardown()

    run_state_machine_as_test(Counted, settings=settings(max_examples=lives, stateful_step_count=30, deadline=None))
    # Where nothing was shared and nothing failed, nothing was tried.
    assert min(counted[name] for name in ("answers", "errors", "reused x-login", "reused mcp-session-id")) > 0, counted

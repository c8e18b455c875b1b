"""The signed log keeps its word: intents before effects, one ending for each, nothing free in a leaf."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from gateway.adapters.ledger.books.changes import ChangeLog
from gateway.adapters.ledger.storage.files import DATABASE, GUARD
from gateway.adapters.ledger.storage.site import Site
from gateway.core.call import Call, Channel, Intent, Live
from gateway.core.decision import Effect, Phase
from gateway.core.errors import (
    BudgetExhausted,
    Denied,
    GatewayError,
    MalformedRequest,
    NotFound,
    NotSent,
    OutcomeUnknown,
    Reason,
    Tainted,
    Throttled,
    ToolFailed,
)
from gateway.core.inquiry import Query
from gateway.core.tool import EffectClass, Tool
from tests.clock import StepClock
from tests.evidence import make_call, make_decision, make_principal, make_tool
from tests.ledgers import Books, Walk, asked, content, open_books

ENDINGS = {"tool.completed", "tool.failed", "tool.not_sent", "tool.outcome_unknown"}
WRITE = make_tool("pay", effect=EffectClass.WRITE)


@pytest.fixture
async def books(site: Site) -> AsyncIterator[Books]:
    """An open ledger of its own."""
    async with open_books(site) as opened:
        yield opened


async def fails(walk: Walk, error: type[BaseException]) -> list[str]:
    """Make a call that must end in ``error``; returns the types of its records."""
    call = walk.call()
    with pytest.raises(error):
        await walk.go(call)
    assert walk.books.verify().ok
    return [kind for kind in walk.books.types(call.id) if kind != "run.started"]


async def test_an_allowed_call_is_written_ahead(books: Books) -> None:
    """Decision and intent are on disk when the call leaves; the completion is when the answer is made."""
    seen: list[str] = []

    async def act(intent: Intent) -> None:
        seen.extend(books.types(intent.call.id))

    answer = await Walk(books, act=act, counts={"key.password": 2}).go()
    assert seen == ["run.started", "decision", "tool.requested"]
    assert books.types(answer.call_id) == [*seen, "redaction", "tool.completed"]
    assert (answer.redactions, answer.is_error) == (2, False)
    assert books.meter.calls == [("up.echo", "completed")]
    assert books.verify().ok


class _Ticks(StepClock):
    """A clock that is later each time it is asked."""

    def now_us(self) -> int:
        """A microsecond later than before."""
        self.us += 1
        return self.us


async def test_an_intent_is_of_the_moment_of_its_decision(tmp_path: Path) -> None:
    """As it is the decision that makes it one; the ending comes after both."""
    async with open_books(tmp_path, _Ticks()) as books:
        await Walk(books).go()
        kinds = ("run.started", "decision", "tool.requested", "tool.completed")
        times = [books.records(kind)[0]["ts"] for kind in kinds]
    assert times == sorted(times)
    assert len(set(times)) == 3
    assert times[1] == times[2]


async def test_the_first_record_is_the_logs_key(books: Books) -> None:
    """A new log begins with its public key."""
    first = books.records()[0]
    assert (first["type"], first["body"]["algorithm"]) == ("key", "ed25519")


async def test_callers_at_the_same_time_share_a_transaction(books: Books) -> None:
    """Many concurrent calls need far fewer checkpoints than records, and all are answered."""
    await Walk(books).go()
    before = len(books.records())
    await asyncio.gather(*(Walk(books).go() for _ in range(40)))
    assert len(books.records()) == before + 120
    assert books.verify().ok


async def test_a_denied_call_is_one_record(books: Books) -> None:
    """Denied by policy: one decision with its reasons, no intent."""
    walk = Walk(books, decision=make_decision(Effect.DENY))
    assert await fails(walk, Denied) == ["decision"]
    body = books.records("decision")[0]["body"]
    assert (body["effect"], body["reasons"], body["tool"], body["phase"]) == ("deny", ["test.deny"], "up.echo", "call")
    assert books.meter.calls == [("up.echo", "denied")]


async def test_a_hidden_tool_is_one_record_of_the_listing(books: Books) -> None:
    """The record says which question the decision answers."""
    walk = Walk(books, decision=make_decision(Effect.DENY, phase=Phase.LIST))
    assert await fails(walk, Denied) == ["decision"]
    assert books.records("decision")[0]["body"]["phase"] == "list"


async def test_bad_arguments_are_one_refusal(books: Books) -> None:
    """Policy only let the caller see the tool, so no decision about the call is recorded; tool and request are."""
    walk = Walk(books, fault=MalformedRequest("no"))
    assert await fails(walk, MalformedRequest) == ["request.refused"]
    refused = books.records("request.refused")[0]
    assert (refused["body"]["code"], refused["body"]["tool"]) == ("malformed_request", "up.echo")
    assert [payload["role"] for payload in refused["payloads"]] == ["error", "request"]


@pytest.mark.parametrize("refusal", [Throttled("slow down", retry_after=1), BudgetExhausted("used up")])
async def test_a_limit_is_recorded_with_its_decision(books: Books, refusal: GatewayError) -> None:
    """Allowed but over a limit: decision and refusal, the reservation is given back."""
    walk = Walk(books, refusal=refusal)
    assert await fails(walk, type(refusal)) == ["decision", "request.refused"]
    assert books.records("request.refused")[0]["body"]["code"] == refusal.code
    caller = await books.runs.enter(walk.call(), walk.principal)
    async with books.runs.section(caller) as section:
        assert section.usage.calls["up.echo"] == 0


async def test_a_request_that_is_no_call_is_one_refusal(books: Books) -> None:
    """Malformed bytes of an authenticated caller, or a run that does not exist: one record."""
    call = make_call(id=books.clock.uuid())
    with pytest.raises(MalformedRequest):
        async with books.log.open(call, make_principal()):
            raise MalformedRequest("not JSON", cause_code="json")
    assert await fails(Walk(books, more={"run": "no-such-run"}), NotFound) == ["request.refused"]
    refused = books.records("request.refused")
    assert [(r["body"]["code"], r["body"]["cause"]) for r in refused] == [
        ("malformed_request", "json"),
        ("not_found", "not_found"),
    ]
    assert all(record["run_id"] is None for record in refused)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ToolFailed("it said no"), "tool.failed"),
        (NotSent("not reached"), "tool.not_sent"),
        (OutcomeUnknown("lost"), "tool.outcome_unknown"),
        (Tainted("bad shape"), "tool.failed"),
    ],
)
async def test_every_error_after_the_intent_has_its_ending(books: Books, error: GatewayError, kind: str) -> None:
    """The error class says how the intent ended; the caller gets that very error."""

    async def act(intent: Intent) -> None:
        raise error

    assert await fails(Walk(books, act=act), type(error)) == ["decision", "tool.requested", kind]


async def test_a_foreign_error_after_the_intent_is_an_unknown_outcome(books: Books) -> None:
    """Whatever a connector's bug raises, the caller hears that an effect may have happened."""

    async def act(intent: Intent) -> None:
        raise ZeroDivisionError

    kinds = await fails(Walk(books, act=act), OutcomeUnknown)
    assert kinds == ["decision", "tool.requested", "tool.outcome_unknown"]


async def test_a_foreign_error_before_the_intent_is_a_refusal(books: Books) -> None:
    """A bug before anything was executed: the bug is raised, a refusal is recorded."""
    call = make_call(id=books.clock.uuid())
    with pytest.raises(ZeroDivisionError):
        async with books.log.open(call, make_principal()):
            raise ZeroDivisionError
    assert books.records("request.refused")[0]["body"]["code"] == "internal"


async def test_a_bracket_left_early_is_no_silent_success(books: Books) -> None:
    """Leaving without completing is recorded as a refusal, as nothing was executed."""
    async with books.log.open(make_call(id=books.clock.uuid()), make_principal()):
        pass
    assert books.types() == ["key", "request.refused"]


@pytest.mark.parametrize(("tool", "kind"), [(make_tool(), "tool.failed"), (WRITE, "tool.outcome_unknown")])
async def test_a_cancelled_call_ends_by_its_effect(books: Books, tool: Tool, kind: str) -> None:
    """A cancelled read failed; of a cancelled write nobody knows."""
    out = anyio.Event()

    async def act(intent: Intent) -> None:
        out.set()
        await anyio.sleep_forever()

    walk = Walk(books, tool=tool, act=act)
    call = walk.call()
    async with anyio.create_task_group() as group:
        group.start_soon(walk.go, call)
        await out.wait()
        group.cancel_scope.cancel()
    assert books.types(call.id)[1:] == ["decision", "tool.requested", kind]
    assert books.records(kind)[0]["body"]["cause"] == "cancelled"


@pytest.mark.parametrize("native", [True, False])
async def test_a_cancellation_at_any_step_leaves_one_ending(books: Books, *, native: bool) -> None:
    """Cancelled after any number of loop turns, natively or by a scope: each intent has its ending."""
    calls = []
    for turns in range(60):
        walk = Walk(books, tool=WRITE, act=lambda _: anyio.sleep(0.0005), more={"session": "s"})
        calls.append(walk.call())
        task, scope = start(walk, calls[-1], native=native)
        for _ in range(turns):
            await asyncio.sleep(0)
        cancel: Callable[[], object] = task.cancel if native else scope.cancel
        cancel()
        with pytest.raises(asyncio.CancelledError) if native and not task.done() else anyio.CancelScope():
            await task
    report = books.verify()
    assert report.ok
    assert not report.open_calls
    recorded = {call.id: set(books.types(call.id)) for call in calls}
    assert all(("tool.requested" in kinds) == bool(kinds & ENDINGS) for kinds in recorded.values())
    caller = await books.runs.enter(make_call(session="s"), make_principal())
    async with books.runs.section(caller) as section:
        requested = [kinds for kinds in recorded.values() if "tool.requested" in kinds]
        assert section.usage.calls["up.pay"] == len(requested)


def start(walk: Walk, call: Call, *, native: bool) -> tuple[asyncio.Task[None], anyio.CancelScope]:
    """Start a walk as a task, inside a scope of its own."""
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await walk.go(call)

    return asyncio.create_task(run()), scope


SECRETS = ("hunter2", "launch the rockets", "caller-words", "up.invented", "alice", "upstream-words", "rule-words")


async def test_nothing_free_stands_in_a_leaf(books: Books) -> None:
    """Arguments, names, messages, upstream errors, unknown tools: in no leaf, and readable in no byte of the files."""

    async def act(intent: Intent) -> None:
        raise ToolFailed("detail") from RuntimeError("upstream-words")

    reasons = (Reason("deny.rule", "p", "rule-words"), Reason("launch the rockets", "p", "m"))
    arguments = {"password": "hunter2", "note": "launch the rockets"}
    more = {"client": {"name": "caller-words"}, "session": "caller-words"}
    for walk in (
        Walk(books, arguments=arguments, more=more, value={"content": ["hunter2"]}),
        Walk(books, arguments=arguments, more=more, decision=make_decision(Effect.DENY, reasons=reasons)),
        Walk(books, arguments=arguments, more=more, act=act),
        Walk(books, tool=make_tool("invented", listed=False), refusal=NotFound("launch the rockets")),
    ):
        try:
            await walk.go()
        except GatewayError:
            continue
    leaves = msgspec.json.encode(books.records()).decode()
    assert not [secret for secret in SECRETS if secret in leaves]
    stored = b"".join(path.read_bytes() for path in books.folder.glob("log.*"))
    assert not [secret for secret in SECRETS if secret.encode() in stored]


async def test_payloads_open_for_who_has_the_key(books: Books) -> None:
    """Request, reasons, result and error come back as they were."""
    answer = await Walk(books, arguments={"q": "hunter2"}, value={"content": ["x"]}).go()
    request = await books.reader.payload(answer.call_id, "request")
    assert (request["tool"], request["arguments"]) == ("up.echo", {"q": "hunter2"})
    reasons = await books.reader.payload(answer.call_id, "reasons")
    assert reasons["reasons"][0]["msg"] == "because the test says so"
    assert await books.reader.payload(answer.call_id, "result") == {"content": ["x"]}
    assert await books.reader.payload(answer.call_id, "error") is None
    assert await books.reader.payload("no-such-call", "request") is None


async def test_a_refused_call_keeps_at_most_16_kib(books: Books) -> None:
    """A denied call with large arguments and endless reasons does not fill the disk."""
    reasons = tuple(Reason(f"r{n}", "p", "\u00fc" * 2000) for n in range(100))
    decision = make_decision(Effect.DENY, reasons=reasons)
    more = {"client": {f"k{n}": "v" * 5000 for n in range(50)}}
    walk = Walk(books, arguments={"a": "\\\u0001\u00e9" * 300_000}, decision=decision, more=more)
    assert await fails(walk, Denied) == ["decision"]
    refs = books.records("decision")[0]["payloads"]
    assert sum(ref["len"] for ref in refs) <= 16 * 1024
    assert {ref["role"] for ref in refs} == {"reasons", "request"}


@pytest.mark.requirement("AUDIT-2")
async def test_records_are_found_by_what_they_say(books: Books) -> None:
    """Search by type, tool (with wildcard), effect, agent, call, time and cursor, in log order."""
    first = await Walk(books).go()
    await fails(Walk(books, tool=WRITE, decision=make_decision(Effect.DENY)), Denied)

    async def found(**fields: Any) -> list[str]:
        return [r.body["type"] for r in await books.reader.search(Query(**fields))]

    assert await found(effect="deny") == ["decision"]
    assert await found(tool="up.pay") == ["decision"]
    assert await found(tool="up.*") == ["decision", "tool.requested", "tool.completed", "decision"]
    assert await found(tool="u[p].*") == []
    assert await found(call_id=first.call_id, type="tool.completed") == ["tool.completed"]
    assert await found(agent="test-agent", limit=2) == ["run.started", "decision"]
    assert await found(after=4) == ["decision"]
    assert await found(since_us=books.clock.now_us() + 1) == []
    assert len(await found(until_us=books.clock.now_us(), run_id=first.run_id)) == 5


async def test_the_checkpoint_covers_all_records(books: Books) -> None:
    """The newest checkpoint is a signed note over the number of records."""
    await Walk(books).go()
    note = await books.tree.checkpoint()
    assert note.splitlines()[:2] == ["gateway.test/log", str(len(books.records()))]


async def test_a_call_with_odd_text_is_still_recorded(books: Books) -> None:
    """A lone surrogate in what the caller sends does not stop the record."""
    call = make_call("x\ud800", id=books.clock.uuid(), channel=Channel.REST, origin=Live("t"), client={"n": "\udfff"})
    with pytest.raises(MalformedRequest):
        async with books.log.open(call, make_principal(agent="\ud800")):
            raise MalformedRequest("\ud800")
    assert books.types() == ["key", "request.refused"]
    kept = [path for path in books.folder.iterdir() if path.name in {DATABASE, GUARD}]
    assert kept
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


async def test_what_administrators_change_is_recorded(books: Books) -> None:
    """The action stands in the leaf, its details are sealed, and the user is a pseudonym."""
    changes = ChangeLog(books.ledger, books.keys, books.clock)
    await changes.record(make_principal(user="root"), "token.issued", {"user": "zoe of the accounts"})
    (record,) = books.records("admin.change")
    assert record["body"] == {"action": "token.issued"}
    assert [ref["role"] for ref in record["payloads"]] == ["change"]
    stored = [value for row in asked(books.site, "select leaf, sealed from records, payloads") for value in row]
    assert b"zoe of the accounts" not in b"".join([*stored, content(books.folder)])
    assert books.verify().ok


async def test_an_ending_is_not_lost_to_a_cancellation(tmp_path: Path) -> None:
    """Cancelled while the end is being written, and writing fails: the end is written once writing works again."""
    async with open_books(tmp_path) as books:
        await _cancelled_while_it_ends(books)


async def _cancelled_while_it_ends(books: Books) -> None:
    store = books.ledger._store

    async def act(intent: Intent) -> None:
        task = asyncio.current_task()
        assert task is not None
        assert store._db is not None
        store._db.execute("pragma query_only = 1")
        asyncio.get_running_loop().call_soon(task.cancel)
        raise ToolFailed("no")

    walk = Walk(books, act=act)
    call = walk.call()
    task = asyncio.create_task(walk.go(call))
    with pytest.raises(asyncio.CancelledError):
        await task
    # What is owed is handed over at once, and the writer may have got round to it.
    assert books.types(call.id)[-1] in {"tool.requested", "tool.failed"}
    await books.log.ping()
    assert books.types(call.id)[-1] == "tool.failed"
    report = books.verify()
    assert report.ok, report.findings
    assert not report.open_calls

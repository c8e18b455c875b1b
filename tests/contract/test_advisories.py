"""Advice to agents in the real log: a record of its own type that no reader takes for a call."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.core.advice import Advice, Word
from gateway.core.call import Call, Quota, Redacted, Reported, Resolved
from gateway.core.decision import Decision, Effect
from gateway.core.errors import Denied, GatewayError, InvalidArguments, NotFound, Unavailable
from gateway.core.inquiry import Query
from gateway.core.records import ENDINGS, EventType
from gateway.core.tool import ConnectorKind, EffectClass, Tool
from gateway.core.usage import Usage
from tests.clock import StepClock
from tests.evidence import make_call, make_decision, make_intent, make_permit, make_principal, make_tool
from tests.ledgers import Books, Walk, open_books

ARGUMENTS = {"command": "rm -rf build"}
SHELL = make_tool("hooks/Bash", server="coder", connector=ConnectorKind.HOOK, effect=EffectClass.DESTRUCTIVE)


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    """An open ledger."""
    async with open_books(tmp_path, StepClock()) as found:
        yield found


@dataclass(slots=True)
class Question:
    """One question on its way through the ledger, as ``pipeline.advise`` leads it."""

    books: Books
    tool: Tool = SHELL
    decision: Decision = field(default_factory=make_decision)
    refusal: GatewayError | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def call(self) -> Call:
        """A new question."""
        fields = {"id": self.books.clock.uuid(), "at_us": self.books.clock.now_us()} | self.more
        return make_call(self.tool.fqn, ARGUMENTS, **fields)

    async def ask(self, call: Call, word: Word = Word.ALLOW) -> Advice:
        """Ask it."""
        principal = make_principal()
        async with self.books.log.consult(call, principal) as entry:
            caller = entry.entered(await self.books.runs.enter(call, principal))
            entry.decided(Resolved(caller, self.tool, None), self.decision)
            if self.refusal is not None:
                raise self.refusal
            return await entry.advise(word)


async def test_advice_is_one_record_of_its_own_and_no_call(books: Books) -> None:
    """No intent, no ending, no requested tool; what was asked is sealed beside it, and the log verifies."""
    question = Question(books)
    call = question.call()
    advice = await question.ask(call)
    assert (advice.call_id, advice.word) == (call.id, Word.ALLOW)
    [record] = [one for one in books.records() if one["call_id"] == call.id and one["type"] != "run.started"]
    assert (record["type"], record["body"]["answer"], record["body"]["effect"]) == (
        "decision.advisory",
        "allow",
        "allow",
    )
    assert record["body"]["tool"] == "coder.hooks/Bash"
    assert {one["role"] for one in record["payloads"]} == {"reasons", "request"}
    payload = await books.reader.payload(call.id, "request")
    assert payload["arguments"] == ARGUMENTS
    assert not {str(kind) for kind in ENDINGS | {EventType.TOOL_REQUESTED}} & set(books.types())
    assert books.verify().ok
    assert books.meter.calls == [("coder.hooks/Bash", "advised")]


async def test_advice_cannot_be_cited_as_evidence(books: Books) -> None:
    """A call that names it as what supports it is told to policy as one with no such support."""
    question = Question(books)
    call = question.call()
    await question.ask(call)
    done = await Walk(books).go()
    named = Reported(evidence=(call.id, done.call_id))
    caller = await books.runs.enter(Walk(books, more={"reported": named}).call(), make_principal())
    assert [proof.call_id for proof in caller.proofs] == [done.call_id]


async def test_advice_counts_for_nothing_in_the_runs_ledger(tmp_path: Path) -> None:
    """Also after a restart, when the ledger is read from the log again; searching decisions finds calls' only."""
    seen: list[Usage] = []

    async def rule(usage: Usage) -> Decision:
        seen.append(usage)
        return make_decision()

    async with open_books(tmp_path, StepClock()) as books:
        for _ in range(3):
            await Question(books).ask(Question(books).call())
        await Walk(books, rule=rule).go()
    async with open_books(tmp_path, StepClock()) as books:
        await Walk(books, rule=rule).go()
        assert ["coder.hooks/Bash" in usage.calls for usage in seen] == [False, False]
        assert len(await books.reader.decisions(Query())) == 2
        assert len(await books.reader.search(Query(type="decision.advisory"))) == 3


@pytest.mark.parametrize(
    ("decision", "refusal", "types", "code"),
    [
        (make_decision(effect=Effect.DENY), Denied("no"), ["decision.advisory"], "denied"),
        (
            make_decision(),
            Denied("unbound", cause_code="unbound"),
            ["decision.advisory", "request.refused"],
            "denied",
        ),
        (make_decision(), InvalidArguments("no"), ["decision.advisory", "request.refused"], "invalid_arguments"),
    ],
)
async def test_a_no_is_recorded_as_a_no(
    books: Books, decision: Decision, refusal: GatewayError, types: list[str], code: str
) -> None:
    """Whoever said it: policy in its own record, anything else in a refusal beside it."""
    question = Question(books, decision=decision, refusal=refusal)
    call = question.call()
    with pytest.raises(type(refusal)):
        await question.ask(call)
    records = [one for one in books.records() if one["call_id"] == call.id and one["type"] != "run.started"]
    assert [one["type"] for one in records] == types
    assert (records[0]["body"]["answer"], records[-1]["body"]["code"]) == ("deny", code)
    assert books.verify().ok


async def test_a_question_can_neither_intend_nor_complete(books: Books) -> None:
    """Also with a permit and a result in hand: there is no way from advice to an effect."""
    call = Question(books).call()
    intent = make_intent()
    with pytest.raises(Unavailable, match="no call"):
        async with books.log.consult(call, make_principal()) as entry:
            await entry.commit(Quota(make_permit()))
    with pytest.raises(Unavailable, match="no call"):
        async with books.log.consult(Question(books).call(), make_principal()) as entry:
            await entry.complete(Redacted(intent, b"{}", {}, {}))
    with pytest.raises(Unavailable, match="nothing was decided"):
        async with books.log.consult(Question(books).call(), make_principal()) as entry:
            await entry.advise(Word.ALLOW)
    assert set(books.types()) == {"key", "request.refused"}


async def test_an_unknown_run_leaves_a_refusal(books: Books) -> None:
    """As for a call."""
    question = Question(books, more={"run": "018f0000-0000-7000-8000-00000000dead"})
    call = question.call()
    with pytest.raises(NotFound):
        await question.ask(call)
    assert books.types(call.id) == ["request.refused"]


async def test_what_cannot_be_written_is_not_answered(tmp_path: Path) -> None:
    """A disk below its reserve: the agent gets no yes."""
    async with open_books(tmp_path, StepClock()) as books:
        await Question(books).ask(Question(books).call())
    async with open_books(tmp_path, StepClock(), reserve_bytes=2**62) as books:
        with pytest.raises(Unavailable):
            await Question(books).ask(Question(books).call())
        assert books.verify().ok

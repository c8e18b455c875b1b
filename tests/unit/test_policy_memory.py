"""What the engine remembers: answers, by every fact that can matter to them, and no more than there is room for."""

import json
from typing import Any

import pytest

from gateway.adapters.rego.frames import Verdict
from gateway.adapters.rego.memory import Memory
from gateway.adapters.rego.routing import NOWHERE, Routes, routes

EMPTY: dict[str, Any] = {"allow": {}, "deny": {}, "hint": {}, "oblige": {}, "require": {}}
SAID = {"demo": [{"id": "demo.said", "msg": "said"}]}


def verdict(**parts: Any) -> Verdict:
    """What an engine says; ``parts`` replaces sets."""
    return Verdict(json.dumps(EMPTY | parts).encode(), None)


ALLOWED = verdict(allow=SAID)
EVERYWHERE: Routes = routes([], plain=True)


def tool(fqn: str, digest: str = "d") -> dict[str, str]:
    """A tool's facts; one that does not exist has no digest."""
    return {"fqn": fqn, "digest": digest}


def document(us: int = 1, phase: str = "list", **more: Any) -> bytes:
    """A canonical input document."""
    time = {"rfc3339": "2026-07-28T00:00:00.000000Z", "us": us}
    facts = {"phase": phase, "run": {"id": "r"}, "time": time, "tool": tool("a.b")}
    return json.dumps(facts | more, sort_keys=True, separators=(",", ":")).encode()


def kept(memory: Memory, asked: bytes, said: Verdict = ALLOWED) -> None:
    """Ask and keep."""
    memory.keep(memory.key(asked), said)


def known(memory: Memory, asked: bytes) -> Verdict | None:
    """What is remembered of a document."""
    return memory.recall(memory.key(asked))


def test_the_same_question_at_another_time() -> None:
    """Time alone makes no other question."""
    memory = Memory(EVERYWHERE)
    kept(memory, document(us=1))
    assert known(memory, document(us=2)) is ALLOWED


def test_a_question_that_is_asked_again_at_once_has_the_same_key() -> None:
    """Whether it is the same object or an equal one; another one in between changes nothing."""
    memory, asked = Memory(EVERYWHERE), document()
    keys = [memory.key(each) for each in (asked, asked, document(tool=tool("a.c")), document(), b"", b"")]
    assert keys[0] == keys[1] == keys[3] != keys[2]
    assert keys[4:] == [None, None]


@pytest.mark.parametrize("other", [{"tool": tool("a.c")}, {"run": {"id": "s"}}, {"agent": {"id": "x"}}])
def test_any_other_fact_is_another_question(other: dict[str, Any]) -> None:
    """Whatever else differs is asked anew."""
    memory = Memory(EVERYWHERE)
    kept(memory, document())
    assert known(memory, document(**other)) is None


CALL: dict[str, Any] = {
    "phase": "call",
    "args": {"n": 1},
    "args_digest": "d1",
    "run": {"id": "r", "calls": {}, "sums": {}},
}
LATER: dict[str, Any] = {
    "args": {"n": 2},
    "args_digest": "d2",
    "run": {"id": "r", "calls": {"a.b": 3}, "sums": {"a.b": {"eur": 5}}},
}


def test_another_call_of_the_same_tool() -> None:
    """Arguments, signatures, what is left and what the run has done may differ; a refusal is kept, too."""
    memory = Memory(EVERYWHERE)
    refused = verdict(deny=SAID)
    kept(memory, document(**CALL), refused)
    assert known(memory, document(us=2, **CALL | LATER, approvals=[{"by": "x"}], budget={"run": 1})) is refused
    assert known(memory, document()) is None


@pytest.mark.parametrize(
    "other",
    [
        {"run": {"id": "s"}},
        {"run": {"id": "r", "kind": "opened"}},
        {"run": {"id": "r", "goal": {"sha256": "0"}}},
        {"context": {"channel": "rest"}},
        {"principal": {"kind": "person"}},
        {"on_behalf_of": {"id": "y"}},
        {"agent": {"id": "y"}},
        {"tool": tool("a.b", "e")},
    ],
)
def test_a_call_with_any_other_fact(other: dict[str, Any]) -> None:
    """Whoever calls what, on whose behalf and in which run, must be the same."""
    memory = Memory(EVERYWHERE)
    kept(memory, document(**CALL))
    assert known(memory, document(**CALL | other)) is None


def test_facts_do_not_run_into_each_other() -> None:
    """What one member lacks another cannot stand in for."""
    memory = Memory(EVERYWHERE)
    kept(memory, document(**CALL, agent={"id": "x"}))
    assert known(memory, document(**CALL, on_behalf_of={"id": "x"})) is None


def test_what_a_bundle_that_reads_time_says_is_not_kept() -> None:
    """The clock may change its answer."""
    memory = Memory(NOWHERE)
    kept(memory, document())
    assert known(memory, document()) is None


@pytest.mark.parametrize(
    "asked",
    [
        document(tool=tool("a.b", "")),
        document(phase="result"),
        document(phase="call", tool=tool("a.b", "")),
        document(session={"labels": []}),
        document(run={"id": "r", "step": 3}),
        b"",
        b"{}",
        b'{"phase":"list"}',
        b"\xff",
        document(agent={"id": "x" * 5000}),
    ],
)
def test_documents_that_are_not_kept(asked: bytes) -> None:
    """Names of no tool, what is no document, what is too long and what has members nobody knows are evaluated anew."""
    memory = Memory(EVERYWHERE)
    key = memory.key(asked)
    assert key is None or not key.is_tool
    kept(memory, asked)
    assert known(memory, asked) is None
    assert memory.shared(key) == b""


@pytest.mark.parametrize(
    "said",
    [
        verdict(),
        verdict(allow=SAID, deny=SAID),
        verdict(allow=SAID, require=SAID),
        verdict(allow={"demo": [{"id": "demo.said", "msg": "x" * 1999} for _ in range(3)]}),
        Verdict(b"{}", None),
        Verdict(None, None),
        Verdict(None, "engine.timeout"),
        Verdict(ALLOWED.result, "engine.error"),
    ],
)
def test_answers_that_are_not_kept(said: Verdict) -> None:
    """A hidden tool is asked about each time, a fault may pass, and a memory of long answers would grow."""
    memory = Memory(EVERYWHERE)
    kept(memory, document(), said)
    assert known(memory, document()) is None


def test_the_answer_used_longest_ago_goes_first() -> None:
    """Whoever asks about names that do not exist pushes out no more than there is room for."""
    memory = Memory(EVERYWHERE, most=3)
    for name in "abc":
        kept(memory, document(tool=tool(name)))
    assert known(memory, document(tool=tool("a"))) is ALLOWED
    kept(memory, document(tool=tool("d")))
    found = [known(memory, document(tool=tool(name))) is not None for name in "abcd"]
    assert found == [True, False, True, True]


def both(memory: Memory, called: Verdict = ALLOWED) -> None:
    """Ask about listing and a call, and keep the answers."""
    kept(memory, document(us=1))
    kept(memory, document(us=1, **CALL), called)


def told(memory: Memory, us: int = 0) -> bytes | None:
    """What is known of any call, once it is known."""
    said = memory.known(document(us=us))
    assert said is not None
    assert (said.faults, said.revision, said.engine) == ((None,), "r1", "e1")
    return said.results[0]


@pytest.mark.parametrize("called", [ALLOWED, verdict(deny=SAID), verdict(allow=SAID, require=SAID)])
def test_what_is_known_of_any_call_is_the_answer_to_one(called: Verdict) -> None:
    """Whichever it is; told each time it is asked for."""
    memory = Memory(EVERYWHERE, "r1", "e1")
    both(memory, called)
    assert [told(memory) for _ in range(3)] == [called.result] * 3


@pytest.mark.parametrize(
    "other",
    [
        {"tool": tool("a.c")},
        {"tool": tool("a.b", "e")},
        {"run": {"id": "s"}},
        {"agent": {"id": "x"}},
        {"context": {"channel": "rest"}},
        {"session": {}},
    ],
)
def test_of_others_nothing_is_known(other: dict[str, Any]) -> None:
    """Another caller, run, tool or surface, and whatever is no listing question of the kind."""
    memory = Memory(EVERYWHERE, "r1", "e1")
    both(memory)
    assert memory.known(document(us=0, **other)) is None
    assert told(memory) == ALLOWED.result


def test_of_a_hidden_tool_nothing_is_known() -> None:
    """Also where an answer to a call of it was kept: whether it may be known of comes first."""
    memory = Memory(EVERYWHERE, "r1", "e1")
    kept(memory, document(), verdict(deny=SAID))
    kept(memory, document(**CALL))
    assert memory.known(document(us=0)) is None
    assert known(memory, document(**CALL)) is ALLOWED


def test_where_only_the_listing_is_remembered_nothing_is_known() -> None:
    """A call has to be asked about."""
    memory = Memory(EVERYWHERE, "r1", "e1")
    kept(memory, document())
    assert memory.known(document(us=0)) is None


def test_no_more_is_known_than_there_is_room_for() -> None:
    """What was pushed out before it was asked for is not known; the rest is bounded as the answers are."""
    memory = Memory(EVERYWHERE, "r1", "e1", most=2)
    both(memory)
    kept(memory, document(tool=tool("a.c")))
    assert memory.known(document(us=0)) is None
    for number in range(9):
        both(memory)
        assert told(memory, number) == ALLOWED.result
    assert len(memory._known) <= 2

"""What the engine remembers: that a tool may be known of, by everything that can matter, and no more than has room."""

import json
from typing import Any

import pytest

from gateway.adapters.rego.frames import Verdict
from gateway.adapters.rego.memory import Memory

EMPTY: dict[str, Any] = {"allow": {}, "deny": {}, "hint": {}, "oblige": {}, "require": {}}
SAID = {"demo": [{"id": "demo.said", "msg": "said"}]}


def verdict(**parts: Any) -> Verdict:
    """What an engine says; ``parts`` replaces sets."""
    return Verdict(json.dumps(EMPTY | parts).encode(), None)


ALLOWED = verdict(allow=SAID)


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
    memory = Memory(timeless=True)
    kept(memory, document(us=1))
    assert known(memory, document(us=2)) is ALLOWED


@pytest.mark.parametrize("other", [{"tool": tool("a.c")}, {"run": {"id": "s"}}, {"agent": {"id": "x"}}])
def test_any_other_fact_is_another_question(other: dict[str, Any]) -> None:
    """Whatever else differs is asked anew."""
    memory = Memory(timeless=True)
    kept(memory, document())
    assert known(memory, document(**other)) is None


def test_what_a_bundle_that_reads_time_says_is_not_kept() -> None:
    """The clock may change its answer."""
    memory = Memory(timeless=False)
    kept(memory, document())
    assert known(memory, document()) is None


@pytest.mark.parametrize(
    "asked",
    [
        document(tool=tool("a.b", "")),
        document(phase="call"),
        document(phase="call", args={"phase": "list", "time": {"us": 1}}),
        b"",
        b"{}",
        b'{"phase":"list"}',
        b"\xff",
        document(more="x" * 5000),
    ],
)
def test_documents_that_are_not_kept(asked: bytes) -> None:
    """Calls, names of no tool, what is no document and what is too long are evaluated each time."""
    memory = Memory(timeless=True)
    assert memory.key(asked) is None
    kept(memory, asked)
    assert known(memory, asked) is None


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
    memory = Memory(timeless=True)
    kept(memory, document(), said)
    assert known(memory, document()) is None


def test_the_answer_used_longest_ago_goes_first() -> None:
    """Whoever asks about names that do not exist pushes out no more than there is room for."""
    memory = Memory(timeless=True, most=3)
    for name in "abc":
        kept(memory, document(tool=tool(name)))
    assert known(memory, document(tool=tool("a"))) is ALLOWED
    kept(memory, document(tool=tool("d")))
    found = [known(memory, document(tool=tool(name))) is not None for name in "abcd"]
    assert found == [True, False, True, True]

"""Recorded decisions as events: what was sealed beside them, and what is left once its key was destroyed."""

import hashlib
from typing import Any

import msgspec
import pytest

from gateway.core.canonical import encode
from gateway.core.decision_log import event
from gateway.core.desk import LogRecord, Recorded
from gateway.core.policy_input import with_arguments, without_arguments

BODY: dict[str, Any] = {
    "decision_id": "d-1",
    "effect": "deny",
    "enforced": True,
    "engine": "regorus/1",
    "phase": "call",
    "reasons": ["desk.no"],
    "requirements": ["desk.two"],
    "revision": "ab",
    "took_us": 70,
    "tool": "erp.find",
}
RECORD = LogRecord(
    7, b"", {"ts": 1_750_000_000_000_001, "call_id": "c", "run_id": "r", "body": BODY | {"code": "denied"}}
)
SAID = {
    "input_digest": "cd",
    "reasons": [{"id": "desk.no", "package": "desk", "msg": "no", "fact": None}],
    "requirements": [{"id": "desk.two", "msg": "two", "quorum": 2, "roles": ["cfo"]}],
}


def test_an_event_has_the_shape_opa_gives_it() -> None:
    """The document byte for byte, the result, times and labels; ours in one member."""
    document = b'{"args":{"n":1.50},"phase":"call"}'
    text = encode(event(Recorded(RECORD, SAID, document), {"env": "test", "region": "eu"}))
    assert document in text
    assert msgspec.json.decode(text) == {
        "labels": {"app": "ostiary", "env": "test", "region": "eu"},
        "decision_id": "d-1",
        "path": "gateway/main/decision",
        "timestamp": "2025-06-15T15:06:40.000001Z",
        "bundles": {"ostiary": {"revision": "ab"}},
        "input": {"args": {"n": 1.5}, "phase": "call"},
        "result": {
            "effect": "deny",
            "reasons": [{"id": "desk.no", "package": "desk", "msg": "no"}],
            "requirements": [{"id": "desk.two", "msg": "two", "quorum": 2, "roles": ["cfo"]}],
        },
        "metrics": {"timer_server_handler_ns": 70_000},
        "ostiary": {
            "index": 7,
            "call_id": "c",
            "run_id": "r",
            "tool": "erp.find",
            "phase": "call",
            "enforced": True,
            "engine": "regorus/1",
            "input_digest": "cd",
            "outcome": "denied",
        },
    }


def test_what_was_erased_leaves_its_ids() -> None:
    """No words, no document; which rules spoke stands in the record itself."""
    found = event(Recorded(RECORD, None, None), {})
    assert found["erased"] == ["/input"]
    assert "input" not in found
    assert found["result"] == {
        "effect": "deny",
        "reasons": [{"id": "desk.no"}],
        "requirements": [{"id": "desk.two"}],
    }
    assert found["ostiary"]["input_digest"] is None


@pytest.mark.parametrize("arguments", [b"{}", b'{"n":1.50}', b'{"n":9007199254740993}'])
def test_an_input_is_put_together_again(arguments: bytes) -> None:
    """From its facts and the arguments as they were sent, or not at all."""
    policy_reads = b'{"n":"9007199254740993"}' if b"993" in arguments else arguments
    document = b'{"args":' + policy_reads + b',"phase":"call"}'
    digest = hashlib.sha256(document).hexdigest()
    facts = without_arguments(document)
    assert facts == b'{"phase":"call"}'
    assert with_arguments(facts, arguments, digest) == document
    assert with_arguments(facts, b'{"n":2}', digest) is None
    assert with_arguments(facts, None, digest) is None


def test_an_input_without_arguments_is_its_facts() -> None:
    """Of phase list, for instance."""
    document = encode({"phase": "list"})
    assert with_arguments(without_arguments(document), None, hashlib.sha256(document).hexdigest()) == document

"""The JSON Schema of the log's records: every type has one, and nothing that people write freely fits into any."""

import json
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli.root import ostiary
from gateway.core.filters import Field
from gateway.core.records import EventType, Role
from tests.log_schema import SCHEMA, conforming

UUID = "01a22471-ca3b-78de-b0f4-2a6b1c9d0e11"
COMPLETED: dict[str, Any] = {
    "actor": {"agent": "clerk", "authn": "local", "user": "0" * 32},
    "body": {"is_error": False, "redactions": 0, "tool": "erp.find", "total_us": 9, "upstream_us": 5},
    "call_id": UUID,
    "id": UUID,
    "payloads": [],
    "prev_run": "a" * 64,
    "run_id": UUID,
    "salt": "b" * 32,
    "seq_run": 4,
    "ts": 1_700_000_000_000_000,
    "type": "tool.completed",
    "v": 1,
}


def test_every_type_and_every_role_is_in_it() -> None:
    """No more and no fewer than the log writes; the command line gives the same schema."""
    assert set(SCHEMA["properties"]["type"]["enum"]) == {str(kind) for kind in EventType}
    assert {one["properties"]["type"]["const"] for one in SCHEMA["oneOf"]} == {str(kind) for kind in EventType}
    assert set(SCHEMA["$defs"]["payload"]["properties"]["role"]["enum"]) == {str(role) for role in Role}
    assert set(SCHEMA["$defs"]["query"]["properties"]["fields"]["items"]["enum"]) == {str(field) for field in Field}
    assert json.loads(CliRunner().invoke(ostiary, ["schema", "log-record"]).stdout) == SCHEMA


def _closed(schema: Any) -> bool:
    if schema.get("type") != "object":
        return True
    return schema.get("additionalProperties") is not None and all(map(_closed, schema.get("properties", {}).values()))


def test_bodies_are_closed_and_texts_are_bound() -> None:
    """Each body names its members; each text in it is an enumeration or has a pattern."""
    for kind in EventType:
        body = SCHEMA["$defs"][kind]
        assert body["additionalProperties"] is False
        assert _closed(body)
        for name, member in body["properties"].items():
            options = member.get("anyOf", [member])
            for option in options:
                said = SCHEMA["$defs"][option["$ref"].rpartition("/")[2]] if "$ref" in option else option
                bound = said.get("type") != "string" or "pattern" in said
                assert bound, (kind, name)


def test_a_record_as_it_is_written_conforms() -> None:
    """The sample that the other tests alter."""
    assert conforming(COMPLETED) == COMPLETED


@pytest.mark.parametrize(
    "changed",
    [
        {"body": COMPLETED["body"] | {"note": "x"}},
        {"body": COMPLETED["body"] | {"tool": "please find the order"}},
        {"body": {"tool": "erp.find"}},
        {"body": COMPLETED["body"] | {"total_us": 1.5}},
        {"body": COMPLETED["body"] | {"total_us": -1}},
        {"actor": {"agent": "a person's name", "authn": "local", "user": None}},
        {"actor": {"agent": None, "authn": "local", "user": "dora"}},
        {"type": "tool.invented"},
        {"v": 2},
        {"more": 1},
        {"salt": "short"},
        {"payloads": [{"role": "result", "text": "x"}]},
    ],
)
def test_what_is_no_record(changed: dict[str, Any]) -> None:
    """Members that nobody declared, free text, a user's name, fractions, unknown types and roles."""
    with pytest.raises(AssertionError, match=r"\w"):
        conforming(COMPLETED | changed)

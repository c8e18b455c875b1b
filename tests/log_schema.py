"""The shipped JSON Schema of the log's records; whatever tests read of a log is held against it."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import jsonschema_rs

SCHEMA: Final[dict[str, Any]] = json.loads(
    files("gateway").joinpath("schemas", "log-record.v1.json").read_text("utf-8")
)
_VALIDATOR: Final = jsonschema_rs.Draft202012Validator(SCHEMA)


def conforming(record: Mapping[str, Any]) -> dict[str, Any]:
    """``record``, which is as the schema says."""
    found = dict(record)
    if not _VALIDATOR.is_valid(found):
        body = jsonschema_rs.Draft202012Validator({"$defs": SCHEMA["$defs"], **SCHEMA["$defs"].get(found["type"], {})})
        problems = [error.message for error in body.iter_errors(found["body"])]
        problems = problems or [error.message for error in _VALIDATOR.iter_errors(found)]
        raise AssertionError(f"{found['type']}: {problems} in {found}")
    return found

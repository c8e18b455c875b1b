"""Small OpenAPI documents for tests, and what is made of them."""

import json
from pathlib import Path
from typing import Any

from gateway.cli.client.housing import House
from gateway.cli.openapi import picking
from gateway.cli.openapi.adding import Target, checked
from gateway.cli.openapi.document import Document, parsed
from gateway.cli.openapi.picking import Choice, Picked

DOCUMENTS = Path(__file__).parent / "fixtures" / "openapi"
OK = {"responses": {"200": {"description": "ok"}}}
TARGET = Target("api", House(Path("gateway.toml"), Path("state"), is_development=True), {"kind": "http"})


def picked(document: dict[str, Any], choice: Choice | None = None) -> Picked:
    """What is made of a document whose server's path is ``/v1``."""
    whole = Document(parsed(json.dumps(document).encode()))
    return picking.picked(whole, choice or Choice(), "/v1", lambda entry: checked(TARGET, entry))


def shipped(name: str) -> dict[str, dict[str, Any]]:
    """The entries of a document beside the tests, by name."""
    whole = Document(parsed((DOCUMENTS / name).read_bytes()))
    found = picking.picked(whole, Choice(), "/v1", lambda entry: checked(TARGET, entry))
    assert found.problems == []
    return {entry["name"]: entry for entry in found.entries}


def api(operation: dict[str, Any], *, path: str = "/x", method: str = "get", **more: Any) -> dict[str, Any]:
    """A document with one operation."""
    return {"openapi": "3.1.0", "paths": {path: {method: OK | {"operationId": "x"} | operation}}} | more


def body(schema: Any, **more: Any) -> dict[str, Any]:
    """An operation with a JSON body."""
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}, **more}


def parameter(place: str, schema: Any = None, name: str = "p", **more: Any) -> dict[str, Any]:
    """An operation with one parameter."""
    given_schema = {"type": "string"} if schema is None else schema
    return {"parameters": [{"name": name, "in": place, "schema": given_schema} | more]}


def only(document: dict[str, Any]) -> dict[str, Any]:
    """The one entry of a document."""
    found = picked(document)
    assert [str(problem) for problem in found.problems] == []
    [entry] = found.entries
    return entry


def refusal(document: dict[str, Any]) -> tuple[str, str]:
    """Pointer and rule of the one refusal of a document."""
    found = picked(document)
    assert found.entries == []
    [problem] = found.problems
    return problem.pointer, problem.rule

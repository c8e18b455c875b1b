"""The OpenAPI 3.1 document, made from the table of operations that is served."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.core.errors import Forbidden, GatewayError, MalformedRequest, Pending, Throttled, Unauthenticated
from gateway.edge.problems import URN
from gateway.edge.rest.routes import Operation

_JSON = "application/json"
_REF = "#/components/schemas/{model}"
_ALWAYS: tuple[type[GatewayError], ...] = (MalformedRequest, Unauthenticated, Forbidden, Throttled)
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": f"`{URN}` and the code."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "cause": {"type": "string", "description": "Finer than the type, where there is more to say."},
        "call_id": {"type": "string", "description": "For `ostiary explain`."},
        "retry_after": {"type": "number", "description": "Seconds."},
        "reasons": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "msg"],
                "properties": {
                    "id": {"type": "string", "description": "Rule id."},
                    "msg": {"type": "string"},
                    "fact": {"type": "string", "description": "The fact that was missing or wrong."},
                },
            },
        },
    },
}
_PENDING: dict[str, Any] = {
    "type": "object",
    "description": "The call waits for people. Nothing was executed.",
    "required": ["status", "approval_id", "approval_url", "retry_after", "instruction"],
    "properties": {
        "status": {"const": "pending"},
        "approval_id": {"type": "string"},
        "approval_url": {"type": "string"},
        "message": {"type": "string"},
        "retry_after": {"type": "number", "description": "Seconds."},
        "instruction": {"type": "string", "description": "What to do, for a model."},
        "reasons": _PROBLEM["properties"]["reasons"],
        "call_id": {"type": "string"},
    },
}
_RUN_HEADER = {
    "name": "Ostiary-Run",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The run this belongs to; a run token says it itself.",
}
_KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"not": {}},
    "description": "Not kept by this gateway yet: a call that brings one is refused with 400, cause `idempotency_key`, "
    "and nothing is executed.",
}


def document(operations: Sequence[Operation], external_url: str, version: str) -> dict[str, Any]:
    """The whole document as plain JSON values."""
    schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace(":path}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ostiary",
            "version": version,
            "description": "The policy-enforcing gateway between AI agents and their tools. Agents that speak MCP use "
            "`/mcp` and `/servers/{name}/mcp` instead.",
        },
        "servers": [{"url": external_url}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM, "Pending": _PENDING},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.scopes:
        said["x-ostiary-scopes"] = list(operation.scopes)
    if operation.needs:
        said["x-ostiary-scopes-besides"] = list(operation.needs)
    if operation.body is not None:
        said["requestBody"] = {"required": True, "content": {_JSON: {"schema": _ref(operation.body)}}}
    return said


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:].partition("}")[0].rstrip("*") for part in operation.path.split("/") if part.startswith("{")]
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
    ]
    if operation.query is not None:
        schema = operation.query.model_json_schema()
        for name, part in schema["properties"].items():
            text = part.pop("description", None)
            found.append({"name": name, "in": "query", "required": False, "schema": part})
            if text is not None:
                found[-1]["description"] = text
    if operation.scopes == ("tools",):
        found.append(_RUN_HEADER)
    if operation.calls:
        found.append(_KEY_HEADER)
    return found


def _responses(operation: Operation) -> dict[str, Any]:
    if isinstance(operation.answer, str):
        good: dict[str, Any] = {operation.answer: {"schema": {"type": "string"}}}
    else:
        good = {_JSON: {"schema": _ref(operation.answer)}}
    said: dict[str, Any] = {str(operation.status): {"description": "Done.", "content": good}}
    by_status: dict[int, list[str]] = {}
    for kind in dict.fromkeys((*_ALWAYS, *operation.refusals)):
        by_status.setdefault(kind.status, []).append(f"`{kind.code}`: {kind.title}")
    for status, words in sorted(by_status.items()):
        media, model = (_JSON, "Pending") if status == Pending.status else ("application/problem+json", "Problem")
        content = {media: {"schema": {"$ref": _REF.format(model=model)}}}
        said[str(status)] = {"description": "; ".join(words), "content": content}
    return said


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    bodies = {operation.body for operation in operations if operation.body is not None}
    answers = {operation.answer for operation in operations if not isinstance(operation.answer, str)}
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in sorted(bodies, key=str)]
    wanted += [(model, "serialization") for model in sorted(answers - bodies, key=str)]
    _, schema = models_json_schema(wanted, ref_template=_REF)
    found: dict[str, Any] = schema.get("$defs", {})
    return found


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}

"""The error mapping and the OpenAPI document, as data."""

import json
from typing import Any

import pytest

from gateway.core import errors
from gateway.core.errors import GatewayError, Reason, UnknownTool
from gateway.core.mcpwire.eras import Era
from gateway.edge import problems
from gateway.edge.asgi import Options, operations
from tests.edge_world import Edge

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, GatewayError) and kind is not errors.Pending
]
REASON = Reason("scope.x", "authz", "not granted", "data.x")


def made(kind: type[GatewayError]) -> GatewayError:
    """One of each."""
    return kind("words", reasons=(REASON,), retry_after=1.5, cause_code="finer")


def test_a_call_that_waits_is_no_problem() -> None:
    """Plain JSON with what to ask after and what to do, on REST and in a result for models alike."""
    parked = errors.Pending("waiting for one person", "a-1", url="http://g/v1/approvals/a-1", retry_after=5.0)
    reply = problems.problem(parked, "c-1")
    said = json.loads(reply.body)
    assert (reply.status, reply.media, dict(reply.headers)[b"retry-after"]) == (202, b"application/json", b"5")
    assert (said["status"], said["approval_id"], said["retry_after"]) == ("pending", "a-1", 5.0)
    assert (said["approval_url"], said["call_id"]) == ("http://g/v1/approvals/a-1", "c-1")
    assert "Do not change its arguments" in said["instruction"]
    result = json.loads(problems.tool_error(parked, "c-1"))
    assert (result["isError"], json.loads(result["content"][0]["text"])) == (True, said)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_each_error_is_a_problem(kind: type[GatewayError]) -> None:
    """Type, title, status, detail and call id; reasons except where the tool may not be known."""
    reply = problems.problem(made(kind), "c-1")
    said = json.loads(reply.body)
    assert (said["type"], said["title"], said["status"]) == (
        f"urn:ostiary:problem:{kind.code}",
        kind.title,
        reply.status,
    )
    assert (said["detail"], said["call_id"], reply.media) == ("words", "c-1", b"application/problem+json")
    assert ("reasons" in said) is (kind.status != 404)
    assert dict(reply.headers)[b"retry-after"] == b"2"
    assert (b"www-authenticate" in dict(reply.headers)) is (kind.status == 401)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_each_error_has_a_json_rpc_form(kind: type[GatewayError]) -> None:
    """A code, and the status the era wants: 200 in the handshake era, the fault's own in the other."""
    for era, status in ((Era.HANDSHAKE, 200), (Era.STATELESS, None), (None, kind.status)):
        reply = problems.rpc_failure(made(kind), 1, era, "c-1")
        error = json.loads(reply.body)["error"]
        assert error["data"]["code"] == kind.code
        reserved = {-32700, *range(-32603, -32599)}  # what JSON-RPC defines; of the rest of its band 2026 wants none
        assert error["code"] in reserved or not -32768 <= error["code"] <= -32000
        assert status is None or reply.status == status


def test_results_for_models_are_text_with_all_that_helps() -> None:
    """One text content whose text is JSON: error, message, reasons, how long to wait, how to ask further."""
    result = json.loads(problems.tool_error(made(errors.Denied), "c-1"))
    assert (result.keys(), len(result["content"])) == ({"content", "isError"}, 1)
    assert json.loads(result["content"][0]["text"]) == {
        "error": "denied",
        "message": "words",
        "cause": "finer",
        "call_id": "c-1",
        "reasons": [{"id": "scope.x", "msg": "not granted", "fact": "data.x"}],
        "retry_after": 1.5,
        "explain": "ostiary explain c-1",
    }
    assert not issubclass(UnknownTool, problems.ACTIONABLE)


async def document(edge: Edge) -> dict[str, Any]:
    """The document as served."""
    async with edge.client(None) as client:
        said: dict[str, Any] = (await client.get("/openapi.json")).json()
    return said


async def test_the_document_describes_each_operation() -> None:
    """Every operation that is served is described with body, answers and problems, and nothing else is."""
    edge = Edge()
    said = await document(edge)
    table = operations(edge.world.ports(), edge.desk, edge.options)
    served = {(op.path.replace(":path}", "}"), op.method.lower()) for op in table}
    described = {(path, method) for path, methods in said["paths"].items() for method in methods}
    assert described == served
    assert len({op.name for op in table}) == len(table)
    for op in table:
        part = said["paths"][op.path.replace(":path}", "}")][op.method.lower()]
        assert ("requestBody" in part) is (op.body is not None)
        assert {str(op.status), "400", "401", "403", "429"} <= part["responses"].keys()
        assert {str(kind.status) for kind in op.refusals} <= part["responses"].keys()
        assert part["summary"].endswith(".")


async def test_all_references_of_the_document_resolve() -> None:
    """No dangling $ref."""
    said = await document(Edge())
    text = json.dumps(said)
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= said["components"]["schemas"].keys()
    assert said["openapi"] == "3.1.0"


async def test_each_described_path_is_served() -> None:
    """Asked without a credential, every described operation says 401, never 404 or 405."""
    edge = Edge(options=Options(strangers_per_minute=100_000, open_metrics=True))
    said = await document(edge)
    async with edge.client(None) as client:
        for path, methods in said["paths"].items():
            for method in methods:
                answer = await client.request(method.upper(), path.replace("{", "").replace("}", ""))
                assert answer.status_code == 401, (method, path)

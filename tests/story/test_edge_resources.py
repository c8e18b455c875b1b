"""Resources and completion over MCP: the same pipeline as for tools, decided on the very address that is sent."""

import json
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.tool import Tool
from tests.edge_world import Edge, modern, rpc
from tests.fakes.rules import APPROVAL, DENY
from tests.fakes.upstream import STOCK, tool

CONTENTS = {"contents": [{"uri": "file:///etc/motd", "text": "Welcome."}]}
VALUES = {"completion": {"values": ["paris", "park"], "total": 2, "hasMore": False}}
WORDS = {"ref": {"type": "ref/prompt", "name": "letter"}, "argument": {"name": "to", "value": "pa"}}
ERAS = ("handshake", "stateless")


def described(fqn: str, member: str, **said: Any) -> Tool:
    """A pinned resource or template."""
    bare = tool(fqn)
    return replace(bare, definition={**bare.definition, member: said})


MOTD = described("erp.resources/file:///etc/motd", "resource", uri="file:///etc/motd", name="motd", mimeType="a/b")
FILES = described("erp.resources/file:///{+path}", "resourceTemplate", uriTemplate="file:///{+path}", name="files")
TWIN = described("crm.resources/file:///etc/motd", "resource", uri="file:///etc/motd", name="motd")
LETTER = tool("erp.prompts/letter")
COMPLETES = (tool("erp.completions/prompts/letter"), tool("erp.completions/resources/file:///{+path}"))


def edge_with_resources() -> Edge:
    """Two servers that list one address, one of them with a template besides."""
    edge = Edge()
    edge.world.catalog.shelf = (STOCK, LETTER, MOTD, FILES, TWIN, *COMPLETES)
    edge.world.connector.result = CONTENTS
    return edge


def post(era: str, method: str, params: dict[str, Any], **headers: str) -> dict[str, Any]:
    """A request of either era."""
    if era == "handshake":
        return {"json": rpc(method, params)}
    named = {"mcp-name": params["uri"]} if "uri" in params else {}
    return modern(method, params, **{**named, **headers})


async def read(edge: Edge, uri: str, era: str = "handshake", path: str = "/servers/erp/mcp") -> dict[str, Any]:
    """What reading ``uri`` brings."""
    async with edge.client() as client:
        answer: dict[str, Any] = (await client.post(path, **post(era, "resources/read", {"uri": uri}))).json()
    return answer


async def test_resources_and_templates_are_listed_apart() -> None:
    """Each list has its own only, as approved, under the endpoint's addresses; no two on the aggregate are the same."""
    edge = edge_with_resources()
    async with edge.client() as client:
        own = (await client.post("/servers/erp/mcp", json=rpc("resources/list"))).json()["result"]
        made = (await client.post("/servers/erp/mcp", **modern("resources/templates/list"))).json()["result"]
        everywhere = (await client.post("/mcp", json=rpc("resources/list"))).json()["result"]
        templates = (await client.post("/mcp", json=rpc("resources/templates/list"))).json()["result"]
        tools = (await client.post("/servers/erp/mcp", json=rpc("tools/list"))).json()["result"]
        over_rest = (await client.get("/v1/tools")).json()["tools"]
    assert own == {"resources": [{"uri": "file:///etc/motd", "name": "motd", "mimeType": "a/b"}]}
    assert made["resourceTemplates"] == [{"uriTemplate": "file:///{+path}", "name": "files"}]
    assert (made["cacheScope"], made["ttlMs"]) == ("private", 0)
    assert [item["uri"] for item in everywhere["resources"]] == [
        "ostiary:erp:file:///etc/motd",
        "ostiary:crm:file:///etc/motd",
    ]
    assert templates["resourceTemplates"][0]["uriTemplate"] == "ostiary:erp:file:///{+path}"
    assert [item["name"] for item in tools["tools"]] == ["stock"]
    assert [shown["name"] for shown in over_rest] == ["erp.stock"]


@pytest.mark.parametrize("era", ERAS)
async def test_a_read_passes_the_one_pipeline(era: str) -> None:
    """It is decided on and recorded as a call of ``server.resources/ADDRESS``, intent first."""
    edge = edge_with_resources()
    answer = await read(edge, "file:///etc/motd", era)
    head = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if era == "stateless" else {}
    assert answer["result"] == CONTENTS | head
    (lease,) = edge.world.connector.sent
    assert (lease.intent.tool.fqn, lease.intent.call.arguments.value) == (MOTD.fqn, {"uri": "file:///etc/motd"})
    assert edge.records().count("tool.requested") == edge.records().count("tool.completed") == 1


async def test_an_address_of_a_template_is_decided_on_as_it_is_sent() -> None:
    """Policy is asked about the very string, in both phases, and that goes upstream; the pin is the template's."""
    edge = edge_with_resources()
    edge.world.policy.words["call", "erp.resources/file:///etc/passwd"] = DENY
    assert (await read(edge, "file:///etc/passwd"))["error"]["data"]["code"] == "denied"
    assert not edge.world.connector.sent
    await read(edge, "file:///etc/hosts")
    asked = {document["tool"]["fqn"] for document in edge.world.policy.asked}
    assert asked == {"erp.resources/file:///etc/passwd", "erp.resources/file:///etc/hosts"}
    (lease,) = edge.world.connector.sent
    assert (lease.intent.tool.fqn, lease.intent.tool.digest) == (FILES.fqn, FILES.digest)
    assert lease.intent.call.arguments.canonical == b'{"uri":"file:///etc/hosts"}'


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/../etc/passwd",
        "file:////etc/passwd",
        "file:///%65tc/passwd",
        "file:///etc%2Fpasswd",
        "file:///etc/passwd?x",
        "FILE:///etc/passwd",
        "file:///{+path}",
        "FILE:///ETC/MOTD",
        "file:///etc/motd/",
        "other:///x",
        "ostiary:crm:file:///etc/motd",
    ],
)
@pytest.mark.parametrize("era", ERAS)
async def test_another_spelling_is_no_way_around_a_rule(era: str, uri: str) -> None:
    """What a rule names cannot be reached under another name: such an address is that of nothing."""
    edge = edge_with_resources()
    edge.world.policy.words["list", "erp.resources/file:///etc/passwd"] = DENY
    edge.world.policy.words["call", "erp.resources/file:///etc/motd/"] = DENY
    answer = await read(edge, uri, era)
    assert answer["error"]["code"] in {-32602, -31011}
    assert not edge.world.connector.sent


async def test_on_the_aggregate_an_address_says_its_server() -> None:
    """It reaches that server as its own, comes back under the endpoint's, and is nothing without the server."""
    edge = edge_with_resources()
    answer = await read(edge, "ostiary:crm:file:///etc/motd", path="/mcp")
    assert answer["result"]["contents"] == [{"uri": "ostiary:crm:file:///etc/motd", "text": "Welcome."}]
    made = await read(edge, "ostiary:erp:file:///etc/hosts", "stateless", "/mcp")
    assert made["result"]["contents"][0]["uri"] == "ostiary:erp:file:///etc/motd"
    assert [lease.intent.tool.fqn for lease in edge.world.connector.sent] == [TWIN.fqn, FILES.fqn]
    assert edge.world.connector.sent[1].intent.call.arguments.value == {"uri": "file:///etc/hosts"}
    for uri in ("file:///etc/motd", "ostiary:file:///etc/motd", "ostiary:no.pe:x:a", "ostiary::file:///etc/motd", "x"):
        assert (await read(edge, uri, path="/mcp"))["error"]["message"] == "no such resource"
    assert len(edge.world.connector.sent) == 2


@pytest.mark.parametrize("era", ERAS)
async def test_a_hidden_resource_is_one_that_does_not_exist(era: str) -> None:
    """Listed, made of a template or neither: the same words, as many questions to policy, the same records."""
    said = []
    for uri in ("file:///etc/motd", "file:///etc/hosts", "none://x"):
        edge = edge_with_resources()
        for name in (MOTD.fqn, "erp.resources/file:///etc/hosts"):
            edge.world.policy.words["list", name] = DENY
        answer = (await read(edge, uri, era))["error"]
        assert not edge.world.connector.sent
        said.append((answer["code"], answer["message"], edge.world.policy.questions, edge.records()))
    assert said[0] == said[1] == said[2]
    assert said[0][:2] == (-32602, "no such resource")


@pytest.mark.parametrize("uri", [None, 3, "", "a\nb", "x:" + "a" * 2048])
async def test_what_can_be_no_address_is_refused(uri: Any) -> None:
    """Before anything is decided, with one record of it."""
    edge = edge_with_resources()
    assert (await read(edge, uri))["error"]["data"]["cause"] == "uri"
    assert edge.records() == ["call.refused"]


async def test_the_header_repeats_the_address() -> None:
    """Whoever routes by a header must have seen the same request."""
    edge = edge_with_resources()
    wrong = modern("resources/read", {"uri": "file:///etc/motd"}, **{"mcp-name": "file:///etc/hosts"})
    async with edge.client() as client:
        assert (await client.post("/servers/erp/mcp", **wrong)).json()["error"]["code"] == -32020


@pytest.mark.parametrize("name", ["resources/file:///etc/motd", "file:///etc/motd", "completions/prompts/letter"])
async def test_no_other_surface_reaches_a_resource(name: str) -> None:
    """Neither tools/call, prompts/get nor REST, and no read reaches a tool."""
    edge = edge_with_resources()
    async with edge.client() as client:
        for method in ("tools/call", "prompts/get"):
            for path, called in (("/servers/erp/mcp", name), ("/mcp", f"erp__{name}")):
                answer = await client.post(path, json=rpc(method, {"name": called}))
                assert answer.json()["error"]["code"] == -32602
        assert (await client.post(f"/v1/tools/erp.{name}/call", json={"arguments": {}})).status_code == 404
    for uri in ("stock", "erp.stock", "ostiary:erp:stock"):
        assert (await read(edge, uri))["error"]["message"] == "no such resource"
    assert not edge.world.connector.sent


async def test_a_read_that_waits_for_people_says_how_to_go_on() -> None:
    """As for tools; the approval holds the address among the arguments."""
    edge = edge_with_resources()
    edge.world.policy.words["call", "erp.resources/file:///etc/hosts"] = APPROVAL
    answer = await read(edge, "file:///etc/hosts")
    assert answer["error"]["data"]["status"] == "pending", json.dumps(answer)
    assert not edge.world.connector.sent


@pytest.mark.parametrize(("said", "kept"), [(5, 5), (-1, 0), ("5", 0), (2.5, 0)])
async def test_no_shared_cache_keeps_a_read(said: Any, kept: int) -> None:
    """What was decided for one caller is theirs, whatever the upstream says; how long it is good is the upstream's."""
    edge = edge_with_resources()
    edge.world.connector.result = CONTENTS | {"cacheScope": "public", "ttlMs": said, "resultType": "complete"}
    result = (await read(edge, "file:///etc/motd", "stateless"))["result"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", kept)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("path", "reference", "name"),
    [
        ("/servers/erp/mcp", {"type": "ref/prompt", "name": "letter"}, "prompts/letter"),
        ("/mcp", {"type": "ref/prompt", "name": "erp__letter"}, "prompts/letter"),
        ("/servers/erp/mcp", {"type": "ref/resource", "uri": "file:///{+path}"}, "resources/file:///{+path}"),
        ("/mcp", {"type": "ref/resource", "uri": "ostiary:erp:file:///{+path}"}, "resources/file:///{+path}"),
    ],
)
async def test_completion_passes_the_one_pipeline(era: str, path: str, reference: dict[str, str], name: str) -> None:
    """What is typed goes to a server, so it is decided on and recorded, as ``server.completions/...``."""
    edge = edge_with_resources()
    edge.world.connector.result = VALUES
    known = {"arguments": {"tone": "kind"}}
    params = {"ref": reference, "argument": {"name": "to", "value": "pa"}, "context": known}
    async with edge.client() as client:
        answer = (await client.post(path, **post(era, "completion/complete", params))).json()
    assert answer["result"]["completion"] == VALUES["completion"]
    (lease,) = edge.world.connector.sent
    assert lease.intent.tool.fqn == f"erp.completions/{name}"
    assert lease.intent.call.arguments.value == {"argument": params["argument"], "context": known}
    assert edge.records().count("tool.requested") == edge.records().count("tool.completed") == 1


@pytest.mark.parametrize("hidden", [True, False])
async def test_what_completes_a_hidden_prompt_does_not_exist(*, hidden: bool) -> None:
    """Policy hides it, or there is none: nothing is sent."""
    edge = edge_with_resources()
    if hidden:
        edge.world.policy.words["list", "erp.completions/prompts/letter"] = DENY
    else:
        edge.world.catalog.shelf = (STOCK, LETTER)
    async with edge.client() as client:
        answer = (await client.post("/servers/erp/mcp", json=rpc("completion/complete", WORDS))).json()
    assert answer["error"]["message"] == "no such completion"
    assert not edge.world.connector.sent


@pytest.mark.parametrize(
    "reference",
    [None, {}, {"type": "ref/tool", "name": "a"}, {"type": "ref/prompt"}, {"type": "ref/resource", "uri": 3}],
)
async def test_a_reference_to_nothing_is_refused(reference: Any) -> None:
    """Before anything is decided."""
    edge = edge_with_resources()
    async with edge.client() as client:
        answer = await client.post("/mcp", json=rpc("completion/complete", {**WORDS, "ref": reference}))
    assert answer.json()["error"]["data"]["cause"] == "ref"
    assert edge.records() == ["call.refused"]

"""OpenAPI documents as catalogue entries: what each part becomes, and what is refused with its place and rule."""

import json
from itertools import pairwise
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.openapi import naming
from gateway.cli.openapi.picking import Choice
from gateway.core.tool import EffectClass
from tests.openapi_documents import DOCUMENTS, OK, api, body, only, parameter, picked, refusal, shipped


class TestWhatBecomesOfIt:
    """What is carried."""

    def test_a_shop_of_version_3_0(self) -> None:
        """Methods, paths, parameters, bodies, answers and effect classes of a whole document."""
        tools = shipped("shop.json")
        assert {name: tool["effect"] for name, tool in tools.items()} == {
            "listOrders": "read",
            "placeOrder": "write",
            "getOrder": "read",
            "changeOrder": "write",
            "orders_remove": "destructive",
            "get_ping": "read",
        }
        assert tools["listOrders"]["http"] == {
            "method": "GET",
            "path": "/v1/orders",
            "query": ["status", "limit", "before"],
        }
        assert tools["changeOrder"]["http"]["body"] == ["note", "status"]
        limit = tools["listOrders"]["input_schema"]["properties"]["limit"]
        assert (limit["exclusiveMinimum"], "minimum" in limit, limit["description"]) == (0, False, "At most so many.")

    def test_a_shop_takes_what_its_document_takes(self) -> None:
        """Read-only members are not sent, nullable ones may be null, and what is not declared is refused."""
        tools = shipped("shop.json")
        place = jsonschema_rs.Draft202012Validator(tools["placeOrder"]["input_schema"])
        order: dict[str, Any] = {"items": [{"sku": "B-7"}], "price": {"amount": 5, "currency": "EUR"}}
        assert place.is_valid(order)
        assert not place.is_valid(order | {"id": "chosen-by-the-agent"})
        assert not place.is_valid(order | {"extra": 1})
        assert not place.is_valid({"price": order["price"]})
        change = jsonschema_rs.Draft202012Validator(tools["changeOrder"]["input_schema"])
        assert change.is_valid({"orderId": "0" * 36, "note": None, "status": None})
        assert not change.is_valid({"orderId": "../../admin"})
        shown = jsonschema_rs.Draft202012Validator(tools["getOrder"]["output_schema"])
        assert shown.is_valid({"id": "7", "items": [{"sku": "B"}], "status": None})
        assert not shown.is_valid({"items": [{"sku": "B"}], "status": "open"})
        page = tools["listOrders"]["output_schema"]
        assert (page["required"], page["properties"]["result"]["type"]) == (["result"], "array")

    def test_tickets_of_version_3_1(self) -> None:
        """References beside other members, parts of `allOf`, a body that is one of two, a GET that does something."""
        tools = shipped("tickets.json")
        assert tools["ticket"]["input_schema"]["properties"]["id"]["description"] == "Of the ticket."
        assert tools["add-comment"]["http"] == {
            "method": "POST",
            "path": "/v1/tickets/{id}/comments",
            "body": ["text", "public"],
        }
        assert tools["add-comment"]["input_schema"]["required"] == ["id", "text"]
        assert tools["add-comment"]["input_schema"]["properties"]["id"]["type"] == "integer"
        assert tools["post_search"]["http"]["body"] == "rest"
        search = jsonschema_rs.Draft202012Validator(tools["post_search"]["input_schema"])
        assert search.is_valid({"ids": [7]})
        assert not search.is_valid({"ids": [7], "text": "x"})
        assert tools["close"]["effect"] == "destructive"
        assert "output_schema" not in tools["post_search"]
        shown = jsonschema_rs.Draft202012Validator(tools["ticket"]["output_schema"])
        assert shown.is_valid({"id": 1})
        assert not shown.is_valid({"id": 0})

    @pytest.mark.parametrize(
        ("operation", "is_told"),
        [
            (parameter("query", name="ids[]"), True),
            (parameter("query", name="$top"), True),
            (body({"properties": {"x" * 65: {}}}), True),
            (body({"oneOf": [{"type": "object"}, {"type": "object", "required": ["a"]}]}), True),
            (parameter("query", name="a.b-c_1"), False),
            (body({"type": "object"}), False),
        ],
    )
    def test_what_models_may_not_take_is_told(self, operation: dict[str, Any], *, is_told: bool) -> None:
        """One such tool has every request refused that it is part of."""
        found = picked(api(operation, method="post"))
        assert found.problems == []
        assert ("some models' makers refuse" in str(found.notes)) is is_told

    @pytest.mark.parametrize("part", [{"$ref": "#/components/schemas/User"}, {"allOf": [{"type": "object"}]}])
    def test_what_does_not_travel_is_not_required_beside_the_parts_that_say_so(self, part: dict[str, Any]) -> None:
        """An answer without its write-only members is a good one; a body needs no read-only ones."""
        members = {"id": {"type": "integer", "readOnly": True}, "secret": {"type": "string", "writeOnly": True}}
        user = {"type": "object", "properties": members | {"name": {"type": "string"}}, **part}
        components = {"schemas": {"User": {"type": "object", "properties": members}}}
        schema = {"allOf": [user if "allOf" in part else part], "required": ["id", "secret"], "type": "object"}
        answered = {"responses": {"200": {"description": "ok", "content": {"application/json": {"schema": schema}}}}}
        output = only(api(answered, components=components))["output_schema"]
        assert output["required"] == ["id"]
        sent = body({"properties": {"user": schema}})
        entry = only(api(sent, method="post", components=components))
        assert entry["input_schema"]["properties"]["user"]["required"] == ["secret"]

    @pytest.mark.parametrize(
        "schema",
        [
            {"allOf": [{"$ref": "#/components/schemas/User"}, {"required": ["id", "secret"]}]},
            {"$ref": "#/components/schemas/User", "required": ["id", "secret"]},
            {"properties": {"secret": {"writeOnly": True}}, "allOf": [{"allOf": [{"required": ["secret", "id"]}]}]},
        ],
    )
    def test_a_part_does_not_require_what_another_says_does_not_travel(self, schema: dict[str, Any]) -> None:
        """As documents write what is sent and what is answered beside one common part."""
        members = {"id": {"type": "integer"}, "secret": {"type": "string", "writeOnly": True}}
        components = {"schemas": {"User": {"type": "object", "properties": members}}}
        content = {"application/json": {"schema": {"type": "object", "properties": {"user": schema}}}}
        answered = {"responses": {"200": {"description": "ok", "content": content}}}
        entry = only(api(answered, components=components))
        output = jsonschema_rs.Draft202012Validator(entry["output_schema"])
        assert output.is_valid({"user": {"id": 1}})
        assert not output.is_valid({"user": {}})

    def test_a_reference_into_a_list_is_followed(self) -> None:
        """As bundlers write them for parameters that two operations share."""
        paths = {
            "/a/{id}": {"get": OK | {"operationId": "a"} | parameter("path", name="id", required=True)},
            "/b/{id}": {
                "get": OK | {"operationId": "b", "parameters": [{"$ref": "#/paths/~1a~1%7Bid%7D/get/parameters/0"}]}
            },
        }
        found = picked({"openapi": "3.0.3", "paths": paths})
        assert found.problems == []
        assert found.entries[1]["input_schema"] == found.entries[0]["input_schema"]

    @pytest.mark.parametrize("index", ["1", "-1", "00", "-", "x", "\u0660", "9" * 30])
    def test_a_reference_beyond_a_list_is_refused(self, index: str) -> None:
        """Only its items, by their plain number."""
        document = api({"parameters": [{"$ref": f"#/components/x/{index}"}]}, components={"x": [{"name": "p"}]})
        assert refusal(document)[1] == "ref"

    def test_people_have_the_last_word_on_effects_and_choice(self) -> None:
        """Patterns of names: what is taken, what is left, and of which class it is; the last one that fits counts."""
        document = json.loads((DOCUMENTS / "shop.json").read_text("utf-8"))
        choice = Choice(["*Order", "get_*"], ["change*"], [("*", "money"), ("get*", "read")])
        found = picked(document, choice)
        assert {entry["name"]: entry["effect"] for entry in found.entries} == {
            "placeOrder": "money",
            "getOrder": "read",
            "get_ping": "read",
        }
        assert set(found.left) == {"HEAD /ping", "listOrders", "changeOrder", "orders_remove"}
        unchecked = picked(document, Choice(outputs=False))
        assert not [entry for entry in unchecked.entries if "output_schema" in entry]

    @pytest.mark.parametrize(
        ("method", "path", "name", "effect"),
        [
            ("get", "/orders/{id}", "getOrder", "read"),
            ("get", "/store/order/{id}", "getOrderById", "read"),
            ("get", "/runs", "listRuns", "read"),
            ("get", "/jobs/{id}/run", "job", "destructive"),
            ("get", "/jobs/{delete}", "job", "read"),
            ("get", "/jobs/{id}/delete", "x", "destructive"),
            ("get", "/x", "resetPassword", "destructive"),
            ("get", "/x", "sendMail", "destructive"),
            ("get", "/users/{id}/deactivate", "x", "destructive"),
            ("get", "/x", "openDoor", "destructive"),
            ("get", "/updates", "listUpdates", "read"),
            ("post", "/search", "search", "write"),
            ("put", "/x", "x", "write"),
            ("patch", "/x", "x", "write"),
            ("delete", "/x", "getX", "destructive"),
        ],
    )
    def test_effect_classes(self, method: str, path: str, name: str, effect: str) -> None:
        """By method; a GET whose words say that it does something is no read, and nothing else ever is."""
        assert naming.effect(method, path, name)[0] == effect

    @given(st.sampled_from(["post", "put", "patch", "delete"]), st.text(max_size=20), st.text(max_size=20))
    def test_nothing_but_a_get_is_a_read(self, method: str, path: str, name: str) -> None:
        """Whatever it is called."""
        assert naming.effect(method, f"/{path}", name)[0] is not EffectClass.READ


class TestWhatIsRefused:
    """Each with pointer and rule, and nothing else made of it."""

    @pytest.mark.parametrize(
        ("document", "pointer", "rule"),
        [
            (api(parameter("cookie")), "#/paths/~1x/get/parameters/0", "cookie"),
            (api(parameter("header", required=True)), "#/paths/~1x/get/parameters/0", "header"),
            (api(parameter("matrix")), "#/paths/~1x/get/parameters/0", "parameter"),
            (api(parameter("path", required=True)), "#/paths/~1x", "path"),
            (api(parameter("path", name="y"), path="/x/{y}"), "#/paths/~1x~1{y}/get/parameters/0", "parameter"),
            (api({}, path="/x/{y}"), "#/paths/~1x~1{y}", "path"),
            (api(parameter("query", style="deepObject")), "#/paths/~1x/get/parameters/0/style", "style"),
            (api(parameter("query", {"type": "object"})), "#/paths/~1x/get/parameters/0", "style"),
            (
                api(parameter("query", {"type": "array"}, explode=False)),
                "#/paths/~1x/get/parameters/0/explode",
                "style",
            ),
            (
                api(parameter("query", {"type": "array", "items": {"type": "object"}})),
                "#/paths/~1x/get/parameters/0",
                "style",
            ),
            (
                api({"parameters": [{"name": "p", "in": "query", "content": {}}]}),
                "#/paths/~1x/get/parameters/0",
                "parameter",
            ),
            (api({"parameters": [{"in": "query"}]}), "#/paths/~1x/get/parameters/0", "parameter"),
            (
                api({"requestBody": {"content": {"multipart/form-data": {"schema": {}}}}}, method="post"),
                "#/paths/~1x/post/requestBody/content",
                "media_type",
            ),
            (
                api({"requestBody": {"content": {"application/x-www-form-urlencoded": {}}}}, method="post"),
                "#/paths/~1x/post/requestBody/content",
                "media_type",
            ),
            (api(body({"type": "object"})), "#/paths/~1x/get/requestBody", "body"),
            (
                api(body({"type": "array"}), method="post"),
                "#/paths/~1x/post/requestBody/content/application~1json/schema",
                "body",
            ),
            (
                api(body({"oneOf": [{"type": "object"}]}) | parameter("query"), method="post"),
                "#/paths/~1x/post/requestBody/content/application~1json/schema",
                "body",
            ),
            (
                api(body({"properties": {"p": {}}}) | parameter("query"), method="post"),
                "#/paths/~1x/post/requestBody/content/application~1json/schema",
                "name_clash",
            ),
            (
                api(body({"properties": {"P": {}}}) | parameter("query"), method="post"),
                "#/paths/~1x/post/requestBody/content/application~1json/schema",
                "name_clash",
            ),
            (
                api(
                    body({"allOf": [{"properties": {"a": {}}}, {"properties": {"a": {"type": "string"}}}]}),
                    method="post",
                ),
                "#/paths/~1x/post/requestBody/content/application~1json/schema",
                "name_clash",
            ),
            (
                api(parameter("query", {"$ref": "https://evil.example.org/s.json"})),
                "#/paths/~1x/get/parameters/0/schema/$ref",
                "external_ref",
            ),
            (
                api(parameter("query", {"$ref": "s.json#/a"})),
                "#/paths/~1x/get/parameters/0/schema/$ref",
                "external_ref",
            ),
            (api(parameter("query", {"$ref": "#anchor"})), "#/paths/~1x/get/parameters/0/schema/$ref", "ref"),
            (api(parameter("query", {"$ref": "#/nowhere"})), "#/paths/~1x/get/parameters/0/schema/$ref", "ref"),
            (
                api(parameter("query", {"$dynamicRef": "#n"})),
                "#/paths/~1x/get/parameters/0/schema/$dynamicRef",
                "keyword",
            ),
            (api(parameter("query", 7)), "#/paths/~1x/get/parameters/0/schema", "schema"),
            (api({"servers": [{"url": "https://other.example.org"}]}), "#/paths/~1x/get/servers", "servers"),
            (api({"operationId": "../../etc/passwd"}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({"operationId": "a/../b"}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({"operationId": "/etc/passwd"}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({"operationId": "a\\b"}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({"operationId": "a\u202eb"}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({"operationId": ""}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({"operationId": 7}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({"operationId": "x" * 129}), "#/paths/~1x/get/operationId", "operation_id"),
            (api({}, path="/x/../y"), "#/paths/~1x~1..~1y/get", "catalogue"),
            (api({}, path="/x/%2e%2e/y"), "#/paths/~1x~1%2e%2e~1y/get", "catalogue"),
            (api({}, path="/x?a=b"), "#/paths/~1x?a=b/get", "catalogue"),
            (api({}, path="//evil.example.org/x"), "#/paths/~1~1evil.example.org~1x/get", "catalogue"),
            (api(parameter("query", {"type": "string", "pattern": "("})), "#/paths/~1x/get", "catalogue"),
            (
                api({"description": "x" * 900, **parameter("query", {"enum": ["y" * 90] * 2000})}),
                "#/paths/~1x/get",
                "too_large",
            ),
            ({"openapi": "3.1.0", "paths": {}}, "#/paths", "nothing"),
        ],
    )
    def test_one_thing_that_cannot_be_carried(self, document: dict[str, Any], pointer: str, rule: str) -> None:
        """Cookies, forms, references that leave, bodies of no names, names that lead elsewhere ..."""
        assert refusal(document) == (pointer, rule)

    @pytest.mark.parametrize(
        "schemas",
        [
            {"A": {"$ref": "#/components/schemas/A"}},
            {"A": {"$ref": "#/components/schemas/B"}, "B": {"$ref": "#/components/schemas/A"}},
            {"A": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/A"}}}},
            {"A": {"items": {"allOf": [{"not": {"$ref": "#/components/schemas/A"}}]}}},
            {"A": {"additionalProperties": {"$ref": "#/components/schemas/A"}}},
        ],
    )
    def test_circles_are_refused(self, schemas: dict[str, Any]) -> None:
        """At once, by way of another, and at any depth."""
        document = api(body({"$ref": "#/components/schemas/A"}), method="post", components={"schemas": schemas})
        assert refusal(document)[1] == "recursive_ref"

    def test_references_that_multiply_are_refused(self) -> None:
        """Ten to the tenth of a string, in ten lines."""
        names = [f"S{number}" for number in range(10)]
        schemas: dict[str, Any] = {"S9": {"type": "string"}}
        for name, after in pairwise(names):
            schemas[name] = {"anyOf": [{"$ref": f"#/components/schemas/{after}"}] * 10}
        document = api(body({"properties": {"a": {"$ref": "#/components/schemas/S0"}}}), method="post")
        assert refusal(document | {"components": {"schemas": schemas}})[1] == "too_large"

    def test_references_that_lead_down_and_down_are_refused(self) -> None:
        """Also where each of them is harmless."""
        schemas = {
            f"S{n}": {"items": {"items": {"items": {"$ref": f"#/components/schemas/S{n + 1}"}}}} for n in range(60)
        }
        document = api(body({"properties": {"a": {"$ref": "#/components/schemas/S0"}}}), method="post")
        assert refusal(document | {"components": {"schemas": schemas}})[1] == "too_deep"
        chain: dict[str, Any] = {f"S{n}": {"$ref": f"#/components/schemas/S{n + 1}"} for n in range(60)}
        assert refusal(document | {"components": {"schemas": chain}})[1] == "too_deep"

    def test_two_operations_of_one_name_are_refused(self) -> None:
        """Also where only the names that are made of them are the same; leaving one out is enough."""
        for first, second in (("a/b", "a_b"), ("same", "same")):
            paths = {f"/{n}": {"get": OK | {"operationId": one}} for n, one in enumerate((first, second))}
            found = picked({"openapi": "3.1.0", "paths": paths})
            assert [(problem.pointer, problem.rule) for problem in found.problems] == [
                ("#/paths/~11/get", "operation_id")
            ]

    def test_a_key_that_no_header_field_carries_is_refused(self) -> None:
        """In the query or a cookie; where there is another way, that one is taken."""
        schemes = {
            "query": {"type": "apiKey", "in": "query", "name": "key"},
            "header": {"type": "apiKey", "in": "header", "name": "X-Key"},
        }
        more: dict[str, Any] = {"components": {"securitySchemes": schemes}}
        assert refusal(api({"security": [{"query": []}]}, **more)) == ("#/paths/~1x/get/security", "security")
        assert refusal(api({}, security=[{"query": [], "header": []}], **more)) == ("#/security", "security")
        assert refusal(api({"security": [{"gone": []}]}, **more))[1] == "security"
        assert only(api({"security": [{"query": []}, {"header": []}]}, **more))["name"] == "x"
        assert only(api({"security": []}, security=[{"query": []}], **more))["name"] == "x"

    def test_too_many_operations_are_refused(self) -> None:
        """A catalogue is for people to read."""
        paths = {f"/{n}": {"get": OK} for n in range(501)}
        assert [problem.rule for problem in picked({"openapi": "3.1.0", "paths": paths}).problems] == ["too_large"]

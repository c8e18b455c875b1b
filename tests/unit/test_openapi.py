"""OpenAPI documents as catalogue entries: what each part becomes, and what is refused with its place and rule."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.client.housing import House
from gateway.cli.openapi import naming, picking
from gateway.cli.openapi.adding import Target, checked
from gateway.cli.openapi.document import Document, Refused, parsed
from gateway.cli.openapi.picking import Choice, Picked
from gateway.core.tool import EffectClass

DOCUMENTS = Path(__file__).parents[1] / "fixtures" / "openapi"
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


class TestDocuments:
    """What is no document of this kind."""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (b"openapi: 3.0.0\npaths: {}\n", "only JSON is read"),
            (b"a: &a [x, x]\nb: &b [*a, *a]\n", "only JSON is read"),
            (b"[]", "only JSON is read"),
            (b"", "only JSON is read"),
            (b"\xff\xfe", "not UTF-8"),
            (b'{"a": 1, "a": 2}', "'\"a\" stands twice'"),
            (b'{"a": NaN}', "NaN is not JSON"),
            (b'{"a": 1e999}', "out of range"),
            (b'{"a": "\\ud800"}', "half a character"),
            (b'{"a": ' + b"9" * 5000 + b"}", "integer"),
            (b'{"a": 1', "line 1, column 8"),
            (b'{"a":' * 100_000, "nested deeper"),
            (b'{"a":' * 150 + b"1" + b"}" * 150, "nested deeper"),
            (b'{"a": "' + b"x" * (8 * 1024 * 1024) + b'"}', "8 MiB"),
        ],
    )
    def test_what_is_no_json_of_use(self, text: bytes, words: str) -> None:
        """YAML and its aliases, other encodings, members twice, numbers beyond all, bombs of depth and length."""
        with pytest.raises(Refused) as caught:
            parsed(text)
        assert words.strip("'") in str(caught.value)

    @pytest.mark.parametrize(
        ("document", "pointer", "rule"),
        [
            ({"swagger": "2.0"}, "#/swagger", "version"),
            ({"openapi": "3.2.0"}, "#/openapi", "version"),
            ({"openapi": 3.1}, "#/openapi", "version"),
            ({}, "#/openapi", "version"),
            ({"openapi": "3.1.0", "jsonSchemaDialect": "https://x.example.org"}, "#/jsonSchemaDialect", "dialect"),
        ],
    )
    def test_other_versions(self, document: dict[str, Any], pointer: str, rule: str) -> None:
        """Swagger 2, versions that are not known, and other dialects of schemas."""
        with pytest.raises(Refused) as caught:
            Document(document)
        assert (caught.value.pointer, caught.value.rule) == (pointer, rule)

    @pytest.mark.parametrize(
        ("servers", "source", "said", "found"),
        [
            ([{"url": "https://a.example.org/v1/"}], None, None, ("https://a.example.org", "/v1")),
            ([{"url": "/v2"}], "https://a.example.org:8443/spec/o.json", None, ("https://a.example.org:8443", "/v2")),
            (None, "https://a.example.org/o.json", None, ("https://a.example.org", "")),
            ([{"url": "https://{x}.example.org"}], None, "https://b.example.org", ("https://b.example.org", "")),
            ([{"url": "https://{x}.example.org"}], None, None, "server_variables"),
            ([{"url": "https://a.example.org"}, {"url": "https://b.example.org"}], None, None, "servers"),
            ([{"url": "/v2"}], None, None, "servers"),
            (None, None, None, "servers"),
            ([{"url": "ftp://a.example.org"}], None, None, "servers"),
            ([{"url": "file:///etc/passwd"}], None, None, "servers"),
            ([{"url": "https://u:p@a.example.org"}], None, None, "servers"),
            ([{"url": "https://a.example.org/?x=1"}], None, None, "servers"),
            ([{"url": "https://0x7f.1/"}], None, None, "servers"),
            ([{"url": "https://[::1%25lo]/"}], None, None, "servers"),
            ([{"url": "https://"}], None, None, "servers"),
            ([{"url": 7}], None, None, "servers"),
        ],
    )
    def test_where_the_api_is(
        self, servers: Any, source: str | None, said: str | None, found: tuple[str, str] | str
    ) -> None:
        """One fixed origin, by the document or by a person; variables, several and odd ones are not guessed."""
        document = Document({"openapi": "3.1.0"} | ({} if servers is None else {"servers": servers}))
        if isinstance(found, tuple):
            assert picking.server(document, source, said) == found
            return
        with pytest.raises(Refused) as caught:
            picking.server(document, source, said)
        assert caught.value.rule == found


WORDS = st.sampled_from(["object", "array", "string", "null", "#/paths", "#/components/a", "x", "query", "path", "get"])
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | WORDS
PARTS = [
    "$ref", "type", "properties", "items", "allOf", "anyOf", "parameters", "in", "name", "schema",
    "requestBody", "content", "application/json", "responses", "200", "security", "required", "operationId",
    "servers", "enum", "nullable", "additionalProperties", "exclusiveMinimum", "minimum", "a", "get", "post",
]  # fmt: skip


def nested(keys: list[str]) -> st.SearchStrategy[Any]:
    """Any JSON whose members are called so."""
    objects = st.sampled_from(keys)
    return st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(objects, inner, max_size=5),
        max_leaves=16,
    )


JSON = nested(PARTS)
SCHEMAS = nested(
    ["$ref", "type", "properties", "items", "allOf", "required", "enum", "nullable", "minimum", "a", "anyOf"]
)


@given(SCHEMAS, SCHEMAS, SCHEMAS, st.sampled_from(["3.0.3", "3.1.0"]))
def test_no_schema_breaks_the_reader(one: Any, two: Any, three: Any, version: str) -> None:
    """In a parameter, a body, an answer: carried as a schema that can be used, or refused."""
    content = {"application/json": {"schema": two}}
    answer = {"200": {"content": {"application/json": {"schema": three}}}}
    operation = {**parameter("query", one), "requestBody": {"content": content}, "responses": answer}
    found = picked(api(operation, method="post", components={"a": three}) | {"openapi": version})
    assert bool(found.entries) is not bool(found.problems)


@pytest.mark.requirement("CLEAN-2")
@given(JSON, JSON, JSON)
def test_no_document_breaks_the_reader(item: Any, components: Any, security: Any) -> None:
    """Whatever stands where: tools that the catalogue takes, or refusals with a place."""
    document = {"openapi": "3.0.1", "paths": {"/x": item}, "components": components, "security": security}
    found = picked(document)
    assert found.entries or found.problems
    assert all(problem.pointer.startswith("#") for problem in found.problems)
    assert all(checked(TARGET, entry) == [] for entry in found.entries)

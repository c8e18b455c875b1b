"""Documents as they come: what is none, where their API is, and that nothing in one breaks its reader."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.openapi import picking
from gateway.cli.openapi.adding import checked
from gateway.cli.openapi.document import Document, Refused, parsed
from tests.openapi_documents import TARGET, api, parameter, picked


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


@given(JSON, JSON, JSON)
def test_no_document_breaks_the_reader(item: Any, components: Any, security: Any) -> None:
    """Whatever stands where: tools that the catalogue takes, or refusals with a place."""
    document = {"openapi": "3.0.1", "paths": {"/x": item}, "components": components, "security": security}
    found = picked(document)
    assert found.entries or found.problems
    assert all(problem.pointer.startswith("#") for problem in found.problems)
    assert all(checked(TARGET, entry) == [] for entry in found.entries)

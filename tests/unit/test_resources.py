"""Addresses of resources: one spelling each, and the template that makes them."""

from dataclasses import replace

import pytest

from gateway.core import resources
from gateway.core.tool import EffectClass, Tool
from tests.evidence import make_tool

FILES = "file:///{+path}"


def template(text: str, effect: EffectClass = EffectClass.READ) -> Tool:
    """A pinned template of resources."""
    return make_tool(f"resources/{text}", effect=effect)


@pytest.mark.parametrize(
    "uri",
    [
        "test://template/123/data",
        "file:///etc/passwd",
        "memo:a",
        "x:/a;b=c,d/~e!$&'()*+@:",
        "file:///a%20b",
        "file:///%C3%A9",
        "file:///100%25",
        "file:///100%25/x",
        "file:///%5Ba%5D",
        "file:///...",
        "file:///.hidden",
        "web://fetch/https://example.com/x?a=1#b",
    ],
)
def test_addresses_with_one_spelling_are_taken(uri: str) -> None:
    """What may stand in an address stands there plain, and only what may not is encoded."""
    assert resources.is_made_well(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "file",
        "/etc/passwd",
        ":a",
        "FILE:///etc/passwd",
        "file:////etc/passwd",
        "file:///x//etc/passwd",
        "file://h//etc/passwd",
        "file:///x/../etc/passwd",
        "file:///x/./etc/passwd",
        "file:///..",
        "file:..",
        "file:///x/..;/etc",
        "file:///x?path=../etc",
        "file:///x#../etc",
        "file:///%65tc/passwd",
        "file:///etc%2Fpasswd",
        "file:///etc%2fpasswd",
        "file:///%2E%2E/etc",
        "file:///etc%5Cpasswd",
        "file:///etc\\passwd",
        "file:///a%252Fb",
        "file:///a%25252Fb",
        "file:///a%3Ab",
        "file:///%c3%a9",
        "file:///%C3",
        "file:///e%CC%81",
        "file:///%EF%BC%8Fetc",
        "file:///%E2%80%AEx",
        "file:///%C2%80",
        "file:///a%00",
        "file:///a%0A",
        "file:///a b",
        "file:///a\n",
        "file:///é",
        "file:///[a]",
        "file:///{a}",
        "file:///a%",
        "file:///a%2",
        "file:///a%zz",
        "x:" + "a" * resources.MAX_URI,
    ],
)
def test_addresses_with_another_spelling_name_nothing(uri: str) -> None:
    """No way around a rule: dots, empty segments, encodings of what may be plain, look-alikes, unseen characters."""
    assert not resources.is_made_well(uri)
    assert not resources.matches("{+anything}", uri)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("test://template/{id}/data", "test://template/123/data"),
        ("test://{a,b}", "test://1,2"),
        (FILES, "file:///etc/passwd"),
        ("repo://{owner}/{repo}/contents{/path*}", "repo://a/b/contents"),
        ("repo://{owner}/{repo}/contents{/path*}", "repo://a/b/contents/x/y"),
        ("x:a{.ext}", "x:a.tar.gz"),
        ("x:a{;n,m}", "x:a;n=1;m=2"),
        ("x:a{#part}", "x:a#b/c"),
        ("x:a{?q,lang}", "x:a"),
        ("x:a{?q,lang}", "x:a?lang=de&q=1"),
        ("x:a{?all*}", "x:a?k=v&l=w"),
        ("x:a?fixed=1{&q}", "x:a?fixed=1&q=2"),
        ("x:{var:3}", "x:abc"),
        ("x:{a.b}", "x:1"),
    ],
)
def test_a_template_makes_its_addresses(text: str, uri: str) -> None:
    """All expressions of RFC 6570, read backwards."""
    assert resources.matches(text, uri)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("test://template/{id}/data", "test://template/1/2/data"),
        ("test://template/{id}/data", "test://template//data"),
        ("test://template/{id}/data", "test://template/1/data?x=1"),
        ("test://template/{id}/data", "test://template/1/data#x"),
        (FILES, "file:///etc/passwd?x"),
        (FILES, "file:///etc/passwd#x"),
        (FILES, "http:///etc/passwd"),
        ("file:///a.b/{x}", "file:///a-b/c"),
        ("x:a{?q,lang}", "x:a?other=1"),
        ("x:a{?q,lang}", "x:a?q=1&q=2"),
        ("x:a{?q}", "x:a?q=1&lang=2"),
        ("x:{a", "x:b"),
        ("x:{!a}", "x:b"),
        ("x:{a}}", "x:b}"),
    ],
)
def test_a_template_makes_no_others(text: str, uri: str) -> None:
    """A value ends at its segment, a query or fragment is only where the template has one, nothing comes twice."""
    assert not resources.matches(text, uri)


def test_variables_of_a_template() -> None:
    """Each once, in order; what has none, or cannot be read, is no template."""
    assert resources.variables("x:{a,b*}/{a}{?c:3}") == ("a", "b", "c")
    for text in ("x:plain", "x:{", "x:{}", "x:{a}<", "x:{a b}", "x:{*}", "x:{a}\n", "x:{|a}"):
        assert resources.variables(text) is None


@pytest.mark.parametrize(
    ("uri", "good"),
    [
        ("file:///C%3A/x", True),
        ("x:é", False),
        ("x:a b", False),
        ("x:{a}", False),
        ("x:a\\b", False),
        ("x:", False),
        ("a", False),
        (3, False),
        ("x:" + "a" * resources.MAX_LISTED, False),
    ],
)
def test_what_may_be_listed(uri: object, good: bool) -> None:
    """An address that is compared whole may be spelled as its server likes, in printable ASCII."""
    assert resources.is_listable(uri) is good


def test_a_read_is_of_its_very_address() -> None:
    """A resource takes its own address only; a template becomes the address that it makes, or there is none."""
    listed, made = make_tool("resources/x:a%2Fb"), template("x:{id}")
    assert resources.read(listed, {"uri": "x:a%2Fb"}) is listed
    for wrong in ({"uri": "x:a/b"}, {"uri": 3}, {}):
        assert resources.read(listed, wrong) is None
    found = resources.read(made, {"uri": "x:7"})
    assert found is not None
    assert (found.fqn, found.decided_fqn, found.uri) == ("up.resources/x:{id}", "up.resources/x:7", "x:7")
    for wrong in ({"uri": "x:7/8"}, {"uri": "x:{id}"}, {"uri": 3}, {}):
        assert resources.read(made, wrong) is None
    tool = make_tool()
    assert resources.read(tool, {"uri": 3}) is tool
    assert (tool.decided_fqn, tool.is_template) == (tool.fqn, False)


def test_what_is_read_again_is_the_same_thing_again() -> None:
    """Then what is kept of it is found; of another pin's template, and of a long address, it is another thing."""
    made, renewed = template("x:{id}"), replace(template("x:{id}"), digest="renewed")
    first = resources.read(made, {"uri": "x:7"})
    assert resources.read(made, {"uri": "x:7"}) is first
    other = resources.read(renewed, {"uri": "x:7"})
    assert other is not None
    assert other.digest == "renewed"
    long = {"uri": "x:" + "7" * 300}
    assert resources.read(made, long) == resources.read(made, long)
    assert resources.read(made, long) is not resources.read(made, long)


def test_of_several_templates_the_gravest_counts() -> None:
    """Nobody knows which one the upstream takes, so policy sees the one with the gravest effect, then the first."""
    mild, grave = template("x:{+a}"), template("x:{b}", EffectClass.DESTRUCTIVE)
    also = template("x:{c}", EffectClass.DESTRUCTIVE)
    assert resources.template_of("x:1", [mild, also, grave]) is grave
    assert resources.template_of("x:1/2", [mild, grave]) is mild
    assert resources.template_of("y:1", [mild, grave]) is None
    assert resources.template_of("x:a/../1", [mild, grave]) is None


def test_names_of_resources_on_the_aggregate_do_not_collide() -> None:
    """The same address of two servers has two names, and none that a client could fetch by itself."""
    one, other = make_tool("resources/file:///a"), make_tool("resources/file:///a", server="two")
    assert (one.wire_name, other.wire_name) == ("ostiary:up:file:///a", "ostiary:two:file:///a")

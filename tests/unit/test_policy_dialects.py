"""What engines read differently is refused by the lint, and only that: each case is asked of both engines."""

from typing import Any

import pytest

from deploy.campaigns.policy_diff.differences import plain
from deploy.campaigns.policy_diff.oracle import Oracle, Spoken
from gateway.adapters.rego import testing
from gateway.adapters.rego.dialects import keeps_to
from tests.oracles import both, deciding, oracle

__all__ = ["oracle"]

INPUT: dict[str, Any] = {
    "args": {
        "text": "Stra\u00dfe",
        "face": "a\U0001f600",
        "n": 5,
        "half": 0.1,
        "empty": "",
        "list": [3, 1, 2],
        "object": {"a": 1, "b": 2},
        "null": None,
        "code": "AB12",
    },
    "time": {"us": 1767225600000000},
}
# Refused, and rightly: the engines answer these otherwise. Without `x := ` they are whole rules.
DIFFERENT = [
    ("GW009", 'base64.decode("YQ==\\n")'),
    ("GW009", 'base64.is_valid("YQ==\\n")'),
    ("GW009", "base64.is_valid(input.args.n)"),
    ("GW009", "bits.lsh(1, 70) + 1"),
    ("GW009", "ceil(0 - input.args.half)"),
    ("GW009", 'glob.match("{*.x,b}.y", null, "a.x.y")'),
    ("GW009", 'glob.match("*", [":", "/"], "a:b")'),
    ("GW009", 'glob.match("?", [], "\u00e9")'),
    ("GW009", 'indexof_n("abc", input.args.empty)'),
    ("GW009", 'indexof("abc", input.args.empty)'),
    ("GW009", 'json.filter({"a": {"b": 1}}, ["/a/b"])'),
    ("GW009", "json.is_valid(input.args.n)"),
    ("GW009", 'json.marshal("<&>")'),
    ("GW009", 'json.match_schema({"a": 1}, {"type": "object"})'),
    ("GW009", 'json.patch({"a": 1}, [{"op": "remove", "path": "/z"}])'),
    ("GW009", 'json.unmarshal("\\"\\\\ud800\\"")'),
    ("GW009", "lower(input.args.text)", "\u0130"),
    ("GW009", "upper(input.args.text)"),
    ("GW009", 'net.cidr_contains("10.0.0.0/8", input.args.text)', "::ffff:10.0.0.1"),
    ("GW009", "object.subset([1], input.args.n)"),
    ("GW009", 'regex.split("", "abc")'),
    ("GW009", 'semver.compare("v1.2.3", "1.2.3")'),
    ("GW009", 'semver.is_valid("01.2.3")'),
    ("GW009", 'strings.count("aaa", "aa")'),
    ("GW009", 'strings.replace_n({"a": "b", "b": "c"}, "ab")'),
    ("GW009", "time.add_date(1769817600000000000, 0, 1, 0)"),
    ("GW009", 'time.diff([1767225600000000000, "Europe/Berlin"], 1782864000000000000)'),
    ("GW009", 'time.format([1767225600123456789, "UTC", "2006-01-02T15:04:05.999"])'),
    ("GW009", 'time.parse_duration_ns("1d")'),
    ("GW009", 'time.parse_ns("2006-01-02", "2026-1-2")'),
    ("GW009", 'time.parse_rfc3339_ns("2026-01-01 00:00:00Z")'),
    ("GW009", "to_number(input.args.text)", " 5"),
    ("GW009", 'units.parse("10X")'),
    ("GW009", 'units.parse_bytes("0.5")'),
    ("GW009", 'urlquery.decode("%zz")'),
    ("GW009", 'urlquery.decode_object("a;b=1")'),
    ("GW009", 'urlquery.encode("~*")'),
    ("GW009", 'uuid.parse("00000000-0000-7000-8000-000000000000")'),
    ("GW009", 'yaml.unmarshal("a: yes")'),
    ("GW010", 'sprintf("%s", [1])'),
    ("GW010", 'sprintf("%d", ["a"])'),
    ("GW010", 'sprintf("%d", [1.5])'),
    ("GW010", 'sprintf("%f", [1.5])'),
    ("GW010", 'sprintf("%5s|", ["a"])'),
    ("GW010", 'sprintf("%t", [true])'),
    ("GW010", 'sprintf("%s %s", ["a"])'),
    ("GW010", 'sprintf("%s", ["a", "b"])'),
    ("GW010", 'sprintf("abc", input.args.list)'),
    ("GW011", 'regex.match(`\\d`, "\u0663")'),
    ("GW011", 'regex.match(`\\w`, "\u00e9")'),
    ("GW011", 'regex.match(`[\\s]`, "\u00a0")'),
    ("GW011", 'regex.match(`\\B`, "\u00e9")'),
    ("GW011", 'regex.match("[a&&b]", "&")'),
    ("GW011", 'regex.match("[a-c--b]", "b")'),
    ("GW011", 'regex.match("[[a]]", "a")'),
    ("GW011", 'regex.match("a{1001}", "a")'),
    ("GW011", 'regex.match("a**", "a")'),
    ("GW011", 'regex.match("a{,3}b", "aab")'),
    ("GW011", 'regex.match(`\\<a`, "a")'),
    ("GW011", 'regex.match("(?x)a b", "ab")'),
    ("GW011", 'regex.match(`\\p{Alphabetic}`, "\u00e9")'),
    ("GW011", 'regex.match(`\\Qa.b\\E`, "a.b")'),
    ("GW011", "regex.match(input.args.text, `\u0663`)", "\\d"),
    ("GW013", "0.1 + 0.2 == 0.3"),
    ("GW013", "input.args.half * 3"),
    ("GW013", "29 / 100 * 100 == 29"),
    ("GW013", "170141183460469231731687303715884105729"),
    ("GW014", "count(input.args.face)"),
    ("GW014", "[y | some y in input.args.text]"),
    ("GW014", "[y | some y in input.args.null]"),
    ("GW014", "input.args.object < {1}"),
    ("GW014", '[y | {"a": y} = input.args.object]'),
    ("GW014", '[y | some {"a": y} in [input.args.object]]'),
    ("GW014", "f(input.args.object)"),
    ("GW014", "[name | data.gateway[name].helper]"),
]
# Let through, and rightly: the engines agree.
ALIKE = [
    "count([1, 2]) > 1",
    "floor(7 / 2) + round(10 / 3)",
    'sprintf("%s %d %v %%", ["a", 3, [1, "b"]])',
    'sprintf("%v", [input.args.missing])',
    'sprintf("%d", [input.args.n])',
    '[regex.match(`^[0-9]{1,3}$`, y) | some y in ["12", "\u0663"]]',
    '[regex.match(`(?i)^straSSe|k$`, y) | some y in ["STRASSE", "\u212a", "\u0130"]]',
    'regex.replace("a.b", `[.](b)`, "<$1>")',
    'regex.find_n("a.", "abacad", -1)',
    '[regex.match(`^(?:a|b)+?[^\\]x]{2,}\\.$`, y) | some y in ["abyy.", "ab]y.", "\u00e9"]]',
    "input.args.list[_] == 2",
    '"a" in input.args.null',
    "[y | some y in {3, 1}]",
    'sort([3, "a", null, true, [1], {"a": 1}, 1.5, false])',
    'max(["a", "B", "\u00e9", "\U0001f600", "\uffff"])',
    'split("a\U0001f600b", "")',
    'substring("a\U0001f600b", 1, 1)',
    'indexof("a\U0001f600b", "b")',
    'trim_space("\u2003a\u0085")',
    'replace("aXbX", "X", "")',
    "format_int(10.7, 2)",
    'object.get(input.args, ["object", "a"], 0)',
    'object.get(input.args.missing, "a", 9)',
    'object.union({"a": {"b": 1}}, {"a": {"c": 2}})',
    "array.slice([1, 2, 3], 1, 5)",
    'time.clock([input.time.us * 1000, "Europe/Berlin"])',
    "time.weekday(input.time.us * 1000)",
    "time.add_date(input.time.us * 1000, 0, 0, 40)",
    "numbers.range(3, 1)",
    "1 % 0",
    '"a" + 1',
    'startswith(input.args.n, "a")',
    '{"a": 1, "b": input.args.missing}',
    "9007199254740992 + 1",
    "-5 % 3",
]
# Let through where the same body says what they are asked of; the text is given in place of INPUT's.
GUARDED = [
    ("regex.match(`^[ -~]*$`, input.args.text); x := lower(input.args.text)", "ABC"),
    ("regex.match(`^[ -~]*$`, input.args.text); x := lower(input.args.text)", "\u0130"),
    ("regex.match(`^[A-Z]{1,9}$`, input.args.text); x := upper(input.args.text)", "ABC"),
    ("regex.match(`^-?[0-9]{1,15}$`, input.args.text); x := to_number(input.args.text)", "12"),
    ("regex.match(`^-?[0-9]{1,15}$`, input.args.text); x := to_number(input.args.text)", " 5"),
    ('regex.match(`^[0-9.]+$`, input.args.text); x := net.cidr_contains("10.0.0.0/8", input.args.text)', "10.1.2.3"),
    ("is_array(input.args.text); some x in input.args.text", "abc"),
    ("every y in input.args.text { y == 1 }; x := 1", "abc"),
    ("[x, y] = [input.args.text, 2]; y == 2", "abc"),
    ("is_array(input.args.text); x := count(input.args.text)", "\U0001f600"),
]
HELPERS = {"f(input": '\n\nf({"a": x}) := x', ".helper": "\n\nhelper := 1"}


def rules(expression: str) -> str:
    """A decision that is the value of the expression."""
    helpers = "".join(text for sign, text in HELPERS.items() if sign in expression)
    return f"decision := x if {{ x := {expression} }}{helpers}"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The rules of the lint that find something, by the text of a package; all are examined at once, which is quick."""
    folder = tmp_path_factory.mktemp("cases")
    texts = [*(rules(case[1]) for case in DIFFERENT), *map(rules, ALIKE), *(guarded(body) for body, _text in GUARDED)]
    for number, text in enumerate(texts):
        (folder / f"p{number}.rego").write_text(f"package gateway.lib.p{number}\n\n{text}\n", "utf-8")
    findings = testing.check(folder)
    return {
        text: {finding.rule for finding in findings if finding.file.endswith(f"/p{number}.rego")}
        for number, text in enumerate(texts)
    }


def guarded(body: str) -> str:
    """A decision that a body makes, as ``x``."""
    return f"decision := x if {{ {body} }}"


def word(said: Spoken) -> str:
    """What an engine says, in one form."""
    return plain(said.result) if said.result is not None else str(said.fault)


@pytest.mark.parametrize("case", DIFFERENT, ids=lambda case: case[1])
def test_what_engines_read_differently_is_refused(
    found: dict[str, set[str]], oracle: Oracle, case: tuple[str, ...]
) -> None:
    """The lint names the rule, and the engines do differ: no rule stands here for nothing."""
    rule, expression, *text = case
    assert rule in found[rules(expression)]
    document = {**INPUT, "args": {**INPUT["args"], **({"text": text[0]} if text else {})}}
    one, other = both(oracle, deciding(rules(expression)), document)
    assert word(one) != word(other)


@pytest.mark.parametrize("expression", ALIKE)
def test_what_engines_read_alike_is_let_through(found: dict[str, set[str]], oracle: Oracle, expression: str) -> None:
    """The lint finds nothing, and the engines agree, also on faults and on what is undefined."""
    assert found[rules(expression)] == set()
    one, other = both(oracle, deciding(rules(expression)), INPUT)
    assert word(one) == word(other)


@pytest.mark.parametrize(("body", "text"), GUARDED)
def test_a_guard_in_the_same_body_is_enough(found: dict[str, set[str]], oracle: Oracle, body: str, text: str) -> None:
    """What differs for some texts only is let through where a check keeps those out."""
    assert found[guarded(body)] == set()
    one, other = both(oracle, deciding(guarded(body)), {**INPUT, "args": {**INPUT["args"], "text": text}})
    assert word(one) == word(other)


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("^[ -~]*$", True),
        ("^(?:[a-z]+[.]){2}$", True),
        ("^$", True),
        ("[ -~]*$", False),
        ("^[ -~]*", False),
        ("^[ -~]*\\$", False),
        ("^a|.*$", False),
        ("^.*$", False),
        ("^[^a]$", False),
        ("^(?i)[a-z]$", False),
        ("^[\\pL]$", False),
        ("^[ -\u0130]*$", False),
        ("^\\pL$", False),
    ],
)
def test_guards_keep_to_their_characters(pattern: str, kept: bool) -> None:
    """Only an expression that is bound at both ends and has nothing wider in it is a guard."""
    assert keeps_to(pattern, "[ -~]") is kept

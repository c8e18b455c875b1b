"""Functions that answer otherwise on another engine, for some arguments or for all: GW009 to GW011.

Each stands here because the oracle of the policy tests (OPA itself) was seen to say something else than the embedded
engine; ``tests/unit/test_policy_dialects.py`` holds a case of each.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.adapters.rego.dialects import format_problem, keeps_to, regex_problem
from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.trees import Source, below, static_path, stripped

_ASK_FOR: Final = "have the tool's schema ask for the form you need"
_PATTERNS: Final = "write regex.match, startswith, endswith or contains"
# What these turn into expressions is checked where it is loaded, or by themselves.
_LIBRARIES: Final = ("data.gateway.lib.scope", "data.gateway.lib.settings")
# GW009: function, and what to write instead.
_REFUSED: Final = {
    "base64.decode": _ASK_FOR,
    "base64.is_valid": _ASK_FOR,
    "base64url.decode": _ASK_FOR,
    "bits.lsh": "multiply by the power of two",
    "ceil": "write 0 - floor(0 - x)",
    "glob.match": _PATTERNS,
    "glob.quote_meta": _PATTERNS,
    "indexof_n": "write indexof, or split",
    "json.filter": "name the members in an object of your own",
    "json.is_valid": _ASK_FOR,
    "json.marshal": "compare the values themselves",
    "json.marshal_with_options": "compare the values themselves",
    "json.match_schema": _ASK_FOR,
    "json.patch": "write object.union and object.remove",
    "json.remove": "write object.remove",
    "json.unmarshal": _ASK_FOR,
    "json.verify_schema": _ASK_FOR,
    "object.subset": "write `every key, value in one { other[key] == value }`",
    "regex.is_valid": "write the expression in place",
    "regex.split": "write split",
    "regex.template_match": "write regex.match",
    "semver.compare": "compare numbers",
    "semver.is_valid": "write regex.match",
    "strings.count": "write count(split(text, part)) - 1",
    "strings.replace_n": "write replace, in the order you mean",
    "time.diff": "subtract microseconds",
    "time.format": "write time.date or time.clock",
    "time.parse_duration_ns": "write the number of microseconds",
    "time.parse_ns": "read input.time, or " + _ASK_FOR,
    "time.parse_rfc3339_ns": "read input.time.us, or " + _ASK_FOR,
    "units.parse": _ASK_FOR,
    "units.parse_bytes": _ASK_FOR,
    "urlquery.decode": _ASK_FOR,
    "urlquery.decode_object": _ASK_FOR,
    "urlquery.encode": "compare the values themselves",
    "urlquery.encode_object": "compare the values themselves",
    "uuid.parse": "write regex.match",
    "yaml.is_valid": _ASK_FOR,
    "yaml.marshal": "compare the values themselves",
    "yaml.unmarshal": _ASK_FOR,
}
# GW009: fine for an operand (by place) that the same body holds against a pattern of such characters, here an example.
_GUARDED: Final = {
    "lower": (0, "[ -~]", "^[ -~]*$"),
    "upper": (0, "[ -~]", "^[ -~]*$"),
    "net.cidr_contains": (1, "[0-9./]", "^[0-9.]+$"),
    "to_number": (0, "[0-9-]", "^-?[0-9]{1,15}$"),
}
_REGEX: Final = {
    "regex.match": 0,
    "regex.find_n": 0,
    "regex.find_all_string_submatch_n": 0,
    "regex.replace": 1,
}
_NUMERIC: Final = ("count", "floor", "round")
_OTHERS: Final = ("Array", "Set", "Object", "ArrayCompr", "SetCompr", "ObjectCompr", "Bool", "Null")
_Node = Mapping[str, Any]


def lint(module: Source) -> Iterator[Finding]:
    """What the module calls and should not, or not like this."""
    for rule in module.rules:
        for body, call in _calls(rule, _only_body(rule)):
            name, params = _name(module, call), call["params"]
            problem = _problem(module, name, params, body)
            if problem is not None:
                yield Finding(module.file, call["span"]["line"], problem[0], problem[1])


def _only_body(rule: _Node) -> Sequence[_Node]:
    # What the head says holds where its one body does.
    bodies = rule.get("Spec", {}).get("bodies", ())
    return bodies[0]["query"]["stmts"] if len(bodies) == 1 else []


def _calls(tree: Any, body: Sequence[_Node]) -> Iterator[tuple[Sequence[_Node], _Node]]:
    """Each call, with all the literals that hold where it is made."""
    level = [(tree, body)]
    while level:
        node, holds = level.pop()
        if isinstance(node, dict):
            if "stmts" in node:
                holds = [*holds, *node["stmts"]]
            if "Call" in node:
                yield holds, node["Call"]
            level += [(child, holds) for child in below(node)]
        elif isinstance(node, list):
            level += [(child, holds) for child in node]


def _problem(module: Source, name: str, params: Sequence[_Node], body: Sequence[_Node]) -> tuple[str, str] | None:
    if name in _REFUSED:
        return "GW009", f"{name} answers otherwise on another engine: {_REFUSED[name]}"
    if name in _GUARDED:
        return _unguarded(module, name, params, body)
    if name == "sprintf":
        return _format(params)
    if name in _REGEX and module.package not in _LIBRARIES:
        return _regex(name, params)
    return _odd(name, params)


def _odd(name: str, params: Sequence[_Node]) -> tuple[str, str] | None:
    if name == "indexof" and not (len(params) == 2 and text_of(params[1])):  # noqa: PLR2004  text and part
        return "GW009", "indexof of what may be empty fails on another engine: write the part in place"
    if name == "time.add_date" and not all(_is_zero(param) for param in params[1:3]):
        return "GW009", "time.add_date counts months otherwise on another engine: add days only"
    return None


def _unguarded(module: Source, name: str, params: Sequence[_Node], body: Sequence[_Node]) -> tuple[str, str] | None:
    place, allowed, example = _GUARDED[name]
    if place >= len(params):
        return None
    operand = params[place]
    written = text_of(operand)
    if written is not None and keeps_to(f"^{written}$", allowed):
        return None
    if any(_holds(module, literal, operand, allowed) for literal in body):
        return None
    return "GW009", f"{name} of any text differs between engines: put regex.match(`{example}`, ...) of it before"


def _holds(module: Source, literal: _Node, operand: _Node, allowed: str) -> bool:
    call = literal.get("literal", {}).get("Expr", {}).get("expr", {}).get("Call")
    if call is None or literal.get("with_mods") or _name(module, call) != "regex.match":
        return False
    if len(call["params"]) != 2:  # noqa: PLR2004  expression and text
        return False
    pattern, text = call["params"]
    return stripped(text) == stripped(operand) and keeps_to(text_of(pattern) or "", allowed)


def _format(params: Sequence[_Node]) -> tuple[str, str] | None:
    text = text_of(params[0]) if params else None
    given = params[1].get("Array", {}).get("items") if len(params) > 1 else None
    if text is None or given is None:
        return "GW010", "sprintf wants its format and its list of arguments in place, so that they can be checked"
    problem = format_problem(text, [_kind(node) for node in given])
    return None if problem is None else ("GW010", f"sprintf: {problem}")


def _kind(node: _Node) -> str:
    """What a value is for certain: ``text``, ``integer``, ``other``; or empty."""
    number = node.get("Number")
    if number is not None:
        return "integer" if isinstance(number["value"], int) else "other"
    if text_of(node) is not None:
        return "text"
    if "Call" in node and ".".join(static_path(node["Call"]["fcn"])) in _NUMERIC:
        return "integer"
    return "other" if any(kind in node for kind in _OTHERS) else ""


def _regex(name: str, params: Sequence[_Node]) -> tuple[str, str] | None:
    place = _REGEX[name]
    pattern = text_of(params[place]) if place < len(params) else None
    if pattern is None:
        return "GW011", f"{name} wants its expression in place, so that it can be checked"
    problem = regex_problem(pattern)
    return None if problem is None else ("GW011", f"{name}: {problem}")


def _is_zero(node: _Node) -> bool:
    return bool(node.get("Number", {}).get("value", 1) == 0)


def text_of(node: _Node) -> str | None:
    """The text of a string that is written in place."""
    found = node.get("String") or node.get("RawString")
    return None if found is None else str(found["value"])


def _name(module: Source, call: _Node) -> str:
    path = static_path(call["fcn"])
    return ".".join(path) if path and path[0] not in module.names else ""

"""Forms of the language that mean something else on another engine: GW013 numbers, GW014 what is looked through."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.adapters.rego.finding import Finding
from gateway.adapters.rego.trees import Source, nodes, static_path, stripped

_Node = Mapping[str, Any]
_ROUNDED: Final = ("floor", "round")
_COUNTABLE: Final = ("is_array", "is_object", "is_set")
_MAIN: Final = "data.gateway.main"
_ORDERED: Final = ("Lt", "Le", "Gt", "Ge")
_LARGEST: Final = 2**63
_FRACTIONS: Final = "fractions add up otherwise on another engine"


def lint(module: Source, packages: Collection[str]) -> Iterator[Finding]:
    """What the module's rules should say in another way; ``packages`` are all of the bundle, ``data.`` first."""
    for rule in module.rules:
        found = list(nodes(rule))
        rounded = {id(node) for call in found if "Call" in call for node in _inside(call["Call"])}
        for node in found:
            for line, number, message in _problems(node, rounded):
                yield Finding(module.file, line, number, message)
        for line, message in (*_looks(found), *_patterns(found), *_reaches(module, found, packages)):
            yield Finding(module.file, line, "GW014", message)


def _problems(node: _Node, rounded: Collection[int]) -> Iterator[tuple[int, str, str]]:
    if "ArithExpr" in node:
        message = _arithmetic(node["ArithExpr"], is_rounded=id(node) in rounded)
        if message is not None:
            yield node["ArithExpr"]["span"]["line"], "GW013", message
    number = node.get("Number", {}).get("value", 0)
    if isinstance(number, int | float) and abs(number) >= _LARGEST:
        yield node["Number"]["span"]["line"], "GW013", "numbers beyond 2^63 lose digits on one engine"
    compared = node.get("BoolExpr", {})
    if compared.get("op") in _ORDERED and any(_is_set(compared[side]) for side in ("lhs", "rhs")):
        yield compared["span"]["line"], "GW014", "sets are ordered otherwise on another engine: compare their counts"


def _inside(call: _Node) -> Iterator[_Node]:
    if static_path(call["fcn"]) in [[name] for name in _ROUNDED]:
        yield from call["params"][:1]


def _arithmetic(found: _Node, *, is_rounded: bool) -> str | None:
    if found["op"] == "Mod":
        return None  # of a fraction it fails on both
    sides = (found["lhs"], found["rhs"])
    if any(_is_fraction(side) for side in sides):
        return f"{_FRACTIONS}: calculate in whole units (cents, basis points)"
    if any(_is_argument(side) for side in sides):
        return f"{_FRACTIONS}: take amounts from input.run.amounts, or round() the argument first"
    divisor = found["rhs"].get("Number", {}).get("value", 0)
    if found["op"] == "Div" and not (is_rounded and divisor):
        return f"{_FRACTIONS}, and a division by zero fails: multiply the other side, or write floor(x / 100)"
    return None


def _is_fraction(node: _Node) -> bool:
    value = node.get("Number", {}).get("value", 0)
    return isinstance(value, float) and not value.is_integer()


def _is_argument(node: _Node) -> bool:
    return ("RefDot" in node or "RefBrack" in node) and static_path(node)[:2] == ["input", "args"]


def _is_set(node: _Node) -> bool:
    return "Set" in node or "SetCompr" in node or "BinExpr" in node


def _looks(found: Sequence[_Node]) -> Iterator[tuple[int, str]]:
    # What is no collection fails on one engine and is empty on the other; a text is counted in other units.
    for body in found:
        for statement in body.get("stmts", ()):
            literal = statement["literal"]
            collection = literal.get("SomeIn", {}).get("collection", {})
            if _is_argument(collection) and not _is_known(body["stmts"], collection):
                line = literal["SomeIn"]["span"]["line"]
                yield line, "`some` in what may be no list fails on one engine only: put is_array(...) of it before"
            for call in _counts(literal):
                if not _is_known(body["stmts"], call["params"][0]):
                    line = call["span"]["line"]
                    yield line, "count of a text differs between engines: put is_array(...) of it before, or split it"


def _counts(literal: _Node) -> Iterator[_Node]:
    for node in nodes(literal):
        call = node.get("Call", {})
        if call and static_path(call["fcn"]) == ["count"] and any(map(_is_argument, call["params"][:1])):
            yield call


def _is_known(statements: Sequence[_Node], operand: _Node) -> bool:
    wanted = stripped(operand)
    return any(
        stripped(call["params"][:1]) == [wanted]
        for statement in statements
        if not statement.get("with_mods") and (call := statement["literal"].get("Expr", {}).get("expr", {}).get("Call"))
        if static_path(call["fcn"]) in [[name] for name in _COUNTABLE]
    )


def _patterns(found: Sequence[_Node]) -> Iterator[tuple[int, str]]:
    # Whether {"a": x} fits an object with more members than "a" is answered in two ways.
    message = "an object as a pattern fits other objects on another engine: read its members by name"
    for node in found:
        assigned = node.get("AssignExpr", {})
        if assigned and _takes_apart(assigned):
            yield assigned["span"]["line"], message
        some = node.get("SomeIn", {})
        if some and any("Object" in inner for inner in nodes(some["value"])):
            yield some["span"]["line"], message
        head = node.get("Func", {})
        if head and any("Object" in inner for argument in head.get("args", ()) for inner in nodes(argument)):
            yield head["span"]["line"], message


def _takes_apart(found: _Node) -> bool:
    left, right = found["lhs"], found["rhs"]
    if found["op"] == "ColEq":
        return any("Object" in node for node in nodes(left))
    sides = ((left, right), (right, left))
    return any(
        "Var" not in other
        and any("Object" in node and any("Var" in part for part in nodes(node)) for node in nodes(one))
        for one, other in sides
    )


def _reaches(module: Source, found: Sequence[_Node], packages: Collection[str]) -> Iterator[tuple[int, str]]:
    # One engine leaves out what it is just evaluating.
    if module.package == _MAIN:
        return
    for node in found:
        if "RefBrack" not in node or "String" in node["RefBrack"]["index"]:
            continue
        path = _full(module, node["RefBrack"]["refr"])
        if path and any(package.startswith(f"{path}.") for package in packages):
            yield node["RefBrack"]["span"]["line"], f"{path}[...] looks through packages: name the one you mean"


def _full(module: Source, node: _Node) -> str:
    path = static_path(node)
    if not path or path[0] in module.names:
        return ""
    return ".".join([module.imports.get(path[0], path[0]), *path[1:]])

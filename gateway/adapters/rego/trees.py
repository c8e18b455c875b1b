"""Parsed modules. A tree is the engine's own JSON form: each node is an object with one key, its kind."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed module.

    Attributes:
        file: its name.
        package: ``data.gateway...``.
        imports: alias to full path.
        rules: syntax trees of its rules.
    """

    file: str
    package: str
    imports: Mapping[str, str]
    rules: Sequence[Mapping[str, Any]]

    @property
    def names(self) -> list[str]:
        """Names of its rules, each once, in order."""
        return list(dict.fromkeys(rule_name(rule) for rule in self.rules))


def source(file: str, text: str, tree: Mapping[str, Any]) -> Source:
    """The module of a syntax tree and the text it was parsed from (an alias is but a place in the text)."""
    imports: dict[str, str] = {}
    content = text.encode()
    for entry in tree["imports"]:
        path = ".".join(static_path(entry["refr"]))
        alias = entry.get("as")
        name = content[alias["start"] : alias["end"]].decode(errors="replace") if alias else path.rpartition(".")[2]
        imports[name] = path
    package = ".".join(["data", *static_path(tree["package"]["refr"])])
    return Source(file, package, imports, tree["rules"])


def nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    """All objects in a tree, itself included, but for places in the text."""
    level = [tree]
    while level:
        node = level.pop()
        if isinstance(node, dict):
            yield node
            level += below(node)
        elif isinstance(node, list):
            level += node


def below(node: Mapping[str, Any]) -> list[Any]:
    """The objects and lists right below a node, but for places in the text."""
    # Every start of a gateway walks its policies some times; half of all objects are places.
    return [child for key, child in node.items() if type(child) in _BRANCHES and key != "span"]


def static_path(node: Mapping[str, Any]) -> list[str]:
    """The static part of a reference; empty where the reference hangs on something else than a name."""
    if "Var" in node:
        return [str(node["Var"]["value"])]
    if "RefDot" in node:
        inner = static_path(node["RefDot"]["refr"])
        return [*inner, str(node["RefDot"]["field"][1])] if inner else []
    if "RefBrack" in node:
        inner, index = static_path(node["RefBrack"]["refr"]), node["RefBrack"]["index"]
        return [*inner, str(index["String"]["value"])] if inner and "String" in index else inner
    return []


def rule_name(rule: Mapping[str, Any]) -> str:
    """The name a rule is asked by."""
    if "Default" in rule:
        return ".".join(static_path(rule["Default"]["refr"])[:1])
    (head,) = rule["Spec"]["head"].values()
    return ".".join(static_path(head["refr"])[:1])


def line_of(rule: Mapping[str, Any]) -> int:
    """The line a rule begins on."""
    (body,) = rule.values()
    return int(body["span"]["line"])


def stripped(node: Any) -> Any:
    """The tree without its places in the text: two expressions that are written alike are equal."""
    if isinstance(node, Mapping):
        if "field" in node and isinstance(node["field"], list):
            return {"refr": stripped(node["refr"]), "field": node["field"][1]}
        return {key: stripped(child) for key, child in node.items() if key not in _PLACES}
    return [stripped(child) for child in node] if isinstance(node, list) else node


_PLACES = frozenset({"span", "eidx", "sidx", "qidx"})
# Of the JSON decoder, which makes no others.
_BRANCHES = frozenset({dict, list})

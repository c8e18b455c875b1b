"""Which rules spoke in one decision, where they stand, and which lines of them were evaluated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.adapters.rego.examination import answers
from gateway.adapters.rego.lint import PARTS
from gateway.adapters.rego.preflight import parse
from gateway.adapters.rego.trees import Source, nodes, rule_name, static_path
from gateway.core.bundle import Bundle

RULE = "data.gateway.main.decision"
STEP_S = 5.0
MOST_THROUGH = 12
_POLICIES = "data.gateway.policies."


@dataclass(frozen=True, slots=True)
class Line:
    """A line of source; ``evaluated`` is None where nothing of it can be (a comment, a brace)."""

    number: int
    text: str
    evaluated: bool | None


@dataclass(frozen=True, slots=True)
class Through:
    """A rule that another one refers to, of which something was evaluated: whether it holds, the lines do not say.

    Attributes:
        name: full path, ``data.gateway.lib.scope.granted``.
        file: the module it stands in.
        lines: its source.
    """

    name: str
    file: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Spoke:
    """A rule that spoke.

    Attributes:
        part: ``allow``, ``deny``, ``require``, ``oblige`` or ``hint``.
        id: the reason's id.
        package: ``data.gateway.policies.NAME``.
        file: the module it stands in.
        lines: its source.
        through: the rules it refers to, and those they do, nearest first; at most ``MOST_THROUGH``.
    """

    part: str
    id: str
    package: str
    file: str
    lines: tuple[Line, ...]
    through: tuple[Through, ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """One decision, followed.

    Attributes:
        spoke: rules that spoke, in the order of their files.
        silent: how many exported rules were evaluated and had nothing to say.
        fault: how the engine failed, or empty.
    """

    spoke: tuple[Spoke, ...]
    silent: int
    fault: str


async def follow(bundle: Bundle, document: bytes) -> Followed:
    """Evaluate one input in a throw-away child and say which rules spoke."""
    request = {
        "task": "follow",
        "modules": [[module.name, module.text] for module in bundle.modules],
        "data": bundle.data,
        "input": document.decode(),
        "rules": [RULE],
    }
    said, ending = await answers(request, STEP_S)
    value = next((answer["value"] for answer in said if "value" in answer), None)
    if ending or not isinstance(value, dict):
        words = next((answer["error"] for answer in said if "error" in answer), "gives no decision")
        return Followed((), 0, f"the engine {ending}" if ending else words)
    covered = {file: (set(hit), set(missed)) for answer in said for file, hit, missed in answer.get("coverage", ())}
    source = _Source(bundle, (await parse(bundle.modules)).sources, covered)
    spoke: list[Spoke] = []
    silent = 0
    for module in source.modules:
        for part, rule in _exported(module):
            found = _spoke(module, part, rule, value)
            lines = source.lines(module.file, rule)
            if found is not None and _reached(rule, lines):
                through = tuple(source.through(module, rule))
                spoke.append(Spoke(part, found, module.package, module.file, lines, through))
            else:
                silent += any(line.evaluated for line in lines)
    return Followed(tuple(spoke), silent, "")


class _Source:
    """The source of a bundle, and which lines of it were evaluated."""

    def __init__(
        self, bundle: Bundle, modules: Sequence[Source], covered: Mapping[str, tuple[set[int], set[int]]]
    ) -> None:
        self.modules = modules
        self._texts = {module.name: module.text for module in bundle.modules}
        self._covered = covered
        self._rules: dict[str, list[tuple[Source, Mapping[str, Any]]]] = {}
        for module in modules:
            for rule in module.rules:
                if "Spec" in rule:
                    self._rules.setdefault(f"{module.package}.{rule_name(rule)}", []).append((module, rule["Spec"]))

    def lines(self, file: str, rule: Mapping[str, Any]) -> tuple[Line, ...]:
        """The lines a rule stands on."""
        text = self._texts[file]
        first, last = rule["span"]["line"], text.encode()[: rule["span"]["end"]].count(b"\n") + 1
        hit, missed = self._covered.get(file, (set(), set()))
        return tuple(
            Line(number, line, True if number in hit else False if number in missed else None)
            for number, line in enumerate(text.splitlines()[first - 1 : last], first)
        )

    def through(self, module: Source, rule: Mapping[str, Any]) -> Iterator[Through]:
        """The rules that a rule refers to, and those they do."""
        seen = {f"{module.package}.{part}" for part in PARTS}  # the head names the set it adds to
        level = [(module, rule)]
        left = MOST_THROUGH
        while level:
            names = [name for where, one in level for name in self._references(where, one) if name not in seen]
            level = []
            for name in dict.fromkeys(names):
                seen.add(name)
                for where, one in self._rules[name]:
                    lines = self.lines(where.file, one)
                    if left and any(line.evaluated for line in lines):
                        left -= 1
                        level.append((where, one))
                        yield Through(name, where.file, lines)

    def _references(self, module: Source, rule: Mapping[str, Any]) -> Iterator[str]:
        for node in nodes(rule):
            path = static_path(node)
            if path:
                first = module.imports.get(path[0], path[0])
                whole = ".".join([first, *path[1:]]) if first != path[0] or path[0] == "data" else ""
                yield from (name for name in (f"{module.package}.{path[0]}", whole) if name in self._rules)


def _exported(module: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if module.package.startswith(_POLICIES):
        for rule in module.rules:
            part = rule_name(rule)
            if part in PARTS and "Spec" in rule:
                yield part, rule["Spec"]


def _spoke(module: Source, part: str, rule: Mapping[str, Any], value: Mapping[str, Any]) -> str | None:
    # Ids are plain strings in the head: GW005 refuses any other, except where the object is made in the body.
    said = {item.get("id") for item in value.get(part, {}).get(module.package.removeprefix(_POLICIES), ())}
    given = _members(rule).get("id", {}).get("String", {}).get("value")
    if given is None:
        return ", ".join(sorted(map(str, said))) or None
    return given if given in said else None


def _members(rule: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    fields = (rule["head"].get("Set", {}).get("key") or {}).get("Object", {}).get("fields", ())
    return {entry[1]["String"]["value"]: entry[2] for entry in fields if "String" in entry[1]}


def _reached(rule: Mapping[str, Any], lines: Sequence[Line]) -> bool:
    # The head of a rule is evaluated where its body holds, so of two rules with one id the one that spoke shows.
    numbers = {span["line"] for value in _members(rule).values() for span in _spans(value)}
    marks = [line.evaluated for line in lines if line.number in numbers and line.evaluated is not None]
    return not marks or any(marks)


def _spans(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for node in value.values():
        if isinstance(node, dict) and "span" in node:
            yield node["span"]

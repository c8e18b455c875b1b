"""Which rules spoke in one decision, where they stand, and which lines of them were evaluated."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.adapters.rego.examination import answers
from gateway.adapters.rego.lint import PARTS
from gateway.adapters.rego.preflight import parse
from gateway.adapters.rego.trees import Source, rule_name
from gateway.core.bundle import Bundle

RULE = "data.gateway.main.decision"
STEP_S = 5.0
_POLICIES = "data.gateway.policies."


@dataclass(frozen=True, slots=True)
class Line:
    """A line of source; ``evaluated`` is None where nothing of it can be (a comment, a brace)."""

    number: int
    text: str
    evaluated: bool | None


@dataclass(frozen=True, slots=True)
class Spoke:
    """A rule that spoke.

    Attributes:
        part: ``allow``, ``deny``, ``require``, ``oblige`` or ``hint``.
        id: the reason's id.
        package: ``data.gateway.policies.NAME``.
        file: the module it stands in.
        lines: its source.
    """

    part: str
    id: str
    package: str
    file: str
    lines: tuple[Line, ...]


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
    spoke: list[Spoke] = []
    silent = 0
    for module in (await parse(bundle.modules)).sources:
        for part, rule in _exported(module):
            found = _spoke(module, part, rule, value)
            lines = tuple(_lines(bundle, module.file, rule, covered))
            if found is not None and _reached(rule, lines):
                spoke.append(Spoke(part, found, module.package, module.file, lines))
            else:
                silent += any(line.evaluated for line in lines)
    return Followed(tuple(spoke), silent, "")


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


def _lines(
    bundle: Bundle, file: str, rule: Mapping[str, Any], covered: Mapping[str, tuple[set[int], set[int]]]
) -> Iterator[Line]:
    text = next(module.text for module in bundle.modules if module.name == file)
    first, last = rule["span"]["line"], text.encode()[: rule["span"]["end"]].count(b"\n") + 1
    hit, missed = covered.get(file, (set(), set()))
    for number, line in enumerate(text.splitlines()[first - 1 : last], first):
        yield Line(number, line, True if number in hit else False if number in missed else None)

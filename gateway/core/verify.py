"""The output contract of a tool: result shape, size, and the pinned ``outputSchema``.

What breaks it is withheld (``Tainted``): a model that reads a malformed or oversized answer acts on something nobody
approved. Messages name rules of the contract, never anything of the output.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway.core import schema
from gateway.core.call import Raw, Verified
from gateway.core.errors import Tainted
from gateway.core.mcpwire import asking
from gateway.core.mcpwire.eras import RESULT_INPUT_REQUIRED
from gateway.core.schema import Checker
from gateway.core.tool import Kind, Tool

# Members each content block must have, by type; all of them strings. Most are texts: these have ``text``.
_BLOCKS: dict[str, tuple[str, ...]] = {
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource_link": ("uri", "name"),
    "resource": (),
}
_ROLES = ("user", "assistant")
_MOST_VALUES = 100  # the specification's


class Verifier:
    """The ``Verifier`` port. Compiled schemas are kept by the tool's digest, which covers the schema."""

    def __init__(self, capacity: int = 4096) -> None:
        """Keep at most ``capacity`` compiled output schemas; the one unused longest goes first."""
        self._capacity = capacity
        self._checkers: OrderedDict[str, Checker] = OrderedDict()

    def prepare(self, tools: Iterable[Tool]) -> None:
        """Compile the output schemas of a new catalogue generation, so that a bad one is refused at load.

        Raises:
            schema.SchemaRefused: a tool's output schema cannot be used; the message names the tool.
        """
        for tool in tools:
            pinned = tool.definition.get("outputSchema")
            if pinned is None:
                continue
            try:
                self._checker(tool, pinned)
            except schema.SchemaRefused as error:
                raise schema.SchemaRefused(f"outputSchema of {tool.fqn}: {error}") from None

    def verify(self, raw: Raw) -> Verified:
        """Check size, shape, then the pinned output schema (not for results that say they are errors).

        Raises:
            Tainted: ``cause_code`` is ``output_size``, ``output_shape`` or ``output_schema``.
        """
        tool = raw.lease.intent.tool
        if len(raw.body) > tool.limits.max_output_bytes:
            raise Tainted(f"the output is over {tool.limits.max_output_bytes} bytes", cause_code="output_size")
        value: Any = raw.value  # an upstream's own
        wants_input = isinstance(value, dict) and value.get("resultType") == RESULT_INPUT_REQUIRED
        fault = asking.misshape(value) if wants_input else _SHAPES[tool.kind](value)
        if fault is not None:
            raise Tainted(f"the output is no {tool.kind} result: {fault}", cause_code="output_shape")
        if wants_input:  # the contract is that of the result to come
            return Verified(raw)
        # An error need not be structured; where it is, it keeps the contract, or the flag would be a way around it.
        pinned = tool.definition.get("outputSchema")
        if pinned is not None and (not value.get("isError", False) or "structuredContent" in value):
            self._check_structured(tool, pinned, value)
        return Verified(raw)

    def _check_structured(self, tool: Tool, pinned: Any, value: dict[str, Any]) -> None:
        try:
            checker = self._checker(tool, pinned)
        except schema.SchemaRefused:
            raise Tainted("the tool's outputSchema cannot be used", cause_code="output_schema") from None
        if "structuredContent" not in value:
            raise Tainted("the tool promises structuredContent and sent none", cause_code="output_schema")
        if not checker.accepts(value["structuredContent"]):
            broken = ", ".join(checker.rules(value["structuredContent"]))
            raise Tainted(f"the output breaks the tool's outputSchema at {broken}", cause_code="output_schema")

    def _checker(self, tool: Tool, pinned: Any) -> Checker:
        found = self._checkers.get(tool.digest)
        if found is None:
            found = self._checkers[tool.digest] = schema.compile(pinned)
            if len(self._checkers) > self._capacity:
                self._checkers.popitem(last=False)
        else:
            self._checkers.move_to_end(tool.digest)
        return found


def _misshape(value: Any) -> str | None:
    # What is wrong with a tool result object, in words of the contract; None where nothing is.
    if not isinstance(value, dict):
        return "not an object"
    if "isError" in value and not isinstance(value["isError"], bool):
        return "isError is no boolean"
    if "structuredContent" in value and not isinstance(value["structuredContent"], dict):
        return "structuredContent is no object"
    if "_meta" in value and not isinstance(value["_meta"], dict):
        return "_meta is no object"
    content = value.get("content")
    if not isinstance(content, list):
        return "content is no list"
    fault = None
    for block in content:
        if not _is_block(block):
            fault = "a content block is malformed"
            break
    return fault


def _misshape_of_prompt(value: Any) -> str | None:
    # As for a tool result.
    if not isinstance(value, dict):
        return "not an object"
    if not isinstance(value.get("description", ""), str):
        return "description is no text"
    if not isinstance(value.get("_meta", {}), dict):
        return "_meta is no object"
    messages = value.get("messages")
    if not isinstance(messages, list):
        return "messages is no list"
    return None if all(map(_is_message, messages)) else "a message is malformed"


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in _ROLES and _is_block(message.get("content"))


def _is_block(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    kind = block.get("type")
    if kind == "text":  # as most are
        return isinstance(block.get("text"), str)
    members = _BLOCKS.get(kind) if isinstance(kind, str) else None
    if members is None:
        return False
    for name in members:
        if not isinstance(block.get(name), str):
            return False
    return kind != "resource" or _is_resource(block.get("resource"))


def _is_resource(resource: Any) -> bool:
    if not isinstance(resource, dict) or not isinstance(resource.get("uri"), str):
        return False
    return isinstance(resource.get("text"), str) or isinstance(resource.get("blob"), str)


def _misshape_of_resource(value: Any) -> str | None:
    # As for a tool result.
    if not isinstance(value, dict):
        return "not an object"
    if not isinstance(value.get("_meta", {}), dict):
        return "_meta is no object"
    contents = value.get("contents")
    if not isinstance(contents, list):
        return "contents is no list"
    return None if all(map(_is_resource, contents)) else "a part of the contents is malformed"


def _misshape_of_completion(value: Any) -> str | None:
    # As for a tool result.
    found = value.get("completion") if isinstance(value, dict) else None
    if not isinstance(found, dict):
        return "completion is no object"
    values, total = found.get("values"), found.get("total", 0)
    if not isinstance(values, list) or len(values) > _MOST_VALUES or not all(isinstance(word, str) for word in values):
        return f"values is no list of at most {_MOST_VALUES} texts"
    if isinstance(total, bool) or not isinstance(total, int) or not isinstance(found.get("hasMore", False), bool):
        return "total or hasMore is malformed"
    return None


def _misshape_of_subscription(value: Any) -> str | None:
    return None if isinstance(value, dict) else "not an object"


_SHAPES: Mapping[Kind, Callable[[Any], str | None]] = {
    Kind.TOOL: _misshape,
    Kind.PROMPT: _misshape_of_prompt,
    Kind.RESOURCE: _misshape_of_resource,
    Kind.COMPLETION: _misshape_of_completion,
    Kind.SUBSCRIPTION: _misshape_of_subscription,
}

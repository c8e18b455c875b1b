"""What an upstream may ask of a client while it carries out a call, and what an answer to it looks like.

Both eras ask the same in the same words; they differ in how the question travels. Here is only what the bytes say:
whether it may be asked is policy's to say (``core/asking.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from gateway.core import canonical, schema
from gateway.core.errors import GatewayError

MOST_QUESTIONS: Final = 8
MAX_BYTES: Final = 64 * 1024
_ROLES: Final = frozenset({"user", "assistant"})
_ACTIONS: Final = frozenset({"accept", "decline", "cancel"})
_FIELDS: Final = (str, int, float, bool)
# Members of a client's capabilities that are understood, by what they belong to.
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "elicitation": frozenset({"form"}),
    "sampling": frozenset({"tools", "context"}),
    "roots": frozenset(),
}


class Asks(StrEnum):
    """What is asked: of a person, of the client's model, or which folders it works in."""

    ELICITATION = "elicitation"
    SAMPLING = "sampling"
    ROOTS = "roots"


METHODS: Final[Mapping[str, Asks]] = {
    "elicitation/create": Asks.ELICITATION,
    "sampling/createMessage": Asks.SAMPLING,
    "roots/list": Asks.ROOTS,
}


@dataclass(frozen=True, slots=True)
class Question:
    """One question of an upstream.

    Attributes:
        method: MCP method.
        params: what is asked, as JSON values.
    """

    method: str
    params: Mapping[str, Any]

    @property
    def asks(self) -> Asks:
        """What is asked."""
        return METHODS[self.method]


def questions(result: Mapping[str, Any]) -> dict[str, Question]:
    """What a result that wants input asks for, by the upstream's own names; it is known to be one."""
    asked = result.get("inputRequests") or {}
    return {key: Question(said["method"], said.get("params", {})) for key, said in asked.items()}


def misshape(result: Mapping[str, Any]) -> str | None:
    """What is wrong with a result that wants input, in words of the contract, or None."""
    asked, state = result.get("inputRequests", {}), result.get("requestState", "")
    if not isinstance(state, str) or len(state) > MAX_BYTES:
        return "requestState is no text, or too long"
    if not isinstance(asked, dict) or not all(_is_question(said) for said in asked.values()):
        return "inputRequests holds what is no request"
    if len(asked) > MOST_QUESTIONS:
        return f"inputRequests holds more than {MOST_QUESTIONS} requests"
    return None if asked or "requestState" in result else "neither inputRequests nor requestState"


def question(method: str, text: bytes) -> Question | None:
    """The question in a request of an upstream; ``text`` is that of its ``params``. None where it is none."""
    try:
        params = canonical.parse(text).value if text else {}
    except GatewayError:
        return None
    said = {"method": method, "params": params}
    return Question(method, params) if _is_question(said) and len(text) <= MAX_BYTES else None


def declared(capabilities: object) -> dict[str, dict[str, dict[str, Any]]]:
    """What of a client's capabilities an upstream is told: that it can be asked, and nothing else of it.

    Addresses to open (``elicitation.url``) are left out: where one leads, nobody here can tell.
    """
    said = capabilities if isinstance(capabilities, Mapping) else {}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, parts in _PARTS.items():
        own = said.get(name)
        if isinstance(own, Mapping) and not (name == Asks.ELICITATION and own and "form" not in own):
            found[name] = {part: {} for part in sorted(parts) if isinstance(own.get(part), Mapping)}
    return found


def lacking(data: object) -> tuple[str, ...]:
    """Which capabilities an upstream's error says that the client lacks, of those that are understood."""
    said = data.get("requiredCapabilities") if isinstance(data, Mapping) else None
    return tuple(name for name in _PARTS if isinstance(said, Mapping) and name in said)


def fault(question: Question, capabilities: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Why a client with these capabilities (as of ``declared``) may not be asked this, or None."""
    own = capabilities.get(question.asks)
    if own is None:
        return "undeclared"
    return _QUESTIONS[question.asks](question.params, own)


def answer_fault(question: Question, answer: object) -> str | None:
    """What is wrong with a client's answer, in words of the contract, or None."""
    if not isinstance(answer, Mapping):
        return "the answer is no object"
    return _ANSWERS[question.asks](question.params, answer)


def _is_question(said: Any) -> bool:
    return isinstance(said, dict) and said.get("method") in METHODS and isinstance(said.get("params", {}), dict)


def _elicitation(params: Mapping[str, Any], _: Mapping[str, Any]) -> str | None:
    form = params.get("requestedSchema")
    if params.get("mode", "form") != "form":
        return "mode"
    if not isinstance(params.get("message"), str) or not isinstance(form, Mapping):
        return "shape"
    if form.get("type") != "object" or not isinstance(form.get("properties"), Mapping):
        return "schema"
    try:
        schema.compile(form)
    except schema.SchemaRefused:
        return "schema"
    return None


def _sampling(params: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    messages, most = params.get("messages"), params.get("maxTokens")
    if not isinstance(messages, list) or isinstance(most, bool) or not isinstance(most, int) or most < 1:
        return "shape"
    if not all(_is_message(message) for message in messages):
        return "shape"
    if ("tools" in params or "toolChoice" in params) and "tools" not in own:
        return "undeclared"
    return "undeclared" if params.get("includeContext", "none") != "none" and "context" not in own else None


def _roots(_: Mapping[str, Any], __: Mapping[str, Any]) -> str | None:
    return None


def _elicited(params: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    action, content = answer.get("action"), answer.get("content")
    if action not in _ACTIONS:
        return "the action is none"
    if action != "accept":
        return None if content is None else "who does not accept gives no content"
    if not isinstance(content, Mapping) or not all(_is_field(value) for value in content.values()):
        return "the content is no flat object"
    problems = schema.compile(params["requestedSchema"]).problems(content)
    return "; ".join(problems) or None


def _sampled(_: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    if not isinstance(answer.get("model"), str) or not _is_message(answer):
        return "the answer is no message of a model"
    return None


def _rooted(_: Mapping[str, Any], answer: Mapping[str, Any]) -> str | None:
    roots = answer.get("roots")
    if not isinstance(roots, list) or not all(isinstance(root, Mapping) and _is_root(root) for root in roots):
        return "the answer names no roots"
    return None


def _is_root(root: Mapping[str, Any]) -> bool:
    uri = root.get("uri")
    return isinstance(uri, str) and uri.startswith("file://") and isinstance(root.get("name", ""), str)


def _is_field(value: Any) -> bool:
    return isinstance(value, _FIELDS) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _is_message(message: Any) -> bool:
    if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
        return False
    content = message.get("content")
    blocks = content if isinstance(content, list) else [content]
    return all(isinstance(block, Mapping) and isinstance(block.get("type"), str) for block in blocks)


_QUESTIONS: Final = {Asks.ELICITATION: _elicitation, Asks.SAMPLING: _sampling, Asks.ROOTS: _roots}
_ANSWERS: Final = {Asks.ELICITATION: _elicited, Asks.SAMPLING: _sampled, Asks.ROOTS: _rooted}

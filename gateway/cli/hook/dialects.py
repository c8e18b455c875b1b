"""What coding agents give their hooks on standard input, and what they read from them, as their makers document it.

A hook only ever takes away: what policy allows is left to the agent's own rules, which may still ask the person.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.core import canonical
from gateway.core.canonical import Json
from gateway.core.errors import GatewayError

# Names of the agents' own that begin so are tools of the gateway, where they are decided on when they are called.
_OURS: Final = "mcp__ostiary__"
_CURSOR_MCP: Final = "MCP:"
_SESSION: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class NotUnderstood(Exception):
    """What came on standard input is not what the agent is documented to send; the message says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the agent is about to do.

    Attributes:
        tool: the agent's name of its tool; None = nothing that this hook has a say about.
        arguments: what the tool will be used with, by lexeme.
        session: of the agent, where it names one.
    """

    tool: str | None
    arguments: Json
    session: str | None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the agent is to be told.

    Attributes:
        word: ``allow``, ``ask`` or ``deny``.
        message: for the model and the person.
    """

    word: str
    message: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one agent's hooks speak.

    Attributes:
        event: what it calls the moment before a tool is used.
        own: says which tools are none of this hook's business.
        session: the member that names the session.
        said: from a ruling to standard output.
    """

    event: str
    own: Callable[[str], bool]
    session: str
    said: Callable[[Ruling], str]

    def understood(self, body: bytes) -> Wish:
        """What is on standard input.

        Raises:
            NotUnderstood: it is something else.
        """
        try:
            document = canonical.parse(body)
        except GatewayError as error:
            raise NotUnderstood(error.detail) from None
        given: Mapping[str, Any] = document.value if isinstance(document.value, dict) else {}
        tool, arguments = given.get("tool_name"), document.member("tool_input")
        if given.get("hook_event_name") != self.event:
            raise NotUnderstood(f"hook_event_name is not {self.event}")
        if not isinstance(tool, str) or not tool or not isinstance(arguments.value, dict):
            raise NotUnderstood("tool_name or tool_input is missing")
        session = given.get(self.session)
        named = session if isinstance(session, str) and _SESSION.fullmatch(session) else None
        return Wish(None if self.own(tool) else tool, arguments, named)


def _claude_said(ruling: Ruling) -> str:
    if ruling.word == "allow":
        return ""  # an explicit word would switch the person's own prompts off
    answer = {
        "hookEventName": "PreToolUse",
        "permissionDecision": ruling.word,
        "permissionDecisionReason": ruling.message,
    }
    return json.dumps({"hookSpecificOutput": answer})


def _cursor_said(ruling: Ruling) -> str:
    if ruling.word == "allow":
        return json.dumps({"permission": "allow"})  # with `failClosed`, silence is a failure
    # Before a tool Cursor knows no asking: what is no yes is no.
    words = {"user_message": ruling.message, "agent_message": ruling.message}
    return json.dumps({"permission": "deny", **words})


DIALECTS: Final[Mapping[str, Dialect]] = {
    "claude-code": Dialect("PreToolUse", lambda tool: tool.startswith(_OURS), "session_id", _claude_said),
    # Which server an MCP tool is of, Cursor does not say.
    "cursor": Dialect("preToolUse", lambda tool: tool.startswith(_CURSOR_MCP), "conversation_id", _cursor_said),
}

"""REST for coding agents' hooks: may the agent do this itself? An answer and a record, and nothing else.

The answer of a good question is 200 whether it is yes or no; anything else, an agent's hook takes for no.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import structs
from pydantic import Field, StringConstraints

from gateway.core import canonical, pipeline
from gateway.core.advice import Advice, Word
from gateway.core.errors import (
    Denied,
    GatewayError,
    InvalidArguments,
    Killed,
    NotFound,
    Quarantined,
    Reason,
    TooLarge,
    Unavailable,
    UnknownTool,
)
from gateway.core.ports import Ports
from gateway.core.tool import Kind
from gateway.edge.disconnect import unless_gone
from gateway.edge.faults import UnsupportedMediaType
from gateway.edge.models import Model
from gateway.edge.problems import CALL_HEADER
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

# What an agent can act on: it did nothing wrong by asking. All else is a problem, as for a call.
_NO = (UnknownTool, Denied, Killed, Quarantined, InvalidArguments, TooLarge)
Server = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([_-][a-z0-9]+)*$", max_length=31)]

Session = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


class PreToolQuestion(Model):
    """What an agent is about to do itself."""

    server: Server = Field(description="The upstream of kind hook that stands for the agent.")
    tool: str = Field(min_length=1, max_length=128, description="The agent's own name of its tool, e.g. `Bash`.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="What it will be used with.")
    session: Session | None = Field(None, description="The agent's own session: its questions belong to one run.")


class HookReason(Model):
    """Why."""

    id: str
    msg: str | None = None
    fact: str | None = Field(None, description="The fact that was missing or wrong.")


class PreToolAnswer(Model):
    """What the agent is told. It proves nothing: whether the agent then acts, the gateway does not see."""

    decision: Literal["allow", "ask", "deny"] = Field(description="ask: let the person in front of the agent say.")
    message: str = Field(description="For the agent.")
    reasons: tuple[HookReason, ...] = ()
    code: str | None = Field(None, description="Of a denial: as of a refused call.")
    call_id: str = Field(description="For `ostiary explain`.")


class HookRest:
    """Operations for hooks. Every question ends in the pipeline."""

    def __init__(self, ports: Ports) -> None:
        """``ports`` are the pipeline's."""
        self._ports = ports

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "POST",
                "/v1/hooks/pre-tool",
                "preTool",
                "Ask whether an agent may use a tool of its own; nothing is executed.",
                self.ask,
                PreToolAnswer,
                scopes=("tools",),
                body=PreToolQuestion,
                refusals=(NotFound, UnsupportedMediaType, TooLarge, Unavailable),
            ),
        )

    async def ask(self, asked: Asked) -> Reply:
        """The answer, once it is recorded."""
        wish: PreToolQuestion = asked.body
        given = canonical.arguments(asked.document.member("arguments"))
        named = asked.visit.named(f"{wish.server}.{Kind.HOOK.prefix}{wish.tool}", given, asked.run)
        # No session of another surface begins so.
        session = None if wish.session is None else f"hook:{wish.server}:{wish.session}"
        call = structs.replace(named, session=session)
        try:
            advice = await unless_gone(asked.receive, pipeline.advise(call, self._ports))
        except _NO as error:
            answer = _denied(error, call.id)
        else:
            answer = _advised(advice)
        reply = shown(answer)
        return Reply(reply.status, reply.body, headers=((CALL_HEADER, call.id.encode()),))


def _advised(advice: Advice) -> PreToolAnswer:
    is_allowed = advice.word is Word.ALLOW
    return PreToolAnswer(
        decision="allow" if is_allowed else "ask",
        message="policy allows this" if is_allowed else "policy wants a person to say so",
        reasons=tuple(HookReason(id=reason) for reason in advice.reasons),
        call_id=advice.call_id,
    )


def _denied(error: GatewayError, call_id: str) -> PreToolAnswer:
    # Of a hidden tool nothing is said that is not said of one that does not exist.
    reasons = () if isinstance(error, UnknownTool) else error.reasons
    return PreToolAnswer(
        decision="deny",
        message="; ".join((error.detail, *map(_sentence, reasons))),
        reasons=tuple(HookReason(id=reason.id, msg=reason.msg, fact=reason.fact) for reason in reasons),
        code=error.code,
        call_id=call_id,
    )


def _sentence(reason: Reason) -> str:
    return f"{reason.id}: {reason.msg}" if reason.fact is None else f"{reason.id}: {reason.msg} ({reason.fact})"

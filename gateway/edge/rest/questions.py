"""REST for questions about policy: what it would say to somebody now. For auditors and administrators only.

An agent that could ask would learn of tools that are hidden from it, so the operation is for persons, and it answers
for any tool of the catalogue. Nothing is executed, reserved or recorded.
"""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from gateway.core import canonical, questions
from gateway.core.call import Principal
from gateway.core.decision import Decision, Effect
from gateway.core.errors import NotFound, TooLarge, Unavailable
from gateway.core.ports import Ports
from gateway.core.tool import EffectClass
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown
from gateway.edge.rest.runs import Name

_MINUTE_US = 60_000_000


class PolicyQuestion(Model):
    """Who would call what."""

    tool: str = Field(min_length=1, max_length=256, description="`server.tool`.")
    user: Name = Field(description="The person, who calls or whom the agent works for.")
    agent: Name | None = Field(None, description="The agent; none = the person calls with their own token.")
    groups: list[Name] = Field([], max_length=64, description="Groups of the person.")
    arguments: dict[str, Any] | None = Field(
        None,
        description="Checked against the tool's input schema; none = rules that read arguments see an empty object.",
    )


class QuestionReason(Model):
    """Why."""

    id: str
    package: str
    msg: str
    fact: str | None = None


class QuestionNeed(Model):
    """People who would have to agree."""

    id: str
    msg: str
    quorum: int
    roles: tuple[str, ...]
    exclude: tuple[str, ...]


class QuestionWord(Model):
    """Policy's word on one phase."""

    effect: Effect
    enforced: bool = Field(description="False where observe mode would let it pass all the same.")
    reasons: tuple[QuestionReason, ...]
    requirements: tuple[QuestionNeed, ...]


class PolicyAnswer(Model):
    """What policy would say at this time."""

    tool: str
    tool_effect: EffectClass
    at_us: int
    revision: str = Field(description="The policy that was asked.")
    listing: QuestionWord = Field(description="May they know of the tool?")
    calling: QuestionWord | None = Field(
        None, description="May they call it so? Absent where the arguments have a fault."
    )
    faults: tuple[str, ...] = Field((), description="What is wrong with the arguments.")


class QuestionRest:
    """Questions about policy."""

    def __init__(self, ports: Ports, issuer: str) -> None:
        """``issuer`` is whose token the supposed caller would have."""
        self._ports = ports
        self._issuer = issuer

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "POST",
                "/v1/policy/questions",
                "askPolicy",
                "What policy would say to somebody now; nothing is executed.",
                self.ask,
                PolicyAnswer,
                scopes=("audit", "admin"),
                persons=True,
                body=PolicyQuestion,
                refusals=(NotFound, TooLarge, Unavailable),
            ),
        )

    async def ask(self, asked: Asked) -> Reply:
        """Both phases' decisions."""
        wish: PolicyQuestion = asked.body
        call = asked.visit.named(wish.tool, canonical.arguments(asked.document.member("arguments")), None)
        principal = Principal(
            issuer=self._issuer,
            user=wish.user,
            agent=wish.agent,
            groups=frozenset(wish.groups),
            scopes=frozenset({"tools"}),
            auth_method="local",
            jti=call.id,
            expires_us=call.at_us + _MINUTE_US,
        )
        said = await questions.ask(call, principal, self._ports, with_arguments=wish.arguments is not None)
        return shown(
            PolicyAnswer(
                tool=said.tool.fqn,
                tool_effect=said.tool.effect,
                at_us=call.at_us,
                revision=said.listing.revision,
                listing=_word(said.listing),
                calling=None if said.calling is None else _word(said.calling),
                faults=said.faults,
            )
        )


def _word(said: Decision) -> QuestionWord:
    reasons = (QuestionReason(id=r.id, package=r.package, msg=r.msg, fact=r.fact) for r in said.reasons)
    needs = (
        QuestionNeed(id=n.id, msg=n.msg, quorum=n.quorum, roles=n.roles, exclude=n.exclude) for n in said.requirements
    )
    return QuestionWord(effect=said.effect, enforced=said.enforced, reasons=tuple(reasons), requirements=tuple(needs))

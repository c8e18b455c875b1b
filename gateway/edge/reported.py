"""What an agent says of its own call: how sure it is, how risky it thinks the call is, and what supports it."""

from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, model_validator

from gateway.core.call import Reported
from gateway.core.errors import MalformedRequest
from gateway.edge.faults import InvalidParams
from gateway.edge.models import Model, modelled

RISK_META = "ostiary/risk"
EVIDENCE_META = "ostiary/evidence"
_NOTHING = Reported()
_MEMBERS = {RISK_META: "risk", EVIDENCE_META: "evidence"}
_CallId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


class Risk(Model):
    """The agent's own word, of which at least one member is given. Policy can only get stricter by it."""

    confidence_pct: int | None = Field(None, ge=0, le=100, description="How sure it is that the call is right.")
    score_pct: int | None = Field(None, ge=0, le=100, description="How risky it thinks the call is.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.confidence_pct is None and self.score_pct is None:
            raise ValueError("says neither confidence_pct nor score_pct")
        return self


class Remarks(Model):
    """Members that a call may have besides its arguments."""

    risk: Risk | None = Field(None, description="What the agent says of the call; it may only lower its autonomy.")
    evidence: list[_CallId] = Field(
        [],
        max_length=16,
        description="Ids of earlier calls of the run that support this one; policy is told which of them succeeded.",
    )

    def reported(self) -> Reported:
        """The same for the pipeline; a call that is named twice counts once."""
        named = tuple(dict.fromkeys(self.evidence))
        risk = self.risk
        return Reported(evidence=named) if risk is None else Reported(risk.confidence_pct, risk.score_pct, named)


def of_meta(meta: Any) -> Reported:
    """What ``_meta`` of an MCP request says of the call.

    Raises:
        InvalidParams: one of its members is not of the form that is asked for.
    """
    if not isinstance(meta, dict) or not (RISK_META in meta or EVIDENCE_META in meta):
        return _NOTHING
    members = {member: meta[key] for key, member in _MEMBERS.items() if key in meta}
    try:
        return modelled(Remarks, members).reported()
    except MalformedRequest as error:
        raise InvalidParams(f"params._meta: ostiary/{error.detail}", cause_code="meta") from None

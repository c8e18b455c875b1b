"""``[kill]``: what it takes to lift a kill."""

from pydantic import Field

from gateway.settings.sections import Section


class KillSection(Section):
    """The kill switch; see docs/kill.md."""

    lift_quorum: int = Field(
        2, ge=1, le=16, description="How many different persons must ask for a kill to be lifted; of `up` 1."
    )

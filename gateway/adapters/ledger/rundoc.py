"""A run as its ``run.started`` record holds it: numbers in the leaf, goal and names in the sealed payload."""

from typing import Any

import msgspec

from gateway.core.call import Run, RunKind
from gateway.core.canonical import encode
from gateway.core.records import Payload, Role


class _Document(msgspec.Struct, frozen=True):
    kind: RunKind
    principal_key: str
    opened_by: str
    goal: str | None
    scope: tuple[str, ...]
    budget: dict[str, int]
    plan: tuple[str, ...]
    started_us: int
    expires_us: int


def run_payload(run: Run) -> Payload:
    """The run, to be sealed."""
    document = _Document(
        kind=run.kind,
        principal_key=run.principal_key,
        opened_by=run.opened_by,
        goal=run.goal,
        scope=run.scope,
        budget=dict(run.budget),
        plan=run.plan,
        started_us=run.started_us,
        expires_us=run.expires_us,
    )
    return Payload(Role.RUN, encode(document))


def started_body(run: Run, binding: str | None) -> dict[str, Any]:
    """What the leaf says of a run: no goal, no names, no patterns.

    ``binding``: for an implicit run, the keyed name of the session that implies it.
    """
    return {
        "binding": binding,
        "kind": run.kind,
        "expires_us": run.expires_us,
        "max_calls": run.budget.get("calls"),
        "planned": len(run.plan),
        "scoped": len(run.scope),
    }


def read_run(run_id: str, document: Any) -> Run | None:
    """The run from its opened payload; None where the payload is gone.

    Raises:
        msgspec.ValidationError: not a run.
    """
    if document is None:
        return None
    stored = msgspec.convert(document, _Document)
    return Run(run_id, **{name: getattr(stored, name) for name in stored.__struct_fields__})

"""REST for the states of runs: an agent keeps where it stands, and finds it again."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from pydantic import Field, StringConstraints

from gateway.core import canonical
from gateway.core.custody import Seen, View
from gateway.core.desk import Desk
from gateway.core.errors import InvalidArguments, NotFound, Throttled, TooLarge, Unavailable
from gateway.core.ports import Ports
from gateway.core.records import Role, identifier
from gateway.core.snapshots import MOST_BYTES, Snapshot
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown
from gateway.edge.rest.runs import is_viewer, may_see

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/+-]{0,63}$")]


class SnapshotTaken(Model):
    """Where the run stands."""

    label: Label = Field(description="Your name for the step, e.g. `invoices/3-matched`.")
    state: dict[str, Any] = Field(description=f"What you need to go on; up to {MOST_BYTES // 1024} KiB of JSON.")


class SnapshotShown(Model):
    """A kept state."""

    id: str = Field(description="Of the record in the log.")
    run_id: str
    at_us: int
    label: str
    state: dict[str, Any] | None = Field(description="Null where it was erased.")


class SnapshotRest:
    """Operations on the states of runs."""

    def __init__(self, ports: Ports, desk: Desk) -> None:
        self._holds = ports.redactor.holds
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "POST",
                "/v1/runs/{id}/snapshots",
                "keepSnapshot",
                "Keep where a run stands, in the signed log: by the agent of the run.",
                self.keep,
                SnapshotShown,
                scopes=("tools",),
                body=SnapshotTaken,
                status=201,
                refusals=(InvalidArguments, NotFound, TooLarge, Throttled, Unavailable),
            ),
            Operation(
                "GET",
                "/v1/runs/{id}/snapshots/newest",
                "newestSnapshot",
                "Where a run stood last.",
                self.newest,
                SnapshotShown,
                refusals=(NotFound, Unavailable),
            ),
        )

    async def keep(self, asked: Asked) -> Reply:
        """Keep a state."""
        run, principal, wish = await self._desk.runs.show(asked.path["id"]), asked.visit.principal, asked.body
        # Only who works in the run says where it stands.
        if run is None or principal.key != run.principal_key or principal.run not in {None, run.id}:
            raise NotFound("no such run", cause_code="run")
        state = canonical.arguments(asked.document.member("state")).canonical
        if len(state) > MOST_BYTES:
            raise TooLarge(f"state: more than {MOST_BYTES} bytes")
        for name, text in (("state", state), ("label", msgspec.json.encode(wish.label))):
            if await self._holds(text):
                raise InvalidArguments(
                    f"{name} holds a value that this gateway keeps secret", cause_code="known_secret"
                )
        kept = await self._desk.snapshots.keep(principal, run.id, wish.label, state)
        return shown(_shown(run.id, kept), 201)

    async def newest(self, asked: Asked) -> Reply:
        """The last state of a run that the caller may see."""
        run, principal = await self._desk.runs.show(asked.path["id"]), asked.visit.principal
        if run is None or not may_see(principal, run):
            raise NotFound("no such run", cause_code="run")
        found = await self._desk.snapshots.newest(run.id)
        if found is None:
            raise NotFound("no state of the run was kept", cause_code="snapshot")
        if is_viewer(principal):
            await self._desk.views.record(principal, Seen(View.RUN, (Role.STATE,), {"run": identifier(run.id)}))
        return shown(_shown(run.id, found))


def _shown(run_id: str, one: Snapshot) -> SnapshotShown:
    state = None if one.state is None else msgspec.json.decode(one.state)
    return SnapshotShown(id=one.id, run_id=run_id, at_us=one.at_us, label=one.label, state=state)

"""REST for minted credentials: which are in use, and ending them at once."""

from collections.abc import Sequence

from pydantic import Field

from gateway.core.desk import Desk, Whose
from gateway.core.errors import InvalidArguments, Unavailable
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown


class LeaseShown(Model):
    """A credential in use; neither its name nor its value."""

    template: str
    run_id: str | None = None
    call_id: str | None = None
    agent: str | None = None
    user: str | None = None
    tool: str | None = None
    since_us: int


class LeaseList(Model):
    """The credentials in use, oldest first."""

    leases: tuple[LeaseShown, ...]


class RevokeGiven(Model):
    """Which are to be ended: all given members must match."""

    agent: str | None = Field(None, min_length=1, max_length=128)
    user: str | None = Field(None, min_length=1, max_length=256)
    tool: str | None = Field(None, min_length=1, max_length=256, description="`server.tool`.")
    run: str | None = Field(None, min_length=1, max_length=64)
    everything: bool = Field(default=False, description="End every one; only where nothing else is given.")


class Revoked(Model):
    """What was ended."""

    revoked: int
    pending: int = Field(description="How many the vault has not ended yet; they are tried again.")


class LeaseRest:
    """Operations on minted credentials."""

    def __init__(self, desk: Desk) -> None:
        """Work through the desk."""
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/leases",
                "listLeases",
                "The minted credentials in use.",
                self.list,
                LeaseList,
                scopes=("audit", "admin"),
                persons=True,
            ),
            Operation(
                "POST",
                "/v1/leases/revoke",
                "revokeLeases",
                "End the minted credentials of an agent, user, tool or run, now; their calls are cut off.",
                self.revoke,
                Revoked,
                scopes=("admin",),
                persons=True,
                body=RevokeGiven,
                refusals=(InvalidArguments, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """Those in use."""
        found = (
            LeaseShown(
                template=one.template,
                run_id=one.run,
                call_id=one.call,
                agent=one.agent,
                user=one.user,
                tool=one.tool,
                since_us=one.since_us,
            )
            for one in self._desk.leases.live()
        )
        return shown(LeaseList(leases=tuple(found)))

    async def revoke(self, asked: Asked) -> Reply:
        """End them, having recorded who wants it."""
        given: RevokeGiven = asked.body
        named = given.model_dump(exclude={"everything"}, exclude_none=True)
        if bool(named) is given.everything:
            raise InvalidArguments("name an agent, user, tool or run, or else everything", cause_code="whose")
        details = named or {"everything": True}
        await self._desk.changes.record(asked.visit.principal, "leases.revoked", details)
        revoked, pending = await self._desk.leases.revoke(Whose(**named))
        return shown(Revoked(revoked=revoked, pending=pending))

"""REST for the kill switch: stopping an agent, user, tool, run or everything, and lifting that."""

import re
from collections.abc import Sequence

from pydantic import Field

from gateway.core.desk import Desk
from gateway.core.errors import Conflict, InvalidArguments, NotFound, Unavailable
from gateway.core.kills import Cut, Kill, Kind, folded
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown

_CREATED = 201
_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class CutShown(Model):
    """What became of what was in use."""

    calls: int = Field(description="Calls that were broken off.")
    running: int = Field(description="How many of these had not let go when this was counted.")
    ended: int = Field(description="Credentials that are gone, by the vault's word.")
    not_ended: int = Field(description="Credentials that the vault still has; they are tried again.")
    unverifiable: int = Field(description="Credentials of which nobody can say; they are tried again.")


class KillShown(Model):
    """A kill."""

    kill_id: str
    kind: Kind
    name: str | None = Field(None, description="As it was given; none for everything, or where it was erased.")
    reason: str | None = None
    by: str | None = Field(None, description="User who engaged it.")
    since_us: int
    lifted_us: int | None = None
    votes: int = Field(description="How many persons have asked for it to be lifted.")
    needed: int = Field(description="How many must ask.")
    cut: CutShown


class KillList(Model):
    """All kills that are in force, and those that were lifted, oldest first."""

    kills: tuple[KillShown, ...]


class KillGiven(Model):
    """What to stop."""

    kind: Kind = Field(strict=False)
    name: str = Field("", max_length=256, description="Agent, user, run, or tool as `server.name` or `server.*`.")
    reason: str = Field(min_length=1, max_length=1000, description="Why; sealed, and not told to callers.")


class LiftGiven(Model):
    """Why it may go on."""

    reason: str = Field(min_length=1, max_length=1000)


class KillRest:
    """Operations of the kill switch; they need the scope ``admin`` of a person, to look also ``audit``."""

    def __init__(self, desk: Desk) -> None:
        """Work through the desk."""
        self._kills = desk.kills

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/kills",
                "listKills",
                "What is stopped, and what was.",
                self.list,
                KillList,
                scopes=("audit", "admin"),
                persons=True,
            ),
            Operation(
                "POST",
                "/v1/kills",
                "engageKill",
                "Stop an agent, user, tool, run or everything, now: calls are broken off, credentials ended.",
                self.engage,
                KillShown,
                scopes=("admin",),
                persons=True,
                body=KillGiven,
                status=_CREATED,
                refusals=(InvalidArguments, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/kills/{id}/lift",
                "liftKill",
                "Ask for a kill to be lifted; it is when as many persons as needed have asked.",
                self.lift,
                KillShown,
                scopes=("admin",),
                persons=True,
                body=LiftGiven,
                refusals=(NotFound, Conflict, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """All of them."""
        return shown(KillList(kills=tuple(self._shown(kill, kill.cut) for kill in self._kills.all())))

    async def engage(self, asked: Asked) -> Reply:
        """Stop it; the answer counts what this gateway ended."""
        given: KillGiven = asked.body
        if given.kind is Kind.RUN and not _RUN.fullmatch(folded(given.name)):
            # A part of an id stops nothing; whoever gives one is not told that something is stopped.
            raise InvalidArguments("a run is named by its whole id", cause_code="run")
        kill, cut = await self._kills.engage(asked.visit.principal, given.kind, given.name, given.reason)
        return shown(self._shown(kill, cut), _CREATED)

    async def lift(self, asked: Asked) -> Reply:
        """One voice for lifting it."""
        given: LiftGiven = asked.body
        kill = await self._kills.lift(asked.visit.principal, asked.path["id"], given.reason)
        return shown(self._shown(kill, kill.cut))

    def _shown(self, kill: Kill, cut: Cut) -> KillShown:
        return KillShown(
            kill_id=kill.id,
            kind=kill.kind,
            name=kill.name or None,
            reason=kill.reason,
            by=kill.by,
            since_us=kill.at_us,
            lifted_us=kill.lifted_us,
            votes=len(kill.voters),
            needed=self._kills.quorum,
            cut=CutShown(
                calls=cut.calls,
                running=cut.running,
                ended=cut.ended,
                not_ended=cut.not_ended,
                unverifiable=cut.unverifiable,
            ),
        )

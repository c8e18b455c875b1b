"""REST for keys that are replaced: how old they are, and replacing them now."""

from collections.abc import Sequence

from pydantic import Field

from gateway.core.desk import Desk
from gateway.core.errors import Conflict, NotFound, Unavailable
from gateway.core.ports import Clock
from gateway.core.rotation import KeyKind, KeyStanding
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.routes import Asked, Operation, shown


class KeyAge(Model):
    """How a key stands."""

    kind: KeyKind
    subject: str = Field(description="Which one of its kind; empty where there is one.")
    every_h: int = Field(description="Hours between two rotations; 0 = on demand only.")
    since_us: int
    overdue: bool
    failed: str | None = Field(None, description="Why the last attempt failed.")


class KeyAges(Model):
    """All keys that the gateway replaces."""

    keys: tuple[KeyAge, ...]


class RotationRest:
    """Operations on keys that are replaced."""

    def __init__(self, desk: Desk, clock: Clock) -> None:
        """Work through the desk."""
        self._desk = desk
        self._clock = clock

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/rotations",
                "listRotations",
                "The keys that the gateway replaces, and how old they are.",
                self.list,
                KeyAges,
                scopes=("admin", "audit"),
                persons=True,
                refusals=(Unavailable,),
            ),
            Operation(
                "POST",
                "/v1/rotations/{kind}",
                "rotateKeys",
                "Replace all keys of a kind now.",
                self.rotate,
                KeyAges,
                scopes=("admin",),
                persons=True,
                refusals=(NotFound, Conflict, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """All of them."""
        return self._shown(await self._desk.rotations.standings())

    async def rotate(self, asked: Asked) -> Reply:
        """Replace those of one kind."""
        kinds = {str(kind): kind for kind in KeyKind}
        kind = kinds.get(asked.path["kind"])
        if kind is None:
            raise NotFound(f"there is no such kind of key: any of {', '.join(kinds)}", cause_code="kind")
        return self._shown(await self._desk.rotations.rotate(asked.visit.principal, kind))

    def _shown(self, standings: Sequence[KeyStanding]) -> Reply:
        now_us = self._clock.now_us()
        return shown(
            KeyAges(
                keys=tuple(
                    KeyAge(
                        kind=one.kind,
                        subject=one.subject,
                        every_h=one.every_h,
                        since_us=one.since_us,
                        overdue=one.is_overdue(now_us),
                        failed=one.failed,
                    )
                    for one in standings
                )
            )
        )

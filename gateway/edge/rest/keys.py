"""REST for the log's signing keys: which there are, another one, the end of the old one, and what to check with."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from gateway.core.desk import Desk
from gateway.core.errors import Conflict, NotFound, Unavailable
from gateway.core.log_keys import Reign
from gateway.edge.models import Model
from gateway.edge.reply import TEXT, Reply
from gateway.edge.rest.routes import Asked, Operation, shown


class KeyShown(Model):
    """A signing key of the log."""

    key_id: str
    vkey: str = Field(description="The public key, in C2SP form.")
    state: Literal["signing", "retired"]
    since_size: int = Field(description="Size of the first tree it signs.")
    since_us: int
    until_size: int | None = Field(None, description="Size of the first tree it does not sign any more.")
    until_us: int | None = None
    retires_us: int | None = Field(None, description="When it is to be retired, as another key signs beside it.")


class KeyList(Model):
    """All keys the log ever had, oldest first."""

    keys: tuple[KeyShown, ...]


class KeyRest:
    """Operations on the log's keys; those that change anything need the scope ``admin`` of a person."""

    def __init__(self, desk: Desk) -> None:
        """Work through the desk."""
        self._keys = desk.keys
        self._witnesses = desk.witnesses

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (*self._reading(), *self._changing())

    def _reading(self) -> Sequence[Operation]:
        return (
            Operation(
                "GET",
                "/v1/audit/keys",
                "listLogKeys",
                "The log's signing keys.",
                self.list,
                KeyList,
                scopes=("audit", "admin"),
            ),
            Operation(
                "GET",
                "/v1/audit/policy",
                "logPolicy",
                "The keys in force, the witnesses and their quorum, as a C2SP tlog-policy.",
                self.policy,
                "text/plain",
                scopes=("audit", "admin"),
            ),
            Operation(
                "GET",
                "/v1/audit/log/witnessed",
                "witnessedCheckpoint",
                "The largest checkpoint that a quorum of witnesses has cosigned since the gateway started.",
                self.witnessed,
                "text/plain",
                scopes=("audit",),
                refusals=(NotFound,),
            ),
        )

    def _changing(self) -> Sequence[Operation]:
        return (
            Operation(
                "POST",
                "/v1/audit/keys/rotate",
                "rotateLogKey",
                "Add a signing key; the old one signs beside it until it is retired.",
                self.rotate,
                KeyList,
                scopes=("admin",),
                persons=True,
                refusals=(Conflict, Unavailable),
            ),
            Operation(
                "POST",
                "/v1/audit/keys/retire",
                "retireLogKey",
                "Let the older of two signing keys sign no more, before its time is up.",
                self.retire,
                KeyList,
                scopes=("admin",),
                persons=True,
                refusals=(Conflict, Unavailable),
            ),
        )

    async def list(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """All of them."""
        return self._list()

    async def policy(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """The policy file."""
        return Reply(200, self._keys.policy().text.encode(), TEXT)

    async def witnessed(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """The note, with its cosignatures."""
        note = self._witnesses.witnessed()
        if note is None:
            raise NotFound("no quorum of witnesses has cosigned since the start", cause_code="witnessed")
        return Reply(200, note.encode(), TEXT)

    async def rotate(self, asked: Asked) -> Reply:
        """Add one."""
        await self._keys.rotate(asked.visit.principal)
        return self._list()

    async def retire(self, asked: Asked) -> Reply:
        """Retire one."""
        await self._keys.retire(asked.visit.principal)
        return self._list()

    def _list(self) -> Reply:
        reigns = self._keys.all()
        return shown(KeyList(keys=tuple(_shown(reign, reigns[at + 1 : at + 2]) for at, reign in enumerate(reigns))))


def _shown(reign: Reign, successor: Sequence[Reign]) -> KeyShown:
    is_over = reign.until is not None
    return KeyShown(
        key_id=reign.key.id.hex(),
        vkey=reign.key.text,
        state="retired" if is_over else "signing",
        since_size=reign.since,
        since_us=reign.since_us,
        until_size=reign.until,
        until_us=reign.until_us,
        retires_us=None if is_over or not successor else successor[0].retires_us,
    )

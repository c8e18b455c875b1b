"""REST for whoever checks the log: C2SP tlog-tiles, and proofs ready made.

The prefix of the tiled log is ``/v1/audit/log``. Records name callers, so all of it needs the scope ``audit``.
"""

import base64
from collections.abc import Sequence

from pydantic import Field

from gateway.core.desk import Desk
from gateway.core.errors import NotFound
from gateway.core.inquiry import Query, Searched
from gateway.core.tiles import Tile
from gateway.edge.models import Model, QueryModel
from gateway.edge.reply import TEXT, Header, Reply
from gateway.edge.rest.routes import Asked, Operation, shown

_BYTES = b"application/octet-stream"
# What stands under a tile's path never changes; it is the caller's alone.
_FOR_EVER: Header = (b"cache-control", b"private, max-age=31536000, immutable")
_MAX_SIZE = 2**53


class Trees(QueryModel):
    """Two trees of the log, by their sizes."""

    old: int = Field(ge=0, lt=_MAX_SIZE, description="Records of the older tree.")
    new: int | None = Field(None, ge=0, lt=_MAX_SIZE, description="Records of the newer tree; absent = the newest.")


class Consistency(Model):
    """That one tree is the beginning of another: RFC 6962, section 2.1.2."""

    old: int
    new: int
    proof: tuple[str, ...] = Field(description="SHA-256 hashes, base64.")


class LogRest:
    """Operations on the log's tree; all need the scope ``audit``."""

    def __init__(self, desk: Desk) -> None:
        """Read through the desk."""
        self._tree = desk.tree
        self._searches = desk.searches
        self._witnesses = desk.witnesses

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/audit/log/checkpoint",
                "checkpoint",
                "The newest signed checkpoint, a C2SP signed note.",
                self.checkpoint,
                "text/plain",
                scopes=("audit",),
                refusals=(NotFound,),
            ),
            Operation(
                "GET",
                "/v1/audit/log/tile/{tile:path}",
                "tile",
                "A tile of hashes, or a bundle of records, as C2SP tlog-tiles names them.",
                self.tile,
                "application/octet-stream",
                scopes=("audit",),
                refusals=(NotFound,),
            ),
            Operation(
                "GET",
                "/v1/audit/log/proofs/{index}",
                "proveRecord",
                "The proof that a record is in the log, a C2SP tlog-proof.",
                self.prove,
                "text/plain",
                scopes=("audit",),
                refusals=(NotFound,),
            ),
            Operation(
                "GET",
                "/v1/audit/log/consistency",
                "proveExtension",
                "The proof that the log of one size is the beginning of that of another.",
                self.extend,
                Consistency,
                scopes=("audit",),
                query=Trees,
                refusals=(NotFound,),
            ),
        )

    async def checkpoint(self, asked: Asked) -> Reply:  # noqa: ARG002 - each operation takes the request
        """The note, with the cosignatures there are of it."""
        return Reply(200, self._witnesses.cosigned(await self._tree.checkpoint()).encode(), TEXT)

    async def tile(self, asked: Asked) -> Reply:
        """Hashes or entries."""
        tile = Tile.parse(asked.path["tile"])
        if tile is None:
            raise NotFound("no tile has such a path", cause_code="tile")
        return Reply(200, await self._tree.tile(tile), _BYTES, (_FOR_EVER,))

    async def prove(self, asked: Asked) -> Reply:
        """The proof of one record. It holds the record, so asking for it is recorded as a search is.

        What the tree is made of is not: whoever follows the log reads all of it, and it is what is left to an auditor
        when nothing can be recorded any more.
        """
        digits = asked.path["index"]
        if not (digits.isascii() and digits.isdecimal()) or str(int(digits[:20])) != digits or int(digits) >= _MAX_SIZE:
            raise NotFound("no record has such an index", cause_code="record")
        name: Header = (b"content-disposition", f'attachment; filename="{digits}.tlog-proof"'.encode())
        # Under what a quorum has cosigned, where the record is below it: a policy that asks for one takes nothing else.
        proof = await self._tree.prove(int(digits), self._witnesses.witnessed())
        searched = Searched("proof", Query(after=int(digits) - 1, limit=1), None, 1)
        await self._searches.record(asked.visit.principal, searched)
        return Reply(200, proof.encode(), TEXT, (name,))

    async def extend(self, asked: Asked) -> Reply:
        """The proof between two trees."""
        new, proof = await self._tree.extend(asked.query.old, asked.query.new)
        hashes = tuple(base64.b64encode(each).decode() for each in proof)
        return shown(Consistency(old=asked.query.old, new=new, proof=hashes))

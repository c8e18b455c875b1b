"""REST for export bundles: stored bytes of records, each with its proof under one checkpoint.

Who takes records out, and who has payloads opened, is recorded before the first byte leaves.
"""

import base64
from collections.abc import Sequence

from pydantic import Field

from gateway.core.desk import Desk
from gateway.core.errors import InvalidArguments, NotFound
from gateway.core.extract import Depth, Extract, Extracted
from gateway.edge.models import Model
from gateway.edge.reply import Reply
from gateway.edge.rest.audit import RecordQuery, understood
from gateway.edge.rest.routes import Asked, Operation, shown

_MAX_SIZE = 2**53


class ExportQuery(RecordQuery):
    """Which records, proven how, with what."""

    size: int | None = Field(
        None, ge=1, lt=_MAX_SIZE, description="Prove under the tree of so many records: `size` of the first page."
    )
    payloads: bool = Field(default=False, description="Open the sealed payloads, too.")


class PayloadShown(Model):
    """An opened payload."""

    role: str
    content: str = Field(description="Base64.")
    dek: str = Field(description="Data key it was sealed with.")
    key: str = Field(description="What its commitment is an HMAC-SHA256 under, hex. It opens nothing.")


class ExtractedShown(Model):
    """A record as it is stored."""

    index: int
    leaf: str = Field(description="The stored bytes, base64.")
    proof: tuple[str, ...] = Field(description="RFC 6962 inclusion proof, siblings from the leaf up, base64.")
    payloads: tuple[PayloadShown, ...] = Field((), description="Those that were opened; erased ones are absent.")


class ExtractPage(Model):
    """Records in log order, all proven under one tree."""

    vkey: str = Field(description="The log's public key.")
    size: int
    checkpoint: str = Field(description="The newest signed note; of the first page it is the one over `size` records.")
    records: tuple[ExtractedShown, ...]
    next: int | None = Field(None, description="`after` of the next page; absent on the last.")


class ExportRest:
    """Taking records out of the log; needs the scope ``audit`` of a person."""

    def __init__(self, desk: Desk) -> None:
        """Read through the desk."""
        self._desk = desk

    def operations(self) -> Sequence[Operation]:
        """The table."""
        return (
            Operation(
                "GET",
                "/v1/audit/export",
                "exportRecords",
                "Records as they are stored, each with its proof; payloads opened on demand.",
                self.export,
                ExtractPage,
                scopes=("audit",),
                persons=True,
                query=ExportQuery,
                refusals=(NotFound, InvalidArguments),
            ),
        )

    async def export(self, asked: Asked) -> Reply:
        """One page."""
        given: ExportQuery = asked.query
        depth, query = Depth(given.size, given.payloads), understood(given, asked.visit.call.at_us)
        found = await self._desk.export.page(query, depth)
        terms = given.model_dump(exclude={"size", "payloads"}, exclude_none=True)
        action = "log.payloads_exported" if depth.payloads else "log.exported"
        # Every page: who begins behind the first record would search unseen.
        await self._desk.changes.record(asked.visit.principal, action, terms | {"size": found.size})
        return shown(_page(found))


def _page(found: Extract) -> ExtractPage:
    return ExtractPage(
        vkey=found.vkey,
        size=found.size,
        checkpoint=found.checkpoint,
        records=tuple(_record(record) for record in found.records),
        next=found.next,
    )


def _record(record: Extracted) -> ExtractedShown:
    payloads = tuple(
        PayloadShown(role=one.role, content=_base64(one.content), dek=one.dek, key=one.key.hex())
        for one in record.payloads
    )
    proof = tuple(_base64(each) for each in record.proof)
    return ExtractedShown(index=record.index, leaf=_base64(record.leaf), proof=proof, payloads=payloads)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

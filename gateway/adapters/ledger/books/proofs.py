"""Evidence: which of the calls that a caller names are what it says they are."""

from collections.abc import Sequence

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.reading import LogReader
from gateway.core.call import Proof
from gateway.core.records import EventType

_COMPLETED = "select leaf from records where call_id = ? and +type = ? and +run_id = ?"


class _Body(msgspec.Struct, frozen=True, gc=False):
    is_error: bool
    tool: str | None


class _Leaf(msgspec.Struct, frozen=True, gc=False):
    body: _Body


_LEAF = msgspec.json.Decoder(_Leaf)


async def proofs(reader: LogReader, run_id: str, call_ids: Sequence[str]) -> tuple[Proof, ...]:
    """Those of ``call_ids`` that belong to the run, were carried out and did not fail by their tool's own word.

    Raises:
        Unavailable: the log cannot be read.
    """

    def run(db: Database) -> tuple[Proof, ...]:
        found = [(call_id, _succeeded(db, run_id, call_id)) for call_id in call_ids]
        return tuple(Proof(call_id, tool) for call_id, tool in found if tool is not None)

    return await reader.ask(run)


def _succeeded(db: Database, run_id: str, call_id: str) -> str | None:
    row = db.execute(_COMPLETED, (call_id, EventType.TOOL_COMPLETED, run_id)).fetchone()
    if row is None:
        return None
    body = _LEAF.decode(row[0]).body
    return None if body.is_error else body.tool

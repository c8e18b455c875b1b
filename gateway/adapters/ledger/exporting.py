"""Records on their way out: the stored bytes, each with its proof under one checkpoint; payloads opened on demand."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial

from gateway.adapters.ledger.additions import PAYLOAD_SLOTS
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.keyring.sealing import commitment_key, unseal, unwrap
from gateway.adapters.ledger.reading import LIVE_KEY, LogReader
from gateway.adapters.ledger.tree import newest_note, node
from gateway.core.desk import LogRecord
from gateway.core.errors import NotFound
from gateway.core.extract import Depth, Extract, Extracted, OpenedPayload
from gateway.core.inquiry import Query
from gateway.core.records import Role
from gateway.core.tiles import inclusion

# What the gateway and the asker hold in memory is bounded.
_PAGE_BYTES = 8 * 1024 * 1024
_KEPT_NODES = 4096


class LogExport:
    """Implements ``core.desk.LogExport`` on the files of an open ledger.

    Failure mode, closed: a log that cannot be read is ``Unavailable``.
    """

    def __init__(self, reader: LogReader, keys: LogKeys, page_bytes: int = _PAGE_BYTES) -> None:
        """A page ends after the record with which its payloads pass ``page_bytes``."""
        self._reader = reader
        self._keys = keys
        self._page_bytes = page_bytes

    async def page(self, query: Query, depth: Depth) -> Extract:
        """See ``core.desk.LogExport``."""
        # The tree first: every record of it can be found afterwards.
        note, newest = await self._reader.ask(newest_note)
        size = newest if depth.size is None else depth.size
        if size > newest:
            raise NotFound("the log has no tree of this size yet", cause_code="tree_size")
        found = await self._reader.search(query)
        records = [record for record in found if record.index < size]
        is_last = len(found) < query.limit or len(records) < len(found)
        taken = await self._reader.ask(partial(self._extracted, records, size, payloads=depth.payloads))
        is_last = is_last and len(taken) == len(records)
        return Extract(
            vkey=self._keys.name.text,
            size=size,
            checkpoint=note,
            records=taken,
            next=None if is_last or not taken else taken[-1].index,
        )

    def _extracted(
        self, records: Sequence[LogRecord], size: int, db: Database, *, payloads: bool
    ) -> tuple[Extracted, ...]:
        nodes = lru_cache(_KEPT_NODES)(partial(node, db))  # neighbours have most of their proofs in common
        taken: list[Extracted] = []
        volume = 0
        for record in records:
            if volume >= self._page_bytes:
                break
            opened = tuple(self._opened(db, record)) if payloads else ()
            volume += sum(len(payload.content) for payload in opened)
            proof = tuple(inclusion(record.index, size, nodes))
            taken.append(Extracted(record.index, record.leaf, proof, opened))
        return tuple(taken)

    def _opened(self, db: Database, record: LogRecord) -> Iterator[OpenedPayload]:
        kek = self._keys.kek
        for slot, ref in enumerate(record.body["payloads"]):
            if ref["role"] == Role.LEASE:
                continue  # a token's accessor is for the gateway alone, which may still have to end that token
            dek, pid = ref["dek"], record.index * PAYLOAD_SLOTS + slot
            key = db.execute(LIVE_KEY, (dek,)).fetchone()
            row = db.execute("select sealed from payloads where pid = ?", (pid,)).fetchone()
            if key is not None and row is not None:  # otherwise erased
                content = unseal(unwrap(kek, dek, key[0]), record.body["id"], ref["role"], row[0])
                yield OpenedPayload(ref["role"], content, dek, commitment_key(kek, dek, key[0]))

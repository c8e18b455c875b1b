"""The states that agents keep of their runs: sealed with the run's key, in the run's own chain."""

import msgspec

from gateway.adapters.ledger.allowance import Allowance
from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.call import Principal
from gateway.core.errors import Throttled
from gateway.core.ports import Clock
from gateway.core.records import EventType, Payload, Role, identifier
from gateway.core.snapshots import Snapshot

_RETRY_S = 20.0
_NEWEST = f"""
select idx, leaf from records where run_id = ? and {RARE_TYPE} and type = '{EventType.STATE_SNAPSHOT}'
  order by seq_run desc limit 1
"""  # noqa: S608 - literals only


class Snapshots:
    """Implements ``core.snapshots.SnapshotDesk`` on the ledger."""

    def __init__(self, ledger: Ledger, reader: LogReader, keys: LogKeys, clock: Clock) -> None:
        self._ledger = ledger
        self._reader = reader
        self._scribe = Scribe(clock, keys)
        self._allowance = Allowance(clock)

    async def keep(self, by: Principal, run_id: str, label: str, state: bytes) -> Snapshot:
        """Record a state; see ``core.snapshots.SnapshotDesk``."""
        if not self._allowance.take(by.key, len(state)):
            # Keeping costs a caller nothing: without a bound it could fill the disk.
            raise Throttled("too much state was kept lately", retry_after=_RETRY_S, cause_code="snapshots")
        body = {"bytes": len(state), "label": identifier(label)}
        subject = Subject(self._scribe.actor(by), run_id)
        draft = self._scribe.draft(EventType.STATE_SNAPSHOT, subject, body, Payload(Role.STATE, state))
        await self._ledger.append([draft])
        return Snapshot(draft.id, draft.at_us, identifier(label), state)

    async def newest(self, run_id: str) -> Snapshot | None:
        """The last state; see ``core.snapshots.SnapshotDesk``."""

        def run(db: Database) -> Snapshot | None:
            row = db.execute(_NEWEST, (run_id,)).fetchone()
            if row is None:
                return None
            record = msgspec.json.decode(row[1])
            state = self._reader.sealed(db, row[0], record, Role.STATE)
            return Snapshot(record["id"], record["ts"], record["body"]["label"], state)

        return await self._reader.ask(run)

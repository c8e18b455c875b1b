"""What becomes of the drafts of one caller, and of those of all who share a transaction."""

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from gateway.adapters.ledger.keyring.sealing import SealBroken
from gateway.adapters.ledger.storage.batch import Batch
from gateway.adapters.ledger.storage.tail import Tail
from gateway.core.errors import GatewayError, Unavailable
from gateway.core.records import CLOSINGS, Draft, RecordError

# None: they are records.
Outcome = GatewayError | None
# The cause where the log's files are not in their place any more.
DISPLACED = "ledger_displaced"
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Prepared(Struct, frozen=True, eq=False):
    """A transaction that is still to be made durable.

    Attributes:
        outcomes: one for each caller, as they will be once it is.
        batch: what it writes; None where it failed already.
        end: what it builds on.
        note: the checkpoint that covers it.
        is_low: whether the disk reserve is used up.
    """

    outcomes: list[Outcome]
    batch: Batch | None = None
    end: Tail | None = None
    note: str = ""
    is_low: bool = False


def added(batch: Batch, drafts: Sequence[Draft]) -> Outcome:
    """Add one caller's drafts to a batch, all or none."""
    try:
        batch.add(drafts)
    except GatewayError as error:
        return error
    except RecordError as error:
        return Unavailable(f"the record was refused: {error}", cause_code="ledger_record")
    except SealBroken:
        return Unavailable("the run's data key cannot be opened", cause_code="ledger_key")
    return None


def added_sparingly(batch: Batch, drafts: Sequence[Draft]) -> Outcome:
    """As ``added``, while the disk reserve is used up: only what ends what was begun."""
    if all(draft.type in CLOSINGS for draft in drafts):
        return added(batch, drafts)
    return Unavailable("the disk reserve is used up", retry_after=60, cause_code="ledger_reserve")


def is_damage(error: Exception) -> bool:
    """Whether the database says that it is damaged."""
    # The extended codes have the plain one in their last byte.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE

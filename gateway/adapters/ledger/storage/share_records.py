"""The log's ``rotation.shared`` records: read back, and held to their rules in the transaction that writes them."""

from collections.abc import Callable
from typing import Any

import msgspec

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.storage.files import RARE_TYPE
from gateway.core.errors import Conflict, Unavailable
from gateway.core.key_sharing import NotTaken, Share, ShareRefused, admit, check_taken, standing
from gateway.core.log_keys import KeyAction
from gateway.core.records import Draft, EventType
from gateway.core.rotation import KeyKind

KINDS = frozenset({EventType.KEY, EventType.ROTATION_SHARED})
NOT_TAKEN = "key_not_taken"
_SAID = f"select leaf from records where {RARE_TYPE} and type = '{EventType.ROTATION_SHARED}' order by idx"  # noqa: S608 - literals only


class _Leaf(msgspec.Struct, gc=False):
    ts: int
    body: dict[str, Any]


_LEAF = msgspec.json.Decoder(_Leaf)


def shares_of(db: Database) -> tuple[Share, ...]:
    """All keys that were ever offered.

    Raises:
        Unavailable: a record of them cannot be read.
        FAULTS: the log cannot be.
    """
    try:
        leaves = [_LEAF.decode(entry) for (entry,) in db.execute(_SAID).fetchall()]
        return standing((leaf.ts, leaf.body) for leaf in leaves)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ShareRefused) as error:
        raise Unavailable(f"the log's records of shared keys: {error}", cause_code="key_share") from None


def check(db: Database, draft: Draft, living: Callable[[Database], frozenset[str]]) -> None:
    """Whether a draft of ``KINDS`` may become a record; ``living``: the other gateways that write the log.

    Asked in its transaction, so nobody can join in between: a key that the others would have to sign with, and do not
    have, would stop every call of theirs.

    Raises:
        Conflict: it may not.
    """
    if draft.type is EventType.KEY and (draft.body["action"] != KeyAction.ADDED or draft.body["signature"] is None):
        return
    others = living(db)
    if draft.type is EventType.KEY and not others:
        return
    shares = shares_of(db)
    try:
        if draft.type is EventType.KEY:
            check_taken(shares, (KeyKind.LOG_KEY, bytes.fromhex(draft.body["public"])), others)
        else:
            admit(shares, draft.body, others)
    except NotTaken as error:
        raise Conflict(str(error), cause_code=NOT_TAKEN) from None
    except ShareRefused as error:
        raise Conflict(str(error), cause_code="key_share") from None

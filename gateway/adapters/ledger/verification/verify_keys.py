"""Which keys may have signed a log: what one public key from elsewhere makes of the log's own records of its keys."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.adapters.ledger.database import FAULTS, Database
from gateway.adapters.ledger.storage.key_records import history_of, key_records
from gateway.adapters.ledger.storage.site import Site, sited
from gateway.adapters.ledger.verification.report import Report, Signing
from gateway.core.log_keys import KeyHistory, KeyRefused, Reign, key_of
from gateway.core.tlog import Checkpoint, NoteError, VerifierKey, split_note


def trusted(db: Database, keys: Sequence[VerifierKey], report: Report) -> KeyHistory:
    """The log's keys, one of ``keys`` among them; the first of these alone where the records lead to none.

    Each later key is there by the signature of the one before, so what came after a key is trusted for its sake. What
    came before stands in the tree that the key and its successors sign; and who does not hold one of them cannot end
    the list with a key of their own, as the older of two keys in force is the only one that is ever retired.

    Raises:
        FAULTS: the log cannot be read.
    """
    history = KeyHistory.begun(keys[0])
    try:
        for index, at_us, body in key_records(db):
            if index == 0:
                history = KeyHistory.begun(key_of(keys[0].name, body))
            history = history.after(index, at_us, body)
    except KeyRefused as error:
        report.add(None, None, f"the log's records of its keys do not hold: {error}")
    is_known = any(reign.key == key for reign in history.reigns for key in keys)
    return history if is_known else KeyHistory.begun(keys[0])


def keys_of(place: Path | Site, first: VerifierKey, note: str) -> tuple[VerifierKey, ...]:
    """The keys that sign a checkpoint of the size that ``note`` names, as the log in ``place`` says.

    ``first`` alone, which names that log, where there is none that can be read. Nothing of the note is believed.
    """
    try:
        size = Checkpoint.parse(split_note(note)[0]).size
        with closing(sited(place).reader()) as db:
            return history_of(db, first).signing(size)
    except (NoteError, KeyRefused, *FAULTS, OSError):
        return (first,)


def tell_signers(history: KeyHistory, db: Database, report: Report) -> None:
    """Say in the report who signed, and up to when: what is covered by the newest good checkpoint.

    Raises:
        FAULTS: the log cannot be read.
    """
    if report.checkpoint is None:
        return
    size = report.checkpoint.size
    report.signed_us = _time(db, size - 1)
    report.signers = tuple(_signing(reign, size, report.signed_us) for reign in history.reigns if reign.since <= size)


def _signing(reign: Reign, size: int, newest_us: int | None) -> Signing:
    is_over = reign.until is not None and reign.until <= size
    return Signing(
        vkey=reign.key.text,
        first=reign.since,
        last=(reign.until or size) - 1 if is_over else size,
        since_us=reign.since_us,
        until_us=reign.until_us if is_over else newest_us,
        retired=is_over,
    )


def _time(db: Database, index: int) -> int | None:
    row = db.execute("select ts from records where idx = ?", (index,)).fetchone()
    return None if row is None else int(row[0])

"""Reads the log of a gateway that has ended, with its keys."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec

from deploy.campaigns.rpc_fuzz.invariant import Record
from gateway.adapters.ledger.additions import PAYLOAD_SLOTS
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import create_or_load
from gateway.adapters.ledger.keyring.sealing import DataKey, unseal, unwrap
from gateway.adapters.ledger.storage import files
from gateway.adapters.ledger.verification.verify import verify
from gateway.core.records import EventType, Role

ORIGIN: Final = "ostiary.local/log"


def audited(folder: Path) -> Iterator[str]:
    """What is wrong with the log of a gateway that has ended, by the verifier."""
    state = folder / "state"
    try:
        keys = create_or_load(state / "keys", ORIGIN)
    except StateRefused as error:
        yield f"the state cannot be used any more: {error}"
        return
    report = verify(state, keys.signer.key.text)
    yield from (f"the log does not verify: {found.problem}" for found in report.findings)
    yield from (f"call {call} is open" for call in report.open_calls)


def records(folder: Path) -> Iterator[Record]:
    """The log, in order; of intents the whole request."""
    state = folder / "state"
    keys = create_or_load(state / "keys", ORIGIN)
    with closing(files.connect_readonly(state / files.DATABASE)) as db:
        wrapped: Mapping[str, Any] = dict(db.execute("select id, wrapped from deks"))
        opened: dict[str, DataKey] = {}
        for index, entry in db.execute("select idx, leaf from records order by idx"):
            leaf = msgspec.json.decode(entry)
            if leaf["type"] != EventType.TOOL_REQUESTED:
                yield Record(index, leaf)
                continue
            slot, ref = next((n, ref) for n, ref in enumerate(leaf["payloads"]) if ref["role"] == Role.REQUEST)
            if ref["dek"] not in opened:
                opened[ref["dek"]] = unwrap(keys.kek, ref["dek"], wrapped[ref["dek"]])
            (sealed,) = db.execute(
                "select sealed from payloads where pid = ?", (index * PAYLOAD_SLOTS + slot,)
            ).fetchone()
            yield Record(index, leaf, unseal(opened[ref["dek"]], leaf["id"], ref["role"], sealed))

"""After a run: the ledger is started again, the log verified and read, the journals read, and the run judged."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from deploy.campaigns.faults import peer
from deploy.campaigns.faults.invariant import Evidence, Received, Record, Told, violations
from deploy.campaigns.faults.plan import DEADLY, MUTE, Fault, Plan
from deploy.campaigns.faults.strikes import DATABASE, LOST_DATABASE
from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.additions import PAYLOAD_SLOTS
from gateway.adapters.ledger.keyring.key_files import StateRefused
from gateway.adapters.ledger.keyring.keys import LogKeys, create_or_load
from gateway.adapters.ledger.keyring.sealing import DataKey, unseal, unwrap
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.storage import files
from gateway.adapters.ledger.verification.verify import verify

ORIGIN: Final = "ostiary.local/log"
_SWEEP_S: Final = 0.02
_STATEMENTS: Final = frozenset({"enter", "strike"})


@dataclass(slots=True)
class Finding:
    """What a judge says of a run.

    Attributes:
        violations: a sentence each; empty = the invariant holds.
        counts: intents, requests, answers, endings by type ...
    """

    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def judge(plan: Plan, folder: Path, answers: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge the run in ``folder``; ``answers`` is what callers were told. Starts an event loop of its own."""
    state = folder / "state"
    finding = Finding()
    try:
        keys = create_or_load(state / "keys", ORIGIN)
    except StateRefused as error:
        finding.violations.append(f"the state folder cannot be used any more: {error}")
        return finding
    if plan.fault not in DEADLY | MUTE:
        _check("when the gateway had ended", state, keys, finding)
    if plan.fault in DEADLY:
        _killed_while_sweeping(plan.seed, state, keys)
    try:
        asyncio.run(_restart(state, keys))
    except StateRefused as error:
        finding.violations.append(f"the log cannot be used any more: {error}")
        return finding
    _check("after the restart", state, keys, finding)
    records = list(_records(state, keys))
    evidence = Evidence(plan, records, list(_received(folder)), [_told(answer) for answer in answers])
    finding.violations += violations(evidence)
    _count(evidence, finding)
    return finding


def _check(when: str, state: Path, keys: LogKeys, finding: Finding) -> None:
    report = verify(state, keys.signer.key.text)
    finding.violations += [f"the log does not verify {when}: {found.problem}" for found in report.findings]
    if report.open_calls:
        finding.violations.append(f"{len(report.open_calls)} intents are open {when}")


async def _restart(state: Path, keys: LogKeys) -> None:
    async with Ledger(state, keys, SystemClock(), reserve_bytes=0):
        pass


def _killed_while_sweeping(seed: int, state: Path, keys: LogKeys) -> None:
    # Whoever was killed may be killed again while it recovers.
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(_restart(state, keys))
        finally:
            os._exit(0)
    time.sleep(Random(seed).uniform(0, _SWEEP_S))  # noqa: S311 - repeatable on purpose
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _records(state: Path, keys: LogKeys) -> Iterator[Record]:
    with closing(files.connect_readonly(state / files.DATABASE)) as db:
        wrapped = dict(db.execute("select id, wrapped from deks"))
        opened: dict[str, DataKey] = {name: unwrap(keys.kek, name, sealed) for name, sealed in wrapped.items()}
        sealed = dict(db.execute("select pid, sealed from payloads"))
        for index, entry in db.execute("select idx, leaf from records order by idx"):
            leaf = msgspec.json.decode(entry)
            payloads = {
                ref["role"]: unseal(opened[ref["dek"]], leaf["id"], ref["role"], sealed[index * PAYLOAD_SLOTS + n])
                for n, ref in enumerate(leaf["payloads"])
            }
            yield Record(index, leaf, payloads)


def _received(folder: Path) -> Iterator[Received]:
    path = folder / peer.JOURNAL
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for line in lines:
        yield msgspec.json.decode(line, type=Received)
    database = folder / LOST_DATABASE if (folder / LOST_DATABASE).exists() else folder / DATABASE
    with closing(sqlite3.connect(database)) as db:
        for marker, tool, at in db.execute("select marker, tool, at from entries order by rowid"):
            when = datetime.fromisoformat(at).replace(tzinfo=UTC)
            # Milliseconds, rounded: one is added.
            yield Received(marker, tool, -1, int(when.timestamp() * 1e6) + 1000)


def _told(answer: Mapping[str, Any]) -> Told:
    surface, body = str(answer["surface"]), str(answer["body"])
    code, result = (_by_rest if surface == "rest" else _by_mcp)(int(answer["status"]), body.encode())
    return Told(str(answer["marker"]), code, answer["call_id"], result, body)


class _Rest(msgspec.Struct):
    type: str = ""
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Block(msgspec.Struct):
    text: str = ""


class _Result(msgspec.Struct, rename="camel"):
    is_error: bool = False
    content: list[_Block] = []


class _ErrorData(msgspec.Struct):
    code: str = "internal"


class _RpcError(msgspec.Struct):
    data: _ErrorData


class _Rpc(msgspec.Struct):
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _RpcError | None = None


class _Refusal(msgspec.Struct):
    error: str
    call_id: str


def _by_rest(status: int, body: bytes) -> tuple[str, bytes | None]:
    said = msgspec.json.decode(body, type=_Rest)
    if status == 200 and said.result is not msgspec.UNSET:  # noqa: PLR2004 - HTTP
        return "completed", bytes(said.result)
    return said.type.rpartition(":")[2], None


def _by_mcp(_status: int, body: bytes) -> tuple[str, bytes | None]:
    said = msgspec.json.decode(body, type=_Rpc)
    if said.result is msgspec.UNSET:
        return "internal" if said.error is None else said.error.data.code, None
    result = msgspec.json.decode(said.result, type=_Result)
    try:
        # What the gateway refuses is a tool result, too: its text is JSON that names the error and the call.
        refusal = msgspec.json.decode(result.content[0].text, type=_Refusal) if result.is_error else None
    except (msgspec.MsgspecError, IndexError):
        refusal = None
    return ("completed", bytes(said.result)) if refusal is None else (refusal.error, None)


def _count(evidence: Evidence, finding: Finding) -> None:
    finding.counts = {
        "calls": 0 if evidence.plan.fault is Fault.KILLED_STARTING else len(evidence.plan.calls),
        "answers": len(evidence.told),
        "intents": len(evidence.intents),
        "requests": len(evidence.received),
        "requests_ordered_by_log": sum(request.log_size >= 0 for request in evidence.received),
        "rows": sum(request.tool in _STATEMENTS for request in evidence.received),
    }
    for intent in evidence.intents.values():
        finding.counts[intent.ending] = finding.counts.get(intent.ending, 0) + 1
    for told in evidence.told:
        key = f"told.{told.code}"
        finding.counts[key] = finding.counts.get(key, 0) + 1

"""The end of the demo: the timeline from the signed log, its verification by another process, one byte flipped."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from deploy.demo import command
from deploy.demo.screen import Event
from deploy.demo.story import Play

_MOST = 40
_MICRO = 1_000_000
_SHORT, _HASH = 8, 32
_WORDS = {
    "decision": "{effect} by policy {revision}: {reasons[0]}",
    "approval.requested": "action {action} waits for {persons} person",
    "approval.decided": "{verdict} of approval {approval}, signature {signature}",
    "tool.requested": "the intent: {tool}, pin {definition}; uses the approval up",
    "credential.leased": "{kind} for {template}, lease {mark}, {ttl_s} s at most",
    "credential.revoked": "lease {mark}: {cause}",
    "tool.completed": "result {result}, {redactions} values taken out",
}


def timeline(play: Play) -> None:
    """The chain of one payment, record by record, and how long the whole is."""
    play.screen.chapter("The signed log: who asked, who allowed it, with which credential, and what came of it")
    records = command.ask("audit", "run", play.run_id, state=play.house.state)["records"]
    counts = Counter(str(record["type"]) for record in records)
    words = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    play.screen.note(f"{len(records)} records of this run: {words}")
    play.screen.note("the approved payment, from question to result:")
    chain = _chain(records)
    start = chain[0]["ts"] if chain else 0
    rows = [_row(record, start) for record in chain[:_MOST]]
    play.screen.table(("after", "record", "what it says"), rows)


def _chain(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of the first approved action: its own, and those of the call that carried it out."""
    requested = next((one for one in records if one["type"] == "approval.requested"), None)
    if requested is None:
        return []
    approval = requested["body"]["approval"]
    calls = {requested["call_id"]}
    calls |= {
        one["call_id"] for one in records if one["type"] == "tool.requested" and one["body"].get("approval") == approval
    }
    return [one for one in records if one["call_id"] in calls]


def _row(record: Mapping[str, Any], start_us: int) -> tuple[str, str, str]:
    after = f"{(record['ts'] - start_us) / _MICRO:.3f} s"
    return after, str(record["type"]), _says(str(record["type"]), record)


def _says(kind: str, record: Mapping[str, Any]) -> str:
    """What a leaf says, in ids and hashes: it holds nothing else."""
    body = {name: _cut(value) for name, value in record["body"].items()}
    result = record["payloads"][0]["commit"] if record["payloads"] else ""
    return _WORDS.get(kind, "{tool}").format_map({"tool": "", "result": _cut(result), **body})


def _cut(value: Any) -> Any:
    if not isinstance(value, str) or len(value) < _HASH or not set(value) <= set("0123456789abcdef-"):
        return value
    # Ids begin with the time, so their ends tell them apart.
    return f"…{value[-_SHORT:]}" if "-" in value else f"{value[:_SHORT]}…"


def verified(play: Play) -> None:
    """Another process checks the log, with the gateway stopped; then a copy with one byte changed."""
    whole = command.run("audit", "verify", "--payloads", "--state", str(play.house.state))
    good = whole.code == 0
    size = whole.document["size"] if isinstance(whole.document, dict) else 0
    words = f"{size} records: signed, in order, every sealed payload as committed, every reviewer's signature good"
    _tell(play, "the log, by another process", "sound" if good else "NOT SOUND", words if good else whole.words)
    index = _flipped(play.house.state, play.house.folder / "copy")
    broken = command.run("audit", "verify", "--state", str(play.house.folder / "copy"))
    found = broken.document["findings"] if isinstance(broken.document, dict) else []
    hit = next((one for one in found if one["index"] == index), None)
    words = f"record {index}: {hit['problem']}" if hit else broken.words
    _tell(play, "one byte of a copy flipped", "found" if broken.code == 1 and hit else "NOT FOUND", words)


def _tell(play: Play, name: str, outcome: str, words: str) -> None:
    play.steps[name] = outcome
    play.screen.event(Event(name, "done" if outcome in {"sound", "found"} else "wrong", outcome, words))


def _flipped(state: Path, copy: Path) -> int:
    shutil.copytree(state, copy, ignore=shutil.ignore_patterns("*.sock"))
    with closing(sqlite3.connect(copy / "log.db")) as database, database:
        row = database.execute(
            "SELECT idx, leaf FROM records WHERE type = 'tool.completed' ORDER BY idx LIMIT 1"
        ).fetchone()
        altered = bytearray(row[1])
        altered[len(altered) // 2] ^= 1
        database.execute("UPDATE records SET leaf = ? WHERE idx = ?", (bytes(altered), row[0]))
    return int(row[0])

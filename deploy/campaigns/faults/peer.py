"""What stands behind the gateway in a run: a journal, and an MCP server that misbehaves as told. Standard library only.

Imported by ``upstream`` for the HTTP surfaces; run by path it is the same server as a child process of the gateway:
``python -I -S peer.py FOLDER``. ``FOLDER/modes.json`` says how each marker is treated.
"""

import hashlib
import json
import os
import signal
import sqlite3
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

LATE_S = 0.15
STATELESS = "2026-07-28"
HANDSHAKE = "2025-11-25"
JOURNAL = "journal.jsonl"
MODES = "modes.json"
GATEWAY_PID = "gateway.pid"
_MARKED = {"type": "object", "properties": {"marker": {"type": "string"}}, "required": ["marker"]}
_CLOSED = {**_MARKED, "additionalProperties": False}
_PAID = {
    "type": "object",
    "properties": {"marker": {"type": "string"}, "amount": {"type": "integer"}, "currency": {"type": "string"}},
    "required": ["marker", "amount", "currency"],
    "additionalProperties": False,
}
TOOLS = [
    {"name": name, "description": f"{name}, noted", "inputSchema": schema, "outputSchema": _MARKED}
    for name, schema in (
        ("look", _CLOSED),
        ("write", _CLOSED),
        ("remove", _CLOSED),
        ("pay", _PAID),
        ("hidden", _CLOSED),
    )
]


class Journal:
    """Every request, noted on disk before anything else is done with it.

    A line holds the call's marker, the tool, the time, and how many records the gateway's log held at that moment, in
    its tables and beyond them in its own journal, as another process reads them. -1 = it could not be read.
    """

    def __init__(self, folder: Path) -> None:
        """Append to the journal in ``folder``."""
        self._folder = folder
        self._file = os.open(folder / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._log: sqlite3.Connection | None = None
        self.modes: dict[str, str] = json.loads((folder / MODES).read_text("utf-8"))

    def note(self, marker: str, tool: str) -> str:
        """Note a request durably; returns how it is to be treated."""
        line = {"marker": marker, "tool": tool, "log_size": self._log_size(), "at_us": time.time_ns() // 1000}
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)
        mode = self.modes.get(marker, "answer")
        if mode == "kill":
            os.kill(int((self._folder / GATEWAY_PID).read_text("ascii")), signal.SIGKILL)
        return mode

    def _log_size(self) -> int:
        try:
            if self._log is None:
                url = (self._folder / "state" / "log.db").as_uri() + "?mode=ro"
                self._log = sqlite3.connect(url, uri=True, isolation_level=None, timeout=5, check_same_thread=False)
            held = _held(self._folder / "state" / "log.journal")
            (size,) = self._log.execute("select coalesce(max(idx), -1) + 1 from records").fetchone()
            return max(int(size), held)
        except (OSError, sqlite3.Error):
            self._log = None
            return -1


def _held(journal: Path) -> int:
    """How many records a log has, by its journal.

    It holds frames in blocks of 4 KiB that follow each other, each with a mark, its number, the records before and
    after it, how many bytes it has, and a SHA-256 of these numbers and the bytes.
    """
    data, at, size = journal.read_bytes(), 0, 0
    while data[at : at + 8] == b"ostjrnl1":
        numbers, digest = data[at + 8 : at + 40], data[at + 40 : at + 72]
        _, before, after, length = struct.unpack("<4Q", numbers)
        content = data[at + 72 : at + 72 + length]
        if (at and before != size) or hashlib.sha256(numbers + content).digest() != digest:
            break
        size = after
        at += -(-(72 + length) // 4096) * 4096
    return size


def answer(request: dict[str, Any], *, stateless: bool) -> dict[str, Any] | None:
    """The answer to whatever is no call; None where none is owed."""
    if "id" not in request:
        return None
    method, answered = request.get("method"), {"jsonrpc": "2.0", "id": request["id"]}
    if method == "server/discover" and stateless:
        found: dict[str, Any] = {"supportedVersions": [STATELESS], "capabilities": {"tools": {}}}
        return {**answered, "result": {**found, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}}
    if method == "initialize" and not stateless:
        server = {"name": "peer", "version": "1"}
        result = {"protocolVersion": HANDSHAKE, "capabilities": {"tools": {}}, "serverInfo": server}
        return {**answered, "result": result}
    if method == "tools/list":
        head = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if stateless else {}
        return {**answered, "result": {"tools": TOOLS, **head}}
    if method == "ping":
        return {**answered, "result": {}}
    return {**answered, "error": {"code": -32601, "message": "no such method"}}


def carried_out(request: dict[str, Any], mode: str) -> dict[str, Any]:
    """The answer to a call that is answered at all."""
    marker = request["params"]["arguments"].get("marker", "")
    answered = {"jsonrpc": "2.0", "id": request["id"]}
    if mode == "refuse":
        return {**answered, "error": {"code": -32000, "message": "refused"}}
    said = {"other": 1} if mode == "misfit" else {"marker": marker}
    text = {"type": "text", "text": json.dumps(said)}
    result: dict[str, Any] = {"content": [text], "structuredContent": said, "resultType": "complete"}
    if mode == "fail":
        result = {"content": [{"type": "text", "text": "failed"}], "isError": True}
    return {**answered, "result": result}


class Pipes:
    """The server on standard input and output, handshake era."""

    def __init__(self, journal: Journal) -> None:
        """Note calls in ``journal``."""
        self._journal = journal
        self._turn = threading.Lock()

    def serve(self) -> None:
        """Take one message a line until the input ends."""
        for line in sys.stdin:
            request = json.loads(line)
            if request.get("method") == "tools/call":
                self._call(request)
            elif (answered := answer(request, stateless=False)) is not None:
                self._say(json.dumps(answered))

    def _call(self, request: dict[str, Any]) -> None:
        mode = self._journal.note(str(request["params"]["arguments"].get("marker")), request["params"]["name"])
        text = json.dumps(carried_out(request, mode))
        match mode:
            case "hang" | "kill":
                return
            case "late" | "too_late":
                wait = LATE_S if mode == "late" else 10 * LATE_S
                timer = threading.Timer(wait, self._say, [text])
                timer.daemon = True
                timer.start()
            case "half":
                self._say(text[: len(text) // 2])
                os._exit(1)
            case "close":
                os._exit(1)
            case "garbage" | "garbled":
                self._say("\x00\x01 no message at all {{{")
            case _:
                self._say(text)

    def _say(self, text: str) -> None:
        with self._turn:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    Pipes(Journal(Path(sys.argv[1]))).serve()

"""The policy worker: a child process that evaluates Rego and can do nothing else.

Run by path as ``python -I worker.py MEMORY_BYTES GUARD_SECONDS`` with an empty environment and one socket as its
standard input and output; it imports nothing of the gateway, so it stays small. The first frame is the bundle, each
further one a question; every frame is answered in order.

Frames, integers big-endian::

    frame     u32 length, payload
    bundle    JSON {"modules": [[name, text], ...], "data": "JSON text", "guards": [rule, ...]}; answered by JSON
              {"engine"} or {"error"}
    question  u64 number, u16 length of decision id, decision id, u16 count, per input: u32 length, JSON
    reply     u64 number, 32 bytes SHA-256 of the question's payload, per input: u8 status, u32 guards that do not hold
              (bit n: the one at n), u32 length, bytes (64 KiB at most)

The digest covers number, decision id and inputs: a reply cannot be taken for that of another question.
"""

import os
import resource
import sys

# Before the engine is loaded: its allocator reserves a gigabyte at start, which would put that much beyond the limit.
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

import hashlib
import json
import re
import signal
import struct
import time
from typing import Any

import regorus

ANSWERED, UNDEFINED, FAULTED, TOO_LARGE = 0, 1, 2, 3
RULE = "data.gateway.main.decision"
# What the engine's JSON calls say of an undefined rule; a rule with this very value reads as undefined, too: closed.
_UNDEFINED = '"<undefined>"'
_PANICKED = 70
# Rules in any other package below gateway would stand there and never be asked.
_PACKAGE = re.compile(r"data\.(gateway\.(main|policies\.[^.]+|lib\..+)|(?!gateway(\.|$)).+)")
_BLOCK = 1 << 18
_FAULT_BYTES = 500
_RESULT_BYTES = 64 * 1024


class _Refused(Exception):
    """The bundle cannot be served; the message is for the operator."""


def main() -> None:
    """Serve questions until the other end closes."""
    frames, guard = _Frames(), _Guard(float(sys.argv[2]))
    engine: Any = None
    guards: list[str] = []
    while (payload := frames.next()) is not None:
        guard.rearm()
        if engine is None:
            engine, guards, answer = _load(payload)
        else:
            answer = _answer(engine, guards, payload)
        _send(struct.pack(">I", len(answer)) + answer)


class _Guard:
    # An orphan in an endless loop has nobody to kill it; the default action of SIGVTALRM does, after so much processor
    # time. Waiting takes none, so the timer is set anew only now and then: a system call a question would be felt.
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._set_at = float("-inf")

    def rearm(self) -> None:
        now = time.monotonic()
        if now - self._set_at > self._seconds / 4:
            signal.setitimer(signal.ITIMER_VIRTUAL, self._seconds)
            self._set_at = now


class _Frames:
    def __init__(self) -> None:
        self._buffer = bytearray()

    def next(self) -> bytes | None:
        size = self._take(4)
        return None if size is None else self._take(struct.unpack(">I", size)[0])

    def _take(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            block = os.read(0, _BLOCK)
            if not block:
                return None
            self._buffer += block
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


def _send(answer: bytes) -> None:
    view = memoryview(answer)
    while view:
        view = view[os.write(1, view) :]


def _load(payload: bytes) -> tuple[Any, list[str], bytes]:
    bundle = json.loads(payload)
    try:
        engine, version = _engine(bundle["modules"], bundle["data"])
    # The engine reports what is wrong with a bundle as RuntimeError; a panic is no Exception and ends the process.
    except (RuntimeError, _Refused) as error:
        return None, [], json.dumps({"error": _words(error)}).encode()
    return engine, bundle["guards"], json.dumps({"engine": f"regorus {version}"}).encode()


def _engine(modules: list[list[str]], data: str) -> tuple[Any, str]:
    engine = regorus.Engine()
    owners: dict[str, str] = {}
    for name, text in modules:
        package = engine.add_policy(name, text)
        # This engine silently skips the rules of a package's second file, so that a deny would vanish.
        if package in owners:
            raise _Refused(f"{name}: package {package[5:]} is already in {owners[package]}; one file for each package")
        if not _PACKAGE.fullmatch(package):
            raise _Refused(f"{name}: package {package[5:]} would be ignored; decisions read gateway.policies.NAME only")
        owners[package] = name
    if "data.gateway.main" not in owners:
        raise _Refused("no file holds package gateway.main")
    _check_data(json.loads(data), owners)
    engine.add_data_json(data)
    version = json.loads(engine.eval_query_as_json("opa.runtime()"))["result"][0]["expressions"][0]["value"]
    return engine, version["regorus-version"]


def _check_data(data: Any, owners: dict[str, str]) -> None:
    # Data where packages stand would replace their rules, or speak as a package of its own and allow.
    gateway = data.get("gateway")
    for name in ("main", "policies", "lib"):
        if isinstance(gateway, dict) and name in gateway:
            raise _Refused(f"data files may not set data.gateway.{name}: it belongs to packages")
    for package, owner in owners.items():
        node = data
        for step in package.split(".")[1:]:
            node = node.get(step) if isinstance(node, dict) else None
        if node is not None:
            raise _Refused(f"{owner}: data files hold values at the path of package {package[5:]}")


def _answer(engine: Any, guards: list[str], payload: bytes) -> bytes:
    number, size = struct.unpack_from(">QH", payload)
    at = 10 + size
    (count,) = struct.unpack_from(">H", payload, at)
    at += 2
    parts = [struct.pack(">Q", number), hashlib.sha256(payload).digest()]
    for _ in range(count):
        (length,) = struct.unpack_from(">I", payload, at)
        at += 4
        status, value = _evaluate(engine, payload[at : at + length].decode())
        at += length
        idle = _idle(engine, guards) if status == ANSWERED else 0
        parts += [struct.pack(">BII", status, idle, len(value)), value]
    return b"".join(parts)


def _evaluate(engine: Any, document: str) -> tuple[int, bytes]:
    try:
        engine.set_input_json(document)
        answer: str = engine.eval_rule_as_json(RULE)
    except RuntimeError as error:
        return FAULTED, _place(error).encode()
    except BaseException:  # noqa: BLE001  a panic of the engine is a BaseException; its state cannot be trusted after it
        os._exit(_PANICKED)
    if answer == _UNDEFINED:
        return UNDEFINED, b""
    value = answer.encode() if len(answer) <= _RESULT_BYTES else b""
    # A policy that floods its answer is stopped here: the gateway never reads it.
    return (ANSWERED, value) if 0 < len(value) <= _RESULT_BYTES else (TOO_LARGE, b"")


def _idle(engine: Any, guards: list[str]) -> int:
    """The guards that do not hold for the input at hand; one that cannot be told counts as holding."""
    found = 0
    for number, guard in enumerate(guards):
        try:
            found |= (engine.eval_rule_as_json(guard) == _UNDEFINED) << number
        except RuntimeError:
            continue
    return found


def _place(error: Exception) -> str:
    # Only where it happened: the rest of the message may quote the caller's arguments.
    found = re.search(r"--> (\S+:\d+:\d+)", str(error))
    return found[1][:_FAULT_BYTES] if found else ""


def _words(error: Exception) -> str:
    return str(error).split("Stack backtrace:", maxsplit=1)[0].strip()[:_FAULT_BYTES]


if __name__ == "__main__":
    main()

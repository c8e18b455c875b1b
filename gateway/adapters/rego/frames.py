"""The gateway's half of the worker protocol; the frames are described in ``worker.py``."""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from gateway.adapters.rego.routing import NOWHERE, Routes
from gateway.core.bundle import Bundle
from gateway.core.decision import MAX_RESULT_BYTES

# Inputs that one worker gets together: a listing of 500 tools must not hold a worker for long.
CHUNK = 8
_ANSWERED, _UNDEFINED, _FAULTED, _TOO_LARGE = 0, 1, 2, 3
_HEAD = struct.Struct(">BII")
# Of a worker, in answer to one question; whatever says it is longer is not read.
MAX_FRAME_BYTES = 40 + CHUNK * (_HEAD.size + MAX_RESULT_BYTES)


_KEY_SIZE = {size: struct.pack(">B", size) for size in (0, 16)}

Asked = tuple[bytes, bytes]
"""An input document after its key: 16 bytes that inputs share which differ in nothing but what may differ, or none."""


class Garbage(Exception):
    """A reply that no honest worker sends."""


class Verdict(NamedTuple):
    """What the worker says of one input.

    Attributes:
        result: JSON text of the decision, or None.
        fault: id of the fault, or None.
        place: ``file:line:column`` of a fault in the policy, or empty.
        idle: the guards of the bundle (``routing.py``) that do not hold for this input, by bit.
    """

    result: bytes | None
    fault: str | None
    place: str = ""
    idle: int = 0


def bundle_document(bundle: Bundle, routes: Routes = NOWHERE) -> dict[str, Any]:
    """What a worker is told first; ``routes`` say which guards are told with each answer, and what is kept."""
    modules = [[module.name, module.text] for module in bundle.modules]
    parts = [asdict(part) for part in routes.spoken()]
    return {"modules": modules, "data": bundle.data, "guards": list(routes.guards), "parts": parts}


def bundle_frame(bundle: Bundle, routes: Routes = NOWHERE) -> bytes:
    """The first frame of a worker's life."""
    return _framed(json.dumps(bundle_document(bundle, routes)).encode())


def load_reply(payload: bytes) -> tuple[str, str]:
    """(engine and version, error) of the answer to the bundle; one of them is empty.

    Raises:
        Garbage: anything else.
    """
    try:
        answer = json.loads(payload)
        return str(answer.get("engine", "")), str(answer.get("error", ""))
    except (ValueError, AttributeError, RecursionError):
        raise Garbage from None


def question_frame(number: int, decision_id: str, inputs: Sequence[Asked]) -> tuple[bytes, bytes]:
    """The frame of a question, and the digest its reply must echo."""
    name = decision_id.encode()
    parts = [struct.pack(">QH", number, len(name)), name, struct.pack(">H", len(inputs))]
    for key, document in inputs:
        parts += (_KEY_SIZE[len(key)], key, struct.pack(">I", len(document)), document)
    payload = b"".join(parts)
    return _framed(payload), hashlib.sha256(payload).digest()


def reply(payload: bytes, number: int, digest: bytes, count: int) -> list[Verdict]:
    """The verdicts in the reply to question ``number``.

    Raises:
        Garbage: it answers another question, or is not of the form.
    """
    if payload[:8] != struct.pack(">Q", number) or payload[8:40] != digest:
        raise Garbage
    verdicts: list[Verdict] = []
    at = 40
    for _ in range(count):
        if at + _HEAD.size > len(payload):
            raise Garbage
        status, idle, size = _HEAD.unpack_from(payload, at)
        at += _HEAD.size
        verdicts.append(_verdict(status, idle, payload[at : at + size]))
        at += size
    if at != len(payload):
        raise Garbage
    return verdicts


def _verdict(status: int, idle: int, value: bytes) -> Verdict:
    if status == _ANSWERED:
        return Verdict(value, None, idle=idle)
    if status == _UNDEFINED:
        return Verdict(None, "engine.undefined")
    if status == _TOO_LARGE:
        return Verdict(None, "engine.too_large")
    if status == _FAULTED:
        return Verdict(None, "engine.error", value.decode(errors="replace"))
    raise Garbage


def _framed(payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + payload

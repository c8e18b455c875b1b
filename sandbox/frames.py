"""What gateway and supervisor say to one another: a length, a line of JSON, then the blobs that the line counts.

Standard library only: the supervisor imports it.
"""

import asyncio
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 64 * 1024 * 1024


class Garbage(Exception):
    """Not a message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: ``head`` is plain JSON, ``blobs`` are bytes that need no encoding."""

    head: dict[str, Any]
    blobs: tuple[bytes, ...] = ()


def packed(head: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """The bytes of a message."""
    line = json.dumps({**head, "blobs": [len(blob) for blob in blobs]}).encode()
    body = struct.pack(">I", len(line)) + line + b"".join(blobs)
    return struct.pack(">I", len(body)) + body


async def received(reader: asyncio.StreamReader) -> Message | None:
    """The next message, or None where the other side has gone.

    Raises:
        Garbage: what arrived is no message.
    """
    try:
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        if size > MAX_BYTES:
            raise Garbage
        body = await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _message(body)


def _message(body: bytes) -> Message:
    try:
        (length,) = struct.unpack_from(">I", body)
        head = json.loads(body[4 : 4 + length])
        sizes = [int(size) for size in head.pop("blobs")]
    except (struct.error, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise Garbage from None
    blobs, place = [], 4 + length
    for size in sizes:
        blobs.append(body[place : place + size])
        place += size
    if place != len(body) or any(size < 0 for size in sizes):
        raise Garbage
    return Message(head, tuple(blobs))

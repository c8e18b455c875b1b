"""What gateway and worker say to one another: four bytes of length, then one message."""

import asyncio
import struct
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

HEAD = struct.Struct(">I")
# A body, what it became, and what stands around it; and some hundred secrets that are told.
MAX_BYTES = 64 * 1024 * 1024
T = TypeVar("T")


class Garbage(Exception):
    """Not a message."""


class Job(msgspec.Struct, frozen=True):
    """One body to work on.

    Attributes:
        number: the answer repeats it.
        asks: whether only to say if it holds a value.
        body: JSON text.
        parts: which sets of values to look for, by number; all others are to be forgotten.
        told: those of them that the worker does not know yet.
        bounds: the fields of ``Bounds``.
    """

    number: int
    asks: bool
    body: bytes
    parts: tuple[int, ...]
    told: Mapping[int, tuple[str, ...]]
    bounds: Mapping[str, int]


class Done(msgspec.Struct, frozen=True):
    """What became of it.

    Attributes:
        number: of the job.
        body: the new text; None = it stays as it is.
        counts: what was taken out, by rule.
        holds: whether it holds a value.
        cause: why it is withheld; None = it is not.
        detail: the same in words.
    """

    number: int
    body: bytes | None = None
    counts: Mapping[str, int] = {}
    holds: bool = False
    cause: str | None = None
    detail: str = ""


def packed(message: Any) -> bytes:
    """The bytes of a message."""
    body = msgspec.msgpack.encode(message)
    return HEAD.pack(len(body)) + body


def unpacked(body: bytes, kind: type[T]) -> T:
    """The message.

    Raises:
        Garbage: it is none of this kind.
    """
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        raise Garbage from None


async def received(reader: asyncio.StreamReader) -> bytes:
    """The next message.

    Raises:
        Garbage: none can follow what came.
        ConnectionError: the other side is gone.
    """
    try:
        (size,) = HEAD.unpack(await reader.readexactly(HEAD.size))
        if size > MAX_BYTES:
            raise Garbage
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise ConnectionResetError from None

"""The head of an upstream's answer, known again by its bytes.

A server answers call after call under the same head, but for the length of the body and, once a second, the date. What
the parser makes of it is a function of these bytes, so what it made of it the last time is taken again.
"""

from collections.abc import Mapping
from typing import Final

_LONGEST: Final = 3072
_MOST_DIGITS: Final = 7
_END: Final = b"\r\n\r\n"
_FIRST: Final = b"HTTP/1.1 200 "
_LENGTH: Final = b"content-length"
# Fields by which an answer would be read, or end, in another way.
_OF_THE_CONNECTION: Final = frozenset({b"transfer-encoding", b"upgrade", b"connection", b"proxy-connection"})


class KnownHead:
    """A head, up to the number that says how long the body is, and from there on."""

    __slots__ = ("_after", "_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after

    def body_in(self, data: bytes) -> bytes | None:
        """The body, where ``data`` is this head with a length plainly said, and a body of just that length."""
        if not data.startswith(self._before):
            return None
        begin = len(self._before)
        end = data.find(b"\r", begin, begin + _MOST_DIGITS + 1)
        if end < 0 or not data.startswith(self._after, end):
            return None
        body = data[end + len(self._after) :]
        return body if body and data[begin:end] == b"%d" % len(body) else None


def known(data: bytes, fields: Mapping[bytes, bytes]) -> KnownHead | None:
    """The head of a whole answer, if it is the plain spelling of ``fields``, which the parser made of it.

    So its bytes hold nothing that the parser left out: no field twice, no other white space, no other framing.
    """
    head, _, body = data.partition(_END)
    first, *lines = head.split(b"\r\n")
    if len(head) > _LONGEST or not first.startswith(_FIRST) or len(lines) != len(fields):
        return None
    for line in lines:
        name, _, value = line.partition(b": ")
        if fields.get(name.lower()) != value:
            return None
    if not _OF_THE_CONNECTION.isdisjoint(fields) or not body or fields.get(_LENGTH) != b"%d" % len(body):
        return None
    begin = head.lower().index(b"\r\n" + _LENGTH + b": ") + len(_LENGTH) + 4
    return KnownHead(data[:begin], data[begin + len(fields[_LENGTH]) : len(head) + len(_END)])

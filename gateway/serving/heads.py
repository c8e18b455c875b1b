"""Request heads that a connection has sent before, known again by their bytes.

A client sends the same head with every call, but for the length of the body. What the parser makes of it is a function
of these bytes, so what it made of it the first time is taken again.
"""

from typing import Any, Final

from gateway.edge.heads import HEAD, LENGTH
from gateway.edge.reply import Header

# Heads that a connection is known by at a time, how long they may be, and after how many no more are looked at.
_KNOWN: Final = 4
_LONGEST: Final = 3072
_LEARNED: Final = 32
_END: Final = b"\r\n\r\n"
_MOST_DIGITS: Final = 7
_ZERO: Final = ord("0")
# Fields by which a request would be read, answered or ended in another way.
_OF_THE_CONNECTION: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection"})
# What the server says of a request, but for its header fields and what it is answered by.
_KEPT: Final = (
    "type",
    "asgi",
    "http_version",
    "server",
    "client",
    "scheme",
    "root_path",
    "method",
    "path",
    "raw_path",
    "query_string",
    HEAD,
)


class KnownHead:
    """One head, up to the number that says how long the body is, and from there on."""

    __slots__ = ("_after", "_before", "_headers", "_place", "_scope")

    def __init__(self, raw: bytes, at: int, scope: dict[str, Any]) -> None:
        """``raw`` is the head, ``at`` where the number in it begins, ``scope`` what the server made of it."""
        self._before = raw[:at]
        self._after = raw[raw.index(b"\r", at) :]
        self._headers: list[Header] = list(scope["headers"])
        self._place = next(place for place, (name, _) in enumerate(self._headers) if name == LENGTH)
        self._scope = {key: scope[key] for key in _KEPT}

    def found_in(self, data: bytes) -> "tuple[KnownHead, bytes, bytes] | None":
        """This head, the length (in digits) that ``data`` says and what there is of its body; None = it is another."""
        if not data.startswith(self._before):
            return None
        begin = len(self._before)
        end = data.find(b"\r", begin, begin + _MOST_DIGITS + 1)
        length = data[begin:end]
        # Only as a number is written plainly: another spelling is the parser's to judge.
        if end < 0 or not length.isdigit() or (length[0] == _ZERO and length != b"0"):
            return None
        return (self, length, data[end + len(self._after) :]) if data.startswith(self._after, end) else None

    def scope(self, length: bytes, own: dict[str, Any]) -> dict[str, Any]:
        """What the server makes of this head where it says that length; ``own`` is what else it says of the request."""
        headers = self._headers.copy()
        headers[self._place] = (LENGTH, length)
        return {**self._scope, **own, "headers": headers}


class KnownHeads:
    """The heads that one connection is known by: of requests that showed a good credential and were answered.

    Attributes:
        is_shown: whether the request showed one that began last.
        raw: its head, if it may come to be known; else empty.
    """

    __slots__ = ("_all", "_left", "_longest", "is_shown", "raw")

    def __init__(self, longest: int) -> None:
        """``longest`` is what the server takes of a head."""
        self._all: list[KnownHead] = []
        self._left = _LEARNED
        self._longest = min(_LONGEST, longest)
        self.raw = b""
        self.is_shown = False

    def begun(self, data: bytes) -> tuple[KnownHead, bytes, bytes] | None:
        """The head that a request begins with, the length it says and what there is of its body; None = not known."""
        self.raw, self.is_shown = b"", False
        for head in self._all:
            found = head.found_in(data)
            if found is not None:
                return found
        if self._left:
            end = data.find(_END, 0, self._longest)
            self.raw = data[: end + len(_END)] if end >= 0 else b""
        return None

    def forget(self) -> None:
        """Keep none of them: what lasts should hold no more than it needs."""
        self._all, self.raw = [], b""

    def answered(self, scope: dict[str, Any]) -> None:
        """The request was answered that began last, if ``scope`` is what the parser made of it."""
        raw, self.raw = self.raw, b""
        if raw and self.is_shown:
            self._left -= 1
            found = known(raw, scope)
            if found is not None:
                self._all = [found, *self._all[: _KNOWN - 1]]


def known(raw: bytes, scope: dict[str, Any]) -> KnownHead | None:
    """``raw`` as a head to be known again, if it is the plain spelling of ``scope``, which the parser made of it."""
    if HEAD not in scope:  # another request, which the application has not begun with
        return None
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    first, *fields = raw.removesuffix(_END).split(b"\r\n")
    if first != b"POST %b HTTP/1.1" % target or len(fields) != len(scope["headers"]):
        return None
    at, lengths = len(first) + 2, []
    for field, (name, value) in zip(fields, scope["headers"], strict=True):
        if field[: len(name)].lower() != name or field[len(name) :] != b": " + value:
            return None
        if name in _OF_THE_CONNECTION or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        if name == LENGTH:
            lengths.append(at + len(name) + 2)
        at += len(field) + 2
    return KnownHead(raw, lengths[0], scope) if len(lengths) == 1 else None

"""Requests that are written like an earlier one, but for their id and the arguments of their call.

A client writes each of its requests the same way, and says the same of itself in each. So what stands around these two
is kept by its bytes, and of a request that has it only they are read, by the same strict reader: what comes of it is
what ``jsonrpc.parse`` makes of the whole, as an object within an object is none the less strict for what is around it.
"""

from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.core import canonical
from gateway.core.canonical import MAX_DEPTH, MAX_PARTS, Json
from gateway.core.mcpwire.jsonrpc import Request, encode

# What is kept is short and has few values: a connection keeps it for as long as it lasts.
_LONGEST: Final = 2048
_MOST_PARTS: Final = 64
_MOST_DIGITS: Final = 15  # of an id; they are always within 2^53
_ZERO: Final = ord("0")
# So many brackets are never too deep: the message and its ``params`` are around them.
_SHALLOW: Final = MAX_DEPTH - 2
# Behind an id there is another member.
_NEXT: Final = b","
# Stands for what differs; in JSON that was written this byte never is.
_HOLE: Final = b"\0"


class Frame(Struct, frozen=True):
    """What stands around the id and the arguments of a request.

    Attributes:
        before: up to the first of the two.
        between: from there to the second.
        after: what is left.
        sizes: of the three, in this order.
        id_first: whether the id is the first of them.
        method: of the request.
        params: members of its ``params``; read only.
    """

    before: bytes
    between: bytes
    after: bytes
    sizes: tuple[int, int, int]
    id_first: bool
    method: str
    params: dict[str, Any]

    def read(self, body: bytes) -> Request | None:
        """The request in an untrusted body of this frame; None where ``jsonrpc.parse`` has to look at the whole."""
        size = len(body)
        if size > MAX_PARTS or not (body.startswith(self.before) and body.endswith(self.after)):
            return None
        begin, gap, rest = self.sizes
        end = size - rest
        if self.id_first:
            at = body.find(_NEXT, begin, begin + _MOST_DIGITS + 1)
            number, text = body[begin:at], body[at + gap : end]
        else:
            at = body.rfind(b":", begin, end) + 1 - gap
            number, text = body[at + gap : end], body[begin:at]
        # An id as a number is written plainly; another spelling is not for here.
        if not number.isdigit() or len(number) > _MOST_DIGITS or (number[0] == _ZERO and number != b"0"):
            return None
        if at < begin or not body.startswith(self.between, at) or text.find(b"\\u") >= 0:
            return None
        if len(text) > _SHALLOW and text.count(b"[") + text.count(b"{") > _SHALLOW:
            return None
        given = canonical.as_written(text)
        if given is canonical.UNSURE:
            return None
        params = {**self.params, "arguments": given}
        return Request(int(number), self.method, Json(params, params))


def framed(body: bytes) -> Frame | None:
    """The frame of a request that ``jsonrpc.parse`` has taken; None where it has none, or one that is not kept."""
    found: Any = canonical.as_written(body) if len(body) <= MAX_PARTS else canonical.UNSURE
    params = found.get("params") if isinstance(found, dict) else None
    if not isinstance(params, dict) or "arguments" not in params or type(found.get("id")) is not int:
        return None
    # It is written as our writer does it, so what the writer makes of all else is what stands around.
    hole = msgspec.Raw(_HOLE)
    pieces = encode({**found, "id": hole, "params": {**params, "arguments": hole}}).split(_HOLE)
    if sum(map(len, pieces)) > _LONGEST or sum(map(canonical.parts, pieces)) > _MOST_PARTS:
        return None
    before, between, after = pieces
    id_first = list(found).index("id") < list(found).index("params")
    sizes = (len(before), len(between), len(after))
    return Frame(before, between, after, sizes, id_first, found["method"], {**params, "arguments": None})

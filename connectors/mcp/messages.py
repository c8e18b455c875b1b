"""What goes to an MCP endpoint, and who hears what comes back."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from msgspec import Struct

from connectors.mcp.faults import Unprepared
from connectors.mcp.pool import Use
from gateway.core.mcpwire import eras
from gateway.core.mcpwire.jsonrpc import Notification, Request

Header = tuple[str, str]
# A field that could be read as two by anyone would let one caller's value speak for the gateway.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x7e\t]*")


def header_fields(headers: Sequence[Header]) -> str:
    """Header fields as they are sent; all but those that say where to, how long and in which encoding.

    Raises:
        Unprepared: a name or value that is none.
    """
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Unprepared("header_field")
    return "".join([f"{name}: {value}\r\n" for name, value in headers])


@lru_cache(maxsize=64)  # there are few, and one goes with every call
def method_field(method: str) -> str:
    """The header field that names the method, as it is sent.

    Raises:
        Unprepared: it is none.
    """
    return header_fields([(eras.METHOD_HEADER, method)])


class Post(Struct, frozen=True):
    """One message to send.

    Attributes:
        fields: the header fields, as ``header_fields`` writes them.
        body: JSON text.
        connect_s: longest a connection may take, seconds.
    """

    fields: str
    body: bytes
    connect_s: float


class Question(Post, frozen=True):
    """A request that is owed an answer.

    Attributes:
        id: its JSON-RPC id; the answer must repeat it.
        cap: most bytes of the result.
        decline: called with each request the server makes in the answer's stream; None where it may make none.
        hear: called with each notification in that stream; the stream is read on when it returns.
        begun: called with the session id in the head of the answer, before anything of its body is read.
        resumes: whether a stream that ends before the answer is gone on with, where the server says how.
        use: what its connection is for.
    """

    id: int
    cap: int
    decline: Callable[[Request], Awaitable[None]] | None = None
    hear: Callable[[Notification], Awaitable[None]] | None = None
    begun: Callable[[str | None], None] | None = None
    resumes: bool = False
    use: Use = Use.ASK


@dataclass(frozen=True, slots=True)
class Hearing:
    """Who hears what a server says on a stream on which nothing was asked.

    Attributes:
        opened: called once the server has begun to answer.
        hear: called with each notification; the stream is read on when it returns.
        decline: called with each request the server makes there.
    """

    opened: Callable[[], Awaitable[None]]
    hear: Callable[[Notification], Awaitable[None]]
    decline: Callable[[Request], Awaitable[None]] | None = None

"""The header fields of a request, and what is concluded of them.

A connection sends the same fields with every request, but for the length of the body. So the server hands the head of
an earlier request on where nothing else differs (``serving/heads.py``), and what was concluded of it stays.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from starlette.types import Scope

from gateway.core.call import Live
from gateway.edge.reply import Header

Fields = Mapping[bytes, Sequence[bytes]]
# In the ASGI scope, the request's ``Head``.
HEAD = "ostiary.head"
# In the ASGI scope, what lets the server forget the heads of this connection.
FORGET = "ostiary.forget"
# Says where the request ends, which is the server's business: it is not looked up in a head.
LENGTH = b"content-length"


@dataclass(slots=True)
class Head:
    """The header fields of a request, and what was concluded of them alone.

    Nothing here depends on time, on keys or on who was let in: a token is as it was sent, and is verified with each
    request. What was refused is not kept.

    Attributes:
        fields: by name (lower case), without the body's length.
        live: the bearer token; None = it was not read yet.
        hears: whether it takes event streams; None = nobody asked yet.
        is_ours: Host and Origin were found to be ours.
        is_json: the body was found to be said to be JSON, and JSON to be taken.
        named: what ``Mcp-Name`` says; None = nothing, or it was not read yet.
    """

    fields: Fields = field(repr=False)
    live: Live | None = None
    hears: bool | None = None
    is_ours: bool = False
    is_json: bool = False
    named: str | None = None


def head_of(scope: Scope) -> Head:
    """The head of a request."""
    head: Head | None = scope.get(HEAD)
    if head is None:
        head = scope[HEAD] = Head(_sorted(scope["headers"]))
    return head


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header field ``name`` (lower case), or None."""
    found = headers(scope, name)
    return found[0] if found else None


def headers(scope: Scope, name: bytes) -> Sequence[bytes]:
    """All header fields ``name`` (lower case)."""
    return head_of(scope).fields.get(name, ())


def forget_headers(scope: Scope) -> None:
    """Let go of all header fields, for a request that lasts: who needs one of them reads it before."""
    head_of(scope).fields = {}  # whoever handles the request has the same head
    if (forget := scope.pop(FORGET, None)) is not None:
        forget()
    scope["headers"].clear()  # the server has the same list


def says(found: Sequence[bytes], words: Sequence[bytes]) -> bool:
    """Whether any of ``words`` (lower case) stands in one of these header fields."""
    for one in found:
        said = one.lower()
        for word in words:
            if word in said:
                return True
    return False


def _sorted(found: Collection[Header]) -> Fields:
    # Hardly a field comes twice.
    single = {name: (value,) for name, value in found}
    if len(single) == len(found):
        single.pop(LENGTH, None)
        return single
    several: dict[bytes, list[bytes]] = {}
    for name, value in found:
        if name != LENGTH:
            several.setdefault(name, []).append(value)
    return several

"""The header fields of a request, and what is concluded of them.

A connection sends the same fields with every request, but for the length of the body. So the server hands the head of
an earlier request on where nothing else differs (``serving/heads.py``), and what was concluded of it stays.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Struct
from starlette.types import Scope

from gateway.core.call import Live, Reported
from gateway.core.flow import Wants
from gateway.core.mcpwire.eras import Era
from gateway.core.mcpwire.frames import Frame, framed
from gateway.edge.reply import Header

Fields = Mapping[bytes, Sequence[bytes]]
# In the ASGI scope, the request's ``Head``.
HEAD = "ostiary.head"
# In the ASGI scope, what lets the server forget the heads of this connection.
FORGET = "ostiary.forget"
# Says where the request ends, which is the server's business: it is not looked up in a head.
LENGTH = b"content-length"
# After how many requests that were written otherwise than the one before a head's requests are not looked at any more.
_LEARNED: Final = 32


class Aim(Struct, frozen=True):
    """What a request says of itself as a call, besides its arguments; one that is none names no tool.

    Attributes:
        run: the run it names.
        tool: the name inside, as it was found in ``generation``.
        generation: of the catalogue.
        reported: what its agent says of it.
    """

    run: str | None
    tool: str = ""
    generation: object = None
    reported: Reported = Reported()


class Said(Struct):
    """What a message says of itself, and was found to be in order under the head that it came with.

    Attributes:
        era: how it speaks.
        meta: ``_meta`` of its parameters; read only.
        client: hints of who speaks.
        wants: what it wants to hear, by ``meta`` alone; None = nobody asked yet, or its era has sessions for that.
        aim: what its call is of; None = it was not found yet, or is found anew with each.
    """

    era: Era
    meta: Mapping[str, Any]
    client: Mapping[str, str]
    wants: Wants | None = None
    aim: Aim | None = None


class Known(Struct, frozen=True):
    """How the requests with a head are written, and what those say that are written so."""

    frame: Frame
    said: Said


@dataclass(slots=True)
class Head:
    """The header fields of a request, and what was concluded of them alone, or of them and of how a body is written.

    Nothing here depends on time, on keys or on who was let in: a token is as it was sent, and is verified with each
    request. What was refused is not kept.

    Attributes:
        fields: by name (lower case), without the body's length.
        live: the bearer token; None = it was not read yet.
        hint: the era as it has it; None = nobody asked yet.
        hears: whether it takes event streams; None = nobody asked yet.
        is_ours: Host and Origin were found to be ours.
        is_json: the body was found to be said to be JSON, and JSON to be taken.
        named: what ``Mcp-Name`` says; None = nothing, or it was not read yet.
        session: what ``Mcp-Session-Id`` says; None = nothing, or it was not read yet.
        known: of the calls that came with it; None = there was no second one yet, or they are not written alike.
        unlike: how many came that were not known.
    """

    fields: Fields = field(repr=False)
    live: Live | None = None
    hint: Era | None = None
    hears: bool | None = None
    is_ours: bool = False
    is_json: bool = False
    named: str | None = None
    session: str | None = None
    known: Known | None = None
    unlike: int = 0

    def learn(self, body: bytes, said: Said) -> None:
        """A call with this head was let in, which said this; the first may be the last one and is not kept."""
        self.unlike += 1
        if 1 < self.unlike <= _LEARNED and (frame := framed(body)) is not None:
            self.known = Known(frame, said)


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

"""What a handler answers, and sending it over ASGI."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from starlette.types import Scope, Send

Header = tuple[bytes, bytes]
Fields = Mapping[bytes, Sequence[bytes]]
# Sends status, header fields and body in one step, or says that it sent nothing.
Whole = Callable[[int, list[Header], bytes], bool]

JSON = b"application/json"
_TABLE = "ostiary.headers"
# In the ASGI scope, what sends a whole answer at once where it can (``serving/whole.py``).
WHOLE = "ostiary.whole"
PROBLEM = b"application/problem+json"
TEXT = b"text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole HTTP answer.

    Attributes:
        status: HTTP status.
        body: the bytes of the body.
        media: content type; ignored where there is no body.
        headers: further header fields, names in lower case.
    """

    status: int
    body: bytes = b""
    media: bytes = JSON
    headers: tuple[Header, ...] = ()

    async def send(self, send: Send) -> None:
        """Send it."""
        headers = [(b"content-length", str(len(self.body)).encode()), *self.headers]
        if self.body:
            headers.append((b"content-type", self.media))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header field ``name`` (lower case), or None."""
    found = headers(scope, name)
    return found[0] if found else None


def headers(scope: Scope, name: bytes) -> Sequence[bytes]:
    """All header fields ``name`` (lower case)."""
    table: Fields | None = scope.get(_TABLE)
    return (fields(scope) if table is None else table).get(name, ())


def fields(scope: Scope) -> Fields:
    """All header fields by name (lower case), for who looks for several."""
    table: Fields | None = scope.get(_TABLE)
    if table is None:
        table = scope[_TABLE] = _sorted(scope["headers"])
    return table


def forget_headers(scope: Scope) -> None:
    """Let go of all header fields, for a request that lasts: who needs one of them reads it before."""
    scope[_TABLE] = {}
    scope["headers"].clear()  # the server has the same list


def says(found: Sequence[bytes], words: Sequence[bytes]) -> bool:
    """Whether any of ``words`` (lower case) stands in one of these header fields."""
    for field in found:
        said = field.lower()
        for word in words:
            if word in said:
                return True
    return False


def _sorted(found: Collection[Header]) -> Fields:
    # Once a request: a dozen headers are looked up on the way of a call, and hardly a field comes twice.
    single = {name: (value,) for name, value in found}
    if len(single) == len(found):
        return single
    several: dict[bytes, list[bytes]] = {}
    for name, value in found:
        several.setdefault(name, []).append(value)
    return several

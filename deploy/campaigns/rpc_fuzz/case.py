"""One HTTP request as it is sent to the gateway, and what is known beforehand of its answer."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

Header = tuple[bytes, bytes]
MARKER: Final = re.compile(r"(AMBER|BIRCH)MARK-[0-9a-f]{12}")


class Who(StrEnum):
    """Whose credential a request brings."""

    AMBER = "amber"
    BIRCH = "birch"
    NOBODY = "nobody"
    FORGED = "forged"
    SCOPELESS = "scopeless"


AGENTS: Final = (Who.AMBER, Who.BIRCH)
# What policy lets each of them call without asking people; what they see besides; what nobody may ever call.
MAY_CALL: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        Who.AMBER: frozenset(
            {"box.look", "box.put", "box.region", "box.prompts/greet", "attic.look", "attic.put", "attic.prompts/greet"}
        ),
        Who.BIRCH: frozenset({"box.look", "box.region", "box.prompts/greet"}),
    }
)
SEES_ONLY: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {Who.AMBER: frozenset({"box.blocked", "box.pay"}), Who.BIRCH: frozenset({"box.blocked"})}
)


class Expect(StrEnum):
    """What is known of the answer.

    ``CARRIED_OUT``: the call's result, with its marker. ``LISTED``: a good result of a method that calls nothing.
    ``REFUSED``: no result, and nothing reaches a server. ``ANY``: nothing is known.
    """

    CARRIED_OUT = "carried out"
    LISTED = "listed"
    REFUSED = "refused"
    ANY = "any"


@dataclass(slots=True)
class Case:
    """One request.

    Attributes:
        name: ``SEED/CONVERSATION/STEP``.
        who: whose credential.
        marker: text that stands in this request's arguments and in no other request.
        path: of the URL, decoded.
        verb: HTTP method.
        headers: fields, names in lower case, without the credential's.
        body: bytes.
        cuts: where the body is cut into pieces.
        leaves: after how many pieces its caller is gone; None = it waits for the answer.
        expect: what is known of the answer.
        fault: what is wrong with it, where that is known.
        id: JSON of its id, where the answer must repeat it; None where that is not known.
    """

    name: str
    who: Who
    marker: str
    path: str = "/mcp"
    verb: str = "POST"
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    cuts: tuple[int, ...] = ()
    leaves: int | None = None
    expect: Expect = Expect.ANY
    fault: str = ""
    id: bytes | None = None

    def set(self, name: bytes, value: bytes | None) -> None:
        """Replace a header field, or take it away."""
        self.headers = [pair for pair in self.headers if pair[0] != name]
        if value is not None:
            self.headers.append((name, value))

    def pieces(self) -> Iterator[bytes]:
        """The body as it is sent."""
        start = 0
        for cut in sorted({*self.cuts, len(self.body)}):
            yield self.body[start:cut]
            start = max(start, cut)

    def __str__(self) -> str:
        """For whoever has to find out what happened."""
        what = f"{self.expect}{f', {self.fault}' if self.fault else ''}"
        return f"{self.name} ({self.who}, {what}): {self.verb} {self.path} {self.headers!r} {self.body[:600]!r}"


def marker_of(who: Who, bits: int) -> str:
    """A marker of ``who``; ``bits`` makes it one of its own. Who has no agent's credential marks as the first one."""
    owner = who if who in AGENTS else Who.AMBER
    return f"{owner.upper()}MARK-{bits & 0xFFFF_FFFF_FFFF:012x}"

"""``:name`` parameters of a declared statement as the ``$1`` that PostgreSQL binds; nothing is ever pasted in.

A colon and a name are a parameter unless they stand in a string, a quoted name, a dollar quote or a comment, or belong
to a cast (``::``) or an assignment (``:=``). In an array slice, put a space after the colon: ``a[1 : n]``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

# Each alternative is a whole lexical element, so a parameter is never looked for inside another one.
_ELEMENT = re.compile(
    r"""
      (?P<escaped>(?<![A-Za-z0-9_$\x80-\U0010ffff])[eE]'(?:[^'\\]|''|\\.)*(?P<escaped_end>')?)
    | (?P<string>'(?:[^']|'')*(?P<string_end>')?)
    | (?P<quoted>"(?:[^"]|"")*(?P<quoted_end>")?)
    | (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    | (?P<dollar>\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$)
    | (?P<positional>\$[0-9]+)
    | (?P<cast>::|:=)
    | (?P<parameter>:(?P<name>[A-Za-z_][A-Za-z0-9_]{0,63})(?![A-Za-z0-9_$\x80-\U0010ffff]))
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Numbered:
    """A statement as PostgreSQL takes it.

    Attributes:
        text: with ``$1``, ``$2`` ...
        names: the parameter of each number; one that stands several times has one number.
    """

    text: str
    names: tuple[str, ...]


def numbered(statement: str) -> Numbered:
    """The statement with its parameters numbered by first appearance.

    Raises:
        ValueError: a string, quoted name or comment has no end, or it has parameters of another kind.
    """
    names: dict[str, int] = {}
    parts: list[str] = []
    for kind, text in _elements(statement):
        if kind == "positional":
            raise ValueError(f"parameters are written :name, not {text}")
        is_parameter = kind == "parameter"
        parts.append(f"${names.setdefault(text[1:], len(names) + 1)}" if is_parameter else text)
    return Numbered("".join(parts), tuple(names))


def _elements(statement: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(statement):
        match = _ELEMENT.match(statement, at)
        if match is None:  # the last alternative takes anything
            raise ValueError("the statement cannot be read")
        kind, end = str(match.lastgroup), match.end()
        if kind == "name":
            kind = "parameter"
        for quote in ("escaped", "string", "quoted"):
            if match[quote] is not None and match[f"{quote}_end"] is None:
                raise ValueError("a quote has no end")
        if match["block"] is not None:
            end = _block_end(statement, at)
        elif match["dollar"] is not None:
            end = _dollar_end(statement, match["dollar"], end)
        yield kind, statement[at:end]
        at = end


def _block_end(statement: str, start: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(statement, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise ValueError("a comment has no end")


def _dollar_end(statement: str, tag: str, start: int) -> int:
    at = statement.find(tag, start)
    if at < 0:
        raise ValueError("a dollar quote has no end")
    return at + len(tag)

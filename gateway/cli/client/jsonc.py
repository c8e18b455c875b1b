"""JSON as editors write it, read with the place of every member, so that a part can be changed and the rest be kept.

Comments and commas after the last member are taken where the reader of the file takes them. A member given twice is
refused: two readers would not agree on it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_DEEPEST = 64
_SPACE = " \t\r\n"
_SCALAR = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null')
Path = tuple[str, ...]


class NotJson(Exception):
    """The text is not of the form its reader expects; the message names line and column."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place.

    Attributes:
        start: index of its first character.
        end: index after its last one.
        value: decoded.
        members: of an object, in order.
    """

    start: int
    end: int
    value: Any
    members: tuple["Member", ...] = ()

    def member(self, key: str) -> "Node | None":
        """The value of ``key``; None where there is none."""
        return next((member.node for member in self.members if member.key == key), None)

    def at(self, path: Path) -> "Node | None":
        """The value at ``path`` of keys; None where there is none."""
        node: Node | None = self
        for key in path:
            node = None if node is None else node.member(key)
        return node


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object.

    Attributes:
        key: decoded.
        start: index of the key's first character.
        node: its value.
        comma: index of the comma after it, if there is one.
    """

    key: str
    start: int
    node: Node
    comma: int | None


@dataclass(frozen=True, slots=True)
class Text:
    """A document: as it is written, and as it is read.

    Attributes:
        text: without a byte order mark.
        root: the whole value.
    """

    text: str
    root: Node


def read(text: str, *, comments: bool) -> Text:
    """Parse ``text``; ``comments`` says whether comments and a last comma are taken.

    Raises:
        NotJson: it is none.
    """
    return Text(text, _Reader(text, comments=comments).document())


class _Reader:
    """One pass over a text."""

    def __init__(self, text: str, *, comments: bool) -> None:
        self._text = text
        self._comments = comments
        self._at = 0

    def document(self) -> Node:
        self._skip()
        root = self._value(0)
        self._skip()
        if self._at < len(self._text):
            raise self._wrong("something follows the end")
        return root

    def _value(self, depth: int) -> Node:
        if depth > _DEEPEST:
            raise self._wrong("it is nested too deeply")
        if self._here() == "{":
            return self._object(depth)
        return self._array(depth) if self._here() == "[" else self._scalar()

    def _object(self, depth: int) -> Node:
        start, members, seen = self._open(), list[Member](), set[str]()
        while self._here() != "}":
            at = self._at
            key = self._key(seen)
            node = self._value(depth + 1)
            members.append(Member(key, at, node, self._comma("}")))
        self._at += 1
        return Node(start, self._at, {member.key: member.node.value for member in members}, tuple(members))

    def _array(self, depth: int) -> Node:
        start, values = self._open(), list[Any]()
        while self._here() != "]":
            values.append(self._value(depth + 1).value)
            self._comma("]")
        self._at += 1
        return Node(start, self._at, values)

    def _open(self) -> int:
        start = self._at
        self._at += 1
        self._skip()
        return start

    def _key(self, seen: set[str]) -> str:
        if self._here() != '"':
            raise self._wrong("a member's name is expected")
        key: str = self._scalar().value
        if key in seen:
            raise self._wrong(f"{json.dumps(key)} is given twice")
        seen.add(key)
        self._skip()
        if self._here() != ":":
            raise self._wrong("a colon is expected")
        self._at += 1
        self._skip()
        return key

    def _comma(self, closing: str) -> int | None:
        self._skip()
        if self._here() == closing:
            return None
        if self._here() != ",":
            raise self._wrong(f"a comma or {closing} is expected")
        at = self._at
        self._at += 1
        self._skip()
        if self._here() == closing and not self._comments:
            raise self._wrong("a comma stands after the last one")
        return at

    def _scalar(self) -> Node:
        found = _SCALAR.match(self._text, self._at)
        if found is None:
            raise self._wrong("a value is expected")
        try:
            value = json.loads(found.group())
            str(value).encode()  # half of a surrogate pair is no text
        except ValueError:
            raise self._wrong("a value is malformed") from None
        start, self._at = self._at, found.end()
        return Node(start, self._at, value)

    def _here(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> None:
        while True:
            while self._here() and self._here() in _SPACE:
                self._at += 1
            if not self._text.startswith(("//", "/*"), self._at):
                return
            if not self._comments:
                raise self._wrong("its reader takes no comments")
            self._comment()

    def _comment(self) -> None:
        mark, length = ("\n", 0) if self._text.startswith("//", self._at) else ("*/", 2)
        end = self._text.find(mark, self._at + 2)
        if end < 0 and length:
            raise self._wrong("a comment has no end")
        self._at = len(self._text) if end < 0 else end + length

    def _wrong(self, what: str) -> NotJson:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        return NotJson(f"line {line}, column {column}: {what}")


def swap(document: Text, section: Path, gone: Iterable[str], put: Mapping[str, Any]) -> str:
    """The text with members ``gone`` taken out of the object at ``section`` and those of ``put`` put in, or replaced.

    A section that is missing is made, if the object it belongs into is there. All else stays as it is written.

    Raises:
        NotJson: no object stands there.
    """
    node = document.root.at(section)
    if node is None:
        return swap(document, section[:-1], (), {section[-1]: dict(put)})
    if not isinstance(node.value, dict):
        raise NotJson(f"{'.'.join(section) or 'the document'} is no object")
    return _edited(document.text, _Swap(document.text, node, frozenset(gone), dict(put)).edits())


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


def _edited(text: str, edits: Iterable[_Edit]) -> str:
    for edit in sorted(edits, key=lambda one: (one.start, one.end), reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


class _Swap:
    """The edits of one object: new members stand where the first one that goes stood, else at the end."""

    def __init__(self, text: str, node: Node, gone: frozenset[str], put: dict[str, Any]) -> None:
        self._text, self._node = text, node
        self._gone = gone - put.keys()
        self._held = {member.key for member in node.members if member.key in put}
        self._fresh = {key: value for key, value in put.items() if key not in self._held}
        self._put = put
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._is_flat = bool(node.members) and "\n" not in text[node.start : node.end]

    def edits(self) -> list[_Edit]:
        """In no order, never overlapping."""
        members = self._node.members
        edits = [self._replaced(member) for member in members if member.key in self._held]
        leaving = [member for member in members if member.key in self._gone]
        if self._fresh and leaving:
            first = leaving.pop(0)
            edits.append(_Edit(first.start, first.node.end, self._written(self._fresh)))
        elif self._fresh:
            edits.append(self._appended())
        edits += [self._removed(member) for member in leaving]
        return [*edits, *self._last_comma(leaving)]

    def _replaced(self, member: Member) -> _Edit:
        if member.node.value == self._put[member.key]:
            return _Edit(member.node.start, member.node.start, "")
        return _Edit(member.node.start, member.node.end, self._value(self._put[member.key]))

    def _removed(self, member: Member) -> _Edit:
        end = member.node.end if member.comma is None else member.comma + 1
        follows = self._text[end:].partition("\n")[0].strip()
        if follows and not follows.startswith("//"):  # what follows must not come behind a comment
            return _Edit(member.start, end, "")
        start = len(self._text[: member.start].rstrip(" \t"))
        for mark in ("\n", "\r"):
            start -= self._text[:start].endswith(mark)
        return _Edit(start if self._text[start : start + 1] in "\r\n" else member.start, end, "")

    def _last_comma(self, leaving: list[Member]) -> list[_Edit]:
        # Where the last member goes, the one before it becomes the last and loses its comma.
        members = self._node.members
        staying = [member for member in members if member not in leaving]
        if not staying or not leaving or members[-1] is staying[-1] or members[-1].comma is not None:
            return []
        comma = staying[-1].comma
        return [] if comma is None else [_Edit(comma, comma + 1, "")]

    def _appended(self) -> _Edit:
        members, written = self._node.members, self._written(self._fresh)
        lead = " " if self._is_flat else self._newline + self._indent()
        if not members:
            close = self._newline + self._outer()
            rest = self._text[self._node.start + 1 : self._node.end - 1]
            return _Edit(self._node.start + 1, self._node.start + 1, lead + written + ("" if "\n" in rest else close))
        last = members[-1]
        if last.comma is None:
            return _Edit(last.node.end, last.node.end, f",{lead}{written}")
        return _Edit(last.comma + 1, last.comma + 1, f"{lead}{written}")

    def _written(self, members: Mapping[str, Any]) -> str:
        lead = " " if self._is_flat else self._newline + self._indent()
        return f",{lead}".join(f"{json.dumps(key)}: {self._value(value)}" for key, value in members.items())

    def _value(self, value: Any) -> str:
        if self._is_flat:
            return json.dumps(value)
        lines = json.dumps(value, indent=self._unit()).split("\n")
        return (self._newline + self._indent()).join(lines)

    def _outer(self) -> str:
        return _indent_of(self._text, self._node.start)

    def _indent(self) -> str:
        if self._node.members:
            return _indent_of(self._text, self._node.members[0].start)
        return self._outer() + self._unit()

    def _unit(self) -> str:
        inner = _indent_of(self._text, self._node.members[0].start) if self._node.members else ""
        outer = self._outer()
        return inner.removeprefix(outer) if len(inner) > len(outer) and inner.startswith(outer) else "  "


def _indent_of(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]

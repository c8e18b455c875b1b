"""What is odd about an upstream's words, for the person who is to approve them. A report, never a decision.

Three kinds: characters a reader cannot see or takes for others, sentences that speak to the model instead of saying
what the tool does, and the names of other tools or servers. Besides, text that was too long to be looked at. The rules
are few and plain; docs/tool-pinning.md lists them. Whoever knows them can word things around them, so that nothing is
found means little.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import re2

from gateway.core.lookalikes import guarded

_MAX_FOUND: Final = 50
_MAX_TEXT: Final = 256 * 1024
_EXCERPT: Final = 60
_TAGS = range(0xE0000, 0xE0080)
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINES = str.maketrans({"\n": " ", "\r": " ", "\t": " "})

# Rule id -> what it finds, in lower-case text with single blanks. RE2: no text takes long.
INSTRUCTIONS: Final[Mapping[str, str]] = {
    "instruct.ignore": r"\b(ignore|disregard|forget|override) (all |any |the |your |every )*"
    r"(previous|prior|earlier|above|other|system|safety)",
    "instruct.conceal": r"\b(do not|don't|never|without) (tell|telling|mention|mentioning|inform|informing|reveal"
    r"|revealing|show|showing|notify|notifying|alert|alerting)\b",
    "instruct.before": r"\b(before|after|whenever|instead of) (using|calling|you use|you call|invoking)\b",
    "instruct.must": r"\b(you|the (assistant|model|agent|llm)) (must|should always|have to|need to|are required to)\b",
    "instruct.always": r"\balways (call|use|include|pass|send|read|add|append|prefer)\b",
    "instruct.secrets": r"(~/\.|\.ssh\b|id_rsa|\.env\b|api[ _-]?keys?\b|passwords?\b|credentials?\b|access tokens?\b)",
    "instruct.role": r"(<\s*/?\s*(system|important|instructions?|secret|admin)\b|\bsystem prompt\b|\byou are now\b"
    r"|\[(inst|system)\]|<\|im_start\|>)",
    "instruct.context": r"\b(conversation|chat) (history|context|so far)\b|\b(full|entire|whole) conversation\b",
}
_COMPILED = {rule: re2.compile(pattern) for rule, pattern in INSTRUCTIONS.items()}
# By `re`: there may be a hundred thousand words, and it is never long over one.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One thing that is odd.

    Attributes:
        rule: id, ``unicode.*``, ``instruct.*``, ``reference.*`` or ``text.unread``.
        path: JSON pointer of the text within the definition.
        excerpt: the place, one line of printable text, hidden characters as escapes.
    """

    rule: str
    path: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Names:
    """The names of all servers and tools, for finding references.

    Attributes:
        tools: by tool name, the servers that have one of it.
        full: every ``server.tool`` and ``server__tool``.
    """

    servers: frozenset[str]
    tools: Mapping[str, frozenset[str]]
    full: frozenset[str]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> "Names":
        """The names of these tools, (server, name)."""
        tools: dict[str, set[str]] = {}
        for server, name in pairs:
            tools.setdefault(name, set()).add(server)
        full = {f"{server}{mark}{name}" for name, own in tools.items() for server in own for mark in (".", "__")}
        servers = frozenset(server for own in tools.values() for server in own)
        return cls(servers, {name: frozenset(own) for name, own in tools.items()}, frozenset(full))


def suspicions(server: str, definition: Mapping[str, Any], names: Names) -> tuple[Suspicion, ...]:
    """What is odd about the definition of a tool of ``server``; at most 50 findings, the first 256 KiB of text.

    That there is more than this is one of them.
    """
    found: dict[tuple[str, str], Suspicion] = {}
    room = _MAX_TEXT
    own = definition.get("name")
    for path, text in _texts(definition, ""):
        for rule, excerpt in _odd(text[:room], server, own if isinstance(own, str) else "", names):
            found.setdefault((rule, path), Suspicion(rule, guarded(path)[:256], excerpt))
        if len(text) > room:  # or filling would be a way around every rule
            found["text.unread", path] = Suspicion("text.unread", guarded(path)[:256], _excerpt(text, room, room))
        room -= len(text)
        if room < 0 or len(found) >= _MAX_FOUND:
            break
    return tuple(found.values())[:_MAX_FOUND]


def rules_of(found: Iterable[Suspicion]) -> tuple[str, ...]:
    """The ids of the rules that found something, each once, sorted."""
    return tuple(sorted({one.rule for one in found}))


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    # Deepest last is enough: definitions nested too deeply are no tools.
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            here = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            yield here, key
            yield from _texts(item, here)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _texts(item, f"{path}/{place}")


def _odd(text: str, server: str, own: str, names: Names) -> Iterator[tuple[str, str]]:
    yield from _unseen(text)
    flat = " ".join(text.split()).lower()
    for rule, pattern in _COMPILED.items():
        hit = pattern.search(flat)
        if hit is not None:
            yield rule, _excerpt(flat, hit.start(), hit.end())
    told: set[str] = set()
    seen: set[str] = set()
    for hit in _WORD.finditer(text):
        word = hit.group()
        if word in seen:
            continue
        seen.add(word)
        named = _reference(word, server, own, names)
        if named is not None and named not in told:
            told.add(named)
            yield named, _excerpt(text, hit.start(), hit.end())


def _unseen(text: str) -> Iterator[tuple[str, str]]:
    line = text.translate(_LINES)
    if line.isascii() and line.isprintable():
        return
    # Each character is looked at once, however often it comes.
    shown = {char: guarded(char) for char in set(line) if not char.isalpha()}
    codes = {ord(char): code for char, code in shown.items()}
    first: dict[str, int] = {}
    for char, code in shown.items():
        if code != char:
            place, kind = line.index(char), _kind(char)
            first[kind] = min(place, first.get(kind, place))
    for kind, place in sorted(first.items(), key=lambda found: found[1]):
        yield kind, _excerpt(line, place, place + 1)
    # The words of other languages are none; a letter that poses as another one is.
    if guarded(line) != line.translate(codes):
        yield "unicode.confusable", _excerpt(line, 0, _EXCERPT)


def _kind(char: str) -> str:
    if ord(char) in _TAGS:
        return "unicode.tag"
    return "unicode.bidi" if char in _BIDI else "unicode.hidden"


def _reference(word: str, server: str, own: str, names: Names) -> str | None:
    if word in names.full:
        return None if word in {f"{server}.{own}", f"{server}__{own}"} else "reference.tool"
    owners = names.tools.get(word)
    # A name that is a plain word of the language says nothing; `read_file` and `sendMail` do.
    if owners is not None and word != own and not (word.islower() and word.isalpha()):
        return "reference.tool"
    is_telling = word in names.servers and word != server and not word.isalpha()
    return "reference.server" if is_telling else None


def _excerpt(text: str, start: int, end: int) -> str:
    part = text[max(0, start - _EXCERPT // 2) : min(end, start + _EXCERPT) + _EXCERPT // 2]
    return guarded(part.translate(_LINES))[: 4 * _EXCERPT]

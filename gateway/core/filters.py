"""The language in which the log is searched: ``tool:pay.* effect:deny -agent:clerk since:24h``.

Terms stand apart by spaces and every one of them must hold. A term is ``field:value``, or ``-field:value`` for records
it does not hold of; a value with spaces stands in double quotes, in which a backslash makes the next character
literal. ``*`` stands for any characters, where a field takes it. What a search can name is what leaves hold: ids and
enumerations. The words of arguments, goals and messages are sealed, and no search reaches them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from fnmatch import fnmatchcase

from gateway.core.decision import Effect
from gateway.core.records import EventType

MAX_QUERY = 1024
MAX_TERMS = 32
_MAX_VALUE = 256
_MAX_STARS = 4  # each may try every place in what it is held against
_MICRO = 1_000_000
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAME = re.compile(r"[A-Za-z_]*")
_BARE = re.compile(r"[^\s\"]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SPACE = re.compile(r"\s+")
_MOMENT_FORM = "a time is 90s, 15m, 24h or 7d ago, 2026-11-01, or 2026-11-01T10:00:00Z"


class Field(StrEnum):
    """What a term can be about. All but the two times are written in the leaf as they are searched."""

    AGENT = "agent"
    CALL = "call"
    EFFECT = "effect"
    REASON = "reason"
    RUN = "run"
    SINCE = "since"
    TOOL = "tool"
    TYPE = "type"
    UNTIL = "until"
    USER = "user"


TIMES = frozenset({Field.SINCE, Field.UNTIL})
PATTERNED = frozenset({Field.AGENT, Field.REASON, Field.TOOL, Field.TYPE})


class FilterError(ValueError):
    """A query that is not of the language.

    Attributes:
        at: offset of what is wrong, characters from 0.
        problem: what is wrong there.
        remedy: what would be right.
    """

    def __init__(self, at: int, problem: str, remedy: str) -> None:
        super().__init__(f"at character {at + 1}: {problem}; {remedy}")
        self.at = at
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on what a record says.

    Attributes:
        field: any but the times.
        value: to be equal, or a pattern with ``*``.
        negated: records that say so are left out; one that says nothing of the field stays.
    """

    field: Field
    value: str
    negated: bool = False

    @property
    def is_pattern(self) -> bool:
        """Whether ``*`` is a wildcard in it."""
        return "*" in self.value and self.field in PATTERNED


@dataclass(frozen=True, slots=True)
class Filter:
    """A query that is understood: every part must hold.

    Attributes:
        since_us: first microsecond, inclusive.
        until_us: last microsecond, inclusive.
    """

    terms: tuple[Term, ...] = ()
    since_us: int | None = None
    until_us: int | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    """A term as it is written; ``at`` is where it begins, ``value_at`` where its value does."""

    at: int
    field: Field
    value: str
    value_at: int
    negated: bool


def parse(text: str, now_us: int) -> Filter:
    """The query ``text``; times that are ago are counted back from ``now_us``.

    Raises:
        FilterError: it is not of the language, or can never hold.
    """
    if len(text) > MAX_QUERY:
        raise FilterError(MAX_QUERY, "the query is too long", f"at most {MAX_QUERY} characters are read")
    words = list(_words(text))
    if len(words) > MAX_TERMS:
        raise FilterError(words[MAX_TERMS].at, "there are too many terms", f"at most {MAX_TERMS} are read")
    seen: set[Field] = set()
    for word in words:
        if word.negated:
            continue
        if word.field in seen:
            raise FilterError(
                word.at, f"{word.field}: is there twice", "every term must hold: ask for one, or use a pattern with *"
            )
        seen.add(word.field)
    times = {word.field: _time(word, now_us) for word in words if word.field in TIMES}
    terms = tuple(_term(word) for word in words if word.field not in TIMES)
    return Filter(terms, times.get(Field.SINCE), times.get(Field.UNTIL))


def term(field: Field, value: str, *, at: int = 0, negated: bool = False) -> Term:
    """A term, where a record can say such a thing at all; ``at`` is where the value stands in a query.

    Raises:
        FilterError: none can.
    """
    if not value:
        raise FilterError(at, f"{field}: has no value", f"write {field}:VALUE")
    if len(value) > _MAX_VALUE or not value.isprintable():
        raise FilterError(at, "no record can say this", f"a value is at most {_MAX_VALUE} printable characters")
    made = Term(field, value, negated)
    if "*" in value and not made.is_pattern:
        raise FilterError(at + value.index("*"), f"{field}: takes no *", "give the whole value")
    if value.count("*") > _MAX_STARS:
        raise FilterError(at, "there are too many *", f"at most {_MAX_STARS} are read in a value")
    words = _VOCABULARIES.get(field)
    if words is not None and not any(holds(made, word) for word in words):
        raise FilterError(at, f"no record has the {field} {value!r}", _instead(value, words))
    return made


def holds(made: Term, said: str) -> bool:
    """Whether ``said`` is what the term names, its negation aside."""
    if made.is_pattern:
        return fnmatchcase(said, made.value.replace("[", "[[]").replace("?", "[?]"))
    return said == made.value


def moment(text: str, now_us: int, *, last: bool = False) -> int | None:
    """Microseconds since the epoch of ``90s``, ``15m``, ``24h``, ``7d`` (ago) or an ISO 8601 time; None if it is none.

    A time without an offset is UTC. A date alone is its first microsecond, with ``last`` its last one.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(0, now_us - int(ago[1]) * _SECONDS[ago[2]] * _MICRO)
    try:
        stamp = datetime.fromisoformat(text)
        stamp = stamp if stamp.tzinfo is not None else stamp.replace(tzinfo=UTC)
        since_epoch = stamp - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    whole_day = timedelta(days=1) - timedelta(microseconds=1) if last and _DATE.fullmatch(text) else timedelta()
    return max(0, (since_epoch + whole_day) // timedelta(microseconds=1))


def _words(text: str) -> Iterator[_Word]:
    at = _after(_SPACE, text, 0)
    while at < len(text):
        word, end = _word(text, at)
        yield word
        at = _after(_SPACE, text, end)


def _word(text: str, at: int) -> tuple[_Word, int]:
    negated = text[at] == "-"
    begin = at + negated
    end = _after(_NAME, text, begin)
    if end == begin or not text.startswith(":", end):
        raise FilterError(begin, "this is no term", f"write field:value, where the field is {_listed(Field)}")
    field = _field(text[begin:end], begin)
    if negated and field in TIMES:
        other = Field.UNTIL if field is Field.SINCE else Field.SINCE
        raise FilterError(at, f"{field}: cannot be negated", f"write {other}:")
    value, after = _value(text, end + 1)
    return _Word(at, field, value, end + 1, negated), after


def _field(name: str, at: int) -> Field:
    try:
        return Field(name)
    except ValueError:
        pass
    if name == "text":
        raise FilterError(at, "text: is no field", "what people and tools wrote is sealed, and no search reaches it")
    raise FilterError(at, f"{name}: is no field", _instead(name, tuple(Field)))


def _value(text: str, at: int) -> tuple[str, int]:
    if not text.startswith('"', at):
        end = _after(_BARE, text, at)
        if end == at:
            raise FilterError(at, "the term has no value", "write it right behind the colon")
        if text.startswith('"', end):
            raise FilterError(end, "a quote begins inside a value", "put the whole value in quotes")
        return text[at:end], end
    quoted = _QUOTED.match(text, at)
    if quoted is None:
        raise FilterError(at, "the quote is not closed", 'end the value with "')
    if quoted.end() < len(text) and _SPACE.match(text, quoted.end()) is None:
        raise FilterError(quoted.end(), "something follows the closing quote", "put a space between two terms")
    return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted.end()


def _term(word: _Word) -> Term:
    return term(word.field, word.value, at=word.value_at, negated=word.negated)


def _time(word: _Word, now_us: int) -> int:
    found = moment(word.value, now_us, last=word.field is Field.UNTIL)
    if found is None:
        raise FilterError(word.value_at, f"{word.field}: takes a time, and this is none", _MOMENT_FORM)
    return found


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()


def _instead(given: str, words: tuple[str, ...]) -> str:
    near = get_close_matches(given, words, 1)
    return f"did you mean {near[0]}?" if near else f"there are {_listed(words)}"


def _listed(words: "tuple[str, ...] | type[Field]") -> str:
    return ", ".join(words)


_VOCABULARIES: dict[Field, tuple[str, ...]] = {Field.EFFECT: tuple(Effect), Field.TYPE: tuple(EventType)}

"""``${...}`` in clients' files, and values that must not stand in settings."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.core.needles import MAX_LENGTH, MIN_LENGTH
from gateway.core.secret_names import is_secret_name

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class NotCarried(Exception):
    """Something of a server cannot be carried over; the message says what."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """A secret: it goes into a file of its own."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FromEnvironment:
    """A secret that stays where it is: in a variable of the environment."""

    name: str


Given = str | Hidden | FromEnvironment
Parts = tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Variables:
    """How one client reads ``${...}``.

    Attributes:
        plain: whether ``${NAME}`` is a variable of the environment, with ``${NAME:-default}``.
        marked: whether ``${env:NAME}`` is one, and ``${userHome}`` and ``${workspaceFolder}`` are folders.
        environment: variables.
        home: of the person.
        folder: of the project; None = another one each time, as in a file of the person's for all of them.
        ask: gives the value of ``${input:ID}``.
        own: variables that the server is given; its program may read ``${NAME}`` itself, where the client does not.
    """

    plain: bool
    marked: bool
    environment: Mapping[str, str]
    home: Path
    folder: Path | None
    ask: Callable[[str], str] | None = None
    own: Collection[str] = ()

    def parts(self, text: str) -> Parts:
        """``text`` in pieces: plain ones joined, each variable that may hold a secret alone.

        Raises:
            NotCarried: a variable is not known, or has no value.
        """
        if not (self.plain or self.marked):
            return (text,)
        pieces: list[Given] = []
        closed, mark, rest = text.rpartition("}")  # beyond the last of these is no variable, however many begin there
        *pairs, last = _VARIABLE.split(closed + mark)
        for at, piece in enumerate((*pairs, last + rest)):
            given = self._value(piece) if at % 2 else piece
            if isinstance(given, str) and pieces and isinstance(pieces[-1], str):
                pieces[-1] += given
            elif given:
                pieces.append(given)
        return tuple(pieces) or ("",)

    def plainly(self, text: str) -> str:
        """``text`` with the values in the variables' place, for what stands in settings anyway.

        Raises:
            NotCarried: a variable is not known, has no value, or holds a secret.
        """
        parts = self.parts(text)
        for part in parts:
            if isinstance(part, FromEnvironment) and _is_secret(part.name, self.value(part)):
                raise NotCarried(f"the variable {part.name} holds a secret, which would stand in settings")
            if isinstance(part, Hidden) and not is_open("", part.value):
                raise NotCarried("what the client asks for may be a secret, which would stand in settings")
        return "".join(self.value(part) for part in parts)

    def value(self, given: Given) -> str:
        """What it stands for now."""
        if isinstance(given, FromEnvironment):
            return self.environment[given.name]
        return given.value if isinstance(given, Hidden) else given

    def _value(self, name: str) -> Given:
        if self.marked and name.startswith("env:"):
            return self._variable(name.removeprefix("env:"), None)
        if self.marked and name.startswith("input:"):
            return self._input(name.removeprefix("input:"))
        if self.marked and name in self._folders():
            return self._folders()[name]
        bare, marked, default = name.partition(":-")
        if self.plain and _NAME.fullmatch(bare):
            return self._variable(bare, default if marked else None)
        if not self.plain and name in self.own:
            return f"${{{name}}}"
        if self.folder is None and self.marked and name.startswith("workspaceFolder"):
            raise NotCarried(f"${{{name}}} is another one in each project, and the gateway has one server for all")
        raise NotCarried(f"what ${{{name}}} stands for is known to the client only")

    def _variable(self, name: str, default: str | None) -> Given:
        value = self.environment.get(name, "")
        if value and is_open(name, value):
            return value  # such as HOME: kept out of answers as a secret, it would tear holes into every path
        if value:
            checked(name, Hidden(value))
            return FromEnvironment(name)
        if default is None:
            raise NotCarried(f"the variable {name} is not set here")
        return default

    def _input(self, name: str) -> Given:
        if self.ask is None:
            raise NotCarried(f"the client asks for {name}, and keeps the answer to itself")
        return Hidden(self.ask(name))

    def _folders(self) -> dict[str, str]:
        here = self.folder
        of_project = {} if here is None else {"workspaceFolder": str(here), "workspaceFolderBasename": here.name}
        return {"userHome": str(self.home), "pathSeparator": "/", "/": "/", **of_project}


# What no reader of settings learns a secret from: numbers, switches, places without a login, plain small words.
_HARMLESS: Final = re.compile(
    r"[0-9.,:-]*|true|false|yes|no|on|off|(?:~|\.{1,2})?/[^@]*|[a-z]+(?:[-_][a-z]+){0,5}(?:[-_]?[0-9]{1,2})?"
    r"|[a-z][a-z0-9+.-]*://[^@?#]*|[A-Za-z0-9.-]+:[0-9]{1,5}",
    re.IGNORECASE,
)
_LONGEST_WORD: Final = 32
# Marks that makers of tokens put in front of them.
_MARKED: Final = re.compile(
    r"(?:sk|pk|rk)[-_][A-Za-z0-9_-]{8,}|gh[opsur]_\w{8,}|github_pat_\w+|glpat-[\w-]+|xox[abeoprs]-[\w-]+|AKIA[A-Z0-9]{12,}"
    r"|AIza[\w-]{20,}|eyJ[\w-]{1,1000}\.[\w-]+\.[\w-]*|hf_\w{8,}|npm_\w{8,}|[rl]in_api_\w+|ntn_\w+|secret_\w{8,}"
)
_LOGIN: Final = re.compile(r"(?P<before>[a-z][a-z0-9+.-]{0,30}://[^/@\s:]*:)(?P<secret>[^/@\s]+)(?=@)", re.IGNORECASE)
_NAMED: Final = re.compile(r"(?P<before>-{0,2}(?P<name>[A-Za-z][\w.-]*)(?:=|:\s*))(?P<secret>.+)", re.DOTALL)
# An option's value that is such a pair itself: ``--env=NAME=value``, ``--header=Name: value``.
_NAMED_WITHIN: Final = re.compile(rf"(?P<option>--?[A-Za-z][\w.-]*=){_NAMED.pattern}", re.DOTALL)
_QUERY: Final = re.compile(r"(?P<before>[?&#](?P<name>[\w.-]+)=)(?P<secret>[^&#\s]+)")
# A member of JSON that is a text in JSON, and pairs as connection strings, command lines and objects have them.
_MEMBER: Final = re.compile(
    r"\\\"(?P<name>[\w.-]+)\\\"\s{0,9}:\s{0,9}(?P<quote>\\\")(?P<secret>(?:[^\"\\]|\\\\\\.|\\\\.)+)", re.DOTALL
)
_WITHIN: Final = re.compile(
    r"(?:^|[\s;,'\"={(])(?P<dashes>--?)?(?P<name>[A-Za-z][\w.-]*)['\"]?"
    r"(?:(?P<equals>=)|\s{0,9}:\s{0,9}(?:(?i:bearer|basic)\s)?|(?(dashes)\s{1,9}|(?!)))(?P<quote>['\"])?"
    r"(?P<secret>(?(quote)(?:\\.|(?!(?P=quote))[^\\])+|(?!['\"])(?:(?!,[\w.-]+=|['\"})\]]{0,4}(?:[\s;]|$))[^;\s])+))",
    re.DOTALL,
)
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}://\S+", re.IGNORECASE)
_RUN: Final = re.compile(r"[A-Za-z0-9]{20,}")
# Ends of names that say as much as ``password`` does, and those that do where the value looks like it.
_PASS: Final = re.compile(r"(?:(?:^|[^A-Za-z])(?i:pass)|[a-z]Pass)[0-9]*")
_MAYBE: Final = re.compile(r"(?:(?:^|[^A-Za-z])(?i:key|auth|pat|sig|code)|[a-z](?:Key|Auth))[0-9]*")
_SWITCH: Final = re.compile(r"[0-9]{1,7}|true|false|yes|no|on|off", re.IGNORECASE)
# What a shell or the server itself puts the secret in for.
_REFERENCE: Final = re.compile(
    r"[\"']?\$(?:\{[A-Za-z_]\w*(?::?[-=+?][^}]{0,99})?\}|[A-Z_][A-Z0-9_]*|\([^)]{0,999}\))(?:[\"';\s]|$)"
)
_SCHEME: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9_-]* )(?P<secret>\S+)")
_SAID_SCHEME: Final = re.compile(r"(?P<scheme>(?i:bearer|basic|token|api-?key|key|digest|bot) )(?P<secret>\S+)")


def environment_value(name: str, parts: Parts) -> Given:
    """A variable's value as settings hold it: in the open only where it plainly is no secret.

    Raises:
        NotCarried: a secret that cannot be one.
    """
    if len(parts) == 1 and not isinstance(parts[0], str):
        return checked(name, parts[0])
    if len(parts) > 1:
        raise NotCarried(f"{name} mixes text and variables; put the whole value into one variable")
    text = str(parts[0])
    return text if is_open(name, text) else checked(name, Hidden(text))


def is_open(name: str, text: str) -> bool:
    """Whether a variable's value plainly is no secret."""
    if not text:
        return True
    return not _says_secret(name, text) and not _MARKED.search(text) and (_is_harmless(text) or len(text) < MIN_LENGTH)


def _is_harmless(text: str) -> bool:
    is_short = len(text) <= _LONGEST_WORD or "/" in text
    return is_short and _HARMLESS.fullmatch(text) is not None and not _random_parts(text)


def _says_secret(name: str, text: str) -> bool:
    return is_secret_name(name) or (_ends(_PASS, name) and not _SWITCH.fullmatch(text))


def _is_secret(name: str, text: str) -> bool:
    """Whether ``text`` under this name is a secret, where other values are none."""
    if _REFERENCE.match(text):
        return False
    return _says_secret(name, text) or (_looks_like_it(text) and _ends(_MAYBE, name))


def _looks_like_it(text: str) -> bool:
    return len(text) >= MIN_LENGTH and not _is_harmless(text)


def _ends(pattern: re.Pattern[str], name: str) -> bool:
    return any(found.end() == len(name) for found in pattern.finditer(name))


def _random_parts(text: str) -> list[tuple[int, int]]:
    """Where addresses in ``text`` hold what nobody has typed, such as the last part of a webhook's."""
    return [
        (found.start() + run.start(), found.start() + run.end())
        for found in _ADDRESS.finditer(text)
        for run in _RUN.finditer(found.group())
        if all(re.search(kind, run.group()) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    ]


def argument(parts: Parts, before: str) -> Parts:
    """A word of a command line, its secrets apart; ``before`` is the word before it.

    Raises:
        NotCarried: a secret that cannot be one.
    """
    if len(parts) > 1 or not isinstance(parts[0], str):
        return tuple(piece for part in parts for piece in (_cut(part) if isinstance(part, str) else (part,)))
    text = parts[0]
    if before.startswith("-") and "=" not in before and not text.startswith("-") and _is_secret(before, text):
        return _after_scheme(before, text)
    for pattern in (_NAMED, _NAMED_WITHIN):
        named = pattern.fullmatch(text)
        if named is not None and not named["secret"].startswith("//") and _is_secret(named["name"], named["secret"]):
            return (text[: named.start("secret")], *_after_scheme(named["name"], named["secret"]))
    return _cut(text)


def address_is_open(url: str) -> bool:
    """Whether a URL holds no login and no secret that could be told from its looks."""
    return len(_cut(url)) == 1 and "@" not in url.partition("://")[2].partition("/")[0]


def header_value(name: str, parts: Parts) -> tuple[str, Given]:
    """A header field's value: the scheme before the secret, and the secret.

    Raises:
        NotCarried: it mixes too much, or cannot be a secret.
    """
    match parts:
        case (Hidden() | FromEnvironment() as secret,):
            return "", checked(name, secret)
        case (str(scheme), Hidden() | FromEnvironment() as secret) if re.fullmatch(r"[A-Za-z][\w-]* ", scheme):
            return scheme, checked(name, secret)
        case (str(text),):
            found = _SCHEME.fullmatch(text)
            if found is None:
                return "", checked(name, Hidden(text))
            return found["scheme"], checked(name, Hidden(found["secret"]))
    raise NotCarried(f"the header {name} mixes text and variables; put the whole value into one variable")


def checked(name: str, given: Given) -> Given:
    """``given``, which can be kept out of what tools answer.

    Raises:
        NotCarried: it cannot.
    """
    if isinstance(given, Hidden):
        length = len(given.value.encode())
        if not MIN_LENGTH <= length <= MAX_LENGTH or given.value != given.value.strip():
            raise NotCarried(
                f"{name} looks like a secret, and one of {length} bytes cannot be kept out of what tools answer; "
                f"{MIN_LENGTH} to {MAX_LENGTH} bytes can, without space around them"
            )
    return given


def _after_scheme(name: str, text: str) -> Parts:
    found = _SAID_SCHEME.fullmatch(text)  # any other word may be the secret's beginning
    if found is None:
        return (checked(name, Hidden(text)),)
    return (found["scheme"], checked(name, Hidden(found["secret"])))


def _cut(text: str) -> Parts:
    """``text`` with logins and random parts of URLs, secrets in query strings and pairs, and marked tokens apart."""
    spans = [found.span("secret") for found in _LOGIN.finditer(text)]
    spans += [found.span("secret") for found in _QUERY.finditer(text) if _is_secret(found["name"], found["secret"])]
    for pattern in (_MEMBER, _WITHIN):
        spans += [found.span("secret") for found in pattern.finditer(text) if _is_pair(found)]
    spans += [found.span() for found in _MARKED.finditer(text)]
    spans += _random_parts(text)
    pieces: list[Given] = []
    at = 0
    for start, end in _joined(spans):
        pieces += [text[at:start]] if start > at else []
        pieces.append(checked("a part of an argument", Hidden(text[start:end])))
        at = end
    return (*pieces, text[at:]) if at < len(text) or not pieces else tuple(pieces)


def _is_pair(found: re.Match[str]) -> bool:
    if _REFERENCE.match(found.string, found.start("secret")):
        return False
    is_plain = found["quote"] or found.groupdict().get("equals")  # what follows a colon or a space may be prose
    return _is_secret(found["name"], found["secret"]) and bool(is_plain or _looks_like_it(found["secret"]))


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined

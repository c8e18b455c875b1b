"""Addresses of resources: which ones are taken, and which template a made address belongs to.

An address is compared, decided on and sent as the very string that was asked for; nothing is ever normalised. What is
listed is compared whole with what was approved. What is only described by a template (RFC 6570) is for the caller to
fill in, so there each character may have one spelling only: a rule that names ``/etc/`` must not be walked around by
``%2Fetc/``, ``/x/../etc/``, ``//etc/`` or ``/%65tc/``. What has another spelling is refused, as it names nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from unicodedata import is_normalized
from urllib.parse import unquote_to_bytes

import re2

from gateway.core.tool import ADDRESSED, USUAL_NAME, EffectClass, Tool

MAX_URI: Final = 2048
# As long as a name of the catalogue may be: it stands in records.
MAX_LISTED: Final = 200
_TEMPLATES: Final = 4096

_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*:"
_LISTED: Final = re.compile(rf"{_SCHEME}[!-~]+")
_NEVER: Final = re.compile(r'["<>\\^`{|}]')

# What may stand in an address stands there as it is. Only what may not is encoded, in capitals: blank " < > [ ] ^ ` { |
# } and all beyond ASCII. Brackets are never plain, as in a path they may not be; a backslash is a slash to some.
_PLAIN: Final = r"[A-Za-z0-9._~:/?#@!$&'()*+,;=-]"
_ENCODED: Final = r"%(?:2[025]|3[CE]|5[BDE]|60|7[BCD]|[89A-F][0-9A-F])"
_MADE: Final = re2.compile(rf"[a-z][a-z0-9+.-]*:(?:{_PLAIN}|{_ENCODED})+")
# An encoding within an encoding, for whoever decodes twice; a segment of dots; a segment that is empty. What follows a
# scheme may begin with two slashes, and a variable may hold such an address.
_TRICKS: Final = re.compile(r"%25[0-9A-Fa-f]{2}|(?:^|[/:?#=&;,])\.{1,2}(?:[/?#&;,]|$)|(?<![A-Za-z0-9]:)//")
# After a scheme come at most two slashes and, where there is no host, the one that the path begins with.
_MANY_SLASHES: Final = re.compile(r":/{4}")

# RFC 6570: what an expression begins with, and its variables.
_EXPRESSION: Final = re.compile(r"\{([+#./;?&]?)([A-Za-z0-9_.%,:*]+)\}")
_VARIABLE: Final = re.compile(r"([A-Za-z0-9_%]+(?:\.[A-Za-z0-9_%]+)*)(:[0-9]{1,4}|\*)?")
_LITERAL: Final = re.compile(r"[!-~]*")
_VALUES: Final[Mapping[str, str]] = {
    "": r"[^/?#]+",
    "+": r"[^?#]+",  # an address gets a query or a fragment only where its template has one
    "#": r"(?:#[^#]+)?",
    ".": r"(?:\.[^./?#]+)*",
    "/": r"(?:/[^/?#]+)*",
    ";": r"(?:;[^/?#;]+)*",
}


def is_listable(uri: object) -> bool:
    """Whether an upstream may list a resource under ``uri``: an address of printable ASCII, not too long for a name."""
    return isinstance(uri, str) and len(uri) <= MAX_LISTED and bool(_LISTED.fullmatch(uri)) and not _NEVER.search(uri)


def is_made_well(uri: str) -> bool:
    """Whether an address that a caller made of a template has no other spelling."""
    if len(uri) > MAX_URI or not _MADE.fullmatch(uri) or _MANY_SLASHES.search(uri):
        return False
    # The three slashes of an address without a host are two and the first of its path.
    if _TRICKS.search(uri.replace(":///", "://h/", 1)):
        return False
    try:
        text = unquote_to_bytes(uri).decode()
    except UnicodeDecodeError:
        return False
    return text.isprintable() and is_normalized("NFKC", text) and not _has_twins(uri)


def _has_twins(uri: str) -> bool:
    # A parameter that comes twice is read as the first by some and as the last by others.
    names = [pair.partition("=")[0] for pair in uri.partition("#")[0].partition("?")[2].split("&")]
    return len(set(names)) != len(names)


def variables(template: str) -> tuple[str, ...] | None:
    """The variables of a template, each once; None where it is no template, or has none."""
    found = _parts(template)
    if found is None:
        return None
    return tuple(dict.fromkeys(name for part in found if not isinstance(part, str) for name, _ in part[1])) or None


def matches(template: str, uri: str) -> bool:
    """Whether ``uri`` is an address that ``template`` makes, spelled in the one way there is."""
    # Cheap test first: a server may have a thousand templates.
    if not uri.startswith(template.partition("{")[0]):
        return False
    pattern = _pattern(template)
    return pattern is not None and bool(pattern.fullmatch(uri)) and is_made_well(uri)


def read(tool: Tool, arguments: Mapping[str, Any]) -> Tool | None:
    """``tool`` as it is decided on for these arguments: of a template, the very resource; None where it makes no such.

    Everything that has no address is itself.
    """
    if tool.kind not in ADDRESSED:
        return tool
    uri = arguments.get("uri")
    if not tool.is_template:
        return tool if uri == tool.own_name else None
    if not isinstance(uri, str):
        return None
    return _made(_Itself(tool), uri) if len(uri) > USUAL_NAME else _made_before(_Itself(tool), uri)


class _Itself:
    """A tool as that very object: by what it says it cannot be looked up."""

    __slots__ = ("tool",)

    def __init__(self, tool: Tool) -> None:
        self.tool = tool

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.tool is self.tool

    def __hash__(self) -> int:
        return id(self.tool)


def _made(template: _Itself, uri: str) -> Tool | None:
    tool = template.tool
    return replace(tool, uri=uri) if matches(tool.own_name, uri) else None


# What is read again is the same object again, and so as warm as a name of no tool is the second time.
_made_before = lru_cache(maxsize=1024)(_made)


def template_of(uri: str, templates: Iterable[Tool]) -> Tool | None:
    """The one of these templates that makes ``uri``; of several the one with the gravest effect, then by name.

    Which one the upstream takes is not known: the gravest is what policy must see.
    """
    if not is_made_well(uri):
        return None
    made = [tool for tool in templates if matches(tool.own_name, uri)]
    gravest = sorted(made, key=lambda tool: (-list(EffectClass).index(tool.effect), tool.name))
    return gravest[0] if gravest else None


_Variable = tuple[str, bool]
_Part = str | tuple[str, list[_Variable]]


def _parts(template: str) -> list[_Part] | None:
    # Literal texts and expressions (operator, variables with whether each is exploded), in order.
    parts: list[_Part] = []
    at = 0
    for found in _EXPRESSION.finditer(template):
        named = [_VARIABLE.fullmatch(word) for word in found[2].split(",")]
        if None in named:
            return None
        parts += [template[at : found.start()], (found[1], [(name[1], name[2] == "*") for name in named if name])]
        at = found.end()
    parts.append(template[at:])
    good = all(_LITERAL.fullmatch(part) and not _NEVER.search(part) for part in parts if isinstance(part, str))
    return parts if good else None


@lru_cache(maxsize=_TEMPLATES)
def _pattern(template: str) -> "re2._Regexp | None":
    parts = _parts(template)
    if parts is None:
        return None
    return re2.compile("".join(re2.escape(part) if isinstance(part, str) else _expression(*part) for part in parts))


def _expression(operator: str, named: list[_Variable]) -> str:
    if operator in _VALUES:
        return _VALUES[operator]
    names = "|".join(r"[^=&?#]+" if exploded else re2.escape(name) for name, exploded in named)
    pair = rf"(?:{names})=[^&?#]*"
    return rf"(?:&{pair})*" if operator == "&" else rf"(?:\?{pair}(?:&{pair})*)?"

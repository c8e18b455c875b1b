"""An OpenAPI document as untrusted JSON: read within bounds, its references followed only inside of it."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final
from urllib.parse import unquote

MOST_BYTES: Final = 8 * 1024 * 1024
_DEEPEST: Final = 100
_LONGEST_CHAIN: Final = 32
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,6}")
_SUPPORTED: Final = re.compile(r"3\.[01]\.[0-9]+(-.*)?")
_DIALECTS: Final = frozenset(
    {"https://spec.openapis.org/oas/3.1/dialect/base", "https://json-schema.org/draft/2020-12/schema"}
)


class Refused(Exception):
    """Something in the document cannot be carried.

    Attributes:
        pointer: JSON pointer of the place.
        rule: stable id.
        words: what is wrong there.
    """

    def __init__(self, pointer: str, rule: str, words: str) -> None:
        super().__init__(f"{pointer}: {rule}: {words}")
        self.pointer = pointer
        self.rule = rule
        self.words = words


@dataclass(frozen=True, slots=True)
class At:
    """A value of the document and where it stands.

    Attributes:
        pointer: JSON pointer, beginning with ``#``.
        value: the value; never a reference once it was ``followed``.
        chain: the references that led here, by pointer: one that comes again is a circle.
    """

    pointer: str
    value: Any
    chain: tuple[str, ...] = ()

    def has(self, key: str) -> bool:
        """Whether the object has a member ``key``."""
        return isinstance(self.value, dict) and key in self.value

    def member(self, key: str) -> "At":
        """The member ``key``; None where there is none."""
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return At(f"{self.pointer}/{escaped(key)}", value, self.chain)

    def members(self) -> Iterator[tuple[str, "At"]]:
        """All members of an object; of anything else, none."""
        for key in self.value if isinstance(self.value, dict) else ():
            yield key, self.member(key)

    def items(self) -> Iterator["At"]:
        """All items of an array; of anything else, none."""
        for number, value in enumerate(self.value if isinstance(self.value, list) else ()):
            yield At(f"{self.pointer}/{number}", value, self.chain)

    def text(self, key: str) -> str:
        """The text of the member ``key``; empty where there is none."""
        value = self.member(key).value
        return value if isinstance(value, str) else ""

    def refused(self, rule: str, words: str) -> Refused:
        """A refusal that names this place."""
        return Refused(self.pointer, rule, words)


@dataclass(slots=True)
class Document:
    """A whole document.

    Attributes:
        root: its value.
        is_old: whether it is of OpenAPI 3.0, whose schemas are of a dialect of their own.
    """

    root: Mapping[str, Any]
    is_old: bool = field(init=False)

    def __post_init__(self) -> None:
        """Look at what it says of itself.

        Raises:
            Refused: it is of another version or dialect.
        """
        version, top = self.root.get("openapi"), self.top
        if "swagger" in self.root:
            raise top.member("swagger").refused("version", "this is Swagger 2; convert it to OpenAPI 3 first")
        if not isinstance(version, str) or not _SUPPORTED.fullmatch(version):
            raise top.member("openapi").refused("version", "OpenAPI 3.0 and 3.1 are understood")
        dialect = self.root.get("jsonSchemaDialect")
        if dialect is not None and dialect not in _DIALECTS:
            raise top.member("jsonSchemaDialect").refused("dialect", "only JSON Schema 2020-12 is understood")
        self.is_old = version.startswith("3.0")

    @property
    def top(self) -> At:
        """The document itself."""
        return At("#", self.root)

    def followed(self, at: At) -> At:
        """What stands at ``at``, or where its reference leads, after any number of them.

        Raises:
            Refused: a reference that leaves the document, leads nowhere, or in a circle.
        """
        while isinstance(at.value, dict) and "$ref" in at.value:
            place = at.member("$ref")
            target = self._target(place)
            if target.pointer in at.chain:
                raise place.refused("recursive_ref", f"{target.pointer} refers to itself")
            if len(at.chain) >= _LONGEST_CHAIN:
                raise place.refused("too_deep", f"more than {_LONGEST_CHAIN} references inside each other")
            at = At(target.pointer, target.value, (*at.chain, target.pointer))
        return at

    def _target(self, place: At) -> At:
        ref = place.value
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise place.refused("external_ref", "references must stay inside the document; nothing else is fetched")
        if not ref.startswith("#/"):
            raise place.refused("ref", "only JSON pointers are followed, such as #/components/schemas/Order")
        value: Any = self.root
        for part in ref[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise place.refused("ref", "it leads nowhere")
        return At(ref, value)


def escaped(key: str) -> str:
    """``key`` as a part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def parsed(body: bytes) -> Mapping[str, Any]:
    """The JSON object in ``body``.

    Raises:
        Refused: it is too long, no JSON, nested too deeply, or has a member twice.
    """
    if len(body) > MOST_BYTES:
        raise Refused("#", "too_large", f"more than {MOST_BYTES // 1024 // 1024} MiB")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused("#", "json", "it is not UTF-8") from None
    if not text.lstrip().startswith("{"):
        raise Refused("#", "json", "only JSON is read; convert YAML first, e.g. with `yq -o json`")
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_float, parse_constant=_constant)
        json.dumps(value, ensure_ascii=False).encode()  # no lone surrogate, which no other reader would take
    except json.JSONDecodeError as error:
        raise Refused("#", "json", f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise _too_deep() from None
    except UnicodeEncodeError:
        raise Refused("#", "json", "a string holds half a character") from None
    except ValueError as error:  # a member twice, a constant that is no JSON, a number of too many digits
        raise Refused("#", "json", str(error)) from None
    _check_depth(value)
    found: Mapping[str, Any] = value
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the member {json.dumps(twice[:80])} stands twice in one object")
    return members


def _float(lexeme: str) -> float:
    number = float(lexeme)
    if not isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise _too_deep()


def _children(value: Any) -> list[Any]:
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in held if isinstance(child, dict | list)]


def _too_deep() -> Refused:
    return Refused("#", "too_deep", f"it is nested deeper than {_DEEPEST} levels")

"""Secrets out of results and log lines.

Layer 1 takes out every known value in all its encodings (``core/needles.py``), layer 2 every value under a key that
names a secret (``core/secret_names.py``), also inside texts that are JSON themselves. The result stays valid JSON, and
one that holds nothing keeps the upstream's bytes: a few scans over the body tell, without parsing it.

What this does not find: a value encrypted, compressed, encoded twice (hex of the reversed value, base64 of UTF-16) or
in an encoding that ``core/needles.py`` does not name (HTML entities, base32, hex with separators), with visible
characters in between, spread over several members, and secrets nobody told the gateway of under keys that do not say
so.
"""

import json
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from gateway.core.call import Live, Redacted, Resumed, Verified
from gateway.core.errors import Tainted
from gateway.core.known import KnownValues
from gateway.core.needles import MIN_LENGTH, PLACEHOLDERS, Needles, Span, Squeezed, UnfitSecret
from gateway.core.secret_names import is_secret_name
from gateway.core.suspects import Suspicion, suspicion_of

KNOWN_VALUE, SECRET_KEY = PLACEHOLDERS
UNREADABLE = "[redacted:unreadable]"
_MAX_NESTING = 4  # JSON inside a text inside JSON ...
_TOKENS_KEPT = 256
# Longest body that is worked on where it is: a hostile one of this size takes some 10 ms, one of 4 MiB many seconds.
AT_ONCE_BYTES = 16 * 1024
_ENCODER = msgspec.json.Encoder()
# Members that hold the secret itself where a secret-named key has an object.
_VALUE_NAMES = frozenset({"value", "raw", "data", "plaintext", "current", "previous"})
_NAME_MEMBERS = ("name", "key", "Name", "Key")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most work for one result; over it the result is withheld.

    Attributes:
        bytes: longest body that is walked (clean bodies are only scanned).
        nodes: most JSON values in it, nested texts included.
        hits: most values taken out.
    """

    bytes: int = 4 * 1024 * 1024
    nodes: int = 200_000
    hits: int = 10_000


Clean = tuple[bytes, Mapping[str, int]]


class Aside(Protocol):
    """Works on large bodies elsewhere, so that nothing else waits for them.

    Failure mode, closed: what is not done in time, or is lost, is ``Tainted``.
    """

    async def cleaned(self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds) -> Clean:
        """What ``cleaned`` of this module gives; the very same ``body`` where nothing was taken out.

        Raises:
            Tainted: it cannot be redacted, or nobody could tell.
        """

    async def holding(self, body: bytes, needles: tuple[Needles, ...], bounds: Bounds) -> bool:
        """What ``holding`` of this module gives; True where nobody could tell."""


class Redactor:
    """The ``Redactor`` port, and the same engine for log lines.

    Args:
        known: the values to take out.
        bounds: most work for one result.
        aside: works on large bodies; None = they are worked on here, too, and everything else waits.
    """

    def __init__(self, known: KnownValues, bounds: Bounds | None = None, aside: Aside | None = None) -> None:
        self._known = known
        self._bounds = bounds or Bounds()
        self._aside = aside
        self._tokens: OrderedDict[str, Needles] = OrderedDict()

    async def redact(self, verified: Verified) -> Redacted:
        """The result without secrets: those the gateway knows, the caller's own token, and secret-named members.

        Raises:
            Tainted: ``cause_code`` is ``redaction_bound`` (too much work) or ``redaction_failed`` (a known value is
                spread over the structure and cannot be taken out), or what ``Aside`` says.
        """
        raw = verified.raw
        intent = raw.lease.intent
        call = intent.call
        needles = self._needles(call.origin)
        if self._aside is None or len(raw.body) <= AT_ONCE_BYTES:
            body, counts = cleaned(raw.body, needles, self._bounds)
        else:
            body, counts = await self._away(self._aside, raw.body, needles)
        flow = call.flow
        if flow is not None and flow.redacted:
            counts = Counter(counts) + flow.redacted
        return Redacted(intent, body, raw.value if body is raw.body else _decoded(body), counts)

    def notice(self, origin: Live | Resumed, body: bytes) -> Clean:
        """What is said while a call is carried out, without secrets, and the counts; raises as ``redact`` does."""
        return cleaned(body, self._needles(origin), self._bounds)

    async def holds(self, body: bytes) -> bool:
        """Whether a JSON text holds a value the gateway keeps secret, in any encoding, or that cannot be told."""
        if self._aside is None or len(body) <= AT_ONCE_BYTES:
            return holding(body, self._known.segments, self._bounds)
        asked = self._known.segments
        if await self._aside.holding(body, asked, self._bounds):
            return True
        learnt = self._learnt(asked)
        return bool(learnt) and await self._aside.holding(body, learnt, self._bounds)

    def text(self, text: str) -> str:
        """A log line without secrets; never raises. A line that cannot be handled is replaced whole."""
        data = text.encode("utf-8", "surrogatepass")
        needles = _wanted(data, self._known.segments)
        if needles is None:
            return text
        if len(data) > self._bounds.bytes:
            return UNREADABLE
        try:
            return _Pass(needles, self._bounds).text(text)
        except (Tainted, RecursionError):  # nested beyond any use
            return UNREADABLE

    async def _away(self, aside: Aside, body: bytes, asked: tuple[Needles, ...]) -> Clean:
        body, counts = await aside.cleaned(body, asked, self._bounds)
        if learnt := self._learnt(asked):
            body, more = await aside.cleaned(body, learnt, self._bounds)
            counts = Counter(counts) + Counter(more)
        return body, counts

    def _learnt(self, asked: tuple[Needles, ...]) -> tuple[Needles, ...]:
        # It took its time and may have waited for minutes: what was minted or resolved meanwhile is a secret by now.
        return tuple(one for one in self._known.segments if one not in asked)

    def _needles(self, origin: Live | Resumed) -> tuple[Needles, ...]:
        # A resumed call has no token: it was not kept.
        token = origin.token if isinstance(origin, Live) else ""
        return (*self._known.segments, self._tokens.get(token) or self._compiled(token))

    def _compiled(self, token: str) -> Needles:
        try:
            found = Needles((token,))
        except UnfitSecret:  # nothing that short authenticates anyone
            found = Needles(())
        self._tokens[token] = found
        if len(self._tokens) > _TOKENS_KEPT:
            self._tokens.popitem(last=False)
        return found


def cleaned(body: bytes, needles: tuple[Needles, ...], bounds: Bounds) -> Clean:
    """A JSON text without these values and without secret-named members, and what was taken out, by rule.

    The very same ``body`` where that is nothing.

    Raises:
        Tainted: as of ``Redactor.redact``.
    """
    found = _wanted(body, needles)
    if found is None:
        return body, {}
    if len(body) > bounds.bytes:
        raise Tainted("the output is too large to be redacted", cause_code="redaction_bound")
    return _rewrite(body, _Pass(found, bounds))


def holding(body: bytes, needles: tuple[Needles, ...], bounds: Bounds) -> bool:
    """Whether a JSON text holds one of these values, in any encoding, or that cannot be told."""
    found = _wanted(body, needles)
    if found is None:
        return False
    try:
        _, counts = _rewrite(body, _Pass(found, bounds))
    except Tainted:
        return True
    return "known_value" in counts


def _wanted(body: bytes, needles: tuple[Needles, ...]) -> tuple[Needles, ...] | None:
    # What to look for in a walk over the body; None where there is nothing and no walk is needed.
    suspicion = suspicion_of(body)
    if suspicion is Suspicion.OBSCURED:
        return needles
    squeezed = Squeezed(body)
    found: list[Needles] = []
    for one in needles:
        if one.may_hold(squeezed):
            found.append(one)  # noqa: PERF401 -- a list of them is mostly not made at all
    return tuple(found) if found or suspicion is Suspicion.NAMED else None


def _rewrite(body: bytes, work: "_Pass") -> Clean:
    try:
        document = work.parse(body.decode())
        walked = work.value(document)
        changed = walked is not document or work.ambiguous
        result = _ENCODER.encode(walked) if changed else body
    except Tainted:
        raise
    except RecursionError:
        raise Tainted("the output is nested too deeply to be redacted", cause_code="redaction_bound") from None
    except ValueError:
        raise Tainted("the output cannot be read for redaction", cause_code="redaction_failed") from None
    if any(one.spans(result) for one in work.needles):
        raise Tainted("a secret in the output cannot be taken out", cause_code="redaction_failed")
    return result, dict(work.counts)


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        value: dict[str, Any] = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        raise Tainted("the output cannot be read after redaction", cause_code="redaction_failed") from None
    return value


class _Pass:
    """One walk over one result. Values that need no change come back as the same object."""

    __slots__ = ("ambiguous", "bounds", "counts", "decoder", "names", "needles", "nesting", "nodes")

    def __init__(self, needles: tuple[Needles, ...], bounds: Bounds) -> None:
        self.needles = needles
        self.bounds = bounds
        self.counts: Counter[str] = Counter()
        self.names: dict[str, bool] = {}
        self.nodes = 0
        self.nesting = 0
        self.ambiguous = False
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._members, parse_float=_lexeme, parse_int=_lexeme, parse_constant=_refuse
        )

    def parse(self, text: str) -> Any:
        """JSON with numbers as lexemes; notes in ``ambiguous`` that a key stood twice (the last one wins)."""
        return self.decoder.decode(text)

    def value(self, item: Any) -> Any:
        """``item`` without secrets."""
        self.nodes += 1
        if self.nodes > self.bounds.nodes:
            raise Tainted("the output has too many values to be redacted", cause_code="redaction_bound")
        if isinstance(item, str):
            return self.text(item)
        if isinstance(item, dict):
            return self._object(item, hidden=frozenset())
        if isinstance(item, list):
            walked = [self.value(child) for child in item]
            return walked if any(new is not old for new, old in zip(walked, item, strict=True)) else item
        return self._number(item) if isinstance(item, msgspec.Raw) else item

    def text(self, text: str) -> str:
        """``text`` without secrets; one that is JSON stays JSON."""
        return self._literal(self._nested(text) if text.lstrip()[:1] in ("{", "[") else text)

    def _nested(self, text: str) -> str:
        outer, self.ambiguous = self.ambiguous, False
        self.nesting += 1
        try:
            document = self.parse(text)
            if self.nesting > _MAX_NESTING:
                raise Tainted("the output nests too many texts to be redacted", cause_code="redaction_bound")
            walked = self.value(document)
            return _ENCODER.encode(walked).decode() if walked is not document or self.ambiguous else text
        except ValueError:  # no JSON after all
            return text
        finally:
            self.nesting -= 1
            self.ambiguous = outer

    def _literal(self, text: str) -> str:
        if len(text) * 4 < MIN_LENGTH:  # too short in UTF-8 to hold a secret
            return text
        data = text.encode("utf-8", "surrogatepass")
        spans = [span for one in self.needles for span in one.spans(data)]
        if not spans:
            return text
        self._hit("known_value", len(spans))
        return _replaced(data, sorted(spans)).decode("utf-8", "surrogatepass")

    def _number(self, item: msgspec.Raw) -> msgspec.Raw | str:
        if not any(one.spans(bytes(item)) for one in self.needles):
            return item
        self._hit("known_value")
        return KNOWN_VALUE

    def _object(self, item: dict[str, Any], hidden: frozenset[str]) -> dict[str, Any]:
        if any(isinstance(item.get(name), str) and self._is_secret(item[name]) for name in _NAME_MEMBERS):
            hidden |= {"value", "Value"}  # a list of named values, such as an environment
        walked: dict[str, Any] = {}
        changed = False
        for key, old in item.items():
            name = _free(self._literal(key), walked)
            new = self._hide(old) if key in hidden or self._is_secret(key) else self.value(old)
            changed = changed or name is not key or new is not old
            walked[name] = new
        return walked if changed else item

    def _hide(self, item: Any) -> Any:
        # Flags stay: "password": true says nothing. An object is walked, as it may describe the member (a JSON Schema).
        if isinstance(item, dict):
            return self._object(item, hidden=_VALUE_NAMES)
        if isinstance(item, list):
            walked = [self._hide(child) for child in item]
            return walked if any(new is not old for new, old in zip(walked, item, strict=True)) else item
        if item is None or isinstance(item, bool) or item in ("", *PLACEHOLDERS):
            return item
        self._hit("secret_key")
        return SECRET_KEY

    def _is_secret(self, name: str) -> bool:
        found = self.names.get(name)
        if found is None:
            found = self.names[name] = is_secret_name(name)
        return found

    def _hit(self, rule: str, times: int = 1) -> None:
        self.counts[rule] += times
        if self.counts.total() > self.bounds.hits:
            raise Tainted("the output has too many secrets to be redacted", cause_code="redaction_bound")

    def _members(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        self.ambiguous = self.ambiguous or len(members) != len(pairs)
        return members


def _lexeme(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _free(name: str, taken: Mapping[str, Any]) -> str:
    if name not in taken:
        return name
    return next(free for number in range(2, len(taken) + 3) if (free := f"{name}#{number}") not in taken)


def _replaced(data: bytes, spans: list[Span]) -> bytes:
    parts, end = [], 0
    for start, stop in spans:
        if start >= end:
            parts += [data[end:start], KNOWN_VALUE.encode()]
        end = max(end, stop)
    return b"".join([*parts, data[end:]])

"""Judges one answer: is it well formed, is it what is known beforehand, and may its caller read it?

1. No status 500 and no other fault of the gateway's own; no answer that hangs or is sent twice.
2. The body is what its type says: one JSON-RPC answer with the request's own id, a stream of JSON-RPC messages that
   ends with it, or a problem document that repeats the status.
3. A request that is good is carried out, and its result has its own marker. One that has a fault is refused.
4. No marker, session or hidden description of anybody else stands in it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.campaigns.rpc_fuzz.case import MARKER, MAY_CALL, SEES_ONLY, Case, Expect, Who
from deploy.campaigns.rpc_fuzz.client import Answer
from deploy.campaigns.rpc_fuzz.upstream import ATTIC_WORDS, HIDDEN_WORDS
from gateway.core.errors import TooLarge
from gateway.core.mcpwire.sse import Decoder

_ESCAPE: Final = re.compile(r"\\u([0-9a-f]{4})")
_UNAVAILABLE: Final = 503
_SERVER_ERRORS: Final = 500
_SUCCESS: Final = range(200, 300)
_EMPTY: Final = frozenset({202, 204})
_MOST_BYTES: Final = 1 << 24
_JSON, _PROBLEM, _STREAM = "application/json", "application/problem+json", "text/event-stream"


class NotWellFormed(Exception):
    """An answer that is none."""


@dataclass(slots=True)
class Judge:
    """Judges answers and remembers what must not be told to others.

    Attributes:
        counts: of statuses, expectations and faults.
        violations: a sentence each.
        calls: whose call it was, by the id that the gateway gave it.
        completed: ids of calls whose result was handed out.
        refused: markers that must have reached no server, with the request's description.
    """

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    calls: dict[str, Who] = field(default_factory=dict)
    completed: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    _sessions: dict[str, Who] = field(default_factory=dict)

    def heard(self, case: Case, answer: Answer) -> str | None:
        """Judge the answer to a request; returns the session that it opened."""
        self.counts["cases"] += 1
        self.counts[f"status {answer.status}"] += 1
        self.counts[f"expected {case.expect}"] += 1
        if case.fault:
            self.counts[f"fault: {case.fault}"] += 1
        if case.expect is Expect.REFUSED:
            self.refused[case.marker] = str(case)
        for wrong in self._wrong(case, answer):
            self.violations.append(f"{wrong}\n    {case}\n    answer {answer.status} {answer.body[:600]!r}")
        return self._opened(case, answer)

    def _opened(self, case: Case, answer: Answer) -> str | None:
        session = answer.field(b"mcp-session-id")
        if session is not None:
            self._sessions[session] = case.who
        call_id = answer.field(b"ostiary-call-id")
        if call_id is not None:
            self.calls[call_id] = case.who
        return session if answer.status in _SUCCESS else None

    def _wrong(self, case: Case, answer: Answer) -> Iterator[str]:
        yield from answer.odd
        if answer.status >= _SERVER_ERRORS and answer.status != _UNAVAILABLE:
            yield f"status {answer.status}"
        if case.leaves is not None and not answer.status:
            return
        if not answer.status or not (answer.whole or answer.streams):
            yield "no whole answer"
            return
        try:
            said = message_in(answer)
        except NotWellFormed as error:
            yield f"not well formed: {error}"
            return
        yield from _foreign(case, answer, self._sessions)
        yield from self._call_id(answer)
        yield from _id(case, said)
        if answer.status != _UNAVAILABLE:
            yield from self._expected(case, answer, said)

    def _call_id(self, answer: Answer) -> Iterator[str]:
        call_id = answer.field(b"ostiary-call-id")
        if call_id is not None and call_id in self.calls:
            yield f"call id {call_id} was given to two requests"

    def _expected(self, case: Case, answer: Answer, said: dict[str, Any]) -> Iterator[str]:
        result = said.get("result") if answer.status in _SUCCESS else None
        is_good = isinstance(result, dict) and result.get("isError") is not True
        call_id = answer.field(b"ostiary-call-id")
        if is_good and call_id is not None:
            self.completed.add(call_id)
        match case.expect:
            case Expect.CARRIED_OUT if not is_good or case.marker.encode() not in answer.body:
                yield "a good call was not carried out"
            case Expect.LISTED if not is_good:
                yield "a good request was refused"
            case Expect.REFUSED if is_good or (answer.status in _SUCCESS and result is None and "error" not in said):
                yield "what must be refused was not"


def message_in(answer: Answer) -> dict[str, Any]:
    """The JSON-RPC answer or the problem in an answer; empty where it has no body and needs none.

    Raises:
        NotWellFormed: it is neither.
    """
    length = answer.field(b"content-length")
    if length is not None and int(length) != len(answer.body):
        raise NotWellFormed(f"content-length {length} of {len(answer.body)} bytes")
    if not answer.body:
        if answer.status not in _EMPTY:
            raise NotWellFormed("no body")
        return {}
    kind = (answer.field(b"content-type") or "").partition(";")[0]
    if kind == _STREAM:
        return _last(answer.body)
    said = _object(answer.body)
    if kind == _PROBLEM:
        if said.get("status") != answer.status or not isinstance(said.get("title"), str):
            raise NotWellFormed("a problem that is none")
        return said
    if kind != _JSON:
        raise NotWellFormed(f"content-type {kind}")
    _check_rpc(said)
    return said


def _last(body: bytes) -> dict[str, Any]:
    try:
        events = list(Decoder(_MOST_BYTES).feed(body))
    except TooLarge:
        raise NotWellFormed("an endless event") from None
    said: dict[str, Any] = {}
    for event in events:
        said = _object(event.data)
        if "method" not in said:
            _check_rpc(said)
    return said


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except ValueError as error:
        raise NotWellFormed(f"no JSON: {error}") from None
    if not isinstance(found, dict):
        raise NotWellFormed("no object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key twice")
    return members


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _check_rpc(said: dict[str, Any]) -> None:
    if said.get("jsonrpc") != "2.0" or not said.keys() <= {"jsonrpc", "id", "result", "error"}:
        raise NotWellFormed("no JSON-RPC answer")
    if ("result" in said) == ("error" in said):
        raise NotWellFormed("a JSON-RPC answer has one of result and error")
    identified = isinstance(said.get("id"), str | int) and not isinstance(said.get("id"), bool)
    if "result" in said and not (identified and isinstance(said["result"], dict)):
        raise NotWellFormed("a result needs an id and is an object")
    if "error" in said:
        if said.get("id") is not None and not identified:
            raise NotWellFormed("an id is a string or an integer")
        error = said["error"]
        if not isinstance(error, dict) or type(error.get("code")) is not int or type(error.get("message")) is not str:
            raise NotWellFormed("an error has a code and a message")


def _id(case: Case, said: dict[str, Any]) -> Iterator[str]:
    given = said.get("id")
    if given is None or "jsonrpc" not in said:
        if case.expect in {Expect.CARRIED_OUT, Expect.LISTED}:
            yield "the answer has no id"
    elif case.id is not None and json.loads(case.id) != given:
        yield f"the answer is to {given!r}"


def _plain(body: bytes) -> str:
    """A request's text, with the letters that it spells as escapes."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), body.decode("utf-8", "replace"))


def _foreign(case: Case, answer: Answer, sessions: dict[str, Who]) -> Iterator[str]:
    text = answer.body.decode("utf-8", "replace")
    own = {case.marker, *(found[0] for found in MARKER.finditer(_plain(case.body)))}
    for found in MARKER.finditer(text):
        if found[0] not in own:
            yield f"the answer holds {found[0]}, which its request does not"
    may_see = MAY_CALL.get(case.who, frozenset()) | SEES_ONLY.get(case.who, frozenset())
    if HIDDEN_WORDS in text or (ATTIC_WORDS in text and not any(tool.startswith("attic.") for tool in may_see)):
        yield "the answer describes a tool that its caller may not know of"
    given = answer.field(b"mcp-session-id")
    if given is not None and given in sessions:
        yield "the answer hands out a session that was handed out before"

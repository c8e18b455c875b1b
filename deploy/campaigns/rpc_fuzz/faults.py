"""One thing wrong with a good request, each such that it must be refused and must reach no server."""

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from deploy.campaigns.rpc_fuzz.case import Case, Expect, Who
from deploy.campaigns.rpc_fuzz.grammar import ENDPOINTS, Draft

Fault = Callable[[Draft, random.Random], Case | None]
# Half a megabyte each: these are tried less often.
_HEAVY: Final = frozenset({"too long", "too many parts"})
_SPARED: Final = 0.7
# Faults that only a call with parameter headers can have: such a call has one of them this often.
_OF_PARAMETERS: Final = 0.6
_TOO_LONG: Final = 512 * 1024 + 1
_BIRCH_MAY_NOT: Final = ("box.put", "attic.look", "attic.put")
_NOBODY_MAY: Final = ("box.secret", "box.blocked", "box.pay", "box.nothing", "nowhere.look")


def _header(name: bytes, *values: bytes) -> Fault:
    """A header that says something else than the body, or is missing (no value), or came twice."""

    def fault(draft: Draft, _: random.Random) -> Case | None:
        case = draft.sealed()
        if not draft.stateless or not any(key == name for key, _ in case.headers):
            return None
        case.set(name, None)
        case.headers += [(name, value) for value in values]
        return case

    return fault


def _doubled(name: bytes, *, stateless: bool = False) -> Fault:
    def fault(draft: Draft, _: random.Random) -> Case | None:
        case = draft.sealed()
        mine = [pair for pair in case.headers if pair[0] == name]
        if not mine or (stateless and not draft.stateless):
            return None
        case.headers += mine
        return case

    return fault


def _added(name: bytes, value: bytes) -> Fault:
    def fault(draft: Draft, _: random.Random) -> Case | None:
        case = draft.sealed()
        case.set(name, value)
        return case

    return fault


def _member(name: str, *values: Any) -> Fault:
    """A member of the message replaced by something it may not be."""

    def fault(draft: Draft, chance: random.Random) -> Case | None:
        draft.message[name] = chance.choice(values)
        draft.case.id = None if name == "id" else draft.case.id
        return draft.sealed()

    return fault


def _without(name: str) -> Fault:
    def fault(draft: Draft, _: random.Random) -> Case | None:
        if name == "id" and not draft.tool:
            return None  # a notification of a method that calls nothing is no fault
        del draft.message[name]
        return draft.sealed()

    return fault


def _meta(**changed: Any) -> Fault:
    """A stateless request that does not describe itself."""

    def fault(draft: Draft, _: random.Random) -> Case | None:
        if not draft.stateless:
            return None
        meta = draft.message["params"]["_meta"]
        for name, value in changed.items():
            key = f"io.modelcontextprotocol/{name}"
            if value is None:
                meta.pop(key)
            else:
                meta[key] = value
        return draft.sealed()

    return fault


def _text(change: Callable[[bytes], bytes]) -> Fault:
    """A body that is no message; ``change`` gets the good one."""

    def fault(draft: Draft, _: random.Random) -> Case | None:
        case = draft.sealed()
        case.body = change(case.body)
        return case

    return fault


def _argument(text: str) -> Fault:
    """An argument that is no JSON of ours; the call's other arguments stay."""

    def fault(draft: Draft, _: random.Random) -> Case | None:
        if not draft.tool:
            return None
        case = draft.sealed()
        place = f'"marker": "{case.marker}"'.encode()
        case.body = case.body.replace(place, place + b", " + text.encode(), 1)
        return case

    return fault


def _arguments(*values: Any) -> Fault:
    def fault(draft: Draft, chance: random.Random) -> Case | None:
        if not draft.tool:
            return None
        draft.message["params"]["arguments"] = chance.choice(values)
        return draft.sealed()

    return fault


def _tool(*names: str) -> Fault:
    """A call of a tool that this caller may not call."""

    def fault(draft: Draft, chance: random.Random) -> Case | None:
        if not draft.tool or draft.message["method"] != "tools/call":
            return None
        server, _, name = chance.choice(names).partition(".")
        if ENDPOINTS[draft.case.path] not in {None, server}:
            return None
        said = name if ENDPOINTS[draft.case.path] else f"{server}__{name}"
        draft.message["params"]["name"] = said
        if draft.stateless:
            draft.case.set(b"mcp-name", said.encode())
        return draft.sealed()

    return fault


def _not_birch(draft: Draft, chance: random.Random) -> Case | None:
    return _tool(*_BIRCH_MAY_NOT)(draft, chance) if draft.case.who is Who.BIRCH else None


def _credential(who: Who) -> Fault:
    def fault(draft: Draft, _: random.Random) -> Case | None:
        draft.case.who = who
        return draft.sealed()

    return fault


def _resumed(draft: Draft, chance: random.Random) -> Case | None:
    """A state that this gateway never sealed."""
    if not draft.tool or not draft.stateless:
        return None
    draft.message["params"]["requestState"] = chance.choice(("", "AEAD", "e30=", "x" * 4000))
    draft.message["params"]["inputResponses"] = {"q": {"action": "accept", "content": {}}}
    return draft.sealed()


def _latin(draft: Draft, _: random.Random) -> Case | None:
    """A value that one reader takes for that of the body: what is not ASCII must be wrapped."""
    if draft.tool != "box.region" or not draft.stateless:
        return None
    draft.message["params"]["arguments"]["region"] = "\xe9"
    draft.case.set(b"mcp-param-region", b"\xe9")
    return draft.sealed()


def _verb(verb: str) -> Fault:
    def fault(draft: Draft, chance: random.Random) -> Case | None:
        draft.case.verb = verb
        draft.case.id = None
        draft.case.set(b"mcp-session-id", None)
        draft.case.set(b"last-event-id", chance.choice((b"1", b"0/0", b"a" * 40)))
        return draft.sealed()

    return fault


FAULTS: Final[Mapping[str, Fault]] = {
    "method header differs": _header(b"mcp-method", b"tools/list2"),
    "method header missing": _header(b"mcp-method"),
    "method header twice": _doubled(b"mcp-method"),
    "name header differs": _header(b"mcp-name", b"box__loop"),
    "name header missing": _header(b"mcp-name"),
    "name header twice": _doubled(b"mcp-name"),
    "name header malformed": _header(b"mcp-name", b"=?base64?!?="),
    "version header differs": _header(b"mcp-protocol-version", b"2025-11-25"),
    "version header unknown": _header(b"mcp-protocol-version", b"1999-01-01"),
    "version header missing": _header(b"mcp-protocol-version"),
    "version header twice": _doubled(b"mcp-protocol-version"),
    "param header differs": _header(b"mcp-param-region", b"us"),
    "param header missing": _header(b"mcp-param-region"),
    "param header twice": _doubled(b"mcp-param-region"),
    "number header differs": _header(b"mcp-param-level", b"1000"),
    "number header is none": _header(b"mcp-param-level", b"1_0", b"ten"),
    "raw bytes in a header": _header(b"mcp-param-region", "日本".encode()),
    "meta without version": _meta(protocolVersion=None),
    "meta without capabilities": _meta(clientCapabilities=None),
    "meta of an unknown version": _meta(protocolVersion="2031-01-01"),
    "meta of another type": _meta(clientCapabilities=[], protocolVersion=5),
    "raw latin-1 in a header": _latin,
    "session twice": _doubled(b"mcp-session-id"),
    "foreign host": _added(b"host", b"evil.test"),
    "host twice": _doubled(b"host"),
    "foreign origin": _added(b"origin", b"http://evil.test"),
    "null origin": _added(b"origin", b"null"),
    "another media type": _added(b"content-type", b"text/plain"),
    "media type twice": _doubled(b"content-type"),
    "compressed": _added(b"content-encoding", b"gzip"),
    "takes no JSON": _added(b"accept", b"text/html"),
    "two runs": _added(b"ostiary-run", b"\xff"),
    "batch": _text(lambda body: b"[" + body + b"]"),
    "batch of two": _text(lambda body: b"[" + body + b"," + body + b"]"),
    "cut short": _text(lambda body: body[:-1]),
    "two documents": _text(lambda body: body + body),
    "a byte before": _text(lambda body: b"\xef\xbb\xbf" + body),
    "not UTF-8": _text(lambda body: body.replace(b'"2.0"', b'"2.0\xff"', 1)),
    "too long": _text(lambda body: body + b" " * _TOO_LONG),
    "empty": _text(lambda _: b""),
    "too many parts": _text(lambda body: body[:-1] + b', "x": [' + b"0," * 40_000 + b"0]}"),
    "version of JSON-RPC": _member("jsonrpc", "1.0", 2.0, None, ["2.0"]),
    "id of another type": _member("id", None, 1.5, [], {}, 2**60),
    "no id": _without("id"),
    "no method": _without("method"),
    "method of another type": _member("method", None, 5, "", ["tools/call"]),
    "no such method": _member("method", "tools/nothing", "Tools/Call", "tools/call\u0000", "__init__"),
    "params of another type": _member("params", None, [], "x", 5),
    "result besides": _member("result", {}, None),
    "a key twice": _argument('"marker": "x"'),
    "keys that differ in case": _argument('"Marker": "x"'),
    "a key twice, deep": _argument('"k": [{"a": 1, "a": 2}]'),
    "nested too deep": _argument(f'"k": {"[" * 90}{"]" * 90}'),
    "nested far too deep": _argument(f'"k": {"[" * 30_000}{"]" * 30_000}'),
    "not a number": _argument('"k": NaN'),
    "number out of range": _argument('"k": 1e999'),
    "number beyond 2^53": _argument('"k": 123456789012345678901234567890'),
    "a NUL": _argument('"k": "\\u0000"'),
    "lone surrogate": _argument('"k": "\\ud800"'),
    "arguments of another type": _arguments([], "x", 5, 1.5),
    "a tool nobody may call": _tool(*_NOBODY_MAY),
    "a tool another may call": _not_birch,
    "no credential": _credential(Who.NOBODY),
    "forged credential": _credential(Who.FORGED),
    "credential without scope": _credential(Who.SCOPELESS),
    "state never sealed": _resumed,
    "stream resumed": _verb("GET"),
    "other verb": _verb("PUT"),
    "options": _verb("OPTIONS"),
}
# A session that is not this caller's at this endpoint.
SESSION_FAULTS: Final = ("another's session", "session of another endpoint", "ended session", "made-up session")


def broken(draft: Draft, chance: random.Random) -> Case:
    """``draft`` with one fault that fits it."""
    names = list(FAULTS)
    if draft.stateless and draft.tool == "box.region" and chance.random() < _OF_PARAMETERS:
        names = [name for name in names if name.startswith(("param ", "number header", "raw "))]
    while True:
        name = chance.choice(names)
        if name in _HEAVY and chance.random() < _SPARED:
            continue
        made = FAULTS[name](draft, chance)
        if made is not None:
            return _blamed(made, name)
        names.remove(name)


def misplaced(draft: Draft, name: str, *, noted: bool) -> Case:
    """``draft``, in a session that it may not use; ``noted`` makes a notification of it."""
    if noted:
        draft.message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        draft.case.id = None
    return _blamed(draft.sealed(), name)


def _blamed(case: Case, name: str) -> Case:
    case.expect, case.fault = Expect.REFUSED, name
    return case

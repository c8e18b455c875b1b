"""Requests changed at random: bytes, message, header fields, path. Nothing is known of their answers."""

import random
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Final

from deploy.campaigns.rpc_fuzz.case import Case, Expect, Header, Who
from deploy.campaigns.rpc_fuzz.grammar import ENDPOINTS, HANDSHAKES, STATELESS, Draft, Grammar

_BYTES: Final = b'{}[]":,\\\x00\xff\x7f\n 019-e.tfn\xc3\xe2'
_METHODS: Final = (
    *("initialize", "ping", "tools/list", "tools/call", "prompts/list", "prompts/get", "server/discover"),
    *("resources/list", "resources/read", "resources/templates/list", "resources/subscribe", "completion/complete"),
    *("logging/setLevel", "subscriptions/listen", "notifications/initialized", "notifications/cancelled"),
    *("notifications/progress", "sampling/createMessage", "elicitation/create", "roots/list", "tasks/get", ""),
)
_NAMES: Final = (
    *("look", "put", "region", "secret", "blocked", "pay", "greet", "box__look", "attic__look", "box__secret"),
    *("box.look", "prompts/greet", "box__prompts/greet", "__", "box__", "__look", ".", "..", "gateway__wait_approval"),
    *("x" * 300, "look\u0000", "look\n", "\u202elook", "🙂"),
)
_FIELDS: Final = (
    *(b"mcp-protocol-version", b"mcp-session-id", b"mcp-method", b"mcp-name", b"mcp-param-region", b"mcp-param-level"),
    *(b"accept", b"content-type", b"content-length", b"content-encoding", b"origin", b"host", b"ostiary-run"),
    *(b"last-event-id", b"idempotency-key", b"x-forwarded-host", b"transfer-encoding", b"expect", b"cookie"),
)
_VALUES: Final = (
    *(b"", b" ", b"0", b"-1", b"99999999999999999999", b"null", b"*/*", b"tools/call", b"look", b"box__look"),
    *(STATELESS.encode(), *(version.encode() for version in HANDSHAKES), b"1999-01-01", b"=?base64??=", b"\xff\xfe"),
    *(b"=?base64?YQ==?=", b"text/event-stream", b"application/json; charset=utf-16", b"http://127.0.0.1", b"a" * 9000),
)
_PATHS: Final = (
    *(*ENDPOINTS, "/mcp/", "//mcp", "/MCP", "/servers//mcp", "/servers/box/../attic/mcp", "/servers/box/mcp/mcp"),
    *(
        "/servers/box%2f/mcp",
        "/servers/nothing/mcp",
        "/servers/\x00/mcp",
        "/servers/bücher/mcp",
        "/servers/gateway/mcp",
    ),
)
_VERBS: Final = ("POST",) * 6 + ("GET", "HEAD", "PATCH", "post", "")
# How often the message is changed, and not its bytes alone.
_TREES: Final = 0.6
Mutation = Callable[["Mutator", Case], None]


class Mutator:
    """Mutates requests of one conversation."""

    def __init__(self, grammar: Grammar) -> None:
        """Values come from the grammar; ``chance`` is its."""
        self.grammar = grammar
        self.chance: random.Random = grammar.chance
        self._seen: dict[Who, list[Any]] = {who: [] for who in Who}

    def mutate(self, draft: Draft) -> Case:
        """The draft, changed one to three times."""
        if self.chance.random() < _TREES:
            for _ in range(self.chance.randrange(1, 3)):
                self._tree(draft)
        case = draft.sealed()
        self._seen[case.who].append(deepcopy(draft.message))
        case.expect, case.id, case.fault = Expect.ANY, None, "mutated"
        for _ in range(self.chance.randrange(3)):
            self.chance.choice(_MUTATIONS)(self, case)
        return case

    def _tree(self, draft: Draft) -> None:
        match self.chance.randrange(6):
            case 0:
                draft.message["method"] = self.chance.choice(_METHODS)
            case 1 if isinstance(draft.message.get("params"), dict):
                draft.message["params"]["name"] = self.chance.choice(_NAMES)
            case 2 if seen := self._seen[draft.case.who]:
                self._splice(draft.message, self.chance.choice(seen))
            case 3:
                draft.message["params"] = self.grammar.value(3)
            case _:
                self._splice(draft.message, self.grammar.value())

    def _splice(self, message: dict[str, Any], value: Any) -> None:
        """Put ``value`` somewhere into the message."""
        places = list(_places(message))
        if not places:
            return
        place, key = self.chance.choice(places)
        value = deepcopy(value)
        match self.chance.randrange(3):
            case 0:
                del place[key]
            case 1 if isinstance(place, dict):
                place[self.chance.choice((*place, "cursor", "_meta", "requestState", "task", "uri", "\u0000"))] = value
            case _:
                place[key] = value

    def bytes_of(self, case: Case) -> None:
        """Change, add, take away or repeat some bytes of the body."""
        body, chance = bytearray(case.body), self.chance
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(body) + 1)
            end = min(len(body), at + chance.choice((1, 1, 1, 4, 30)))
            match chance.randrange(4):
                case 0:
                    body[at:end] = bytes(chance.choice(_BYTES) for _ in range(end - at))
                case 1:
                    body[at:at] = bytes(chance.choice(_BYTES) for _ in range(chance.randrange(4)))
                case 2:
                    del body[at:end]
                case _:
                    body[at:at] = body[at:end]
        case.body = bytes(body)

    def field_of(self, case: Case) -> None:
        """Change, add, repeat or take away a header field."""
        name = self.chance.choice(_FIELDS)
        mine = [pair for pair in case.headers if pair[0] == name]
        match self.chance.randrange(4):
            case 0 if mine:
                case.headers += mine
            case 1:
                case.set(name, None)
            case 2:
                case.headers.append((name, self.chance.choice(_VALUES)))
            case _:
                case.set(name, self.chance.choice(_VALUES))
        self._shuffle(case.headers)

    def place_of(self, case: Case) -> None:
        """Another path or HTTP method."""
        case.path = self.chance.choice(_PATHS)
        case.verb = self.chance.choice(_VERBS)

    def cuts_of(self, case: Case) -> None:
        """Send the body in pieces."""
        size = len(case.body) + 1
        case.cuts = tuple(self.chance.randrange(size) for _ in range(self.chance.randrange(1, 5)))

    def leave_of(self, case: Case) -> None:
        """Leave before the request is whole, or before it is answered."""
        self.cuts_of(case)
        case.leaves = self.chance.randrange(4)

    def escapes_of(self, case: Case) -> None:
        """Spell some letters as escapes: another text of the same message."""
        letters = self.chance.choice(("abc", "look", "method", "/", "-_"))
        escaped = "".join(f"\\u{ord(c):04x}" if c in letters else c for c in case.body.decode("utf-8", "replace"))
        case.body = escaped.encode("utf-8", "surrogatepass")

    def _shuffle(self, headers: list[Header]) -> None:
        if self.chance.choice((True, False)):
            self.chance.shuffle(headers)


_MUTATIONS: Final[Sequence[Mutation]] = (
    Mutator.bytes_of,
    Mutator.bytes_of,
    Mutator.field_of,
    Mutator.field_of,
    Mutator.place_of,
    Mutator.cuts_of,
    Mutator.leave_of,
    Mutator.escapes_of,
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree: container and key."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])

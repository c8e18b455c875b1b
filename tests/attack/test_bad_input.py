"""Bad input on the wire of a real gateway, at every surface: a clear error, nothing executed, one record."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.adapters.clock import SystemClock
from gateway.adapters.identity import Grant, LocalIssuer, Trust, load_key
from tests.clock import StepClock
from tests.e2e.house import House
from tests.edge_world import META, NEWEST
from tests.gateways import types, until

JSON = {"content-type": "application/json"}
TOOLS = ("erp.add_note", "api.make")
PARSE, REQUEST, PARAMS = -32700, -32600, -32602
ID = 7


@dataclass(frozen=True)
class Bad:
    """Arguments that are refused.

    Attributes:
        arguments: their bytes.
        status: HTTP status of the refusal over REST.
        code: last part of the problem's type there.
        rpc: JSON-RPC error code over MCP; None = an error result with ``code``, which the model reads.
        lost: whether the request's id cannot be known.
    """

    arguments: bytes
    status: int
    code: str
    rpc: int | None = None
    lost: bool = False


def text(member: bytes) -> bytes:
    """Arguments with a good text and one more member."""
    return b'{"text":"Bad",' + member + b"}"


BAD = {
    "malformed JSON": Bad(b'{"text":', 400, "malformed_request", PARSE, lost=True),
    "not UTF-8": Bad(b'{"text":"\xff"}', 400, "malformed_request", PARSE, lost=True),
    "the same key twice": Bad(text(b'"text":"good"'), 400, "malformed_request", PARSE),
    "keys that differ in case": Bad(text(b'"Text":"good"'), 400, "malformed_request", PARSE),
    "the same key twice within": Bad(text(b'"extra":{"a":1,"a":2}'), 400, "malformed_request", PARSE),
    "NaN": Bad(text(b'"number":NaN'), 400, "malformed_request", PARSE),
    "infinity": Bad(text(b'"number":-Infinity'), 400, "malformed_request", PARSE),
    "a number out of range": Bad(text(b'"number":1e999'), 400, "malformed_request", PARSE),
    "NUL": Bad(b'{"text":"Bad\\u0000"}', 400, "malformed_request", PARSE),
    "NUL in a key": Bad(text(b'"\\u0000":1'), 400, "malformed_request", PARSE),
    "a lone surrogate": Bad(b'{"text":"Bad\\ud800"}', 400, "malformed_request", PARSE),
    "too deep": Bad(text(b'"extra":' + b'{"a":' * 70 + b"1" + b"}" * 70), 413, "too_large", REQUEST),
    "a depth bomb": Bad(b"[" * 100_000 + b"]" * 100_000, 413, "too_large", REQUEST, lost=True),
    "5 MiB": Bad(b'{"text":"' + b"x" * (5 << 20) + b'"}', 413, "too_large", REQUEST, lost=True),
    "more than policy reads": Bad(b'{"text":"' + b"x" * 300_000 + b'"}', 413, "too_large"),
    "a list": Bad(b'["Bad"]', 400, "malformed_request", PARAMS),
    "a wrong type": Bad(b'{"text":1}', 422, "invalid_arguments"),
    "a fraction for an integer": Bad(text(b'"number":1.5'), 422, "invalid_arguments"),
    "an unknown argument": Bad(text(b'"colour":"red"'), 422, "invalid_arguments"),
    "a missing argument": Bad(b"{}", 422, "invalid_arguments"),
    "an integer over 2^53": Bad(text(b'"number":9007199254740993'), 422, "invalid_arguments"),
    "an integer under -2^53 within": Bad(text(b'"extra":{"a":[-9007199254740993]}'), 422, "invalid_arguments"),
}

# What the caller may not know of is policy's refusal; what would be the caller's, if it existed, is the catalogue's.
UNKNOWN = {
    "erp.purge_orders": "decision",
    "nowhere.at_all": "decision",
    "erp.no_such_tool": "decision",
    "erp.add_note.x": "decision",
}

Send = Callable[[httpx.Client, str, bytes], httpx.Response]


def rest(client: httpx.Client, tool: str, arguments: bytes) -> httpx.Response:
    """Over REST."""
    return client.post(f"/v1/tools/{tool}/call", content=b'{"arguments":' + arguments + b"}", headers=JSON)


def handshake(client: httpx.Client, tool: str, arguments: bytes) -> httpx.Response:
    """Over MCP of the handshake era, at the aggregate."""
    return client.post("/mcp", content=rpc(tool.replace(".", "__"), arguments), headers=JSON)


def own_endpoint(client: httpx.Client, tool: str, arguments: bytes) -> httpx.Response:
    """Over MCP of the handshake era, at the server's own endpoint."""
    server, _, name = tool.partition(".")
    return client.post(f"/servers/{server}/mcp", content=rpc(name, arguments), headers=JSON)


def stateless(client: httpx.Client, tool: str, arguments: bytes) -> httpx.Response:
    """Over MCP of the stateless era, at the aggregate."""
    name = tool.replace(".", "__")
    said = {"mcp-protocol-version": NEWEST, "mcp-method": "tools/call", "mcp-name": name}
    return client.post("/mcp", content=rpc(name, arguments, META), headers=JSON | said)


def rpc(name: str, arguments: bytes, meta: dict[str, Any] | None = None) -> bytes:
    """A ``tools/call`` with these very argument bytes."""
    head = {"jsonrpc": "2.0", "id": ID, "method": "tools/call"}
    said = json.dumps({"name": name} | ({} if meta is None else {"_meta": meta})).encode()
    return json.dumps(head).encode()[:-1] + b',"params":' + said[:-1] + b',"arguments":' + arguments + b"}}"


SURFACES: dict[str, Send] = {"rest": rest, "2025": handshake, "2025 own": own_endpoint, "2026": stateless}


@contextlib.contextmanager
def nothing_happens(house: House) -> Iterator[None]:
    """Neither the database nor the HTTP API sees anything meanwhile."""

    def world() -> tuple[Any, ...]:
        return house.rows("SELECT count(*) FROM notes"), house.rows("PRAGMA data_version"), len(house.api.journal())

    before = world()
    yield
    assert world() == before


@pytest.fixture(scope="module")
def token(house: House) -> str:
    """The token of an agent that may use the tools."""
    said = house.gateway.token(agent="careless")
    # Its first call starts the run, and shows that good arguments would have passed.
    for tool in TOOLS:
        assert house.gateway.call(said, tool, {"text": "Good"}).status_code == 200
    return said


@pytest.mark.requirement("CLEAN-1", "CLEAN-2", "TEST-5")
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(house: House, token: str, case: str, surface: str) -> None:
    """Each kind is refused with its own status and code, reaches nothing, and leaves one record."""
    bad, size = BAD[case], house.gateway.size()
    with nothing_happens(house), house.gateway.client(token) as client:
        answers = [SURFACES[surface](client, tool, bad.arguments) for tool in TOOLS]
    assert types(house.gateway.records(after=size - 1)) == ["request.refused"] * len(TOOLS)
    for answer in answers:
        document = answer.json()
        if surface == "rest":
            assert (answer.status_code, document["type"]) == (bad.status, f"urn:ostiary:problem:{bad.code}")
            assert document["detail"]
        elif bad.rpc is None:
            assert answer.status_code == 200
            assert document["result"]["isError"] is True
            assert json.loads(document["result"]["content"][0]["text"])["error"] == bad.code
        else:
            status = bad.status if bad.lost else 400 if surface == "2026" else 200
            assert (answer.status_code, document["error"]["code"]) == (status, bad.rpc)
            assert document["id"] == (None if bad.lost else ID)
        assert answer.headers["ostiary-call-id"]


@pytest.mark.requirement("CLEAN-2")
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(("tool", "record"), UNKNOWN.items())
def test_an_unknown_tool(house: House, token: str, tool: str, record: str, surface: str) -> None:
    """A tool that does not exist and one that is hidden get the same words, reach nothing, and leave one record."""
    size = house.gateway.size()
    with nothing_happens(house), house.gateway.client(token) as client:
        answer = SURFACES[surface](client, tool, b"{}")
    if surface == "rest":
        assert (answer.status_code, answer.json()["detail"]) == (404, "no such tool")
        assert answer.json().keys() == {"type", "title", "status", "detail", "call_id"}
    else:
        assert (answer.json()["error"]["code"], answer.json()["error"]["message"]) == (PARAMS, "no such tool")
    assert types(house.gateway.records(after=size - 1)) == [record]


def strangers(house: House) -> dict[str, str | None]:
    """Tokens that are not good, by what is wrong with them."""
    trust = Trust("urn:ostiary:local", frozenset({"ostiary"}))
    key = load_key(house.gateway.state / "keys" / "issuer.pem")
    grant = Grant("dora", "careless", groups=frozenset({"desk"}))

    def issued(clock: SystemClock | StepClock, trust: Trust, key: Ed25519PrivateKey) -> str:
        issuer = LocalIssuer(clock, trust, key)
        return issuer.issue(issuer.principal(grant))

    good = issued(SystemClock(), trust, key)
    return {
        "missing": None,
        "malformed": "no-token-at-all",
        "expired": issued(StepClock(), trust, key),
        "forged": issued(SystemClock(), trust, Ed25519PrivateKey.generate()),
        "altered": good[:-6] + ("A" if good[-6] != "A" else "B") + good[-5:],
        "other audience": issued(SystemClock(), Trust(trust.issuer, frozenset({"elsewhere"})), key),
        "other issuer": issued(SystemClock(), Trust("urn:other", trust.audiences), key),
    }


@pytest.mark.requirement("CLEAN-2", "TEST-5")
@pytest.mark.parametrize("surface", SURFACES)
def test_a_token_that_is_not_good(house: House, surface: str) -> None:
    """401 with a challenge for each kind, counted by its cause, not recorded, whatever else is in the request."""
    size, counted = house.gateway.size(), unauthenticated(house)
    tokens, bodies = strangers(house), cycle((b'{"text":"Good"}', b'{"text":'))
    for token in tokens.values():
        with nothing_happens(house), house.gateway.client(token) as client:
            answer = until_not_throttled(partial(SURFACES[surface], client, TOOLS[0], next(bodies)))
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Bearer realm="ostiary"')
    assert house.gateway.size() == size
    assert unauthenticated(house) >= counted + len(tokens)


def until_not_throttled(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer once there is room for strangers: all tests come from one address."""

    def admitted() -> httpx.Response | None:
        answer = send()
        return None if answer.status_code == 429 else answer

    found = until(admitted)
    assert found is not None
    return found


def unauthenticated(house: House) -> int:
    """How many requests without a good credential were counted."""
    lines = house.gateway.http.get("/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("ostiary_unauthenticated_total"))


@pytest.mark.requirement("CLEAN-2", "TEST-5")
def test_a_flood_of_strangers_is_counted_and_leaves_nothing(house: House) -> None:
    """2,000 requests without a good token: each is counted; the log has no record and the state folder no byte more."""
    forged, arguments = strangers(house)["forged"], b'{"text":"Good"}'
    files = [path for path in house.gateway.state.rglob("*") if path.is_file()]
    size, counted, bytes_used = house.gateway.size(), unauthenticated(house), sum(path.stat().st_size for path in files)
    with nothing_happens(house):
        for token in (None, forged):
            with house.gateway.client(token) as client:
                for number in range(1000):
                    answer = (rest if number % 2 else handshake)(client, TOOLS[0], arguments)
                    assert answer.status_code in {401, 429}
    assert unauthenticated(house) == counted + 2000
    assert house.gateway.size() == size
    assert sum(path.stat().st_size for path in files) == bytes_used
    assert [path for path in house.gateway.state.rglob("*") if path.is_file()] == files


def test_an_open_door_after_the_flood(house: House, token: str) -> None:
    """Who was good before is served at once; who is new gets in as soon as the strangers' bucket has a token."""
    assert house.gateway.call(token, "api.thing", {"id": "1"}).status_code == 200
    fresh = house.gateway.token(agent="newcomer")
    answer = until_not_throttled(lambda: house.gateway.call(fresh, "api.thing", {"id": "1"}))
    assert answer.status_code == 200

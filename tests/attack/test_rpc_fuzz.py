"""Whatever is sent to the MCP endpoints: well-formed answers, no fault of the gateway's own, no ungoverned call.

The first five thousand cases of the campaign, on the real parts; ``make campaign NAME=rpc-fuzz`` is all of it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.campaigns.rpc_fuzz.answers import Judge
from deploy.campaigns.rpc_fuzz.author import Author
from deploy.campaigns.rpc_fuzz.campaign import Options, Tally, conducted
from deploy.campaigns.rpc_fuzz.case import Case, Expect, Who
from deploy.campaigns.rpc_fuzz.client import Answer
from deploy.campaigns.rpc_fuzz.invariant import Record, violations
from deploy.campaigns.rpc_fuzz.upstream import Received
from deploy.campaigns.rpc_fuzz.world import Breakage
from gateway.core.call import Call, Principal, Redacted, Verified
from gateway.core.canonical import Json
from gateway.core.mcpwire import jsonrpc
from gateway.core.ports import AuditLog, Catalog, Identity, PolicyEngine, Ports, Redactor
from gateway.edge.mcp import eras
from gateway.edge.mcp.session import Session, Sessions
from tests.fixtures.broken_doors import Audit, EarlyEntry, Shell, Twice, Yes
from tests.tiers import tiered

FEW = 1200


@pytest.mark.requirement("CLEAN-2", "TEST-5")
async def test_five_thousand_hostile_requests() -> None:
    """Nothing is found in them, and every kind of fault was among them."""
    tally = await conducted(Options(seed=1, cases=5000))
    assert tally.violations == []
    assert tally.hollow() == []
    assert tally.counts["received"] > 500


@dataclass
class Other(Shell):
    """An identity that takes one agent for the other once in a while."""

    seen: int = 0

    async def authenticate(self, call: Call) -> Principal:
        """Confuse them inside the pipeline, where the call has a tool."""
        principal: Principal = await self.inner.authenticate(call)
        self.seen += bool(call.tool)
        swapped = call.tool and self.seen % 5 == 0 and principal.agent == Who.BIRCH
        return replace(principal, user="ann", agent=Who.AMBER.value) if swapped else principal


@dataclass
class Stumbling(Shell):
    """A redactor that fails on some outputs."""

    async def redact(self, verified: Verified) -> Redacted:
        """Fail where a 7 is in it."""
        if b"7" in verified.raw.body:
            raise ZeroDivisionError
        redacted: Redacted = await self.inner.redact(verified)
        return redacted


@dataclass
class Altered:
    """An application whose answers are changed by ``change``, which sees the one before, too."""

    app: ASGIApp
    change: Callable[[bytes, bytes], bytes]
    last: bytes = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer otherwise."""
        started: list[Message] = []

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.append(message)
                return
            body = message.get("body", b"")
            found = self.change(body, self.last)
            if b'"result"' in body:
                self.last = body
            kept = [pair for pair in started[0]["headers"] if pair[0] != b"content-length"]
            await send(dict(started[0]) | {"headers": [*kept, (b"content-length", str(len(found)).encode())]})
            await send(dict(message) | {"body": found})

        await self.app(scope, receive, changed)


def mixed(body: bytes, last: bytes) -> bytes:
    """The answer before, where both are results."""
    return last if last and b'"content"' in body and b'"content"' in last else body


def behind(change: Callable[[bytes, bytes], bytes]) -> Breakage:
    """A gateway behind something that changes its answers."""
    return Breakage(app=lambda app: Altered(app, change))


def early(ports: Ports) -> Ports:
    """Ports whose log acknowledges an intent before it is durable."""
    return replace(ports, audit=cast("AuditLog", Audit(ports.audit, EarlyEntry)))


BROKEN: dict[str, tuple[Breakage, str]] = {
    "invokes twice": (
        Breakage(lambda ports: replace(ports, catalog=cast("Catalog", Twice(ports.catalog)))),
        "without an earlier durable intent of its own",
    ),
    "acknowledges before the commit": (Breakage(early), "without an earlier durable intent of its own"),
    "allows everything": (
        Breakage(lambda ports: replace(ports, policy=cast("PolicyEngine", Yes(ports.policy)))),
        "the answer describes a tool that its caller may not know of",
    ),
    "takes one for the other": (
        Breakage(lambda ports: replace(ports, identity=cast("Identity", Other(ports.identity)))),
        "was sent by birch and is recorded as one of amber",
    ),
    "fails unexpectedly": (
        Breakage(lambda ports: replace(ports, redactor=cast("Redactor", Stumbling(ports.redactor)))),
        "a good call was not carried out",
    ),
    "answers with another's answer": (behind(mixed), "which its request does not"),
    "answers under another id": (
        behind(lambda body, _: body.replace(b'"id":"a"', b'"id":"b"')),
        "the answer is to 'b'",
    ),
    "answers with no JSON": (behind(lambda body, _: body.replace(b'"error":', b'"error":,')), "not well formed"),
}


async def found_out(breakage: Breakage) -> Sequence[str]:
    """What the campaign finds with a gateway that is broken on purpose."""
    tally = await conducted(Options(seed=3, cases=FEW, breakage=breakage, until_violated=True))
    return tally.violations


@pytest.mark.parametrize("name", tiered(["invokes twice", "answers with another's answer"], deep=BROKEN))
async def test_a_gateway_that_breaks_a_promise_is_found_out(name: str) -> None:
    """Each is reported by its own rule, with the request that showed it where there is one."""
    breakage, words = BROKEN[name]
    found = await found_out(breakage)
    assert any(words in one for one in found), found


def lenient(body: bytes) -> jsonrpc.Message:
    """A parser that takes the last of two keys."""
    value = json.loads(body)
    return jsonrpc.message(Json(value, value))


def anybodys(sessions: Sessions, session_id: str, owner: str, server: str | None) -> Session:
    """A session table that does not ask whose a session is."""
    return sessions._all.get(session_id) or sessions.open(owner, server, {})


@pytest.mark.parametrize(
    ("place", "name", "other", "fault"),
    [
        (eras, "_check_headers", lambda *_: None, "header"),
        (jsonrpc, "parse", lenient, "a key twice"),
        (Sessions, "find", anybodys, "session"),
    ],
    ids=["headers are not compared", "keys may come twice", "sessions are anybody's"],
)
async def test_an_edge_that_lets_a_fault_pass_is_found_out(
    place: Any, name: str, other: Any, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What must be refused and was not is named with its fault."""
    monkeypatch.setattr(place, name, other)
    found = await found_out(Breakage())
    assert any("must be refused" in one and fault in one for one in found), found


CASE = Case("0/0/0", Who.AMBER, "AMBERMARK-000000000001", expect=Expect.CARRIED_OUT, id=b"1")
GOOD = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"AMBERMARK-000000000001"}]}}'


def told(body: bytes, status: int = 200, kind: bytes = b"application/json", **more: Any) -> Answer:
    """A whole answer with this body."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    return replace(Answer(status, headers, body, whole=True), **more)


ODD: dict[str, tuple[Case, Answer, str]] = {
    "a fault of its own": (CASE, told(GOOD, 500), "status 500"),
    "half an answer": (CASE, told(GOOD, whole=False), "no whole answer"),
    "none at all": (CASE, Answer(odd=["no answer within 60 s"]), "no answer within"),
    "another length": (CASE, told(GOOD, headers=[(b"content-length", b"1")]), "content-length 1"),
    "another type": (CASE, told(GOOD, kind=b"text/html"), "content-type text/html"),
    "nothing": (CASE, told(b""), "no body"),
    "a key twice": (CASE, told(GOOD.replace(b'"id":1', b'"id":1,"id":1')), "a key twice"),
    "no number": (CASE, told(GOOD.replace(b'"type":"text"', b'"type":NaN')), "no JSON"),
    "no object": (CASE, told(b"[]"), "no object"),
    "result and error": (CASE, told(GOOD[:-1] + b',"error":{}}'), "one of result and error"),
    "no result": (CASE, told(b'{"jsonrpc":"2.0","id":1,"result":5}'), "is an object"),
    "an error without code": (CASE, told(b'{"jsonrpc":"2.0","error":{"message":"x"}}'), "has a code"),
    "an error with a bad id": (CASE, told(b'{"jsonrpc":"2.0","id":true,"error":{}}'), "a string or an integer"),
    "no JSON-RPC": (CASE, told(b'{"id":1,"result":{}}'), "no JSON-RPC answer"),
    "no problem": (CASE, told(b'{"status":404,"title":"x"}', 403, b"application/problem+json"), "a problem that"),
    "no id": (CASE, told(b'{"jsonrpc":"2.0","error":{"code":1,"message":"x"}}'), "the answer has no id"),
    "a refusal": (CASE, told(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}'), "was not carried out"),
    "another marker": (CASE, told(GOOD.replace(b"0001", b"0002")), "AMBERMARK-000000000002"),
    "a hidden tool": (CASE, told(GOOD.replace(b"text", b"words of a tool nobody sees", 1)), "describes a tool"),
    "the attic, to who may not see it": (
        replace(CASE, who=Who.BIRCH),
        told(GOOD.replace(b"text", b"words of the attic", 1)),
        "describes a tool",
    ),
    "an answer that was to be refused": (replace(CASE, expect=Expect.REFUSED), told(GOOD), "must be refused was not"),
    "taken though to be refused": (replace(CASE, expect=Expect.REFUSED), told(b"", 202), "must be refused was not"),
    "a refused listing": (
        replace(CASE, expect=Expect.LISTED),
        told(b'{"jsonrpc":"2.0","id":1,"error":{}}'),
        "has a code",
    ),
    "a stream of no JSON": (CASE, told(b"data: {\n\n", kind=b"text/event-stream"), "no JSON"),
}


@pytest.mark.parametrize("name", ODD)
def test_each_odd_answer_is_named(name: str) -> None:
    """By what is wrong with it, with the request and the answer."""
    case, answer, words = ODD[name]
    judge = Judge()
    judge.heard(case, answer)
    assert any(words in found and str(case) in found for found in judge.violations), judge.violations


def test_good_answers_are_not_accused() -> None:
    """A result, the same in a stream, a refusal, a problem, an accepted notification."""
    judge = Judge()
    refused = replace(CASE, expect=Expect.REFUSED)
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"x"}}'
    problem = b'{"status":403,"title":"x"}'
    note = b'{"jsonrpc":"2.0","method":"notifications/progress"}'
    judge.heard(CASE, told(GOOD))
    judge.heard(CASE, told(b"data: %b\n\ndata: %b\n\n" % (note, GOOD), kind=b"text/event-stream"))
    judge.heard(refused, told(error, 400))
    judge.heard(refused, told(problem, 403, b"application/problem+json"))
    judge.heard(replace(CASE, expect=Expect.ANY), told(b"", 202))
    assert judge.violations == []
    assert judge.counts["expected refused"] == 2


def leaf(kind: str, call: str, **body: Any) -> dict[str, Any]:
    """A record of a call of amber's."""
    return {"type": kind, "call_id": call, "body": body, "actor": {"agent": body.pop("agent", "amber")}}


LOOKED = b'{"marker":"AMBERMARK-000000000001"}'
RECEIVED = Received("box.look", LOOKED, 2)
SOUND = (
    leaf("decision", "c1", effect="allow"),
    leaf("tool.requested", "c1", tool="box.look"),
    leaf("tool.completed", "c1"),
)


@dataclass
class Book:
    """What is known of one short life."""

    leaves: Sequence[dict[str, Any]] = SOUND
    journal: Sequence[Received] = (RECEIVED,)
    judge: Judge = field(default_factory=lambda: Judge(calls={"c1": Who.AMBER}, completed={"c1"}))

    def found(self) -> list[str]:
        """What the judge finds."""
        request = b'{"arguments":%b}' % LOOKED
        rows = [
            Record(n, one, request if one["type"] == "tool.requested" else None) for n, one in enumerate(self.leaves)
        ]
        return violations(iter(rows), self.journal, self.judge)


LOGS: dict[str, tuple[Book, str]] = {
    "received twice": (Book(journal=(RECEIVED, RECEIVED)), "without an earlier durable intent"),
    "received too early": (Book(journal=(Received("box.look", LOOKED, 1),)), "without an earlier durable intent"),
    "other arguments": (Book(journal=(Received("box.look", b"{}", 2),)), "without an earlier durable intent"),
    "another tool": (Book(journal=(Received("box.put", LOOKED, 2),)), "without an earlier durable intent"),
    "no decision": (Book(SOUND[1:]), "no earlier decision allows it"),
    "denied": (Book((leaf("decision", "c1", effect="deny"), *SOUND[1:])), "no earlier decision allows it"),
    "may not": (Book((SOUND[0], leaf("tool.requested", "c1", tool="box.secret"), SOUND[2])), "may not call"),
    "two intents": (Book((*SOUND[:2], *SOUND[1:])), "has two intents"),
    "no ending": (Book(SOUND[:2]), "has 0 endings"),
    "another sender": (Book(judge=Judge(calls={"c1": Who.BIRCH})), "was sent by birch"),
    "nobody's": (Book(judge=Judge(calls={"c1": Who.FORGED})), "was sent by forged"),
    "another's arguments": (
        Book((SOUND[0], leaf("tool.requested", "c1", tool="box.look", agent="birch"), SOUND[2])),
        "under an intent of birch",
    ),
    "answered, not completed": (
        Book((*SOUND[:2], leaf("tool.failed", "c1"))),
        "was answered, and the log says ['tool.failed']",
    ),
    "refused, and received": (Book(judge=Judge(refused={"AMBERMARK-000000000001": "it"})), "what had to be refused"),
}


@pytest.mark.parametrize("name", LOGS)
def test_each_ungoverned_call_is_named(name: str) -> None:
    """By the rule of the invariant that it breaks."""
    book, words = LOGS[name]
    assert any(words in found for found in book.found()), book.found()


def test_a_governed_life_is_not_accused() -> None:
    """One call, decided, recorded, received and answered."""
    assert Book().found() == []


def test_a_seed_makes_the_same_requests_again() -> None:
    """What is sent is the seed's, but for the session ids, which are the gateway's."""
    first, again, other = ([str(case) for case in Author(seed, 7).turn()] for seed in (1, 1, 2))
    assert first == again != other


def test_a_campaign_that_shows_nothing_says_so() -> None:
    """Faults that did not occur, calls that reached nobody and an absent gateway are named."""
    tally = Tally(Options())
    tally.counts |= {"cases": 5000, "status 503": 900, "received": 3}
    found = "\n".join(tally.hollow())
    for words in ("no case with the fault: batch", "3 calls reached", "900 of 5000", "no case expected to be refused"):
        assert words in found
    assert tally.document(1.0)["verdict"] == "failed"

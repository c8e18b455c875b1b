"""What flows while a call is carried out: read from untrusted bytes, wanted, cleaned, and only for its own caller."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import pytest
from anyio import CancelScope
from msgspec import structs

from gateway.core import pipeline
from gateway.core.call import Lease, Live, Raw, Resolved, Verified
from gateway.core.catalog import Catalog
from gateway.core.errors import GatewayError, OutcomeUnknown, Tainted, ToolFailed
from gateway.core.flow import MAX_NOTICE_BYTES, MOST_NOTICES, PARKED, Flow, Wants
from gateway.core.kills import Kind, target
from gateway.core.known import KnownValues
from gateway.core.mcpwire import jsonrpc, notices, sse
from gateway.core.mcpwire.jsonrpc import Notification
from gateway.core.mcpwire.notices import LEVELS, LogMessage, Progress
from gateway.core.redact import Redactor
from tests.at_once import at_once
from tests.evidence import make_call, make_caller, make_intent, make_permit, make_tool
from tests.fakes import World
from tests.fakes.audit import COMPLETED, INTENT
from tests.fakes.callers import AGENT
from tests.fakes.upstream import ORDER, STOCK

ALL = Wants(token="mine", level="debug")


def told(method: str, params: Any) -> Notification:
    """A notification of an upstream, as it is read."""
    text = params if isinstance(params, bytes) else msgspec.json.encode(params)
    message = jsonrpc.read_upstream(b'{"jsonrpc":"2.0","method":"%b","params":%b}' % (method.encode(), text))
    assert isinstance(message, Notification)
    return message


def progress(done: float, **members: Any) -> Progress:
    """A notice of progress."""
    return Progress(done, msgspec.json.encode({"progress": done, **members}))


class Line:
    """A flow and what its caller heard of it."""

    def __init__(self, wants: Wants = ALL) -> None:
        self.heard: list[dict[str, Any]] = []
        self.stops: list[str] = []
        self.fault: Exception | None = None
        self.flow = Flow(wants, self._clean, self.deliver, lambda: self.stops.append("given up"))

    async def say(self, *said: Progress | LogMessage) -> list[dict[str, Any]]:
        """What the caller hears of these notices of a call under way."""
        with self.flow.under_way(lambda: self.stops.append("stopped")):
            for one in said:
                await self.flow.tell(one)
        return self.heard

    def _clean(self, body: bytes) -> tuple[bytes, Mapping[str, int]]:
        if self.fault is not None:
            raise self.fault
        return body.replace(b"hunter22", b"***"), {"words": body.count(b"hunter22")}

    async def deliver(self, message: bytes) -> None:
        """Remember what the caller hears."""
        self.heard.append(msgspec.json.decode(message))


def test_progress_is_of_its_own_request_only() -> None:
    """A notice with another token, of another kind or out of shape is none; members nobody knows are left out."""
    params = {"progressToken": 7, "progress": 1, "total": 3, "message": "m", "_meta": {"x": 1}}
    mine = notices.notice(told(notices.PROGRESS, params), 7)
    assert mine == Progress(1, b'{"progress":1,"total":3,"message":"m"}')
    assert notices.progress_token(told(notices.PROGRESS, params)) == 7
    for odd in ({**params, "progressToken": "7"}, {**params, "progressToken": 8}, {**params, "progress": "1"}, b"[]"):
        assert notices.notice(told(notices.PROGRESS, odd), 7) is None
    assert notices.notice(told("notifications/other", params), 7) is None
    assert notices.progress_token(told("notifications/other", params)) is None
    assert notices.progress_token(told(notices.PROGRESS, b'{"progressToken":true}')) is None


def test_log_messages_are_of_a_known_level() -> None:
    """Level and data are kept, the logger where it is named; a level nobody knows is no message."""
    said = notices.notice(told(notices.MESSAGE, {"level": "info", "data": {"a": [1]}, "logger": "db", "x": 1}), 1)
    assert said == LogMessage("info", b'{"level":"info","logger":"db","data":{"a":[1]}}')
    bare = notices.notice(told(notices.MESSAGE, {"level": "info", "data": None}), 1)
    assert bare == LogMessage("info", b'{"level":"info","data":null}')
    for odd in ({"level": "loud", "data": 1}, {"level": "info"}, {"level": 1, "data": 1}, b"7"):
        assert notices.notice(told(notices.MESSAGE, odd), 1) is None


def test_deep_data_is_no_message() -> None:
    """What is nested beyond reading is dropped, and nothing breaks."""
    deep = b'{"level":"info","data":%b%b}' % (b"[" * 100_000, b"]" * 100_000)
    assert notices.notice(Notification(notices.MESSAGE, told("x", {}).params, deep), 1) is None
    token = b'{"progressToken":1,"progress":1,"x":%b%b}' % (b"[" * 100_000, b"]" * 100_000)
    assert notices.progress_token(Notification(notices.PROGRESS, told("x", {}).params, token)) is None


async def test_progress_goes_under_the_callers_own_token() -> None:
    """Whatever an upstream writes, the token that the caller hears is its own; progress that does not grow is none."""
    heard = await Line().say(progress(1), progress(1), progress(0.5), progress(2, progressToken="theirs"))
    params = [message["params"] for message in heard]
    assert [message["method"] for message in heard] == [notices.PROGRESS] * 2
    assert [said["progress"] for said in params] == [1, 2]
    assert params[0] == {"progressToken": "mine", "progress": 1}


@pytest.mark.parametrize("level", [*LEVELS, None])
async def test_log_messages_from_the_wanted_level_on(level: str | None) -> None:
    """Less severe ones are dropped; who wants none hears none."""
    said = [LogMessage(each, msgspec.json.encode({"level": each, "data": 1})) for each in LEVELS]
    heard = await Line(Wants(level=level)).say(*said)
    wanted = [] if level is None else list(LEVELS[LEVELS.index(level) :])
    assert [message["params"]["level"] for message in heard] == wanted


async def test_who_asked_for_no_progress_hears_none() -> None:
    """Without a token there is nothing to name a notice by."""
    assert await Line(Wants(level="debug")).say(progress(1)) == []


async def test_what_cannot_pass_is_dropped() -> None:
    """A notice that is too long, one too many, or cannot be cleaned; before and after the call nothing passes."""
    line = Line()
    await line.flow.tell(progress(1))
    assert await line.say(progress(2, message="x" * MAX_NOTICE_BYTES)) == []
    await line.flow.tell(progress(3))
    assert line.heard == []
    line.fault = Tainted("no")
    assert await line.say(progress(4)) == []
    line.fault = None
    many = await line.say(*(progress(10 + count) for count in range(MOST_NOTICES + 5)))
    assert len(many) == MOST_NOTICES - 1


async def test_secrets_are_taken_out_and_counted() -> None:
    """What the redactor took out of notices is counted with the call."""
    line = Line()
    (heard,) = await line.say(progress(1, message="it is hunter22"))
    assert heard["params"]["message"] == "it is ***"
    assert line.flow.redacted == {"words": 1}


def test_the_real_redactor_cleans_notices() -> None:
    """Known values, the caller's own token and members that name secrets do not pass."""
    redactor = Redactor(KnownValues(["known-secret-value"]))
    body = b'{"level":"info","data":{"password":"p","m":"known-secret-value","t":"the-callers-token"}}'
    clean, counts = redactor.notice(Live("the-callers-token"), body)
    assert counts == {"known_value": 2, "secret_key": 1}
    assert b"known-secret" not in clean
    assert b"the-callers" not in clean
    assert redactor.notice(Live("x"), b'{"progress":1}') == (b'{"progress":1}', {})


async def test_a_call_is_withdrawn_once_and_only_before_it_is_over() -> None:
    """Before the intent it is given up, after it is stopped, and when it is over nothing happens."""
    early, late, over = Line(), Line(), Line()
    early.flow.withdraw()
    early.flow.withdraw()
    with late.flow.under_way(lambda: late.stops.append("stopped")):
        late.flow.withdraw()
    await over.say()
    over.flow.withdraw()
    assert (early.stops, late.stops, over.stops) == (["given up"], ["stopped"], [])
    assert not over.flow.is_withdrawn


@pytest.mark.parametrize(
    ("tool", "error", "ending"),
    [(STOCK, ToolFailed, "tool.failed"), (ORDER, OutcomeUnknown, "tool.outcome_unknown")],
    ids=["read", "write"],
)
@pytest.mark.parametrize("step", ["broker.lease", "catalog.invoke", "connector.sent"])
async def test_a_withdrawn_call_ends_once(step: str, tool: Any, error: type[GatewayError], ending: str) -> None:
    """Also a write, which nobody's leaving stops: it is broken off, and that its outcome is not known is recorded."""
    world, line = World(), Line()
    call = structs.replace(world.call(tool.fqn), flow=line.flow)
    world.journal.traps[step] = line.flow.withdraw
    with pytest.raises(error) as caught:
        await pipeline.handle(call, world.ports())
    assert caught.value.cause_code == "withdrawn"
    assert world.audit.types(call.id) == [INTENT, ending]
    assert len(world.connector.sent) == (step == "connector.sent")
    assert world.broker.live == 0


@pytest.mark.parametrize(("tool", "error"), [(STOCK, ToolFailed), (ORDER, OutcomeUnknown)], ids=["read", "write"])
async def test_a_call_withdrawn_as_its_intent_became_durable_is_broken_off(
    tool: Any, error: type[GatewayError]
) -> None:
    """Too late to be given up, as nothing is delivered to what waits for nothing; it is not carried out either."""
    world, line = World(), Line()
    call = structs.replace(world.call(tool.fqn), flow=line.flow)
    world.journal.traps["entry.commit"] = line.flow.withdraw
    with pytest.raises(error) as caught:
        await pipeline.handle(call, world.ports())
    assert caught.value.cause_code == "withdrawn"
    assert (line.stops, world.connector.sent) == (["given up"], [])


async def test_a_call_that_is_withdrawn_too_late_is_answered() -> None:
    """Once its completion is durable, or on its way there, the answer stands."""
    world, line = World(), Line()
    call = structs.replace(world.call(ORDER.fqn), flow=line.flow)
    world.journal.traps["limits.returned"] = line.flow.withdraw
    await pipeline.handle(call, world.ports())
    assert world.audit.types(call.id) == [INTENT, COMPLETED]
    assert line.stops == []


async def test_a_killed_call_says_so() -> None:
    """A call that operators stop is not one that its client took back."""
    world, line = World(), Line()
    call = structs.replace(world.call(ORDER.fqn), flow=line.flow)

    def kill() -> None:
        engaged, _ = world.book.engage(AGENT, target(Kind.ALL, ""), "", "a test")
        world.book.heard(engaged)

    world.journal.traps["connector.invoke"] = kill
    with pytest.raises(GatewayError) as caught:
        await pipeline.handle(call, world.ports())
    assert caught.value.cause_code == "kill.all"


async def test_a_call_that_found_no_place_to_wait_was_not_its_clients_to_cancel() -> None:
    """The log does not say of a client what the gateway did."""
    world, line = World(), Line()
    call = structs.replace(world.call(STOCK.fqn), flow=line.flow)
    world.journal.traps["connector.sent"] = partial(line.flow.withdraw, PARKED)
    with pytest.raises(ToolFailed) as caught:
        await pipeline.handle(call, world.ports())
    assert caught.value.cause_code == world.audit.lines[-1].word == "parked"
    assert "cancelled" not in caught.value.detail


async def test_what_was_taken_out_of_notices_is_counted_with_the_result() -> None:
    """The record of what was redacted covers what flowed while the call ran."""
    redactor = Redactor(KnownValues(["known-secret-value"]))
    flow = Flow(ALL, lambda body: redactor.notice(Live("x"), body), Line().deliver, lambda: None)
    said = LogMessage("info", b'{"level":"info","data":"known-secret-value"}')
    with flow.under_way(lambda: None):
        await flow.tell(said)
    intent = make_intent(make_permit(Resolved(make_caller(make_call(flow=flow)), make_tool(), None)))
    body = b'{"content":[{"type":"text","text":"known-secret-value"}]}'
    raw = Raw(Lease(intent), body, msgspec.json.decode(body))
    assert at_once(redactor.redact(Verified(raw))).counts == {"known_value": 2}


def test_line_ends_in_an_answer_do_not_end_an_event() -> None:
    """An upstream's own bytes may hold line ends between their tokens."""
    (event,) = sse.Decoder(100).feed(sse.encode(b'{"a":\n1,\r\n"b":\r2}'))
    assert msgspec.json.decode(event.data) == {"a": 1, "b": 2}


def test_a_cancellation_names_a_request() -> None:
    """By a text or a number; what names none is none."""
    assert notices.cancelled_id(b'{"requestId":"a","reason":"r"}') == "a"
    assert notices.cancelled_id(b'{"requestId":7}') == 7
    for odd in (b"", b"{}", b'{"requestId":true}', b'{"requestId":1.5}', b"[" * 100_000):
        assert notices.cancelled_id(odd) is None


async def test_a_call_tells_its_time_to_its_line() -> None:
    """So that it can stand still while a client is asked."""

    class Timed(Flow):
        def timed(self, scope: CancelScope) -> None:
            deadlines.append(scope.deadline)

    deadlines: list[float] = []
    world, tool = World(), make_tool()
    flow = Timed(ALL, lambda body: (body, {}), Line().deliver, lambda: None)
    intent = make_intent(make_permit(Resolved(make_caller(make_call(tool.fqn, flow=flow)), tool, None)))
    await Catalog({tool.server: world.connector}).invoke(Lease(intent))
    assert len(deadlines) == 1

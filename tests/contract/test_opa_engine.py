"""The OPA backend when OPA is not what it should be: nothing is answered but what the examined bundle says, in time."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.opa import Examination, OpaEngine
from gateway.adapters.opa.wire import MAX_ANSWER_BYTES
from gateway.adapters.rego.probe import PROBES
from gateway.core.bundle import Bundle, BundleError
from gateway.core.errors import Unavailable
from tests.clock import StepClock
from tests.fakes.opa import NOTHING, FakeOpa, Reply, answer, closing, fake_opa, holding, raw, saying, silence
from tests.opa_questions import BUNDLE, DOCUMENT, OTHER, allowed, refused
from tests.policy_engines import PATIENT, decide, engine_at
from tests.rego_demo import RULES, demo, until

GOOD = saying(BUNDLE.revision)
ANOTHER = "OPA serves another policy than the gateway examined"
HELD = holding(*(module.text for module in BUNDLE.modules))


ALLOWING = {**NOTHING, "allow": {"demo": [{"id": "demo.ok", "msg": "ok"}]}}
YES = json.dumps(ALLOWING)


def twice(members: str) -> Reply:
    """An answer with these members beside its provenance, of which some stand there twice."""
    provenance = json.dumps({"version": "1.20.2", "bundles": {"b": {"revision": BUNDLE.revision}}})
    return answer(f'{{{members}, "provenance": {provenance}}}'.encode())


async def nothing_to_examine(_bundle: Bundle) -> None:
    """Every bundle is good."""


def engine(fake: FakeOpa, now: Callable[[], float] = time.monotonic, **changed: Any) -> OpaEngine:
    """The engine before the fake."""
    settings = replace(PATIENT, url=fake.url, **changed)
    return OpaEngine(BUNDLE, settings, Examination(nothing_to_examine, PROBES[0]), now)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (raw(b"\xff" * 64), "cannot be reached"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), "cannot be reached"),
        (closing, "cannot be reached"),
        (answer(b""), "cannot be read"),
        (answer(b"{"), "cannot be read"),
        (answer(b"[" * 5000), "cannot be read"),
        (answer(b'{"result": "\xff"}'), "cannot be read"),
        (answer([]), "cannot be read"),
        (answer({"result": {}}), "cannot be read"),
        (twice(f'"result": {YES}, "result": {json.dumps(NOTHING)}'), "cannot be read"),
        (twice('"result": ' + YES.replace('"deny": {}', '"deny": {"p": []}, "deny": {}')), "cannot be read"),
        (saying(BUNDLE.revision, version="1.20\x1b[2J"), "cannot be read"),
        (saying("\x1b[2J\n"), "'\\x1b[2J\\n'"),
        (answer({"result": {}, "provenance": {"bundles": {}}}), "cannot be read"),
        (answer({"result": {}, "provenance": {"version": "1", "bundles": {"b": {"revision": 5}}}}), "cannot be read"),
        (answer({"result": {}, "provenance": {"version": "1"}}), "no bundle in force"),
        (answer({"result": {}, "provenance": {"version": "1", "revision": BUNDLE.revision}}), "no bundle in force"),
        (saying(BUNDLE.revision, OTHER.revision), "2 bundles"),
        (saying(BUNDLE.revision, BUNDLE.revision), "2 bundles"),
        (saying(OTHER.revision), OTHER.revision),
        (saying(""), "(none)"),
        (answer({"code": "internal_error"}, 500), "cannot be read"),
        (answer({"code": "x", "errors": []}, 500), "cannot be read"),
        (answer({"code": "x", "errors": [{"code": "storage_error"}]}, 500), "OPA failed"),
        (answer({"code": "x", "errors": [{"code": "eval_cancel_error"}]}, 500), "gave up"),
        (answer({}, 400), "OPA answered 400"),
        (answer({}, 401), "refuses the gateway"),
        (answer({}, 404), "OPA answered 404"),
        (answer({}, 503), "OPA answered 503"),
        (answer({}, 307, "Location: http://127.0.0.1:1/elsewhere"), "OPA answered 307"),
        (answer({}, 302, "Location: /v1/data/other"), "OPA answered 302"),
        (answer(b"x" * 100, 200, "Content-Encoding: gzip"), "compressed"),
        (answer(b" " * (MAX_ANSWER_BYTES + 1)), "over"),
        (
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b" " * 65536 + b"\r\n"),
            "deadline",
        ),
        (
            raw(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 20
            ),
            "over",
        ),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), "deadline"),
        (silence, "deadline"),
    ],
)
async def test_answers_that_decide_nothing(
    tmp_path: Path, reply: Reply, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no answer of one OPA with the examined bundle is unavailable; it is asked once, and OPA may recover.

    What OPA has instead is for the operator: callers hear that it is something else.
    """
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, reply, GOOD]
        async with engine(fake, deadline_s=0.5) as asked:
            said = await refused(asked.evaluate("d", [DOCUMENT]))
            assert words in (caplog.text if said == ANOTHER else said)
            assert len(fake.asked) == 2
            (decision,) = await decide(asked, DOCUMENT)
            assert decision.reasons[0].id == "default.no_allow"


async def slowly(writer: asyncio.StreamWriter) -> None:
    """A good answer, one byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_answer_that_trickles_ends_with_the_deadline(tmp_path: Path) -> None:
    """Time runs from dispatch to the last byte: whoever sends a little now and then does not hold the call."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, slowly]
        async with engine(fake, deadline_s=0.3) as asked, asyncio.timeout(5):
            assert "deadline" in await refused(asked.evaluate("d", [DOCUMENT]))


@pytest.mark.parametrize(
    "code", ["eval_builtin_error", "eval_conflict_error", "eval_type_error", "eval_internal_error"]
)
async def test_error_of_the_policy_is_a_fault(tmp_path: Path, code: str, caplog: pytest.LogCaptureFixture) -> None:
    """It denies its own input; its place is logged, its words are not."""
    error = {"code": code, "message": "hunter2", "location": {"file": "demo.rego", "row": 17, "col": 2}}
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, answer({"code": "internal_error", "message": "hunter2", "errors": [error]}, 500), GOOD]
        async with engine(fake) as asked:
            bad, good = await decide(asked, DOCUMENT, DOCUMENT)
            assert {bad.reasons[0].id, good.reasons[0].id} == {"engine.error", "default.no_allow"}
            assert bad.revision == good.revision == BUNDLE.revision
    assert "engine.error at demo.rego:17:2" in caplog.text
    assert "hunter2" not in caplog.text


async def test_what_is_asked(tmp_path: Path) -> None:
    """One request for each document: strict, with provenance, the document as it is, with the token there is now."""
    tokens = iter(["first-token", "second-token"])
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, GOOD, answer({}, 401), GOOD]
        async with engine(fake, token=lambda: next(tokens)) as asked:
            await asked.evaluate("d", [DOCUMENT])
            await refused(asked.evaluate("d", [DOCUMENT]))
            await asked.evaluate("d", [DOCUMENT])
            assert asked.known(DOCUMENT) is None
    heads = [head.decode() for head, _body in fake.asked]
    target = "POST /v1/data/gateway/main/decision?strict-builtin-errors=true&provenance=true HTTP/1.1"
    assert {head.splitlines()[0] for head in heads} == {target}
    assert fake.asked[1][1] == b'{"input":' + DOCUMENT + b"}"
    assert ["second-token" in head for head in heads] == [False, False, False, True]
    assert all("first-token" in head for head in heads[:3])


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "schl\u00fcssel"])
async def test_token_that_is_no_header_value_is_not_sent(tmp_path: Path, token: str) -> None:
    """It cannot frame the request anew."""
    async with fake_opa(tmp_path, HELD) as fake:
        async with engine(fake, token=lambda: token) as asked:
            assert "token" in await refused(asked.evaluate("d", [DOCUMENT]))
        assert fake.asked == []


@pytest.mark.parametrize(
    ("replies", "revision"),
    [
        ([BUNDLE.revision, OTHER.revision, OTHER.revision, OTHER.revision], OTHER.revision),
        ([OTHER.revision, BUNDLE.revision, OTHER.revision, OTHER.revision], OTHER.revision),
        ([BUNDLE.revision, OTHER.revision, BUNDLE.revision, OTHER.revision], None),
    ],
)
async def test_both_documents_of_a_question_come_from_one_revision(
    tmp_path: Path, replies: Sequence[str], revision: str | None
) -> None:
    """Where OPA changes its bundle between them the question is asked once again, and no more."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, *map(saying, replies)]
        async with engine(fake) as asked:
            await asked.serve(OTHER, allowed)
            if revision is None:
                assert "changes its bundle" in await refused(asked.evaluate("d", [DOCUMENT, DOCUMENT]))
            else:
                decisions = await decide(asked, DOCUMENT, DOCUMENT)
                assert {decision.revision for decision in decisions} == {revision}
        assert len(fake.asked) == 5


async def test_predecessor_is_good_for_a_while(tmp_path: Path) -> None:
    """OPA may be a minute late with a new bundle, never early, and never two behind."""
    clock = StepClock()
    third = demo(RULES + "\n# a third revision\n")
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD]
        async with engine(fake, clock.monotonic) as asked:
            await asked.serve(OTHER, allowed)
            clock.advance(59)
            (decision,) = await decide(asked, DOCUMENT)
            assert decision.revision == BUNDLE.revision
            clock.advance(1)
            assert OTHER.revision in await refused(asked.ping())
            assert await refused(asked.evaluate("d", [DOCUMENT])) == ANOTHER
            fake.replies, fake.holds = [saying(OTHER.revision)], holding(*(module.text for module in OTHER.modules))
            assert (await decide(asked, DOCUMENT))[0].revision == OTHER.revision
            await asked.serve(third, allowed)
            fake.replies = [GOOD]
            await refused(asked.evaluate("d", [DOCUMENT]))
            await refused(asked.ping())


async def test_bundle_that_does_not_pass_or_may_not_never_comes_into_force(tmp_path: Path) -> None:
    """The one before stays."""

    async def never(_bundle: Bundle) -> None:
        if _bundle is OTHER:
            raise BundleError("p.rego:1: GW001 no")

    async def forbidden() -> None:
        raise Unavailable("the log cannot be written")

    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD]
        examination = Examination(never, PROBES[0])
        async with OpaEngine(BUNDLE, replace(PATIENT, url=fake.url), examination) as asked:
            with pytest.raises(BundleError, match="GW001"):
                await asked.serve(OTHER, allowed)
            with pytest.raises(Unavailable):
                await asked.serve(demo(RULES + "\n# yet another\n"), forbidden)
            assert asked.revision == BUNDLE.revision
            await asked.ping()


@pytest.mark.parametrize("reply", [saying(OTHER.revision), saying(BUNDLE.revision, BUNDLE.revision), saying("")])
async def test_start_before_another_bundle_is_refused(tmp_path: Path, reply: Reply) -> None:
    """A mistake of the set-up is said at once, with both revisions."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [reply]
        with pytest.raises(BundleError, match=r"\[policy\.opa\] unix://.*(revision|2 bundles)"):
            async with engine(fake):
                pass


@pytest.mark.parametrize("reply", [closing, answer({"provenance": {"version": "1.20.2"}}), answer({}, 503)])
async def test_opa_that_comes_later_is_waited_for(tmp_path: Path, reply: Reply) -> None:
    """The gateway starts, is not ready, and is ready once OPA is."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [reply, reply, GOOD]
        async with engine(fake) as asked:
            await refused(asked.ping())
            await asked.ping()


async def test_bundle_that_fails_a_plain_question_is_not_ready(tmp_path: Path) -> None:
    """A probe must evaluate."""
    async with fake_opa(tmp_path, HELD) as fake:
        bundles = {"b": {"revision": BUNDLE.revision}}
        fake.replies = [answer({"provenance": {"version": "1.20.2", "bundles": bundles}})]
        async with engine(fake) as asked:
            assert "engine.undefined" in await refused(asked.ping())


async def test_no_room_for_more_questions(tmp_path: Path) -> None:
    """The queue has a bound of its own, and whoever waits waits for so long only."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, silence]
        async with engine(fake, connections=1, queue=1, queue_wait_s=0.2, deadline_s=2.0) as asked:
            first = asyncio.create_task(refused(asked.evaluate("d", [DOCUMENT])))
            await until(lambda: len(fake.asked) == 2)
            second = asyncio.create_task(refused(asked.evaluate("d", [DOCUMENT])))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert "too many" in await refused(asked.evaluate("d", [DOCUMENT]))
            assert "too much" in await second
            assert "deadline" in await first
        assert len(fake.asked) == 2


async def test_caller_that_leaves_gives_its_place_back(tmp_path: Path) -> None:
    """A cancelled question does not hold a connection."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, silence, GOOD]
        async with engine(fake, connections=1) as asked:
            question = asyncio.create_task(asked.evaluate("d", [DOCUMENT]))
            await until(lambda: len(fake.asked) == 2)
            question.cancel()
            with pytest.raises(asyncio.CancelledError):
                await question
            (decision,) = await decide(asked, DOCUMENT)
            assert decision.reasons[0].id == "default.no_allow"


async def test_nobody_listens(tmp_path: Path) -> None:
    """A missing socket and a closed port are the same as a dead server."""
    for url in (f"unix://{tmp_path}/none.sock", "http://127.0.0.1:1"):
        async with engine_at(url, BUNDLE) as asked:
            assert "cannot be reached" in await refused(asked.ping())


async def test_certificate_file_that_is_none(tmp_path: Path) -> None:
    """What cannot be read is said at the start."""
    for content in (None, "no certificate"):
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_text(content)
        with pytest.raises(BundleError, match="ca_certificate"):
            async with engine_at("https://127.0.0.1:1", BUNDLE, replace(PATIENT, ca_certificate=path)):
                pass

"""What an OPA server holds beside the bundle, and what comes over its connections unasked: neither ever decides."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.servers.opa import opa
from gateway.adapters.opa import Examination, OpaEngine
from gateway.adapters.opa.sockets import exposed
from gateway.adapters.rego.bundles.building import bundle_archive
from gateway.adapters.rego.probe import PROBES
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Effect
from tests.fakes.opa import NOTHING, FakeOpa, Reply, answer, fake_opa, holding, saying, silence
from tests.opa import required
from tests.opa_questions import BUNDLE, DOCUMENT, OTHER, allowed, refused
from tests.policy_engines import PATIENT, decide, engine_at
from tests.rego_demo import until

TEXTS = tuple(module.text for module in BUNDLE.modules)
HELD = holding(*TEXTS)
GOOD = saying(BUNDLE.revision)
ANOTHER = "OPA serves another policy than the gateway examined"
ALLOWING = {**NOTHING, "allow": {"demo": [{"id": "demo.ok", "msg": "ok"}]}}
EVIL = 'package gateway.policies.evil\n\nallow contains {"id": "evil.yes", "msg": "m"} if true\n'


async def anything(_bundle: Bundle) -> None:
    """Every bundle is good."""


def engine(fake: FakeOpa, deadline_s: float = 5.0) -> OpaEngine:
    """The engine before the fake."""
    settings = replace(PATIENT, url=fake.url, deadline_s=deadline_s)
    return OpaEngine(BUNDLE, settings, Examination(anything, PROBES[0]))


@pytest.mark.parametrize(
    ("rules", "words"),
    [(EVIL, "never examined"), (EVIL.replace("evil", "demo"), "never examined"), (TEXTS[0], "twice")],
)
async def test_real_opa_that_was_started_with_a_file_beside_the_bundle_is_refused(rules: str, words: str) -> None:
    """Its rules would speak under the bundle's revision: as a package of their own, or in the bundle's name."""
    required()
    with (
        opa({"ostiary": bundle_archive(BUNDLE)}, beside={"leftover.rego": rules}) as server,
        pytest.raises(BundleError, match=words),
    ):
        async with engine_at(server.url, BUNDLE):
            pass


@pytest.mark.parametrize(
    ("holds", "words"),
    [
        (holding(*TEXTS, EVIL), "never examined ('bundle/2.rego')"),
        (holding(*TEXTS, TEXTS[0]), "twice"),
        (holding(*TEXTS[1:]), "does not hold all"),
        (holding(), "does not hold all"),
        (answer({"result": [{"id": 1}]}), "OPA's list of its policies cannot be read"),
        (
            answer({}, 401),
            "OPA refuses the gateway; see [policy.opa] token and OPA's authorization policy",
        ),
        (answer({}, 404), "OPA answered 404"),
    ],
)
async def test_opa_that_is_started_anew_with_something_else_decides_nothing(
    tmp_path: Path, holds: Reply, words: str
) -> None:
    """A new connection may lead to a new server: what it holds is looked at before its first answer counts."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD]
        async with engine(fake) as asked:
            await decide(asked, DOCUMENT)
            await decide(asked, DOCUMENT)
            assert fake.looked_at == 1
            await fake.hung_up()
            await decide(asked, DOCUMENT)
            assert fake.looked_at == 2
            fake.holds = holds
            await fake.hung_up()
            assert (await refused(asked.evaluate("d", [DOCUMENT]))) in {words, ANOTHER}
            assert words in await refused(asked.ping())
            fake.holds = HELD
            await decide(asked, DOCUMENT)


async def test_readiness_looks_again_at_what_opa_holds(tmp_path: Path) -> None:
    """A server that watches its files may have taken one up; from then on nothing counts."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD]
        async with engine(fake) as asked:
            await asked.ping()
            fake.holds = holding(*TEXTS, EVIL)
            assert "never examined" in await refused(asked.ping())
            assert await refused(asked.evaluate("d", [DOCUMENT])) == ANOTHER


async def test_what_opa_held_before_may_be_there_still(tmp_path: Path) -> None:
    """While it changes its bundle, either of the two may be seen."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, GOOD, saying(OTHER.revision)]
        async with engine(fake) as asked:
            await asked.serve(OTHER, allowed)
            assert (await decide(asked, DOCUMENT))[0].revision == BUNDLE.revision
            assert (await decide(asked, DOCUMENT))[0].revision == OTHER.revision


async def test_opa_that_never_says_what_it_holds_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who wait for it are refused within one time limit."""
    monkeypatch.setattr("gateway.adapters.opa.engine.HELD_S", 0.3)
    async with fake_opa(tmp_path, HELD) as fake, asyncio.timeout(20):
        fake.replies = [GOOD]
        async with engine(fake) as asked:
            fake.holds = silence
            await fake.hung_up()
            await asyncio.gather(*(refused(asked.evaluate("d", [DOCUMENT])) for _ in range(200)))


async def test_answer_nobody_asked_for_is_not_the_next_one(tmp_path: Path) -> None:
    """What came while a connection lay idle is thrown away with it, and the question is asked over another one."""
    late = asyncio.Event()
    denied = saying(BUNDLE.revision)

    async def talkative(writer: asyncio.StreamWriter) -> None:
        await denied(writer)
        serving.append(asyncio.create_task(afterwards(writer)))

    async def afterwards(writer: asyncio.StreamWriter) -> None:
        await late.wait()
        await saying(BUNDLE.revision, result=ALLOWING)(writer)
        await writer.drain()

    serving: list[asyncio.Task[None]] = []
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, talkative, denied]
        async with engine(fake) as asked:
            await decide(asked, DOCUMENT)
            late.set()
            await serving[0]
            await until_read(asked)
            (decision,) = await decide(asked, DOCUMENT)
            assert decision.effect is Effect.DENY
            assert len(fake.asked) == 3


async def until_read(asked: OpaEngine) -> None:
    """Wait until the bytes have come to the idle connection."""
    assert asked._wire is not None
    assert asked._wire._session is not None
    pool = asked._wire._session.connector
    assert pool is not None
    await until(lambda: any(protocol.should_close for idle in pool._conns.values() for protocol, _ in idle))


async def test_answer_that_is_too_late_is_nobodys(tmp_path: Path) -> None:
    """The connection of a question that was given up is closed, so that its answer cannot become another one's."""
    go = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await saying(BUNDLE.revision, result=ALLOWING)(writer)

    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, slow, GOOD]
        async with engine(fake, deadline_s=0.3) as asked:
            assert "deadline" in await refused(asked.evaluate("d", [DOCUMENT]))
            go.set()
            (decision,) = await decide(asked, DOCUMENT)
            assert decision.effect is Effect.DENY


async def test_listing_is_given_up_with_its_first_document_that_has_no_answer(tmp_path: Path) -> None:
    """An OPA that hangs is not asked about each of hundreds of tools, a deadline for every few of them."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, silence]
        async with engine(fake, deadline_s=0.3) as asked:
            assert "deadline" in await refused(asked.evaluate("d", [DOCUMENT] * 200))
            assert len(fake.asked) <= 9


async def test_opa_whose_answer_is_no_decision_is_not_ready(tmp_path: Path) -> None:
    """Nothing could be decided by it."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD, saying(BUNDLE.revision, result=[])]
        async with engine(fake) as asked:
            assert "engine.bad_shape" in await refused(asked.ping())


def test_folders_in_which_others_could_put_a_socket(tmp_path: Path) -> None:
    """The one that holds it must not be for all, nor any above it, unless there each may only take away their own."""
    inner = tmp_path / "run" / "opa"
    inner.mkdir(parents=True)
    url = f"unix://{inner}/opa.sock"
    assert exposed(url) is None
    assert exposed("http://127.0.0.1:8181") is None
    inner.chmod(0o777)
    assert exposed(url) == f"{inner} is writable by all"
    inner.chmod(0o1777)
    assert exposed(url) == f"{inner} is writable by all"
    inner.chmod(0o755)
    inner.parent.chmod(0o777)
    assert exposed(url) == f"{inner.parent} is writable by all"
    inner.parent.chmod(0o1777)
    assert exposed(url) is None
    assert exposed(f"unix://{inner.parent}/none/opa.sock") == f"{inner.parent} is writable by all"


@pytest.fixture
def for_all(tmp_path: Path) -> None:
    """The folder is as ``/tmp`` is."""
    tmp_path.chmod(0o1777)


@pytest.mark.usefixtures("for_all")
async def test_socket_in_a_folder_for_all_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever is first makes the socket, and decides."""
    async with fake_opa(tmp_path, HELD) as fake:
        fake.replies = [GOOD]
        with caplog.at_level(logging.WARNING):
            async with engine(fake):
                pass
    assert f"others may answer in OPA's place, as {tmp_path} is writable by all" in caplog.text

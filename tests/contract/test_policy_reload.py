"""Policy that changes under a running engine: whole or not at all, on record first, and nobody's question is lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.adapters.rego.bundles import building
from gateway.adapters.rego.bundles.store import Revisions
from gateway.adapters.rego.engine import RegoEngine
from gateway.core.decision import Effect
from gateway.core.errors import Unavailable
from gateway.core.known import KnownValues
from gateway.parts.policies import Means, Policies
from gateway.parts.policy_sources import Sources
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.policy import PolicySection, PolicySourceSection
from tests.clock import StepClock
from tests.fakes import web
from tests.fakes.web import Exchange
from tests.rego_demo import SETTINGS, alive, decide, demo, pids, saying, until
from tests.unit.test_bundle_signatures import pair

ALLOW = 'package gateway.policies.desk\n\nallow contains {"id": "desk.ok", "msg": "ok"} if input\n'
DENY = 'package gateway.policies.desk\n\ndeny contains {"id": "desk.no", "msg": "no"} if input\n'
SLOW = """package gateway.policies.desk

allow contains {"id": "desk.slow", "msg": "slow"} if {
	input.args.say == "slow"
	count([1 | some a in numbers.range(1, 600); some b in numbers.range(1, 600)]) > 0
}

allow contains {"id": "desk.fast", "msg": "fast"} if input.args.say != "slow"
"""


@dataclass(slots=True)
class Diary:
    """What was put on record, and whether anything can be."""

    lines: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    is_full: bool = False
    failing: list[bool] = field(default_factory=list)

    async def record(self, revision: str, engine: str, origin: Sequence[str]) -> None:
        """Keep one line."""
        if self.is_full:
            raise Unavailable("the log cannot be written", cause_code="ledger")
        self.lines.append((revision, engine, tuple(origin)))


@dataclass(slots=True)
class House:
    """A folder of policy, the engine that serves it, and who looks after it."""

    folder: Path
    state: Path
    diary: Diary
    policies: Policies
    engine: RegoEngine
    clock: StepClock

    async def look(self) -> None:
        """Look, when it is time again."""
        self.clock.advance(1)
        await self.policies.look()

    async def changed(self, rules: str) -> None:
        """Write other rules and look."""
        (self.folder / "desk.rego").write_text(rules)
        await self.look()

    async def says(self) -> tuple[Effect, str]:
        """Effect and first reason of a plain question."""
        (decision,) = await decide(self.engine, saying("x"))
        return decision.effect, decision.reasons[0].id


@asynccontextmanager
async def house(tmp_path: Path, rules: str = ALLOW) -> AsyncIterator[House]:
    """A running engine; nobody looks but the test."""
    folder, diary = tmp_path / "desk", Diary()
    folder.mkdir(exist_ok=True)
    (folder / "desk.rego").write_text(rules)

    async def never(_seconds: float) -> None:
        await asyncio.Event().wait()

    policy = PolicySection(bundles=(folder,), reload_s=0.5)
    settings = GatewaySettings(state=tmp_path / "state", policy=policy)
    clock = StepClock()
    means = Means(clock, diary.record, KnownValues(), diary.failing.append, never)
    looked = Policies(settings, means)
    async with RegoEngine(await looked.first(), SETTINGS) as engine:
        await looked.begin(engine)
        async with looked:
            yield House(folder, tmp_path / "state", diary, looked, engine, clock)


async def test_other_rules_come_into_force(tmp_path: Path) -> None:
    """Recorded, kept by their revision, shown; answers name the new revision."""
    async with house(tmp_path) as it:
        before = it.policies.standing()
        assert await it.says() == (Effect.ALLOW, "desk.ok")
        await it.changed(DENY)
        assert await it.says() == (Effect.DENY, "desk.no")
        after = it.policies.standing()
        assert [line[0] for line in it.diary.lines] == [before.revision, after.revision]
        assert (await decide(it.engine, saying("x")))[0].revision == after.revision != before.revision
        for standing, rules in ((before, ALLOW), (after, DENY)):
            bundle = await it.policies.bundle(standing.revision)
            assert bundle is not None
            assert rules in [module.text for module in bundle.modules]
        assert await it.policies.bundle("0" * 64) is None
        assert await it.policies.bundle("../../../etc/passwd") is None


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("package gateway.policies.desk\n\nallow contains {", "desk/desk.rego:3: GW000"),
        (DENY.replace("if input", 'if http.send({"url": "u"})'), "desk/desk.rego:3: GW002"),
        (DENY.replace('"id": "desk.no", ', ""), "desk/desk.rego:3: GW005"),
        ("package gateway.policies.authz\n", "GW008"),
        ("package gateway.elsewhere\n", "GW008"),
    ],
)
async def test_the_last_good_bundle_stays(tmp_path: Path, rules: str, words: str) -> None:
    """What is no good is shown with file, line and rule, and is gone when it was mended."""
    async with house(tmp_path) as it:
        good = it.policies.standing()
        await it.changed(rules)
        assert await it.says() == (Effect.ALLOW, "desk.ok")
        standing = it.policies.standing()
        assert (standing.revision, standing.since_us) == (good.revision, good.since_us)
        assert any(words in problem for problem in standing.problems), standing.problems
        assert standing.problems_since_us is not None
        await it.look()
        assert it.policies.standing() == standing
        await it.changed(ALLOW)
        assert it.policies.standing() == good
        assert it.diary.failing[-1] is False
        assert len(it.diary.lines) == 1


async def test_data_that_clash_are_refused_with_their_place(tmp_path: Path) -> None:
    """Also where the folder alone is sound."""
    async with house(tmp_path) as it:
        (it.folder / "data.json").write_text(json.dumps({"gateway": {"scope": {"agents": {"a": {"denny": []}}}}}))
        await it.look()
        assert it.policies.standing().problems == (
            "desk/data.json: data.gateway.scope.agents.a.denny: there is no such key",
        )
        (it.folder / "data.json").unlink()
        (it.folder / "desk.rego").unlink()
        it.folder.rmdir()
        await it.look()
        assert "No such file or directory" in it.policies.standing().problems[0]
        assert await it.says() == (Effect.ALLOW, "desk.ok")


async def test_what_is_wrong_with_a_folder_is_shown_until_it_is_mended(tmp_path: Path) -> None:
    """However often it is looked at, also where its files were never joined with others."""
    async with house(tmp_path) as it:
        (it.folder / ".signatures.json").write_text("{}")
        for _ in range(3):
            await it.look()
            assert it.policies.standing().problems == ("desk: is signed, and no public key is set to check it with",)
        assert it.diary.failing[-1] is True
        (it.folder / ".signatures.json").unlink()
        await it.look()
        assert it.policies.standing().problems == ()


@pytest.mark.parametrize(
    "line",
    [
        "package # whose\n gateway.policies.desk",
        'package gateway["po\\u006cicies"].desk',
        'package gateway.policies[ "desk" ]',
        "package gateway.policies.desk#",
    ],
)
async def test_a_package_is_the_one_that_its_owner_is_told_by(tmp_path: Path, line: str) -> None:
    """One that the engine reads otherwise than whoever looks at roots is refused, with its file."""
    async with house(tmp_path) as it:
        await it.changed(DENY.replace("package gateway.policies.desk", line))
        assert it.policies.standing().problems[0].startswith("desk/desk.rego:1: GW008 write the package plainly")
        assert await it.says() == (Effect.ALLOW, "desk.ok")


async def test_what_cannot_be_recorded_does_not_come_into_force(tmp_path: Path) -> None:
    """And does as soon as it can."""
    async with house(tmp_path) as it:
        it.diary.is_full = True
        await it.changed(DENY)
        assert await it.says() == (Effect.ALLOW, "desk.ok")
        assert "cannot be put on record" in it.policies.standing().problems[0]
        it.diary.is_full = False
        await it.look()
        assert await it.says() == (Effect.DENY, "desk.no")


async def test_a_question_is_answered_under_the_bundle_it_was_asked_under(tmp_path: Path) -> None:
    """One that is under way when another bundle comes into force; its workers end after it."""
    async with house(tmp_path, SLOW) as it:
        first = it.policies.standing().revision
        (old,) = pids(it.engine)
        slow = asyncio.create_task(decide(it.engine, saying("slow")))
        await until(lambda: sum(link.load for link in it.engine._running().pool._links) == 1)
        await it.changed(DENY)
        assert await it.says() == (Effect.DENY, "desk.no")
        (decision,) = await slow
        assert (decision.effect, decision.reasons[0].id, decision.revision) == (Effect.ALLOW, "desk.slow", first)
        await until(lambda: not alive(old))


async def test_no_question_fails_while_bundles_come_and_go(tmp_path: Path) -> None:
    """Many callers, twenty bundles: each answer is that of the revision it names."""
    async with house(tmp_path) as it:
        said = {it.policies.standing().revision: Effect.ALLOW}
        stop = asyncio.Event()
        seen: list[tuple[str, Effect]] = []

        async def ask() -> None:
            while not stop.is_set():
                (decision,) = await decide(it.engine, saying("x"))
                seen.append((decision.revision, decision.effect))

        callers = [asyncio.create_task(ask()) for _ in range(8)]
        for number in range(20):
            rules, effect = (DENY, Effect.DENY) if number % 2 == 0 else (ALLOW, Effect.ALLOW)
            await it.changed(f"{rules}\n# {number}\n")
            said[it.policies.standing().revision] = effect
        stop.set()
        await asyncio.gather(*callers)
        assert len(said) == 21
        assert {revision for revision, _ in seen} <= set(said)
        assert all(said[revision] is effect for revision, effect in seen)


async def test_a_broken_first_bundle_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    """There is no last good one to stay with."""
    settings = GatewaySettings(state=tmp_path, policy=PolicySection(bundles=(tmp_path / "none",)))
    means = Means(StepClock(), Diary().record, KnownValues(), Diary().failing.append)
    with pytest.raises(SettingsError, match="No such file or directory"):
        await Policies(settings, means).first()


async def test_a_start_on_a_kept_copy_is_shown(tmp_path: Path) -> None:
    """Policy that may be old is in force visibly from the first moment, until its address answers."""
    private, public = pair("p256")
    (tmp_path / "key.pem").write_bytes(public)
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "desk.rego").write_text(ALLOW)
    kept = tmp_path / "state" / "policy-sources" / "far.tar.gz"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(building.signed(building.layer_archive(tmp_path / "desk"), private, "k"))
    far = PolicySourceSection(url="http://127.0.0.1:9/far.tar.gz", public_key=tmp_path / "key.pem")
    settings = GatewaySettings(state=tmp_path / "state", policy=PolicySection(sources={"far": far}))
    diary = Diary()
    looked = Policies(settings, Means(StepClock(), diary.record, KnownValues(), diary.failing.append))
    async with RegoEngine(await looked.first(), SETTINGS) as engine:
        await looked.begin(engine)
        assert "cannot be reached" in looked.standing().problems[0]
        assert diary.failing == [True]


async def test_only_the_gateway_keeps_what_is_fetched(tmp_path: Path) -> None:
    """Whoever else reads its settings, such as a replay of a candidate, takes no copy for it and leaves none."""
    private, public = pair("p256")
    (tmp_path / "key.pem").write_bytes(public)
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "desk.rego").write_text(ALLOW)
    content = building.signed(building.layer_archive(tmp_path / "desk"), private, "k")
    async with web.serving() as there:

        async def play(exchange: Exchange) -> None:
            await exchange.answer("200 OK", content)

        there.play = play
        far = PolicySourceSection(url=f"{there.origin}/far.tar.gz", public_key=tmp_path / "key.pem")
        settings = GatewaySettings(state=tmp_path / "state", policy=PolicySection(sources={"far": far}))
        await Sources(settings, KnownValues(), StepClock(), keep=False).first()
        assert not (tmp_path / "state").exists()
        await Sources(settings, KnownValues(), StepClock()).first()
        assert (tmp_path / "state" / "policy-sources" / "far.tar.gz").is_file()


async def test_an_address_that_does_not_answer_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Each is looked at by itself: what the second holds comes into force while the first is still being asked."""
    private, public = pair("p256")
    (tmp_path / "key.pem").write_bytes(public)
    ticks: asyncio.Queue[None] = asyncio.Queue()

    def packed(name: str, rules: str) -> bytes:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "p.rego").write_text(rules.replace("desk", name))
        return building.signed(building.layer_archive(folder), private, "k")

    async with web.serving() as there:
        held = {"/slow.tar.gz": packed("slow", ALLOW), "/quick.tar.gz": packed("quick", ALLOW)}
        hanging: set[str] = set()

        async def play(exchange: Exchange) -> None:
            path = exchange.line.split()[1]
            if path in hanging:
                await asyncio.Event().wait()
            await exchange.answer("200 OK", held[path])

        async def tick(_seconds: float) -> None:
            await ticks.get()
            clock.advance(60)

        there.play = play
        sources = {
            name: PolicySourceSection(url=f"{there.origin}/{name}.tar.gz", public_key=tmp_path / "key.pem")
            for name in ("slow", "quick")
        }
        settings = GatewaySettings(state=tmp_path / "state", policy=PolicySection(sources=sources))
        clock, diary = StepClock(), Diary()
        looked = Policies(settings, Means(clock, diary.record, KnownValues(), diary.failing.append, tick))
        async with RegoEngine(await looked.first(), SETTINGS) as engine:
            await looked.begin(engine)
            hanging.add("/slow.tar.gz")
            held["/quick.tar.gz"] = packed("quick", DENY)
            async with looked:
                for _ in sources:
                    ticks.put_nowait(None)
                await until(lambda: len(diary.lines) == 2)
                (decision,) = await decide(engine, saying("x"))
                assert decision.reasons[0].id == "quick.no"


async def test_looking_goes_on_after_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of ours is shown and does not end the looking."""
    ticks: asyncio.Queue[None] = asyncio.Queue()

    async with house(tmp_path) as it:

        async def tick(seconds: float) -> None:
            await ticks.get()
            it.clock.advance(seconds)

        it.policies._means = Means(it.clock, it.diary.record, KnownValues(), it.diary.failing.append, tick)
        assert it.policies._looking is not None
        it.policies._looking.start_soon(it.policies._keep_looking, 1.0, None)
        with monkeypatch.context() as broken:
            broken.setattr(Sources, "joined", lambda _self: 1 / 0)
            (it.folder / "desk.rego").write_text(DENY)
            ticks.put_nowait(None)
            await until(lambda: bool(it.policies.standing().problems))
        assert it.policies.standing().problems == ("looking at the sources failed: ZeroDivisionError",)
        ticks.put_nowait(None)
        await until(lambda: not it.policies.standing().problems)
        assert await it.says() == (Effect.DENY, "desk.no")


def test_revisions_are_what_they_are_called(tmp_path: Path) -> None:
    """What was altered on disk is not given out."""
    kept, bundle = Revisions(tmp_path), demo()
    kept.keep(bundle)
    kept.keep(bundle)
    assert kept.get(bundle.revision) == bundle
    file = tmp_path / f"{bundle.revision}.json"
    for spoiled in (file.read_text().replace("demo.ok", "demo.no"), "{", "[]"):
        file.write_text(spoiled)
        with pytest.raises(Unavailable, match="revision"):
            kept.get(bundle.revision)

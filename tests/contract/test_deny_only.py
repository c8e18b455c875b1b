"""Layers that are held to restrict: who says so, what is refused of them, and what is shown."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.adapters.rego import layers
from gateway.adapters.rego.bundles import archive, building
from gateway.adapters.rego.candidate import candidate
from gateway.adapters.rego.engine import RegoEngine
from gateway.adapters.rego.preflight import examine
from gateway.cli.root import ostiary
from gateway.core.bundle import BundleError, DenyOnly
from gateway.core.decision import Effect
from gateway.core.known import KnownValues
from gateway.edge.asgi import Options
from gateway.parts import shadowing
from gateway.parts.policies import Means, Policies
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.file import load
from tests.clock import StepClock
from tests.contract.test_policy_reload import Diary
from tests.edge_world import Edge
from tests.fakes import web
from tests.fakes.desk import FakePolicyDesk
from tests.fakes.web import Exchange, Web
from tests.rego_demo import SETTINGS, decide, saying
from tests.served_edge import served
from tests.unit.test_bundle_signatures import pair

PRIVATE, PUBLIC = pair("p256")
BASIC = 'package gateway.policies.basic\n\nallow contains {"id": "basic.ok", "msg": "ok"} if input\n'
DENY = 'package gateway.policies.org\n\ndeny contains {"id": "org.no", "msg": "no"} if input.args.say == "no"\n'
ALLOW = f'{DENY}\nallow contains {{"id": "org.ok", "msg": "ok"}} if input.args.say == "no"\n'
MARK = {"metadata": {"ostiary": {"deny_only": True}, "team": "security"}}
ROOTS = {"roots": ["gateway/policies/org"]}
REFUSED = "org/org.rego:5: GW006 allow in a deny-only layer: grant in another one"


def ask(*words: str | Path, state: Path | None = None) -> Result:
    """Run a command in this process."""
    env = {"OSTIARY_URL": None, "OSTIARY_TOKEN": None, "OSTIARY_STATE": None if state is None else str(state)}
    return CliRunner().invoke(ostiary, [str(word) for word in words], env=env)


def written(folder: Path, rules: str, manifest: object = None) -> Path:
    """The layer of the organisation."""
    place = folder / "org"
    place.mkdir(exist_ok=True)
    (place / "org.rego").write_text(rules)
    (place / ".manifest").unlink(missing_ok=True)
    if manifest is not None:
        (place / ".manifest").write_text(json.dumps(manifest))
    return place


def configured(folder: Path, policy: str) -> GatewaySettings:
    """Settings of a file that says this of policy, beside a layer that allows."""
    (folder / "basic").mkdir(exist_ok=True)
    (folder / "basic" / "basic.rego").write_text(BASIC)
    (folder / "gateway.toml").write_text(f'state = "state"\n[policy]\nreload_s = 0.5\n{policy}\n')
    return load(folder / "gateway.toml")


BESIDE = 'bundles = ["basic", { path = "org", deny_only = true }]'
PLAIN = 'bundles = ["basic", "org"]'
FAR = 'bundles = ["basic"]\n[policy.sources.org]\nurl = "{}/org.tar.gz"\npublic_key = "key.pem"\npoll_s = 1\n'


class Gate:
    """Policy in force, and a look at its sources whenever a test wants one."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.clock, self.diary = StepClock(), Diary()
        means = Means(self.clock, self.diary.record, KnownValues(), self.diary.failing.append, self._never)
        self.policies = Policies(settings, means)
        self.engine: RegoEngine

    async def _never(self, _seconds: float) -> None:
        await asyncio.Event().wait()

    async def look(self, far: str | None = None) -> tuple[str, ...]:
        """Look at what is near, or at that address, when it is time again; what is wrong."""
        self.clock.advance(2)
        await self.policies.look(far)
        return self.policies.standing().problems

    async def says(self, word: str) -> Effect:
        """Of a call."""
        (decision,) = await decide(self.engine, saying(word))
        return decision.effect

    def held(self) -> list[tuple[str, tuple[str, ...]]]:
        """Layers that are shown to be held to restrict, by name, and by whose word."""
        return [(Path(one.origin).name, one.said_by) for one in self.policies.standing().deny_only]


@asynccontextmanager
async def gate(settings: GatewaySettings) -> AsyncIterator[Gate]:
    """A gate on these settings."""
    it = Gate(settings)
    async with RegoEngine(await it.policies.first(), SETTINGS) as it.engine:
        await it.policies.begin(it.engine)
        async with it.policies:
            yield it


@pytest.mark.parametrize(
    ("policy", "manifest", "said_by"),
    [
        (BESIDE, None, ("gateway.toml",)),
        (PLAIN, ROOTS | MARK, (".manifest",)),
        (BESIDE, ROOTS | MARK, ("gateway.toml", ".manifest")),
        (BESIDE, ROOTS | {"metadata": {"ostiary": {"deny_only": False}}}, ("gateway.toml",)),
        (PLAIN.replace('"org"', '{ path = "org", deny_only = false }'), ROOTS | MARK, (".manifest",)),
    ],
)
async def test_either_word_holds_and_none_undoes_the_other(
    tmp_path: Path, policy: str, manifest: dict[str, Any] | None, said_by: tuple[str, ...]
) -> None:
    """A new version that allows is refused by file, line and rule; the last good one stays, until it is mended."""
    written(tmp_path, DENY, manifest)
    async with gate(configured(tmp_path, policy)) as it:
        good = it.policies.standing()
        assert it.held() == [("org", said_by)]
        written(tmp_path, ALLOW.replace("deny contains", "hint contains"), manifest)
        (problem,) = await it.look()
        assert problem == f"{REFUSED} (org is deny-only, says {' and '.join(said_by)})"
        assert (await it.says("no"), await it.says("yes")) == (Effect.DENY, Effect.ALLOW)
        assert it.policies.standing().revision == good.revision
        assert it.diary.failing[-1] is True
        written(tmp_path, DENY, manifest)
        assert await it.look() == ()
        assert it.policies.standing() == good


async def test_a_layer_nobody_holds_may_allow(tmp_path: Path) -> None:
    """As ever; and nothing is shown of it."""
    written(tmp_path, ALLOW)
    async with gate(configured(tmp_path, PLAIN)) as it:
        assert it.held() == []


async def test_a_mark_that_comes_later_is_looked_at(tmp_path: Path) -> None:
    """The rules, and so the revision, are as they were; whether they may stand there is asked anew."""
    written(tmp_path, ALLOW, ROOTS)
    async with gate(configured(tmp_path, PLAIN)) as it:
        written(tmp_path, ALLOW, ROOTS | MARK)
        assert [problem.startswith(REFUSED) for problem in await it.look()] == [True]
        assert it.held() == []
        written(tmp_path, DENY, ROOTS | MARK)
        assert await it.look() == ()
        assert it.held() == [("org", (".manifest",))]


async def test_a_broken_start_is_refused(tmp_path: Path) -> None:
    """There is no last good one; the message is that of the check."""
    written(tmp_path, ALLOW)
    with pytest.raises(BundleError, match=r"org/org\.rego:5: GW006"):
        async with gate(configured(tmp_path, BESIDE)):
            pass


def giving(there: Web, folder: Path, rules: str, *, deny_only: bool) -> None:
    """From now on the address has these rules, signed."""
    (folder / "key.pem").write_bytes(PUBLIC)
    content = building.signed(building.layer_archive(written(folder, rules), deny_only=deny_only), PRIVATE, "k")

    async def play(exchange: Exchange) -> None:
        await exchange.answer("200 OK", content)

    there.play = play


@pytest.mark.parametrize("operator", [True, False])
async def test_a_source_that_is_fetched(tmp_path: Path, caplog: pytest.LogCaptureFixture, *, operator: bool) -> None:
    """What is signed is held to it all the same. What only the bundle said of itself, its next version takes back."""
    async with web.serving() as there:
        giving(there, tmp_path, DENY, deny_only=not operator)
        word = f"deny_only = {str(operator).lower()}\n"
        async with gate(configured(tmp_path, FAR.format(there.origin) + word)) as it:
            assert it.held() == [("org.tar.gz", ("gateway.toml",) if operator else (".manifest",))]
            giving(there, tmp_path, ALLOW, deny_only=not operator)
            assert [problem.startswith(REFUSED) for problem in await it.look("org")] == [True]
            assert await it.says("no") is Effect.DENY
            giving(there, tmp_path, ALLOW, deny_only=False)
            assert bool(await it.look("org")) is operator
            assert bool(it.held()) is operator
            assert ("org.tar.gz is no longer deny-only" in caplog.text) is not operator


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ('bundles = [{ path = "org", deny_onli = true }]', "deny_onli: Extra inputs"),
        ("bundles = [{ deny_only = true }]", "path: Field required"),
        ('bundles = [{ path = "org", deny_only = "perhaps" }]', "deny_only: Input should be a valid boolean"),
        ("bundles = [7]", "policy.bundles.0"),
    ],
)
def test_what_the_settings_cannot_mean_is_refused(tmp_path: Path, policy: str, words: str) -> None:
    """By its key."""
    with pytest.raises(SettingsError, match=words):
        configured(tmp_path, policy)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ostiary": {"deny_only": "true"}}, "metadata.ostiary.deny_only: Input should be a valid boolean"),
        ({"ostiary": {"denyonly": True}}, "metadata.ostiary.denyonly: Extra inputs"),
        ({"ostiary": True}, "metadata.ostiary"),
        ({"deny_only": True}, "deny_only"),
        ({"deny-only": True}, 'write "metadata"'),
        ({"denyOnly": True}, 'write "metadata"'),
    ],
)
def test_a_mark_that_would_not_count_is_refused(tmp_path: Path, metadata: object, words: str) -> None:
    """Whoever wrote it believes in it. What else stands in the metadata is nobody's business."""
    with pytest.raises(BundleError, match=words):
        layers.read(written(tmp_path, DENY, {"metadata": metadata}))
    assert layers.read(written(tmp_path, DENY, {"metadata": {"ostiarius": 1}})).deny_only == ()


async def test_a_candidate_in_the_shadow_is_held_to_it(tmp_path: Path) -> None:
    """As it would be in force."""
    written(tmp_path, ALLOW)
    shadow = '[policy.shadow]\nbundles = ["basic", { path = "org", deny_only = true }]'
    (found,) = await shadowing.findings(configured(tmp_path, f'bundles = ["basic"]\n{shadow}'))
    assert (found.ok, found.text.startswith(REFUSED)) == (False, True)


async def test_a_candidate_of_a_replay_is_held_to_it(tmp_path: Path) -> None:
    """Where its own manifest says so."""
    past = layers.load([layers.shipped()])
    for manifest, rules in ((ROOTS, []), (ROOTS | MARK, ["GW006"])):
        whole = candidate(written(tmp_path, ALLOW, manifest)).over(past)
        assert [one.rule for one in (await examine(whole.modules, whole.deny_only)).findings] == rules


def test_what_is_built_keeps_the_mark(tmp_path: Path) -> None:
    """Of the folder's manifest, with its roots and other metadata, or by the option; signed as all else."""
    out = tmp_path / "org.tar.gz"
    for manifest, option, metadata in (
        (None, [], None),
        (None, ["--deny-only"], {"ostiary": {"deny_only": True}}),
        (MARK, [], MARK["metadata"]),
        ({"metadata": {"team": "x"}}, ["--deny-only"], {"team": "x", "ostiary": {"deny_only": True}}),
    ):
        done = ask("policy", "build", written(tmp_path, DENY, manifest), "-o", out, *option)
        assert done.exit_code == 0, done.output
        said = json.loads(archive.read("org", out.read_bytes())[".manifest"])
        assert said.get("metadata") == metadata
        assert said["roots"] == ROOTS["roots"]
        assert bool(layers.read(out).deny_only) is (metadata is not None)
    wide = {"roots": ["gateway/policies/org", "org"]}
    assert ask("policy", "build", written(tmp_path, DENY, wide), "-o", out).exit_code == 0
    assert json.loads(archive.read("org", out.read_bytes())[".manifest"])["roots"] == wide["roots"]


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    """A revision of one's own, and a mark on all that a gateway serves."""
    done = ask("policy", "build", written(tmp_path, DENY, {"revision": "7"}), "-o", tmp_path / "x")
    assert (done.exit_code, "revision: is written here" in done.output) == (1, True)
    configured(tmp_path, PLAIN)
    done = ask("policy", "build", "--config", tmp_path / "gateway.toml", "--deny-only")
    assert (done.exit_code, "goes with DIR" in done.output) == (2, True)


@pytest.mark.parametrize(("manifest", "options"), [(None, ["--deny-only"]), (ROOTS | MARK, [])])
def test_the_check_learns_it_from_the_option_or_the_manifest(
    tmp_path: Path, manifest: dict[str, Any] | None, options: list[str]
) -> None:
    """Of a folder, of one file in it, and of an archive."""
    folder = written(tmp_path, ALLOW, manifest)
    packed = tmp_path / "org.tar.gz"
    packed.write_bytes(building.layer_archive(folder))
    for path, file in ((folder, "org"), (folder / "org.rego", "org"), (packed, "org.tar.gz")):
        done = ask("policy", "check", path, "--json", *options)
        (found,) = json.loads(done.stdout.splitlines()[-1])["findings"]
        assert (done.exit_code, found["file"], found["line"], found["rule"]) == (1, f"{file}/org.rego", 5, "GW006")
    assert ask("policy", "check", written(tmp_path, DENY, manifest), *options).exit_code == 0
    assert ask("policy", "check", folder / "org.rego", *options).exit_code == 0


def test_a_single_file_of_data_and_of_the_shipped_packages_is_held_to_it(tmp_path: Path) -> None:
    """By its place in the file; a manifest above it that cannot be read is a finding, not passed over."""
    path = written(tmp_path, DENY) / "data.json"
    path.write_text('{"gateway": {"approval": {"unattended": ["erp.pay"]}}}')
    done = ask("policy", "check", path, "--deny-only")
    assert "org/data.json:0: GW006: data.gateway.approval.unattended is not for a deny-only layer" in done.output
    done = ask("policy", "check", layers.shipped() / "authz" / "scope.rego", "--deny-only")
    assert "shipped/authz/scope.rego:10: GW006" in done.output
    (path.parent / ".manifest").write_text("{")
    done = ask("policy", "check", path.parent / "org.rego")
    assert (done.exit_code, "org/.manifest" in done.output) == (1, True)


def test_it_is_shown_with_who_says_so(tmp_path: Path) -> None:
    """By ``policy status``, and as JSON."""
    edge = Edge(Options(operator_socket=str(tmp_path / "admin.sock")))
    held = replace(edge, policy=FakePolicyDesk(deny_only=(DenyOnly("f", "fake", ("gateway.toml",), frozenset(), ()),)))
    with served(held, tmp_path / "admin.sock"):
        done = ask("policy", "status", state=tmp_path)
        assert "from      fake  deny-only, says gateway.toml" in done.output.splitlines()
        told = json.loads(ask("policy", "status", "--json", state=tmp_path).stdout.splitlines()[-1])
        assert told["deny_only"] == [{"origin": "fake", "said_by": ["gateway.toml"]}]

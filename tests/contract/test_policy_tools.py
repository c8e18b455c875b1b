"""``policy suggest``, ``explain``, ``decisions``, ``fmt`` and ``why-not`` on real policies, without a gateway."""

import json
import os
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from gateway.adapters.rego.layers import load, shipped
from gateway.cli.policies import COMMANDS, whynot
from gateway.core.tool import EffectClass
from tests.past import Past, asked, called, scoped, told

CALL = "018f0000-0000-7000-8000-000000000000"
EVIL = ('x"} if true', "a\\", "${input}", "`raw`", "名前", "ünï", "#", "]}", "a b", "\N{PILE OF POO}")
TWO = """package gateway.policies.two

deny contains {"id": "two.no", "msg": "the first"} if {
	input.args.n == 1
}

deny contains {
	"id": "two.no",
	"msg": "the second",
} if {
	second
	input.args.n == 2
}

second if input.args.n == 2

allow contains said if {
	said := {"id": "two.ok", "msg": "made in the body"}
}
"""


def opa() -> str:
    """The folder of a real OPA, on PATH or where ``make setup`` builds one; skips the test where there is none."""
    found = shutil.which("opa")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ostiary"
    built = sorted(cache.glob("opa-*/opa")) if found is None else [Path(found)]
    if not built:
        pytest.skip("there is no opa on PATH nor in the cache")
    return str(built[-1].parent)


@pytest.fixture
def observed(tmp_path: Path) -> Past:
    """Calls of agents with any name, which observe mode let pass."""
    past = scoped(tmp_path, {})
    past.observe = True
    past.happen([called("erp.find", {"c": name}, agent=name, user=name) for name in EVIL])
    past.happen([called("erp.list", {"unit": "EUR", "in": True}, user=user) for user in "ab" for _ in range(6)])
    past.happen([called("erp.note", user=user, groups=frozenset({"desk", user})) for user in "ab"])
    past.happen([called("erp.me", agent=None), called("erp.pay", {}, effect=EffectClass.MONEY)])
    return past


def test_a_draft_is_sound_whatever_names_are_in_it(observed: Past) -> None:
    """Each name stays a name: check and test pass, everything but money passes a try, and nobody else gets in."""
    words, folder = observed.written(), str(observed.folder / "draft")
    said = told("policy", "suggest", "--out", folder, *words)
    assert len(said["rules"]) == len(EVIL) + 3
    assert [(one["tool"], one["calls"]) for one in said["left"]] == [("erp.pay", 1)]
    assert told("policy", "check", folder)["ok"]
    tests = told("policy", "test", folder)
    assert tests["ok"]
    assert [one["percent"] for one in tests["coverage"]] == [100.0]
    assert told("policy", "try", folder, *words)["held"] == []
    past = scoped(observed.folder, {})
    past.observe = True
    past.happen(
        [called("erp.find", agent=EVIL[0], user=EVIL[1]), called("erp.list", {"unit": "USD", "in": True}, user="a")]
    )
    done = told("policy", "replay", "--candidate", folder, *past.written())
    assert done["newly_allowed"] == []


def test_a_draft_is_never_written_over_anything(observed: Past) -> None:
    """Exit code 2 for a folder that holds something; 1 where there is nothing to suggest."""
    (observed.folder / "there").mkdir()
    (observed.folder / "there" / "x").write_text("", "utf-8")
    assert asked("policy", "suggest", "--out", str(observed.folder / "there"), *observed.written()).exit_code == 2
    nothing = ("--out", str(observed.folder / "new"), "--tool", "none.*", *observed.written())
    assert asked("policy", "suggest", *nothing).exit_code == 1
    assert not (observed.folder / "new").exists()


def test_a_draft_is_formatted_as_opa_does_and_opa_tests_it(observed: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a real OPA: `policy fmt --check` has nothing to say of a draft."""
    monkeypatch.setenv("PATH", opa())
    folder = observed.folder / "draft"
    assert asked("policy", "suggest", "--out", str(folder), *observed.written()).exit_code == 0
    assert told("policy", "fmt", "--check", str(folder)) == {"ok": True, "files": [], "regal": None}
    (folder / "loose.rego").write_text("package gateway.policies.loose\nx:=1\n", "utf-8")
    assert told("policy", "fmt", "--check", str(folder), code=1)["files"] == [str(folder / "loose.rego")]
    assert told("policy", "fmt", str(folder))["ok"]
    assert (folder / "loose.rego").read_text("utf-8") == "package gateway.policies.loose\n\nx := 1\n"
    (folder / "loose.rego").write_text("package", "utf-8")
    assert asked("policy", "fmt", str(folder)).exit_code == 1


def test_without_opa_nothing_is_formatted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2 and one line that says what to install; --trace says the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = asked("policy", "fmt", str(tmp_path))
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "opa on PATH" in done.stderr
    assert asked("policy", "explain", CALL, "--trace").exit_code == 2


@pytest.fixture
def two(tmp_path: Path) -> Past:
    """A past under a package with two rules of one id."""
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "two.rego").write_text(TWO, "utf-8")
    past = Past(tmp_path, load([shipped(), tmp_path / "team"]))
    past.happen([called("erp.find", {"n": number}) for number in (2, 1, 3)])
    return past


@pytest.mark.parametrize(("number", "spoke"), [(0, [7]), (1, [3]), (2, [])])
def test_of_two_rules_with_one_id_the_one_that_spoke_is_shown(two: Past, number: int, spoke: list[int]) -> None:
    """By its head, which is evaluated only where its body holds; rules made in the body are found, too."""
    said = told("policy", "explain", f"{CALL[:-1]}{number}", *two.written())
    assert said["same"]
    assert [one["lines"][0]["number"] for one in said["spoke"] if one["part"] == "deny"] == spoke
    assert [one["id"] for one in said["spoke"] if one["part"] == "allow"] == ["two.ok"]


def test_an_explanation_shows_source_and_what_of_it_was_evaluated(two: Past) -> None:
    """File and line, each line marked, and that the decision is the recorded one."""
    screen = asked("policy", "explain", CALL, *two.written())
    assert screen.exit_code == 0
    assert "deny two.no  team/two.rego:7" in screen.stdout
    assert '     9 ▶     "msg": "the second",' in screen.stdout
    assert "through data.gateway.policies.two.second  team/two.rego:15" in screen.stdout
    assert "the same effect, reasons and requirements" in screen.stdout
    two.events[0]["result"]["effect"] = "allow"
    other = asked("policy", "explain", CALL, *two.written())
    assert other.exit_code == 2
    assert "it is NOT the same: effect: recorded 'allow', now 'deny'" in other.stdout


def test_what_cannot_be_explained_says_why(two: Past) -> None:
    """No such call, an input that is gone, a policy that is gone."""
    words = two.written()
    assert "no decision of call nobody" in asked("policy", "explain", "nobody", *words).stderr
    two.events[0]["bundles"]["ostiary"]["revision"] = "f" * 64
    gone = asked("policy", "explain", CALL, *two.written())
    assert gone.exit_code == 1
    assert "is not kept any more" in gone.stderr
    del two.events[0]["input"]
    erased = asked("policy", "explain", CALL, *two.written())
    assert "the input was not kept" in erased.stderr


def test_a_real_opa_traces_a_decision(two: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one: its own trace of the very input and policy, and the same reasons."""
    monkeypatch.setenv("PATH", opa())
    said = told("policy", "explain", CALL, "--trace", *two.written())
    assert "team/two.rego:12" in said["trace"]
    assert '"the second"' in said["trace"]
    screen = asked("policy", "explain", CALL, "--trace", *two.written())
    assert "team/two.rego:12" in screen.stdout


def test_an_export_is_what_was_recorded(two: Past) -> None:
    """Line for line, to a file or standard output; a file that is there stays."""
    source = (two.folder / "decisions.jsonl").read_bytes() if two.written() else b""
    out = two.folder / "out.jsonl"
    assert told("policy", "decisions", *two.written(), "--jsonl", str(out))["decisions"] == 3
    assert out.read_bytes() == source
    assert asked("policy", "decisions", *two.written(), "--jsonl", str(out)).exit_code == 2
    printed = asked("policy", "decisions", *two.written(), "--jsonl", "-", "--limit", "1")
    assert printed.stdout_bytes == source.splitlines(keepends=True)[0]
    listed = told("policy", "decisions", *two.written())
    assert listed["kinds"][0] == {
        "tool": "erp.find",
        "agent": "test-agent",
        "effect": "deny",
        "enforced": "yes",
        "reasons": "two.no, scope.not_granted",
        "calls": 2,
    }
    assert "recorded decisions: 3" in asked("policy", "decisions", *two.written()).stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_of_commands_says_what_they_say(name: str) -> None:
    """Each row's command loads, and its own short help is the row's text."""
    module, attribute, words = COMMANDS[name]
    command = getattr(import_module(f"gateway.cli.policies.{module}"), attribute)
    assert (command.name, command.get_short_help_str(200)) == (name, words)


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    """Those of the table beside the others; an unknown one is wrong usage."""
    done = asked("policy", "--help")
    assert done.exit_code == 0
    for name in (*COMMANDS, "check", "test", "build"):
        assert f"  {name} " in done.stdout
    assert asked("policy", "nothing").exit_code == 2


def test_facts_are_looked_up_though_their_keys_hold_dots() -> None:
    """The longest key that is there; a path that leads nowhere is said to be absent."""
    data = {"data": {"gateway": {"limits": {"erp.pay": {"calls_per_run": 3}, "erp": {"x": 1}}}}}
    assert whynot.value_at(data, ["data", "gateway", "limits", "erp", "pay", "calls_per_run"]) == 3
    assert whynot.value_at(data, ["data", "gateway", "limits", "erp", "x"]) == 1
    assert whynot.is_absent(whynot.value_at(data, ["data", "gateway", "limits", "erp", "none"]))
    assert json.dumps(whynot.value_at(data, [])) == json.dumps(data)

"""Requirements and tests are tied in both directions, and what is open can only become less."""

import subprocess

import pytest

from tests.arch.sources import ROOT
from tests.arch.tie import MANIFEST, OPEN_IDS, main, manifest, marked


def open_ids(text: str) -> set[str]:
    """The ids of an ``open-ids.txt``."""
    return set(text.split())


def git(*arguments: str) -> str:
    """What git answers; nothing where there is no repository or no such object."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def test_every_requirement_is_a_claim_with_tests_or_open() -> None:
    """An entry has a one-sentence claim, and either tests or ``open = true``, never both."""
    for name, entry in manifest().items():
        assert set(entry) in ({"claim", "tests"}, {"claim", "open"}), name
        assert str(entry["claim"]).endswith("."), name
        assert entry.get("tests") or entry.get("open") is True, name


def test_listed_tests_exist_and_carry_the_id() -> None:
    """A test that the manifest lists is there and names the requirement in its marker."""
    known = marked()
    for name, entry in manifest().items():
        for test in entry.get("tests", []):
            assert test in known, f"{name}: there is no {test}"
            assert name in known[test], f"{name}: {test} does not carry the marker"


def test_marked_tests_are_listed() -> None:
    """A marker names ids of the manifest only, and the manifest lists its test."""
    entries = manifest()
    for test, names in marked().items():
        assert names <= set(entries), f"{test} names unknown ids: {sorted(names - set(entries))}"
        unlisted = {name for name in names if test not in entries[name].get("tests", [])}
        assert not unlisted, f"{MANIFEST} does not list {test} under {sorted(unlisted)}"


def test_the_list_of_open_ids_is_true() -> None:
    """``open-ids.txt`` holds the open ids of the manifest, sorted, and nothing else."""
    still_open = sorted(name for name, entry in manifest().items() if entry.get("open"))
    assert (ROOT / OPEN_IDS).read_text().splitlines() == still_open


def test_open_ids_only_become_fewer() -> None:
    """No id is open now that was not open in every earlier version of the list."""
    now = open_ids((ROOT / OPEN_IDS).read_text())
    for commit in git("log", "--format=%H", "--", OPEN_IDS).split():
        before = git("show", f"{commit}:{OPEN_IDS}")
        assert not before or now <= open_ids(before), f"reopened since {commit[:12]}: {sorted(now - open_ids(before))}"


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--dry-run", 2), ("TOOL-7", 2)])
def test_tie_writes_only_when_it_is_asked_to(word: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Help is help, and words that it does not know end it before anything is written."""
    files = [ROOT / MANIFEST, ROOT / OPEN_IDS]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code == code
    assert "tests.arch.tie" in "".join(capsys.readouterr())
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before

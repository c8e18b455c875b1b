"""What the gateway depends on is pinned, permissively licensed and looked up in the advisory databases."""

import re
import tomllib
from importlib import metadata

import pytest

from deploy.checks.advisories import verdict
from tests.arch.sources import ROOT

PERMISSIVE = re.compile(
    r"(MIT|MIT-0|BSD|BSD-[23]-Clause|Apache[- ]2\.0|PSF-2\.0|ISC|0BSD|MIT License|BSD License|Apache Software License"
    r"|Python Software Foundation License)"
)
PINNED = re.compile(r"[A-Za-z0-9_.-]+(\[[a-z0-9, -]+\])?==\S+( ; .*)? \\\n    --hash=sha256:[0-9a-f]{64}")
# Read by a person, where the metadata does not say it or says something that is not on the list.
READ = {
    "certifi": "MPL-2.0: file-level copyleft on a list of certificates that is shipped unchanged",
    "httpx-aiohttp": "BSD-3-Clause: its metadata holds the licence text itself",
}


def pinned() -> dict[str, str]:
    """The base requirements by name, with the marker under which each is needed."""
    lines = (ROOT / "requirements" / "base.txt").read_text().splitlines()
    found = [re.match(r"([A-Za-z0-9_.-]+)==[^ ;]+(?: ; ([^\\]*))?", line) for line in lines]
    return {match[1]: match[2] or "" for match in found if match}


def licence(name: str) -> list[str]:
    """The licences an installed distribution names: by expression, else by short text, else by classifier."""
    about = metadata.metadata(name)
    text = next(iter(about.get_all("License-Expression") or about.get_all("License") or []), "")
    if text and "\n" not in text:
        return re.split(r" (?:AND|OR|and|or) |, ", text)
    return [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith("License")]


@pytest.mark.requirement("GOV-4")
def test_the_gateway_runs_on_permissive_licences_only() -> None:
    """Each pinned dependency names permissive licences only, or a person has read it and said why it is fine."""
    names = pinned()
    assert len(names) > 20
    for name, marker in names.items():
        try:
            licences = licence(name)
        except metadata.PackageNotFoundError:
            assert marker, f"{name} is pinned for every platform and not installed"
            continue
        fine = bool(licences) and all(PERMISSIVE.fullmatch(one) for one in licences)
        assert fine or name in READ, f"{name}: {licences}"


def test_every_dependency_is_pinned_with_hashes() -> None:
    """Each requirements file pins each distribution with ``==`` and at least one SHA-256, and names no index."""
    for file in sorted((ROOT / "requirements").glob("*.txt")):
        blocks = re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE))
        assert blocks
        for block in blocks:
            assert PINNED.match(block), block[:80]
        assert "://" not in file.read_text()


def test_the_pins_cover_what_the_project_declares() -> None:
    """Every dependency of ``pyproject.toml`` is in ``requirements/base.txt``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[ ><=!~;\[]", one)[0].lower() for one in project["dependencies"]}
    assert declared <= {name.lower() for name in pinned()}


@pytest.mark.requirement("GOV-4")
def test_the_check_includes_security_rules_and_advisories() -> None:
    """``make check`` runs all of ruff's rules, the security ones (``S``) too, and looks up advisories."""
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert lint["select"] == ["ALL"]
    assert {rule for rule in lint["ignore"] if rule.startswith("S")} <= {"S101"}
    for place, rules in lint["per-file-ignores"].items():
        assert not place.startswith(("gateway", "connectors")) or "S" not in rules
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    for step in ("ruff check", "mypy", "lint-imports", "deploy.checks.advisories"):
        assert step in recipe


@pytest.mark.requirement("GOV-4")
@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "no known vulnerability in 1"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "X-1"}]}], 1, "a 1 (X-1)"),
        ([{"name": "a", "skip_reason": "?"}, {"name": "b", "version": "1", "vulns": [{"id": "X-1"}]}], 1, "b 1 (X-1)"),
        ([{"name": "a", "skip_reason": "?"}, {"name": "b", "version": "1", "vulns": []}], 1, "no answer for a"),
        ([{"name": "a", "skip_reason": "?"}], 0, "NOT CHECKED"),
        ([], 0, "NOT CHECKED"),
    ],
)
def test_advisories_fail_the_check(found: list[dict[str, object]], code: int, words: str) -> None:
    """A known vulnerability or a partial answer fails; an unreachable database is said to prove nothing."""
    assert verdict(found)[0] == code
    assert words in verdict(found)[1]

"""The page on the lint: each rule has a form that it refuses and one that passes, and none is missing."""

import re
from pathlib import Path

import pytest

from gateway.adapters.rego import testing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "policy-lint.md").read_text("utf-8")
SECTION = re.compile(r"^## (GW\d+): [^\n]*\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = {found[0]: found[1] for found in SECTION.findall(PAGE)}


def findings(folder: Path, text: str, rule: str) -> set[str]:
    """Rules that find something in a form of ``rule``."""
    head = "" if text.startswith("package ") else "package gateway.policies.page\n\n"
    (folder / "page.rego").write_text(head + text, "utf-8")
    return {one.rule for one in testing.check(folder, *(["the page"] if rule == "GW006" else []))}


def test_every_rule_has_its_section() -> None:
    """All that the lint can say stand here, in order; GW000 has a paragraph of its own."""
    sources = (ROOT / "gateway" / "adapters" / "rego").glob("*.py")
    known = {rule for source in sources for rule in re.findall(r'"(GW\d{3})"', source.read_text("utf-8"))}
    assert ["GW000", *SECTIONS] == sorted(known)
    assert "`GW000` is " in PAGE


@pytest.mark.parametrize("rule", SECTIONS)
def test_the_first_form_is_refused_and_the_second_passes(tmp_path: Path, rule: str) -> None:
    """By this rule and no other."""
    refused, mended = re.findall(r"^```rego\n(.*?)^```$", SECTIONS[rule], re.MULTILINE | re.DOTALL)
    assert findings(tmp_path, refused, rule) == {rule}
    assert findings(tmp_path, mended, rule) == set()

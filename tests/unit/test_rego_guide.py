"""The Rego guide: what it shows is run by the real engine, so it cannot rot."""

import re
from pathlib import Path

import pytest

from gateway.adapters.rego import testing

GUIDE = (Path(__file__).parents[2] / "docs" / "rego-guide.md").read_text("utf-8")
_BLOCK = re.compile(r"^```rego\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PACKAGE = re.compile(r"^package gateway\.(policies|tests)\.(\w+)$", re.MULTILINE)
RECIPES = {part.splitlines()[0]: part for part in GUIDE.split("\n## ")[1:] if part[0].isdigit()}


def packages(text: str) -> dict[str, str]:
    """The Rego of a text, by the name of its file."""
    found = {}
    for block in _BLOCK.findall(text):
        package = _PACKAGE.search(block)
        assert package is not None, block
        kind, name = package.groups()
        found[f"{name}_test.rego" if kind == "tests" else f"{name}.rego"] = block
    return found


def write(folder: Path, files: dict[str, str]) -> Path:
    """The files in a folder."""
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
    return folder


def test_there_are_ten_recipes() -> None:
    """Each has one package and its test, of the same name."""
    assert [title.partition(".")[0] for title in RECIPES] == [str(number) for number in range(1, 11)]
    for text in RECIPES.values():
        rules, tests = sorted(packages(text), key=len)
        assert tests == rules.replace(".rego", "_test.rego")


def test_everything_in_the_guide_is_sound_and_true(tmp_path: Path) -> None:
    """No findings, every test passes, and the tests evaluate every line."""
    folder = write(tmp_path, packages(GUIDE))
    assert testing.check(folder) == []
    report = testing.test(folder, 30.0)
    assert [result for result in report.results if not result.passed] == []
    assert len({result.file for result in report.results}) == len(RECIPES) + 1
    assert [(item.file, item.missed) for item in report.coverage if item.missed] == []


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_stands_alone(title: str, tmp_path: Path) -> None:
    """It can be copied without the others."""
    assert testing.test(write(tmp_path, packages(RECIPES[title])), 30.0).passed


def test_the_check_refuses_what_the_guide_says_it_refuses(tmp_path: Path) -> None:
    """Conditions in the text that are not to be written are findings indeed."""
    head = 'package gateway.policies.wrong\n\ndeny contains {"id": "wrong.x", "msg": "m"} if {\n\t'
    wrong = {
        'not startswith(input.args.to, "a")': "GW001",
        "not input.tool.vendor.region in data.house.eu_regions": "GW001",
        "time.now_ns() > 5": "GW002",
    }
    for line, rule in wrong.items():
        assert line in GUIDE or line.split(" > ")[0] in GUIDE
        findings = testing.check(write(tmp_path, {"wrong.rego": f"{head}{line}\n}}\n"}))
        assert [finding.rule for finding in findings] == [rule]

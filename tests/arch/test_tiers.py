"""What runs in the deep tier only is never the whole of a test."""

import ast
from pathlib import Path

import pytest

from deploy.checks import suites
from tests.arch.sources import sources
from tests.tiers import DEEP, tiered

pytest_plugins = ["pytester"]


def test_the_deep_tier_is_made_in_one_place() -> None:
    """No test marks itself as deep: a case is, by ``tiered``, beside quick ones of the same test."""
    marked = [
        f"{source.path}:{node.lineno}"
        for source in sources("tests")
        for node in source.nodes
        if isinstance(node, ast.Attribute) and node.attr == DEEP and ast.unparse(node.value).endswith("mark")
    ]
    assert marked == []


def test_a_test_has_cases_in_both_tiers() -> None:
    """Neither a test without a quick case nor one without a deep one can be made."""
    quick, deep = tiered([1], deep=[1, 2])
    assert (quick, deep.values, [mark.name for mark in deep.marks]) == (1, (2,), [DEEP])
    for cases in (([], [1]), ([1], [1]), ([1], [])):
        with pytest.raises(ValueError, match="both tiers"):
            tiered(*cases)


def test_what_is_left_out_is_said(pytester: pytest.Pytester) -> None:
    """By test and number; ``--deep`` runs all, and ``-m deep`` with it the deep tier alone."""
    pytester.makeconftest(
        "from tests.tiers import pytest_addoption, pytest_collection_modifyitems, pytest_terminal_summary\n"
    )
    pytester.makeini("[pytest]\nmarkers = deep\naddopts = -p no:cacheprovider\n")
    body = "@pytest.mark.parametrize('n', tiered([1], deep=[2, 3]))\ndef test_it(n): pass\n"
    test = pytester.makepyfile(f"import pytest\nfrom tests.tiers import tiered\n{body}")
    name = Path(test).name
    quick = pytester.runpytest()
    quick.assert_outcomes(passed=1, deselected=2)
    quick.stdout.fnmatch_lines([f"{name}::test_it: 2"])
    assert [found[1] for line in quick.outlines if (found := suites._LEFT_OUT.match(line))] == ["2"]
    pytester.runpytest("--deep").assert_outcomes(passed=3)
    deep = pytester.runpytest("--deep", "-m", "deep")
    deep.assert_outcomes(passed=2, deselected=1)
    assert "not run here" not in deep.stdout.str()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("def test_it(): pass", 0),
        ("def test_it(): pass\ndef test_end():\n    import os\n    os._exit(0)", 1),
    ],
    ids=["passes", "ends half-way"],
)
async def test_a_part_that_tested_nothing_to_its_end_has_not_passed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, code: int
) -> None:
    """An exit code of 0 is believed where the last line says that tests have passed."""
    (tmp_path / "tests" / "part").mkdir(parents=True)
    (tmp_path / "tests" / "part" / "test_it.py").write_text(body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # none is needed, and each takes a while
    heard = suites._Heard()
    assert await suites._tested("part", ["tests/part"], heard) == code
    assert bool(heard.failures) == bool(code)

"""Two tiers: the quick one is every ``make test``, the deep one the rest of long series, ``make campaign NAME=deep``.

A test has a deep part only by ``tiered``, so the same function runs quickly, on fewer cases, each time. What is left
out is said at the end of each run, test by test.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

DEEP = "deep"
_OPTION = "--deep"
_LEFT_OUT = pytest.StashKey[Counter[str]]()


def tiered(quick: Sequence[Any], deep: Iterable[Any]) -> list[Any]:
    """Cases to parametrize a test with: those of ``quick`` run each time, the others of ``deep`` in the deep tier.

    Raises:
        ValueError: no case would run each time, or none more in the deep tier.
    """
    more = [case for case in deep if case not in quick]
    if not quick or not more:
        raise ValueError("both tiers have a case at least")
    return [*quick, *(pytest.param(case, marks=getattr(pytest.mark, DEEP)) for case in more)]


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--deep`` runs both tiers; with ``-m deep`` the deep one alone."""
    parser.addoption(_OPTION, action="store_true", help="run the deep tier, too")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the deep tier out, unless it is asked for."""
    if config.getoption(_OPTION):
        return
    left_out = [item for item in items if item.get_closest_marker(DEEP) is not None]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker(DEEP) is None]
        config.stash[_LEFT_OUT] = Counter(item.nodeid.partition("[")[0] for item in left_out)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which tests of the deep tier were left out, and how many."""
    if left_out := config.stash.get(_LEFT_OUT, None):
        terminalreporter.section("deep tier, left to make campaign NAME=deep")
        for test, count in sorted(left_out.items()):
            terminalreporter.line(f"{test}: {count}")
        terminalreporter.line(f"deep tier: {left_out.total()} cases not run here")

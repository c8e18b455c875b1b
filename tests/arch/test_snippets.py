"""What docs/agents.md tells to copy is what the clients of the tests run."""

import re
from itertools import pairwise

from tests.arch.sources import ROOT

PAGE = (ROOT / "docs" / "agents.md").read_text("utf-8")
PLOT = (ROOT / "tests/e2e/clients/plot.py").read_text("utf-8")
SECTION = re.compile(r"\[Whole script\]\(\.\./(tests/e2e/clients/[\w.]+)\)\n\n```\w+\n(.*?)```\n", re.DOTALL)


def test_each_line_to_copy_is_a_line_that_is_run() -> None:
    """A snippet stands in its script in one piece; the lines that all Python begins with stand in what all share."""
    found = SECTION.findall(PAGE)
    assert len(found) == PAGE.count("[Whole script]") == 9
    for script, snippet in found:
        text = (ROOT / script).read_text("utf-8")
        lines = [line for line in snippet.splitlines() if line]
        assert all(line in text.splitlines() for line in lines), script
        assert all(text.index(one) < text.index(two) for one, two in pairwise(lines)), script
    shared = PAGE.partition("All Python below begins with\n\n```python\n")[2].partition("```")[0]
    assert shared
    assert shared in PLOT

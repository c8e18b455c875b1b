"""The table of what is carried between the protocol eras: each cell names the tests that hold it, and they exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CELL = re.compile(r"^(?P<words>.*?)(?:<!-- (?P<tests>[a-z0-9_/:. ]+) -->)?$")
_COLUMNS = 3


def table(text: str) -> list[list[str]]:
    """The cells of the table's rows, the first of each being the row's name."""
    section = text.partition("## What is carried\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def faults(text: str, root: Path = ROOT) -> list[str]:
    """What is wrong with the table, cell by cell."""
    rows, found = table(text), []
    for name, *cells in rows:
        if len(cells) != _COLUMNS:
            found.append(f"{name}: {len(cells)} cells")
        found += [f"{name}, column {at}: {fault}" for at, cell in enumerate(cells, 1) for fault in _faults(cell, root)]
    return found or ([] if rows else ["there is no table"])


def _faults(cell: str, root: Path) -> list[str]:
    said = _CELL.match(cell)
    words, tests = (said["words"].strip(), said["tests"]) if said else (cell, None)
    if words == "-":
        return []  # there is nothing to carry
    if tests is None:
        return ["it names no test"]
    return [f"there is no test {test}" for test in tests.split() if not _exists(test, root)]


def _exists(test: str, root: Path) -> bool:
    file, _, name = test.partition("::")
    path = root / "tests" / f"{file}.py"
    if not path.is_file() or not name.startswith("test_"):
        return False
    body = ast.parse(path.read_text("utf-8")).body
    return any(isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name == name for one in body)


def test_each_cell_of_the_table_has_a_test() -> None:
    """Also those that say that something is not carried."""
    assert faults((ROOT / "docs" / "mcp.md").read_text("utf-8")) == []


def test_a_cell_without_a_test_is_found() -> None:
    """Or with one that does not exist, or a cell too few; nothing at all is no table."""
    own = "arch/test_carried::test_a_cell_without_a_test_is_found"
    good = f"| x | yes <!-- {own} --> | - | no <!-- {own} {own} --> |"
    head = "## What is carried\n\n| | a | b | c |\n|---|---|---|---|\n"
    assert faults(head + good) == []
    assert faults(head + good.replace(f" <!-- {own} -->", "", 1)) == ["x, column 1: it names no test"]
    assert faults(head + good.replace(own, f"{own}_not", 1)) == [f"x, column 1: there is no test {own}_not"]
    assert faults(head + good.replace("arch/", "story/", 1)) != []
    assert faults(head + f"| x | yes <!-- {own} --> |") == ["x: 1 cells"]
    assert faults("# MCP\n") == ["there is no table"]

"""The manifest of requirements and the tests that carry its ids.

``python -m tests.arch.tie`` writes the markers found in the tests into ``requirements.toml`` and brings the list of
open ids up to date; claims and their order stay as they are. ``test_requirements.py`` says whether the two agree.
"""

import argparse
import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

from tests.arch.sources import ROOT, sources

MANIFEST = "tests/requirements.toml"
OPEN_IDS = "tests/open-ids.txt"
_STATE = re.compile(r"^\[([A-Z]+-\d+)\]\n(claim = .*\n)(?:open = true\n|tests = \[\n(?:  .*\n)*\]\n)", re.MULTILINE)


def manifest() -> dict[str, dict[str, Any]]:
    """The requirements by id: ``claim`` with ``tests`` (node ids) or ``open``."""
    return tomllib.loads((ROOT / MANIFEST).read_text())


def marked() -> dict[str, set[str]]:
    """Every test by its node id (``tests/...py::name``), with the requirement ids its markers name."""
    return {
        f"{source.path}::{node.name}": set(_ids(node.decorator_list))
        for source in sources("tests")
        for node in source.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def _ids(decorators: list[ast.expr]) -> Iterator[str]:
    for mark in decorators:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.requirement":
            yield from (ast.literal_eval(argument) for argument in mark.args)


def tie() -> None:
    """Write what the markers say into the manifest and the list of open ids."""
    tests = marked()
    still_open = []

    def entry(match: re.Match[str]) -> str:
        name, claim = match[1], match[2]
        own = sorted(test for test, names in tests.items() if name in names)
        if not own:
            still_open.append(name)
            return f"[{name}]\n{claim}open = true\n"
        return f"[{name}]\n{claim}tests = [\n" + "".join(f'  "{test}",\n' for test in own) + "]\n"

    text = _STATE.sub(entry, (ROOT / MANIFEST).read_text())
    (ROOT / MANIFEST).write_text(text)
    (ROOT / OPEN_IDS).write_text("".join(f"{name}\n" for name in sorted(still_open)))


def main(words: Sequence[str] | None = None) -> None:
    """The command: takes no words but ``--help``, and writes nothing where it is given any."""
    argparse.ArgumentParser(prog="python -m tests.arch.tie", description=(__doc__ or "").strip()).parse_args(words)
    tie()


if __name__ == "__main__":
    main()

"""The project's own Python files, parsed once: what the architecture tests look at."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("gateway", "connectors", "sandbox", "planner", "tests", "loadtests", "deploy")
PRODUCT = ("gateway", "connectors", "sandbox", "planner")


@dataclass(frozen=True)
class Source:
    """One file: its path from the root, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Dotted module name; a package goes by its folder."""
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def lines(self) -> list[str]:
        """The file's lines, from index 0."""
        return self.text.splitlines()


@cache
def sources(*rooms: str) -> tuple[Source, ...]:
    """All Python files under the rooms, in order of path."""
    found = [file for room in rooms for file in sorted((ROOT / room).rglob("*.py"))]
    texts = [(file.relative_to(ROOT).as_posix(), file.read_text()) for file in found]
    return tuple(Source(path, text, ast.parse(text)) for path, text in texts)


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones and methods too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """The calls of ``name`` or of ``anything.name``."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in found if called(call) == name]


def called(call: ast.Call) -> str:
    """The last part of what is called."""
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""

"""The project's own Python files, parsed once: what the architecture tests look at."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
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

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All nodes of the tree: walking it takes longer than whatever a test asks of each."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def lines(self) -> list[str]:
        """The file's lines, from index 0."""
        return self.text.splitlines()


@cache
def sources(*rooms: str) -> tuple[Source, ...]:
    """All Python files under the rooms, in order of path."""
    return tuple(_source(file) for room in rooms for file in sorted((ROOT / room).rglob("*.py")))


@cache
def _source(file: Path) -> Source:
    text = file.read_text()
    return Source(file.relative_to(ROOT).as_posix(), text, ast.parse(text))


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones and methods too."""
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """The calls of ``name`` or of ``anything.name``."""
    return [call for call in _calls(tree) if called(call) == name]


@cache
def _calls(tree: ast.AST) -> tuple[ast.Call, ...]:
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """The last part of what is called."""
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""

"""What a command prints: lines for people, or one JSON line for machines, and failures with their fix."""

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, TypeVar

import click

_JSON = "ostiary.json"
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
Decorated = TypeVar("Decorated", bound=Callable[..., None])


class Failed(click.ClickException):
    """The command did not succeed: exit code 1. ``fix`` says what to do; ``document`` is the failure for machines."""

    exit_code = 1

    def __init__(self, problem: str, fix: str | None = None, document: Any = None) -> None:
        """Keep the parts, and whether the command in hand answers in JSON."""
        super().__init__(problem)
        self.fix = fix
        self.document = {"error": problem, "fix": fix} if document is None else document
        self.machine = wants_json()

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the problem and its fix to stderr, and for machines the document to stdout."""
        click.echo(f"ostiary: {self.format_message()}", err=True, file=file)
        if self.fix:
            click.echo(f"  fix: {self.fix}", err=True, file=file)
        if self.machine:
            click.echo(json.dumps(self.document))


class Misconfigured(Failed):
    """Wrong usage or configuration: exit code 2; nothing was started."""

    exit_code = 2


def json_option(command: Decorated) -> Decorated:
    """Add ``--json``."""
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_note,
        help="Answer in JSON; the last line of the output is the document.",
    )(command)


def _note(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[_JSON] = value


def wants_json() -> bool:
    """Whether the command in hand was called with ``--json``."""
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(_JSON))


def answer(document: Any, lines: Iterable[str]) -> None:
    """Print ``document`` as one line of JSON, or ``lines`` for people."""
    if wants_json():
        click.echo(json.dumps(document))
        return
    for line in lines:
        click.echo(line)


def shown(value: object) -> str:
    """``value`` on one line of a terminal: control, bidirectional and invisible characters escaped.

    What agents, upstreams and policies wrote must not be able to move the cursor or to look like something else.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _HIDDEN else char for char in text
    )


def columns(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table as aligned lines, heads first."""
    cells = [list(heads), *([shown("" if cell is None else cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]

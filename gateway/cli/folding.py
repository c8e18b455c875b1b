"""Long lines as several, of which all but the first are marked: the terminal itself would not say that they go on.

Blanks enough within a text would otherwise begin a row of the screen with whatever its writer likes.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import chop_cells

_LEAST = 8


def wrapped(lines: Iterable[str], width: int) -> list[str]:
    """Each line as lines of at most ``width`` cells; what goes on is marked."""
    return [part for line in lines for part in _parts(line, max(width, _LEAST))]


def for_screen(lines: Sequence[str]) -> Sequence[str]:
    """``lines`` as they are printed: wrapped where they go to a terminal, otherwise as they are."""
    return wrapped(lines, shutil.get_terminal_size().columns) if is_terminal() else lines


def is_terminal() -> bool:
    """Whether what is printed goes to a person's screen."""
    return sys.stdout.isatty()


def _parts(line: str, width: int) -> Iterator[str]:
    if len(line) <= width and line.isascii():
        yield line
        return
    first, *rest = chop_cells(line, width) or [""]
    yield first
    for part in chop_cells("".join(rest), width - 2) if rest else ():
        yield f"\u21b3 {part}"

"""A terminal without glass: bytes in, lines of styled cells out. Refuses what it does not know."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.ansi import SGR_STYLE_MAP
from rich.cells import cell_len
from rich.color import Color
from rich.style import Style

_TAB = 8
_CONTROL = re.compile(r"\x1b\[(?P<args>[?\d;]*)(?P<kind>[A-Za-z])|\x1b(?P<other>.?)|(?P<plain>[^\x1b]+)", re.DOTALL)
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]+|(?P<control>[\x00-\x1f\x7f])")
_IGNORED_MODES = frozenset({"?25", "?2004"})  # cursor shown or hidden, pastes marked
_OTHER_SCREEN = "?1049"


class UnknownOutput(ValueError):
    """The output holds something this terminal does not know: the picture would not be what a person sees."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a line, one character; the second half of a wide one is an empty text inside a terminal only."""

    text: str
    style: Style


BLANK = Cell(" ", Style.null())
Line = tuple[Cell, ...]


class Terminal:
    """Keeps every line ever printed, the ones scrolled off too; the last ``rows`` of them are the screen."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self._lines: list[list[Cell]] = [[]]
        self._row = self._column = 0
        self._style = Style.null()
        self._aside: tuple[list[list[Cell]], int, int] | None = None
        self._held = ""
        self._kinds: dict[str, Callable[[str], None]] = {
            "m": self._render,
            "K": self._erase_line,
            "J": self._erase_below,
            "H": self._place,
            "A": lambda args: self._move_to(self._row - _number(args)),
            "B": lambda args: self._move_to(self._row + _number(args)),
            "C": lambda args: self._move_right(_number(args)),
            "D": lambda args: self._move_right(-_number(args)),
            "G": lambda args: self._move_right(_number(args) - 1 - self._column),
            "h": lambda args: self._switch(args, on=True),
            "l": lambda args: self._switch(args, on=False),
        }

    def feed(self, text: str) -> None:
        """Take in a piece of output; a sequence may be cut in two by its end.

        Raises:
            UnknownOutput: it holds a control that is not known.
        """
        text, self._held = self._held + text, ""
        for match in _CONTROL.finditer(text):
            if match["plain"] is not None:
                self._write(match["plain"])
            elif match["kind"] is not None:
                self._control(match)
            else:
                self._incomplete(text[match.start() :])
                return

    def lines(self) -> list[Line]:
        """All lines, without blanks at their ends and without empty lines at the end."""
        found = [_trimmed(line) for line in self._lines]
        while found and not found[-1]:
            found.pop()
        return found

    def screen(self) -> list[str]:
        """The text of the lines on the screen."""
        return [text_of(_trimmed(line)) for line in self._lines[self._base() :]]

    def _control(self, match: re.Match[str]) -> None:
        kind = self._kinds.get(match["kind"])
        if kind is None:
            raise UnknownOutput(f"unknown control {match[0]!r}")
        kind(match["args"])

    def _incomplete(self, rest: str) -> None:
        if not re.fullmatch(r"\x1b(\[[?\d;]*)?", rest):
            raise UnknownOutput(f"unknown control {rest[:12]!r}")
        self._held = rest

    def _write(self, text: str) -> None:
        for match in _PRINTABLE.finditer(text):
            if match["control"] is not None:
                self._step(match["control"])
            else:
                for char in match[0]:
                    self._put(char)

    def _step(self, control: str) -> None:
        match control:
            case "\n":
                self._move_to(self._row + 1, scroll=True)
            case "\r":
                self._column = 0
            case "\b":
                self._move_right(-1)
            case "\t":
                self._column = min(self.columns - 1, (self._column // _TAB + 1) * _TAB)
            case "\a":  # heard, not seen
                return
            case _:
                raise UnknownOutput(f"unknown control {control!r}")

    def _put(self, char: str) -> None:
        width = cell_len(char)
        if width == 0:
            raise UnknownOutput(f"a character without width: {char!r}")
        if self._column + width > self.columns:
            self._column = 0
            self._move_to(self._row + 1, scroll=True)
        line = self._lines[self._row]
        line.extend([BLANK] * (self._column + width - len(line)))
        line[self._column] = Cell(char, self._style)
        for at in range(self._column + 1, self._column + width):
            line[at] = Cell("", self._style)
        self._column += width

    def _base(self) -> int:
        return max(0, len(self._lines) - self.rows)

    def _move_to(self, row: int, *, scroll: bool = False) -> None:
        base = self._base()
        last = row if scroll else base + self.rows - 1
        self._row = min(max(row, base), last)
        self._lines.extend([] for _ in range(self._row + 1 - len(self._lines)))

    def _move_right(self, by: int) -> None:
        self._column = min(max(0, self._column + by), self.columns - 1)

    def _place(self, args: str) -> None:
        row, _, column = args.partition(";")
        self._move_to(self._base() + _number(row) - 1)
        self._column = min(_number(column), self.columns) - 1

    def _erase_line(self, args: str) -> None:
        line = self._lines[self._row]
        match args:
            case "" | "0":
                del line[self._column :]
            case "1":
                line[: self._column + 1] = [BLANK] * (self._column + 1)
            case "2":
                line.clear()
            case _:
                raise UnknownOutput(f"unknown way to erase a line: {args!r}")

    def _erase_below(self, args: str) -> None:
        if args not in {"", "0", "2"}:
            raise UnknownOutput(f"unknown way to erase the screen: {args!r}")
        first = self._base() if args == "2" else self._row + 1
        if args != "2":
            self._erase_line("0")
        for line in self._lines[first:]:
            line.clear()

    def _switch(self, args: str, *, on: bool) -> None:
        if args in _IGNORED_MODES:
            return
        if args != _OTHER_SCREEN:
            raise UnknownOutput(f"unknown mode {args!r}")
        if on and self._aside is None:
            self._aside = (self._lines, self._row, self._column)
            self._lines, self._row, self._column = [[]], 0, 0
        elif not on and self._aside is not None:
            self._lines, self._row, self._column = self._aside
            self._aside = None

    def _render(self, args: str) -> None:
        codes = iter([int(code or 0) for code in args.split(";")])
        for code in codes:
            if code == 0:
                self._style = Style.null()
            elif code in {38, 48}:
                colour = _colour(codes)
                self._style += Style(color=colour) if code == 38 else Style(bgcolor=colour)  # noqa: PLR2004 - SGR
            elif code in SGR_STYLE_MAP:
                self._style += Style.parse(SGR_STYLE_MAP[code])
            else:
                raise UnknownOutput(f"unknown rendition {args!r}")


def text_of(line: Sequence[Cell]) -> str:
    """The text of a line."""
    return "".join(cell.text for cell in line)


def _trimmed(line: list[Cell]) -> Line:
    size = len(line)
    while size and line[size - 1].text == " " and line[size - 1].style.bgcolor is None:
        size -= 1
    return tuple(cell for cell in line[:size] if cell.text)


def _number(args: str) -> int:
    if args and not args.isdigit():
        raise UnknownOutput(f"unknown arguments {args!r}")
    return max(1, int(args or 1))


def _colour(codes: Iterator[int]) -> Color:
    try:
        kind = next(codes)
        if kind == 5:  # noqa: PLR2004 - SGR: one of 256
            return Color.from_ansi(next(codes))
        if kind == 2:  # noqa: PLR2004 - SGR: red, green, blue
            return Color.from_rgb(next(codes), next(codes), next(codes))
    except StopIteration:
        pass
    raise UnknownOutput("unknown way to name a colour")

"""What differs from run to run and says nothing: masked, so that a recording changes only when the output does."""

import re
from collections.abc import Callable, Iterable

from deploy.recording.terminal import BLANK, Cell, Line, text_of

# Pattern and what stands in its place; # stands for a number that is different each time. In order: first come, first.
MASKS: tuple[tuple[str, str], ...] = (
    (r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}", "(token)"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "(id)"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?", "(time)"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?\b", "(time)"),
    (r"(?<![\w+/])[A-Za-z0-9+/]{43}=", "(digest)"),
    (r"\b[0-9a-f]{32,128}\b", "(digest)"),
    (r"\b[0-9a-f]{8}(?=…)|(?<=…)[0-9a-f]{8}\b", "(hash)"),
    (r"(?<=\bv-)(?:[0-9a-f]{20}-)?[a-z-]+-[a-z0-9]{12}\b", "(minted)"),
    (r"\bdi[01][A-Za-z0-9+/]{8,}=*|(?<=_value\])[A-Za-z0-9+/]{1,3}=+", "(base64)"),
    (r"\b\d+(?= records?\b)|(?<=\brecord )\d+\b", "#"),
    (r"\b\d+(?= (?:approval|credential|decision|redaction|run|tool)\b)", "#"),
    (r"(?<=127\.0\.0\.1:)\d{2,5}\b", "#"),
    (r"(?<=localhost:)\d{2,5}\b", "#"),
    (r"(?<=/tmp/)[\w.-]+", "#"),
    (r"(?<=\bprocess )\d+\b|(?<=\bpid )\d+\b", "#"),
    (r"(?<![\w.])\d+(\.\d+)?(?=\s?(ms|us|\u00b5s|s|sec|seconds|minutes)\b)", "#"),
)
_GAP = re.compile(r" {2,}|$")
_DRAWN = re.compile(r"[\s\u2500-\u257f]+")


class Masks:
    """Masks lines; ids are numbered as they appear, so that one can see which are the same."""

    def __init__(self, more: Iterable[tuple[str, str]] = ()) -> None:
        """``more`` masks of a caller, which come first.

        Raises:
            re.error: one of them is no regular expression.
        """
        self._masks = [(re.compile(pattern), text) for pattern, text in (*more, *MASKS)]
        self._ids: dict[str, int] = {}

    def line(self, line: Line) -> Line:
        """``line`` with everything masked that has a mask; what stands in columns stays there."""
        for pattern, text in self._masks:
            line = _replaced(line, pattern, lambda found, text=text: self._instead(text, found))  # type: ignore[misc]
        return line

    def _instead(self, text: str, found: str) -> str:
        if text != "(id)":
            return text
        return f"(id-{self._ids.setdefault(found, len(self._ids) + 1)})"


def essence(text: str) -> str:
    """What counts when two recordings are compared: the words, not how wide a table or a frame became."""
    return _DRAWN.sub(" ", text).strip()


def _replaced(line: Line, pattern: re.Pattern[str], instead: Callable[[str], str]) -> Line:
    cells: list[Cell] = list(line)
    shift = 0
    for match in pattern.finditer(text_of(line)):
        if match.end() == match.start():
            continue
        new = instead(match[0])
        start, end = match.start() + shift, match.end() + shift
        cells[start:end] = [Cell(char, cells[start].style) for char in new]
        shift += len(new) - (end - start)
        shift -= _even_out(cells, start + len(new), len(new) - (end - start))
    return tuple(cells)


def _even_out(cells: list[Cell], after: int, grown: int) -> int:
    """Give or take blanks at the next gap, so that later columns stay; how many cells were taken."""
    gap = _GAP.search(text_of(cells), after)
    if gap is None or gap.start() == len(cells):
        return 0
    if grown < 0:
        cells[gap.start() : gap.start()] = [BLANK] * -grown
        return grown
    taken = min(grown, gap.end() - gap.start() - 1)
    del cells[gap.start() : gap.start() + taken]
    return taken

"""What the demo shows: a story for people, or one JSON object a line for machines."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

_MARKS = {
    "done": ("✓", "green"),
    "stopped": ("■", "yellow"),
    "parked": ("◷", "cyan"),
    "wrong": ("✗", "red"),
    "skipped": ("·", "dim"),
}
_NAME = 34
_INDENT = 4
_LINES = 2


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the story.

    Attributes:
        name: which step; what is expected of it is looked up by this.
        kind: a key of the marks: done, stopped, parked, wrong, skipped.
        outcome: how it ended, in a word.
        words: what there is to say about it.
    """

    name: str
    kind: str
    outcome: str
    words: str = ""
    more: dict[str, Any] = field(default_factory=dict)


class Screen(Protocol):
    """Where the story is told."""

    def title(self, text: str) -> None:
        """What this is."""

    def chapter(self, text: str) -> None:
        """A new part of the story begins."""

    def event(self, event: Event) -> None:
        """Something happened."""

    def note(self, text: str) -> None:
        """A remark."""

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Something to look at."""

    def working(self, text: str) -> AbstractContextManager[None]:
        """Something takes a while."""

    def end(self, findings: Sequence[str], seconds: float) -> None:
        """How it went."""


class Terminal:
    """For people."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, emoji=False)

    def title(self, text: str) -> None:
        """What this is."""
        self._console.print(Panel(Text(text, "bold"), border_style="cyan", expand=False))

    def chapter(self, text: str) -> None:
        """A new part of the story begins."""
        self._console.print()
        self._console.print(Rule(Text(text, "bold"), align="left", style="cyan"))

    def event(self, event: Event) -> None:
        """One line for what happened, one for what was said."""
        mark, style = _MARKS[event.kind]
        head = Text.assemble((f"{mark} ", style), f"{event.name:<{_NAME}} ", (event.outcome, style))
        self._console.print(head, no_wrap=True, overflow="ellipsis")
        for line in event.words.splitlines():
            most = _LINES * (self._console.width - _INDENT) - _INDENT
            text = Text(line if len(line) <= most else f"{line[: most - 1]}…", "dim")
            self._console.print(Padding(text, (0, 0, 0, _INDENT)))

    def note(self, text: str) -> None:
        """A remark."""
        self._console.print(Text(text, "dim"))

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Something to look at."""
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        for at, head in enumerate(heads):
            # Only the last column gives way where the terminal is narrow.
            is_last = at == len(heads) - 1
            width = None if is_last else max(map(len, (head, *(row[at] for row in rows))))
            table.add_column(head, no_wrap=True, overflow="ellipsis", width=width, ratio=1 if is_last else None)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner where there is a terminal; without one nothing moves."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(text, "dim")):
            yield

    def end(self, findings: Sequence[str], seconds: float) -> None:
        """How it went."""
        self._console.print()
        for finding in findings:
            self._console.print(Text(f"✗ {finding}", "red"))
        if not findings:
            words = Text.assemble(
                ("✓ ", "green"),
                f"All as it must be, in {seconds:.0f} s: nothing ran that policy and people did not allow.",
            )
            self._console.print(words)


class Machine:
    """For machines: one JSON object a line; the last one is the verdict."""

    def title(self, text: str) -> None:
        """What this is."""
        self._say(event="title", text=text)

    def chapter(self, text: str) -> None:
        """A new part of the story begins."""
        self._say(event="chapter", text=text)

    def event(self, event: Event) -> None:
        """Something happened."""
        self._say(
            event="step", name=event.name, kind=event.kind, outcome=event.outcome, words=event.words, **event.more
        )

    def note(self, text: str) -> None:
        """A remark."""
        self._say(event="note", text=text)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Something to look at."""
        self._say(event="table", heads=list(heads), rows=[list(row) for row in rows])

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """What takes a while now."""
        self._say(event="working", text=text)
        yield

    def end(self, findings: Sequence[str], seconds: float) -> None:
        """How it went."""
        self._say(event="end", ok=not findings, findings=list(findings), seconds=round(seconds, 1))

    def _say(self, **document: Any) -> None:
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()

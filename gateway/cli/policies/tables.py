"""What was found, as tables for people; every text of others is escaped on the way."""

import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from gateway.cli.policies.events import Recorded
from gateway.cli.screen import shown
from gateway.core.replaying import Seen, Word

MOST = 50
_STYLES = {
    Seen.ALLOW: "green",
    Seen.NEEDS_APPROVAL: "yellow",
    Seen.DENY: "red",
    Seen.HIDDEN: "magenta",
    Seen.LISTED: "cyan",
}
_NARROWEST = 120
_WORDS = {
    Seen.ALLOW: "allow",
    Seen.NEEDS_APPROVAL: "needs approval",
    Seen.DENY: "deny",
    Seen.HIDDEN: "hidden",
    Seen.LISTED: "listed only",
}


def tell(parts: Iterable[RenderableType]) -> None:
    """Print them; sentences are broken by the terminal only, so that they can be copied and searched."""
    screen = Console(highlight=False)
    if not screen.is_terminal:  # wide enough for a call's id and its reasons
        screen.width = max(screen.width, _NARROWEST)
    for part in parts:
        screen.print(part, soft_wrap=isinstance(part, Text))


@contextmanager
def progress(words: str, total: int) -> Generator[Callable[[int], None]]:
    """A bar on standard error, told how many more are done; nothing where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = Console(file=sys.stderr)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(words, total=total)
        yield lambda count: bar.advance(task, count)


def seen(what: Seen) -> Text:
    """What a caller sees, in its colour."""
    return Text(_WORDS[what], _STYLES[what])


def matrix(counts: Mapping[tuple[Seen, Seen], int]) -> Table:
    """Before down, after across; what stays the same stands on the diagonal."""
    used = [one for one in Seen if any(one in pair for pair in counts)]
    table = Table(box=box.SIMPLE_HEAD, title="before ↓  after →", title_justify="left", title_style="dim")
    table.add_column("")
    for after in used:
        table.add_column(seen(after), justify="right")
    for before in used:
        table.add_row(seen(before), *(_cell(before, after, counts.get((before, after), 0)) for after in used))
    return table


def calls(title: str, style: str, rows: Sequence[tuple[Recorded, Word, Word, Sequence[str]]]) -> Table:
    """Calls with what they were and would be, and why; at most ``MOST`` of them."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{title}: {len(rows)}", title_justify="left", title_style=style)
    table.add_column("call", no_wrap=True)  # to be copied
    for head in ("tool", "who"):
        table.add_column(head, overflow="fold")
    table.add_column("before → after", overflow="fold", ratio=1)
    for one, before, after, more in rows[:MOST]:
        cell = Text.assemble(seen(before.seen), " ", ids(before), "\n→ ", seen(after.seen), " ", ids(after))
        for line in more:
            cell.append(f"\n{shown(line)}", "dim")
        table.add_row(shown(one.event.ostiary.call_id), shown(one.tool), who(one), cell)
    if len(rows) > MOST:
        table.caption = f"... and {len(rows) - MOST} more: --json tells all"
    return table


def counted(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Counts by what they are of; the last column is the number."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for head in heads[:-1]:
        table.add_column(head, overflow="fold")
    table.add_column(heads[-1], justify="right")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else shown(str(cell)) for cell in row))
    return table


def ids(said: Word) -> Text:
    """Reason ids."""
    return Text(shown(", ".join(said.ids)), "dim")


def who(one: Recorded) -> str:
    """The agent and the person it works for, or the person alone."""
    names = [name for name in (one.agent, one.person) if name]
    return shown(" for ".join(names) or "-")


def _cell(before: Seen, after: Seen, count: int) -> Text:
    if not count:
        return Text("·", "dim")
    opened = after in {Seen.ALLOW, Seen.LISTED}
    return Text(str(count), "dim" if before is after else "bold red" if opened else "bold yellow")

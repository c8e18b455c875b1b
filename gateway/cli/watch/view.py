"""A state as lines of a terminal. Pure; every text of others is escaped on the way."""

import io
from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.cli.watch.approvals import PendingView
from gateway.cli.watch.calls import CallRow, State
from gateway.cli.watch.state import Mode, Watch
from gateway.core.lookalikes import guarded, plain

_DECISIONS = {
    "allow": ("allow", "green"),
    "deny": ("deny", "red"),
    "needs_approval": ("needs approval", "yellow"),
}
_STATES = {
    State.RUNNING: ("running", "cyan"),
    State.PENDING: ("pending", "yellow"),
    State.REFUSED: ("refused", "red"),
    State.COMPLETED: ("completed", "green"),
    State.FAILED: ("failed", "red"),
    State.NOT_SENT: ("not sent", "yellow"),
    State.UNKNOWN: ("outcome unknown", "bold magenta"),
}
_KEYS = {
    Mode.LIST: "↑↓ move  e explain  a approve  r reject  p pause  / filter  ? help  q quit",
    Mode.PAGE: "↑↓ PgUp PgDn scroll  q back",
    Mode.SIGN: "↑↓ PgUp PgDn scroll  y sign this  r reject  n leave it",
    Mode.FILTER: "type a part of a tool or agent  Enter keep  Esc clear",
    Mode.REASON: "type why; the agent reads it  Enter reject  Esc leave it",
    Mode.HELP: "any key goes back",
}
_HELP = """\
What passes the door, newest first. Actions that wait for a signature stand above.

  up/down, j/k        move              PgUp PgDn Home End  move far
  e, Enter            why the selected call ended so, with its arguments and its answer
  a                   show a pending action complete, then sign it with y
  r                   reject a pending action, with a reason that the agent reads
  p                   hold the list still, and let it go on
  /                   show only tools and agents whose name holds a text; Esc shows all
  q                   quit

allow, deny, needs approval: what policy said.
completed, failed, not sent, refused: how it ended. outcome unknown: an effect may have happened.

Characters that hide, reorder or imitate are shown by their codes, as in \\u202e."""
_SECOND = 1_000_000
_WIDE = 96
_CONTENT = {Mode.PAGE, Mode.SIGN}


def frame(watch: Watch, now_us: int) -> list[str]:
    """The whole screen: at most as many lines as the terminal has, with their colours."""
    columns, lines = watch.size
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=columns, height=lines, legacy_windows=False, highlight=False
    )
    console.print(Group(_title(watch), *_body(watch, now_us)))
    drawn = file.getvalue().split("\n")[: lines - 2]
    file.seek(0)
    file.truncate()
    console.print(Group(_notice(watch), _line(_KEYS[watch.mode], "dim")))
    return [*drawn, *[""] * (lines - 2 - len(drawn)), *file.getvalue().split("\n")[:2]]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _title(watch: Watch) -> Text:
    text = _line("ostiary watch", "bold")
    if watch.gone is not None:
        text.append(f"  gateway gone, waiting ({guarded(' '.join(watch.gone.split()))})", "bold red")
    elif watch.paused:
        text.append("  paused", "bold yellow")
    else:
        text.append("  live", "green")
    if watch.filter:
        text.append(f"  only {guarded(watch.filter)}", "cyan")
    if watch.mode in _CONTENT:
        text.append(f"  {watch.heading}", "not bold")
    return text


def _notice(watch: Watch) -> Text:
    if watch.mode is Mode.FILTER:
        return _line(f"/{guarded(watch.filter)}_", "cyan")
    text, bad = watch.notice
    if watch.mode is Mode.REASON:
        # The end of what is typed is what one wants to see.
        return _line(text if bad else f"reason: {guarded(watch.draft)[-(watch.size[0] - 10) :]}_", "yellow")
    if text:
        return _line(text, "red" if bad else "green")
    if watch.mode in _CONTENT:
        return _line(f"lines {watch.top + 1} to {min(len(watch.page), watch.top + watch.room)} of {len(watch.page)}")
    return _line("")


def _body(watch: Watch, now_us: int) -> Iterator[RenderableType]:
    if watch.mode is Mode.HELP:
        yield from (_line(line) for line in _HELP.split("\n"))
    elif watch.mode in _CONTENT:
        yield from (_line(line) for line in watch.page[watch.top : watch.top + watch.room])
    else:
        yield from _list(watch, now_us)


def _list(watch: Watch, now_us: int) -> Iterator[RenderableType]:
    at, pinned = watch.selected(), len(watch.pending)
    most = max(1, watch.room // 2)
    for place, view in _window(watch.pending, at if at < pinned else 0, most):
        yield _pinned(view, now_us, "reverse" if place == at else "")
    room = watch.room - min(pinned, most) - 1
    rows = watch.rows()
    if rows:
        shown = list(_window(rows, max(0, at - pinned), room))
        yield _table(shown, at - pinned, narrow=watch.size[0] < _WIDE)
    else:
        yield _line("no call passed yet" if not watch.filter else "no call like that", "dim")


def _window(
    items: Sequence[PendingView] | Sequence[CallRow], at: int, room: int
) -> Iterator[tuple[int, PendingView | CallRow]]:
    first = max(0, min(at - room // 2, len(items) - room))
    for place in range(first, min(len(items), first + max(room, 0))):
        yield place, items[place]


def _pinned(view: PendingView | CallRow, now_us: int, style: str) -> Text:
    assert isinstance(view, PendingView)
    text = _line("▲ ", "yellow")
    text.append(plain(view.tool), "bold")
    text.append(f"  {plain(view.agent)} for {guarded(view.requester)}")
    text.append(f"  waits {_age(now_us - view.requested_us)}", "yellow")
    text.append(f"  needs {view.needed} more signature{'s' if view.needed != 1 else ''}")
    text.append(f"  expires in {_age(view.expires_us - now_us)}", "dim")
    text.stylize(style)
    return text


def _table(rows: Sequence[tuple[int, PendingView | CallRow]], at: int, *, narrow: bool) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("TIME", width=8 if narrow else 12, no_wrap=True, overflow="crop")
    table.add_column("AGENT", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("TOOL", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("DECISION", width=14, no_wrap=True)
    table.add_column("ENDED", width=15, no_wrap=True, overflow="ellipsis")
    table.add_column("REASON", ratio=3, no_wrap=True, overflow="ellipsis")
    if not narrow:
        table.add_column("RED", width=3, justify="right", no_wrap=True)
        table.add_column("TOOK", width=8, justify="right", no_wrap=True)
    for place, row in rows:
        assert isinstance(row, CallRow)
        table.add_row(*_cells(row, narrow=narrow), style="reverse" if place == at else "")
    return table


def _cells(row: CallRow, *, narrow: bool) -> Iterator[Text]:
    yield Text(datetime.fromtimestamp(row.at_us / _SECOND).astimezone().strftime("%H:%M:%S.%f")[:12], "dim")
    yield Text(plain(row.agent or "(person)"))
    yield Text(plain(row.tool or "?"), "bold")
    yield _decision(row)
    yield Text(*ending(row))
    yield Text(plain(row.reason or ""), "dim")
    if not narrow:
        yield Text(str(row.redactions) if row.redactions else "", "yellow")
        yield Text("" if row.took_us is None else span(row.took_us), "dim")


def _decision(row: CallRow) -> Text:
    words, style = _DECISIONS.get(row.decision or "", (plain(row.decision or "-"), "dim"))
    return Text(words if row.enforced else f"({words})", style)


def ending(row: CallRow) -> tuple[str, str]:
    """How a call ended, in words, and their style."""
    words, style = _STATES[row.state]
    if row.is_error:
        return "tool error", "yellow"
    return (plain(row.code), style) if row.state in {State.REFUSED, State.PENDING} and row.code else (words, style)


def span(took_us: int) -> str:
    """A duration in words of at most eight characters."""
    if took_us < 1000:  # noqa: PLR2004 - units
        return f"{took_us} us"
    return f"{took_us / 1000:.1f} ms" if took_us < _SECOND else f"{took_us / _SECOND:.2f} s"


def _age(us: int) -> str:
    seconds = max(0, us // _SECOND)
    if seconds < 60:  # noqa: PLR2004 - units
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"  # noqa: PLR2004 - units

"""The watch as a conversation: events and keys in, wishes out. Pure: no terminal, no network, no clock."""

from collections.abc import Callable, Sequence
from enum import Enum, auto

from gateway.cli.folding import wrapped
from gateway.cli.watch import events, pages
from gateway.cli.watch.approvals import PendingView
from gateway.cli.watch.calls import CallRow, Calls
from gateway.cli.watch.events import Approve, Event, Explain, Quit, Reject, Show, Wish
from gateway.cli.watch.keys import PASTE
from gateway.core.lookalikes import guarded

KEEP = 2000
CHROME = 3  # lines beside a list or a page: title, notice, keys
_MOST_TYPED = 500
Item = PendingView | CallRow


class Mode(Enum):
    """What the screen shows, and so what keys mean."""

    LIST = auto()
    PAGE = auto()
    SIGN = auto()
    FILTER = auto()
    REASON = auto()
    HELP = auto()


class Watch:
    """Everything the screen shows.

    Attributes:
        mode: what keys mean.
        size: columns and lines of the terminal.
        pending: actions that wait for signatures.
        filter: only calls whose tool or agent holds this text.
        draft: what is being typed.
        notice: the last word to the person, and whether it is a bad one.
        gone: why the gateway does not answer; None = it does.
        heading: title of the page.
        page: its lines, wrapped to the terminal.
        top: first of them on the screen.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.mode = Mode.LIST
        self.size = (columns, lines)
        self.pending: tuple[PendingView, ...] = ()
        self.filter = ""
        self.draft = ""
        self.notice = ("", False)
        self.gone: str | None = None
        self.heading = ""
        self.page: list[str] = []
        self.top = 0
        self._text: Sequence[str] = ()
        self._calls = Calls(KEEP)
        self._held: tuple[CallRow, ...] | None = None
        self._selected: str | None = None
        self._signing: PendingView | None = None
        self._seen = 0
        self._modes: dict[Mode, Callable[[str], Wish | None]] = {
            Mode.LIST: self._press_list,
            Mode.PAGE: self._press_page,
            Mode.SIGN: self._press_sign,
            Mode.FILTER: self._press_filter,
            Mode.REASON: self._press_reason,
            Mode.HELP: self._press_help,
        }
        self._actions: dict[str, Callable[[], Wish | None]] = {
            "e": self._explain,
            "enter": self._explain,
            "a": self._approve,
            "r": self._reject,
            "p": self._pause,
            "/": self._filter,
            "esc": self._unfilter,
            "?": self._help,
            "q": Quit,
        }

    @property
    def paused(self) -> bool:
        """Whether the list stands still."""
        return self._held is not None

    @property
    def room(self) -> int:
        """Lines there are for a list or a page."""
        return max(1, self.size[1] - CHROME)

    @property
    def unseen(self) -> int:
        """Lines of the page that were not on the screen yet, in reading order."""
        return len(self.page) - self._seen

    def rows(self) -> tuple[CallRow, ...]:
        """The calls that are shown, newest first."""
        found = self._calls.newest_first() if self._held is None else self._held
        words = self.filter.casefold()
        return tuple(row for row in found if words in f"{row.tool or ''} {row.agent or ''}".casefold())

    def items(self) -> tuple[Item, ...]:
        """What can be selected, from the top."""
        return (*self.pending, *self.rows())

    def selected(self) -> int:
        """Index of the selected item; without a choice the first."""
        return next((at for at, item in enumerate(self.items()) if _id(item) == self._selected), 0)

    # -- what happens

    def tell(self, event: Event) -> None:
        """Take in what came from the gateway."""
        match event:
            case events.Arrived():
                self._arrived(event)
            case events.Waiting(pending):
                self.pending = tuple(pending)
            case events.Explained(call_id, lines):
                self._open(Mode.PAGE, f"call {call_id}", lines)
            case events.Opened(view):
                self._open(Mode.SIGN, f"sign {view.tool}", pages.to_sign(view), view)
            case events.Said(text, bad):
                self.notice = (text, bad)
            case events.Link(problem):
                self.gone = problem
            case events.Broken():  # the rim's business
                pass

    def resize(self, columns: int, lines: int) -> None:
        """The terminal has another size; what was seen of a page has to be seen anew."""
        self.size = (columns, lines)
        self._wrap()

    def painted(self) -> None:
        """The state is on the screen. Only now has anybody seen it."""
        if self.mode is Mode.SIGN and self.top <= self._seen:
            self._seen = max(self._seen, min(len(self.page), self.top + self.room))

    def press(self, key: str) -> Wish | None:
        """Take in a key; what the person wishes of the gateway by it."""
        if key.startswith(PASTE) and self.mode not in {Mode.FILTER, Mode.REASON}:
            return None  # a paste presses no key, least of all the one that signs
        self.notice = ("", False)
        return self._modes[self.mode](key)

    # -- what keys mean

    def _press_list(self, key: str) -> Wish | None:
        if key in _STEPS:
            self._move(_STEPS[key](self.selected(), self.room, len(self.items())))
            return None
        action = self._actions.get(key)
        return None if action is None else action()

    def _press_page(self, key: str) -> Wish | None:
        if key in _STEPS:
            last = max(0, len(self.page) - self.room)
            self.top = min(max(0, _STEPS[key](self.top, self.room, last + 1)), last)
        elif key in {"q", "esc", "enter", "e"}:
            self.mode = Mode.LIST
        return None

    def _press_sign(self, key: str) -> Wish | None:
        if key == "y" and self.unseen > 0:
            self.notice = (f"scroll down first: {self.unseen} lines were not shown yet", True)
            return None
        if key == "y" and self._signing is not None:
            self._back("signing")
            return Approve(self._signing)
        if key == "r":
            self.mode, self.draft = Mode.REASON, ""
            return None
        if key in {"n", "a"}:
            self._back("not signed")
            return None
        return self._press_page("" if key in {"e", "enter"} else key)

    def _press_filter(self, key: str) -> Wish | None:
        if key == "enter":
            self.mode = Mode.LIST
        elif key == "esc":
            self.mode, self.filter = Mode.LIST, ""
        else:
            self.filter = _typed(self.filter, key)
        return None

    def _press_reason(self, key: str) -> Wish | None:
        if key == "esc":
            self._back("not rejected")
        elif key != "enter":
            self.draft = _typed(self.draft, key)
        elif not self.draft.strip():
            self.notice = ("a reason is needed: the agent reads it (Esc leaves)", True)
        elif self._signing is not None:
            self._back("rejecting")
            return Reject(self._signing.id, self.draft.strip())
        return None

    def _press_help(self, key: str) -> Wish | None:  # noqa: ARG002 - any key
        self.mode = Mode.LIST
        return None

    # -- what keys do in the list

    def _explain(self) -> Wish | None:
        item = self._item()
        match item:
            case PendingView():
                return Show(item.id)
            case CallRow():
                return Explain(item.call_id)
        return None

    def _approve(self) -> Wish | None:
        item = self._item()
        if isinstance(item, PendingView):
            return Show(item.id)
        self.notice = ("select a pending approval first", True)
        return None

    def _reject(self) -> Wish | None:
        item = self._item()
        if isinstance(item, PendingView):
            self._signing, self.mode, self.draft = item, Mode.REASON, ""
        else:
            self.notice = ("select a pending approval first", True)
        return None

    def _pause(self) -> Wish | None:
        self._held = self._calls.newest_first() if self._held is None else None
        return None

    def _filter(self) -> Wish | None:
        self.mode = Mode.FILTER
        return None

    def _unfilter(self) -> Wish | None:
        self.filter, self._selected = "", None
        return None

    def _help(self) -> Wish | None:
        self.mode = Mode.HELP
        return None

    # -- the rest

    def _arrived(self, event: events.Arrived) -> None:
        if event.fresh:
            self._calls = Calls(KEEP)
            self.notice = ("this is another log than before: starting over", True)
        for index, record in event.records:
            self._calls.take(index, record)

    def _item(self) -> Item | None:
        items = self.items()
        return items[self.selected()] if items else None

    def _move(self, at: int) -> None:
        items = self.items()
        at = min(max(0, at), len(items) - 1)
        # At the very top nothing is chosen: the selection stays on what is newest.
        self._selected = _id(items[at]) if at > 0 else None

    def _open(self, mode: Mode, heading: str, lines: Sequence[str], view: PendingView | None = None) -> None:
        if self.mode is not Mode.LIST:
            return  # an answer that comes late changes nothing under the person's eyes
        self.mode, self.heading, self._text, self.top, self._signing = mode, guarded(heading), lines, 0, view
        self.notice = ("", False)
        self._wrap()

    def _wrap(self) -> None:
        self.page = wrapped(self._text, self.size[0])
        self._seen = 0
        self.top = min(self.top, max(0, len(self.page) - self.room))

    def _back(self, notice: str) -> None:
        self.mode, self.notice = Mode.LIST, (notice, False)


def _id(item: Item) -> str:
    return item.id if isinstance(item, PendingView) else item.call_id


def _typed(text: str, key: str) -> str:
    if key == "clear":
        return ""
    if key == "backspace":
        return text[:-1]
    piece = " ".join(key.removeprefix(PASTE).split()) if key.startswith(PASTE) else key
    return (text + piece)[:_MOST_TYPED] if key.startswith(PASTE) or len(key) == 1 else text


# From where, lines of the screen, how many there are: where to.
_STEPS: dict[str, Callable[[int, int, int], int]] = {
    "up": lambda at, _room, _count: at - 1,
    "k": lambda at, _room, _count: at - 1,
    "down": lambda at, _room, _count: at + 1,
    "j": lambda at, _room, _count: at + 1,
    "pgup": lambda at, room, _count: at - room,
    "pgdn": lambda at, room, _count: at + room,
    " ": lambda at, room, _count: at + room,
    "home": lambda _at, _room, _count: 0,
    "end": lambda _at, _room, count: count - 1,
}

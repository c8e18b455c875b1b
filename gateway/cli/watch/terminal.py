"""The terminal: its modes, its size, its keys, and the screen on it. Whatever happens, it is given back as it was."""

import os
import select
import signal
import sys
import termios
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn, Self

from gateway.cli.reach import Reach
from gateway.cli.watch import view
from gateway.cli.watch.approvals import Approvals
from gateway.cli.watch.events import Broken, Event, Opened, Quit
from gateway.cli.watch.keys import Decoder
from gateway.cli.watch.state import Watch
from gateway.cli.watch.talker import Talker

# Other screen, no cursor, pastes marked as such; and back.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?2004h\x1b[2J"
_LEAVE = "\x1b[?2004l\x1b[?25h\x1b[?1049l"
_PAINT_EVERY_S = 0.05
_TICK_S = 1.0
_ESCAPE_S = 0.05
_CHUNK = 4096
_SMALLEST = (20, 6)
_USUAL = (80, 24)
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOCAL_FLAGS = 3
_CHARACTERS = 6


class _Ended(BaseException):
    """A signal asks for the end."""


def follow(reach: Reach, since_us: int | None, approvals: Approvals) -> None:
    """Show the watch until the person quits, or a signal ends it.

    Raises:
        Failed: no gateway there, or it refused.
    """
    with (
        suppress(_Ended),  # being told to end is no failure
        _Wake() as wake,
        _signals(wake),
        _screen(sys.stdin.fileno()),
        Talker(reach, since_us, approvals, wake.tell) as talker,
    ):
        _Screen(Watch(*_size()), talker, wake).run()


def can_follow() -> bool:
    """Whether keys and a screen are here: a terminal at both ends that can place its cursor."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class _Wake:
    """Events of other threads and of signals; a pipe that wakes whoever waits for keys."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        os.set_blocking(self.reader, False)
        self._events: deque[Event] = deque()
        self.resized = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The writer's end stays with the process: a talker that still waits for an answer may write to it.
        os.close(self.reader)

    def tell(self, event: Event) -> None:
        """Take in an event, from any thread."""
        self._events.append(event)
        self.ring()

    def ring(self) -> None:
        """Wake the reader."""
        with suppress(OSError):  # full: it is awake; no reader: nobody is left to wake
            os.write(self._writer, b"!")

    def taken(self) -> Iterator[Event]:
        """The events so far, in order."""
        with suppress(BlockingIOError):
            os.read(self.reader, _CHUNK)
        while self._events:
            yield self._events.popleft()


class _Screen:
    """Keys and events in, lines out."""

    def __init__(self, watch: Watch, talker: Talker, wake: _Wake) -> None:
        self._watch = watch
        self._talker = talker
        self._wake = wake
        self._keys = Decoder()
        self._lines: Sequence[str] = ()
        self._painted_at = 0.0
        self._stdin = sys.stdin.fileno()
        self._is_dirty = True
        self._drain = False

    def run(self) -> None:
        """Until the person quits or the terminal has gone."""
        while True:
            self._paint()
            ready, _, _ = select.select([self._stdin, self._wake.reader], [], [], self._patience())
            if self._wake.reader in ready:
                self._take_events()
            if self._stdin in ready:
                chunk = os.read(self._stdin, _CHUNK)
                if not chunk or not self._press(self._keys.feed(chunk)):
                    return
            elif not ready and not self._press(self._keys.rest()):
                return

    def _patience(self) -> float:
        if not self._is_dirty:
            return _ESCAPE_S if self._keys.is_open else _TICK_S
        return max(0.0, self._painted_at + _PAINT_EVERY_S - time.monotonic())

    def _press(self, keys: Sequence[str]) -> bool:
        """Take in keys; False = the person quits."""
        self._is_dirty = True
        for key in keys:
            wish = self._watch.press(key)
            if isinstance(wish, Quit):
                return False
            if wish is not None:
                self._talker.ask(wish)
        return True

    def _take_events(self) -> None:
        for event in self._wake.taken():
            if isinstance(event, Broken):
                raise event.error
            self._watch.tell(event)
            self._drain |= isinstance(event, Opened)
        self._is_dirty = True

    def _paint(self) -> None:
        if self._wake.resized:
            self._wake.resized = False
            columns, rows = _size()
            self._watch.resize(max(columns, _SMALLEST[0]), max(rows, _SMALLEST[1]))
            self._lines, self._is_dirty = (), True
        now = time.monotonic()
        if not self._is_dirty or now < self._painted_at + _PAINT_EVERY_S:
            return
        lines = view.frame(self._watch, time.time_ns() // 1000)
        if self._drain:
            self._drain = False
            termios.tcflush(self._stdin, termios.TCIFLUSH)  # what is typed before it can be seen signs nothing
        sys.stdout.write("".join(_changes(self._lines, lines)))
        sys.stdout.flush()
        self._lines, self._painted_at, self._is_dirty = lines, now, False
        self._watch.painted()


def _changes(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    for at, line in enumerate(after):
        if at >= len(before) or before[at] != line:
            yield f"\x1b[{at + 1};1H\x1b[0m\x1b[2K{line}"


def _size() -> tuple[int, int]:
    try:
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        return _USUAL
    return (columns, lines) if columns and lines else _USUAL


@contextmanager
def _screen(stdin: int) -> Iterator[None]:
    """Keys come one by one and unseen, on a screen of our own; Ctrl-C stays a signal, Ctrl-Z does nothing."""
    before = termios.tcgetattr(stdin)
    try:
        ours = termios.tcgetattr(stdin)
        ours[_LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        ours[_CHARACTERS][termios.VSUSP] = b"\0"
        termios.tcsetattr(stdin, termios.TCSADRAIN, ours)
        _write(_ENTER)
        yield
    finally:
        with suppress(OSError):  # the terminal may be what has gone
            _write(_LEAVE)
        with suppress(termios.error):
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


@contextmanager
def _signals(wake: _Wake) -> Iterator[None]:
    def end(_number: int, _frame: object) -> NoReturn:
        for number in _ENDS:
            signal.signal(number, signal.SIG_IGN)  # a second one must not break the restoring
        raise _Ended

    def resize(_number: int, _frame: object) -> None:
        wake.resized = True
        wake.ring()

    before = {number: signal.getsignal(number) for number in (*_ENDS, signal.SIGWINCH)}
    try:
        for number in _ENDS:
            signal.signal(number, end)
        signal.signal(signal.SIGWINCH, resize)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

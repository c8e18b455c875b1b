"""Where the stream of an answer broke off, and when it may be gone on with.

A server of the handshake era that numbers the events of a stream lets its reader come back for the rest: by a GET that
names the last event it has seen. That asks for nothing to be done again; the call itself is never sent a second time.
"""

from functools import partial
from typing import Final

from msgspec import Struct, field

from connectors.mcp.allowance import Allowance
from connectors.mcp.faults import Lost
from gateway.core.mcpwire.sse import Decoder

# Requests that a server may make on one stream within a minute: each costs one of ours, and a long call may be pinged.
_MOST_ASKED: Final = 16
LAST_EVENT: Final = "last-event-id"
# The call's own time ends it before, as a rule.
_MOST: Final = 100
_MOST_FAILED: Final = 3
_LONGEST_ID: Final = 1024
_SHORTEST_S, _DEFAULT_S, _LONGEST_S = 0.05, 1.0, 60.0


class Trail(Struct):
    """How far one answer was read, over all of its streams.

    Attributes:
        room: bytes that all of them together may still have.
        asked: requests that the server may make on them.
        last_id: the last event that was seen; empty where the server numbers none.
        retry_ms: how long it wants to be left alone between two of them, if it said so.
        is_resumed: whether this is not the first stream any more.
    """

    room: int
    asked: Allowance = field(default_factory=partial(Allowance, _MOST_ASKED))
    last_id: str = ""
    retry_ms: int | None = None
    is_resumed: bool = False
    _tries: int = 0
    _failed: int = 0

    def left(self, decoder: Decoder) -> None:
        """A stream is over."""
        self.last_id = decoder.last_id
        self.retry_ms = self.retry_ms if decoder.retry_ms is None else decoder.retry_ms

    def opened(self) -> None:
        """The server has taken up the thread."""
        self._failed = 0

    def failed(self) -> None:
        """The server could not be reached."""
        self._failed += 1

    def pause_s(self) -> float:
        """How long to wait before the next stream, seconds.

        Raises:
            Lost: there is none to be had, or there were too many.
        """
        self.is_resumed = True
        self._tries += 1
        said = _DEFAULT_S if self.retry_ms is None else max(_SHORTEST_S, self.retry_ms / 1000)
        pause = said * (1 << self._failed)
        if not self._is_named() or self._tries > _MOST or self._failed >= _MOST_FAILED or pause > _LONGEST_S:
            raise Lost("stream_ended")
        return pause

    def _is_named(self) -> bool:
        # It goes out as a header field: what could not stand in one is no place to go on from.
        return 0 < len(self.last_id) <= _LONGEST_ID and self.last_id.isascii() and self.last_id.isprintable()

"""The log from a cursor on: each record once and none left out, across restarts of the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.cli.reach import Line, Unreached
from gateway.cli.screen import Failed

_RECORDS = "/v1/audit/records"
_PAGE = 1000
_TAIL = 500
_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Page:
    """What one question gave.

    Attributes:
        records: with their indexes, in log order.
        more: there are more at once.
        fresh: the log is another than before; these are its records.
    """

    records: tuple[tuple[int, Mapping[str, Any]], ...]
    more: bool
    fresh: bool = False


class Feed:
    """Reads the log on and on; one request a page, besides the first.

    Begins with the last records of the log, or at ``since_us``, microseconds.
    """

    def __init__(self, line: Line, since_us: int | None = None) -> None:
        self._line = line
        self._since: int | None = since_us
        self._after: int | None = None
        self._floor = -1
        self._last_id: Any = None
        self._in_doubt = False

    def next(self) -> Page:
        """The records after the last page.

        Raises:
            Unreached: no gateway answered; the same records are asked for again next time.
            Failed: it refused.
        """
        try:
            fresh = self._in_doubt and not self._is_same_log()
            if self._after is None or fresh:
                self._start(None if fresh else self._since)
            self._in_doubt = False
            return self._page(fresh=fresh)
        except Unreached:
            self._in_doubt = True
            raise

    def _start(self, since_us: int | None) -> None:
        size = self._size()
        self._since, self._last_id = since_us, None
        self._floor = size - 1
        self._after = -1 if since_us is not None else max(-1, size - 1 - _TAIL)

    def _page(self, *, fresh: bool) -> Page:
        query = {"after": self._after, "limit": _PAGE, "since_us": self._since}
        found = self._line.get(_RECORDS, query)
        records = tuple((row["index"], row["record"]) for row in found["records"])
        if records:
            self._after, self._last_id = records[-1][0], records[-1][1].get("id")
        more = found.get("next") is not None
        if not more and self._since is not None:
            # All that was there at the start has been looked at: without this the gateway would look again each time.
            self._since = None
            if self._after is None or self._after < self._floor:
                self._after, self._last_id = self._floor, None
        return Page(records, more, fresh)

    def _is_same_log(self) -> bool:
        # A gateway that comes back on another state folder would go on at another log's record, or wait for ever.
        if self._after is None or self._after < 0:
            return True
        found = self._line.get(_RECORDS, {"after": self._after - 1, "limit": 1})["records"]
        if not found or found[0]["index"] != self._after:
            return False
        return self._last_id is None or found[0]["record"].get("id") == self._last_id

    def _size(self) -> int:
        try:
            note = self._line.text("/v1/audit/log/checkpoint")
        except Failed as refusal:
            if isinstance(refusal.document, dict) and refusal.document.get("status") == _NOT_FOUND:
                return 0  # nothing was logged yet
            raise
        lines = note.split("\n")
        if len(lines) < 2 or not lines[1].isdigit():  # noqa: PLR2004 - origin, then size
            raise Unreached("what answers there is no gateway (no checkpoint)", "correct --state or --url")
        return int(lines[1])

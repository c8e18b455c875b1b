"""What an export takes from the gateway: the chosen records, and those that are needed to check them, page by page."""

import base64
import binascii
import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.reach import Line
from gateway.cli.screen import Failed

_PAGE = 500
# Whose keys count, which policy was in force, and the log's own keys: in no run, and asked for by every check.
_BESIDES = ("key", "reviewer.enrolled", "reviewer.revoked", "policy.activated")
# Of those, the one whose payloads are opened with the chosen ones': they say who approved.
_NAMES = "reviewer.enrolled"
_APPROVALS = ("approval.requested", "approval.decided")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records are wanted: those of one run, of one call, or of a time.

    Attributes:
        since_us: first microsecond.
        until_us: last microsecond; None = up to the newest record.
    """

    run: str | None = None
    call: str | None = None
    since_us: int | None = None
    until_us: int | None = None

    @property
    def query(self) -> dict[str, Any]:
        """As the API takes it."""
        terms = {"run_id": self.run, "call_id": self.call, "since_us": self.since_us, "until_us": self.until_us}
        return {name: value for name, value in terms.items() if value is not None}

    @property
    def document(self) -> dict[str, Any]:
        """As the manifest has it."""
        terms = {"run": self.run, "call": self.call, "since_us": self.since_us, "until_us": self.until_us}
        return {name: value for name, value in terms.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened payload, and what its commitment is made with."""

    role: str
    content: bytes = field(repr=False)
    dek: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A record as it is stored, its proof (base64), and its payloads as far as they were opened."""

    index: int
    leaf: str
    proof: tuple[str, ...]
    payloads: tuple[Opened, ...]
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Head:
    """The one tree that all proofs of an export lead to."""

    vkey: str
    size: int
    checkpoint: str


class Collection:
    """One export's questions. Everything is proven under the tree that the first answer names."""

    def __init__(self, line: Line, selection: Selection, *, payloads: bool) -> None:
        """Ask for the first page.

        Raises:
            Failed: the gateway refuses, or no record is of the selection.
        """
        self._line = line
        self._selection = selection
        self._payloads = payloads
        self._first = self._page(selection.query, None, -1, payloads=payloads)
        try:
            self.head = Head(self._first["vkey"], self._first["size"], self._first["checkpoint"])
        except (KeyError, TypeError):
            raise _strange() from None
        if not self._first["records"]:
            raise Failed("no record is of this selection", "look with `ostiary audit search`")

    def rows(self) -> Iterator[Row]:
        """All records in log order, each once; at most a page of the chosen ones is in memory."""
        chosen = self._pages(self._selection.query, self._first, payloads=self._payloads)
        besides = [
            row for kind in _BESIDES for row in self._all({"type": kind}, payloads=self._payloads and kind == _NAMES)
        ]
        if self._selection.call is not None:
            found = list(chosen)
            besides += self._approvals(found)
            chosen = iter(found)
        last = -1
        for row in heapq.merge(chosen, sorted(besides, key=_index), key=_index):
            if row.index > last:
                yield row
                last = row.index

    def policy(self, revision: str) -> dict[str, Any] | None:
        """Modules and data of a policy revision, or None where the gateway does not have it any more."""
        try:
            found: dict[str, Any] = self._line.get(f"/v1/policy/revisions/{revision}")
        except Failed as error:
            if is_missing(error):
                return None
            raise
        return found

    def _approvals(self, found: list[Row]) -> Iterator[Row]:
        # A call that people approved was made in place of one that had waited under another id.
        named = {row.record["body"].get("approval") for row in found} - {None}
        runs = {row.record["run_id"] for row in found} - {None}
        for run in sorted(runs if named else ()):
            for kind in _APPROVALS:
                rows = self._all({"type": kind, "run_id": run}, payloads=self._payloads)
                yield from (row for row in rows if row.record["body"].get("approval") in named)

    def _all(self, query: Mapping[str, Any], *, payloads: bool) -> Iterator[Row]:
        return self._pages(query, self._page(query, self.head.size, -1, payloads=payloads), payloads=payloads)

    def _pages(self, query: Mapping[str, Any], page: dict[str, Any], *, payloads: bool) -> Iterator[Row]:
        while True:
            yield from map(_row, page["records"])
            after = page.get("next")
            if after is None:
                return
            page = self._page(query, self.head.size, after, payloads=payloads)

    def _page(self, query: Mapping[str, Any], size: int | None, after: int, *, payloads: bool) -> dict[str, Any]:
        opened = "true" if payloads else None
        terms = {**query, "size": size, "after": after, "limit": _PAGE, "payloads": opened}
        found = self._line.get("/v1/audit/export", terms)
        if not isinstance(found, dict) or not isinstance(found.get("records"), list):
            raise _strange()
        return found


_NOT_FOUND = 404


def is_missing(error: Failed) -> bool:
    """Whether the gateway does not have what was asked for."""
    return isinstance(error.document, dict) and error.document.get("status") == _NOT_FOUND


def _index(row: Row) -> int:
    return row.index


def _row(said: dict[str, Any]) -> Row:
    try:
        leaf = base64.b64decode(said["leaf"], validate=True).decode()
        payloads = tuple(
            Opened(one["role"], base64.b64decode(one["content"], validate=True), one["dek"], one["key"])
            for one in said.get("payloads", ())
        )
        return Row(said["index"], leaf, tuple(said["proof"]), payloads, json.loads(leaf))
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise _strange() from None


def _strange() -> Failed:
    return Failed("the gateway's answer is no page of an export", "use the same version of both")

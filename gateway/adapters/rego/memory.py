"""Answers to listing questions, kept while the bundle that gave them is served.

Whether a caller may know of a tool is asked before each call, and depends on the same few facts each time. The same
document gives the same answer (no bundle is served that reads the world or chance), so the answer is kept by the whole
document, save its time where no rule can read it.

Only the word that a tool which exists may be known of is kept. Hidden tools, and names of no tool, are asked about each
time: were either remembered, how fast an answer comes would tell the one from the other.
"""

from collections import OrderedDict

import msgspec

from gateway.adapters.rego.frames import Verdict
from gateway.core.decision import grants

_LONGEST = 4096  # within some tens of megabytes all together, whatever callers send


class _Tool(msgspec.Struct, frozen=True, gc=False):
    digest: str


class _Head(msgspec.Struct, frozen=True, gc=False):
    phase: str
    time: msgspec.Raw
    tool: _Tool


_head = msgspec.json.Decoder(_Head)


class Memory:
    """The latest answers of one bundle."""

    def __init__(self, *, timeless: bool, most: int = 4096) -> None:
        """``timeless`` says that no rule of the bundle can read the input's time; ``most`` answers are kept."""
        self._timeless = timeless
        self._most = most
        self._answers: OrderedDict[bytes, Verdict] = OrderedDict()

    def key(self, document: bytes) -> bytes | None:
        """What the answer to ``document`` is kept by; None for a document whose answer is not kept."""
        if not self._timeless or len(document) > _LONGEST:
            return None
        try:
            head = _head.decode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        if head.phase != "list" or not head.tool.digest:  # a name of no tool has no digest
            return None
        return document.replace(bytes(head.time), b"", 1)

    def recall(self, key: bytes | None) -> Verdict | None:
        """The answer kept by ``key``."""
        found = None if key is None else self._answers.get(key)
        if found is not None and key is not None:
            self._answers.move_to_end(key)
        return found

    def keep(self, key: bytes | None, verdict: Verdict) -> None:
        """Keep the word that a tool may be known of."""
        if key is None or verdict.fault is not None or verdict.result is None:
            return
        if len(verdict.result) > _LONGEST or not grants(verdict.result):
            return
        self._answers[key] = verdict
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

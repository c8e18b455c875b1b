"""What must be true after each death, from the dead log, the tool's journal and what clients were told; nothing else.

1. A call that was answered as completed is completed in the log under the very id that was told, and the tool noted
   its marker under that id.
2. A call that was answered as denied has its decision in the log, and the tool never heard of it; nor did it of a call
   whose error says that nothing was done, then or afterwards.
3. Every effect has an intent with its call id; where the tool looked, the log held it before the effect.
4. No call has two effects, under one call id or two, two intents or two endings, or an ending without an intent; what
   completed had its effect.
5. What a death left open is ended by the next start that comes up, as unknown.
6. Nothing is lost or altered: records follow each other without gaps, and every checkpoint that was ever handed out is
   the root over the log's first records, as it was then.

Roots are computed here, by RFC 6962 and not by the gateway's code.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from deploy.campaigns.kill.logs import Log, Stand
from deploy.campaigns.kill.wire import COMPLETED, Told
from gateway.core.tlog import Checkpoint, NoteError, VerifierKey, open_checkpoint

ENDINGS: Final = frozenset({"tool.completed", "tool.failed", "tool.not_sent", "tool.outcome_unknown"})
DENIED: Final = "denied"
# The only errors after which an effect may have happened.
_UNSURE: Final = frozenset({"outcome_unknown", "tool_failed", "tainted"})
_SWEPT: Final = ("tool.outcome_unknown", "swept")
_MOST_SHOWN: Final = 50


class Effect(msgspec.Struct, frozen=True):
    """What the tool did.

    Attributes:
        call: the call id that came with it.
        intent: whether the log held the call's intent at that moment; None where the tool did not look.
    """

    marker: str
    call: str
    intent: bool | None


class _Body(msgspec.Struct, frozen=True, gc=False):
    cause: str | None = None
    effect: str | None = None


class _Leaf(msgspec.Struct, frozen=True, gc=False):
    type: str
    call_id: str | None
    body: _Body


_LEAF: Final = msgspec.json.Decoder(_Leaf)


@dataclass(slots=True)
class Tree:
    """The right edge of an RFC 6962 tree: tops of its perfect subtrees, largest first."""

    size: int = 0
    _tops: list[bytes] = field(default_factory=list)

    def append(self, entry: bytes) -> None:
        """Add a leaf."""
        top = hashlib.sha256(b"\0" + entry).digest()
        rest = self.size
        while rest & 1:
            top = hashlib.sha256(b"\1" + self._tops.pop() + top).digest()
            rest >>= 1
        self._tops.append(top)
        self.size += 1

    def root(self) -> bytes:
        """The root."""
        if not self._tops:
            return hashlib.sha256().digest()
        *others, root = self._tops
        for top in reversed(others):
            root = hashlib.sha256(b"\1" + top + root).digest()
        return root


@dataclass(slots=True)
class Judge:
    """What is known of the log so far, and what was wrong.

    Attributes:
        counts: what was seen.
        violations: one sentence each.
        checkpoints: the root of each tree that was ever handed out, by size.
    """

    key: VerifierKey
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    checkpoints: dict[int, bytes] = field(default_factory=dict)
    _tree: Tree = field(default_factory=Tree)
    _intents: set[str] = field(default_factory=set)
    _endings: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    _denials: set[str] = field(default_factory=set)
    _effects: dict[str, str] = field(default_factory=dict)
    _markers: set[str] = field(default_factory=set)
    _undone: dict[str, str] = field(default_factory=dict)
    _left: set[str] = field(default_factory=set)
    _fresh: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Records read so far."""
        return self._tree.size

    def handed_out(self, note: str) -> Checkpoint | None:
        """Keep a checkpoint that somebody was given."""
        try:
            checkpoint = open_checkpoint(note, self.key)
        except NoteError as error:
            self._wrong(f"a checkpoint that was handed out is not signed: {error}")
            return None
        if self.checkpoints.setdefault(checkpoint.size, checkpoint.root) != checkpoint.root:
            self._wrong(f"two checkpoints over {checkpoint.size} records differ: the log was forked")
        self.counts["checkpoints"] = len(self.checkpoints)
        return checkpoint

    def death(self, log: Log, journal: Sequence[Effect], told: Sequence[Told], *, came_up: bool) -> None:
        """Judge what a death left; ``came_up``: whether a gateway had taken calls in this life."""
        with log.read(self.size) as stand:
            if stand is None:
                self._wrong(f"the log of {self.size} records is gone")
            else:
                self._read(stand)
        self._hear(journal)
        for answer in told:
            self._told(answer)
        self._swept(came_up=came_up)

    def again(self, log: Log) -> None:
        """Read the whole log once more: every checkpoint ever handed out must be the root over its beginning."""
        tree, before = Tree(), len(self.violations)
        with log.read(0) as stand:
            for _, entry in () if stand is None else stand.rows:
                tree.append(entry)
                self._check_root(tree)
        if tree.size != self.size:
            self._wrong(f"the log has {tree.size} records where {self.size} were read before")
        if len(self.violations) == before:
            self.counts["roots"] = len(self.checkpoints)

    def _read(self, stand: Stand) -> None:
        if stand.size < self.size:
            self._wrong(f"the log had {self.size} records and has {stand.size}: the others are lost")
            return
        for index, entry in stand.rows:
            if index != self.size:
                self._wrong(f"record {self.size} is missing: the next one is {index}")
                return
            self._tree.append(entry)
            self._check_root(self._tree)
            self._record(_LEAF.decode(entry))
        newest = None if stand.note is None else self.handed_out(stand.note)
        if newest is None or newest.size != self.size or newest.root != self._tree.root():
            self._wrong(f"the newest checkpoint in the log is not the root over its {self.size} records")
        promised = max(self.checkpoints, default=0)
        if promised > self.size:
            self._wrong(f"a checkpoint over {promised} records was handed out and only {self.size} are here")

    def _check_root(self, tree: Tree) -> None:
        kept = self.checkpoints.get(tree.size)
        if kept is not None and kept != tree.root():
            self._wrong(f"the first {tree.size} records are not those that a checkpoint was handed out for")

    def _record(self, leaf: _Leaf) -> None:
        self.counts["records"] += 1
        call_id = leaf.call_id or ""
        if leaf.type == "tool.requested":
            if call_id in self._intents:
                self._wrong(f"call {call_id} has two intents")
            self._intents.add(call_id)
            self.counts["intents"] += 1
        elif leaf.type in ENDINGS:
            if call_id not in self._intents or call_id in self._endings:
                self._wrong(f"call {call_id} ends as {leaf.type} and is not open")
            self._endings[call_id] = (leaf.type, leaf.body.cause)
            self.counts["swept"] += (leaf.type, leaf.body.cause) == _SWEPT
            if leaf.type == "tool.completed":
                self._fresh.append(call_id)
            self.counts[leaf.type] += 1
        elif leaf.type == "decision" and leaf.body.effect == "deny":
            self._denials.add(call_id)

    def _hear(self, journal: Iterable[Effect]) -> None:
        for effect in journal:
            self._happened(effect)
        for call_id in self._fresh:
            if call_id not in self._effects:
                self._wrong(f"call {call_id} is completed and the tool never heard of it")
        self._fresh.clear()

    def _happened(self, effect: Effect) -> None:
        self.counts["effects"] += 1
        self.counts["looks"] += effect.intent is not None
        if effect.intent is False:
            self._wrong(f"call {effect.call} had its effect before its intent was in the log")
        if effect.call not in self._intents:
            self._wrong(f"call {effect.call} had an effect and has no intent")
        if effect.call in self._effects:
            self._wrong(f"call {effect.call} had two effects")
        elif effect.marker in self._markers:
            self._wrong(f"{effect.marker} was done twice, now as call {effect.call}")
        if effect.marker in self._undone:
            self._wrong(f"{effect.marker} was answered {self._undone[effect.marker]} and had an effect afterwards")
        self._effects[effect.call] = effect.marker
        self._markers.add(effect.marker)

    def _told(self, answer: Told) -> None:
        self.counts[f"told {answer.code}"] += 1
        call_id = answer.call_id or ""
        if answer.code == COMPLETED:
            ending, _ = self._endings.get(call_id, ("nothing", None))
            if ending != "tool.completed":
                self._wrong(f"call {answer.call_id} was answered and the log says {ending}")
            if self._effects.get(call_id) != answer.marker:
                self._wrong(f"call {answer.call_id} was answered and its effect is not {answer.marker}")
        elif answer.code not in _UNSURE:
            self._undone[answer.marker] = answer.code
            if answer.marker in self._markers:
                self._wrong(f"call {answer.call_id} was answered {answer.code} and had an effect")
        if answer.code == DENIED and call_id not in self._denials:
            self._wrong(f"call {answer.call_id} was denied and no decision is in the log")

    def _swept(self, *, came_up: bool) -> None:
        for call_id in self._left:
            ending = self._endings.get(call_id)
            if ending is None and came_up:
                self._wrong(f"call {call_id} was left open by a death and the next start did not end it")
            if ending is not None and ending != _SWEPT:
                self._wrong(f"call {call_id} was left open by a death and ended as {ending[0]}")
        self._left = self._intents - self._endings.keys()

    def _wrong(self, what: str) -> None:
        self.counts["violations"] += 1
        if len(self.violations) < _MOST_SHOWN and what not in self.violations:
            self.violations.append(what)


@dataclass(slots=True)
class Journal:
    """The tool's journal, read as it grows."""

    path: Path
    _read: int = 0

    def more(self) -> list[Effect]:
        """What was noted since the last time."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        return [msgspec.json.decode(line, type=Effect) for line in whole.splitlines()]

"""Has witnesses cosign the log's checkpoints, now and then, and records what they say.

A witness that is down, slow or lying changes nothing for calls: it is asked again later, less and less often. What is
recorded is proof by itself: size, root, key, time and signature stand in the leaf. Such records alone do not make the
log worth asking about again, or it would never come to rest.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from anyio import create_task_group

from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.keyring.keys import LogKeys
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.reading import LogReader
from gateway.adapters.ledger.rounds import Rounds, Tended
from gateway.adapters.ledger.storage.witness_records import Witnessed, body_of, growth, newest
from gateway.adapters.ledger.tree import LogTree
from gateway.core.cosigning import Cosignature
from gateway.core.errors import GatewayError, NotFound
from gateway.core.ports import Clock
from gateway.core.records import EventType
from gateway.core.tiles import ProofError, check_consistency
from gateway.core.tlog import Checkpoint, NoteError, split_note
from gateway.core.witnessing import Cosigner, OtherSize, Standing, WitnessFault, WitnessMeter

_LOG = logging.getLogger("gateway.ledger")
_MICRO = 1_000_000
_LONGEST_S = 3_600.0
_OVERTAKEN = "overtaken"
_MOST_DOUBLINGS = 12
# A clock that runs ahead is no reason to trust less; one that is days ahead is no clock.
_AHEAD_S = 86_400


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When witnesses are asked, and when it is enough.

    Attributes:
        every_s: seconds from one question to the next.
        threshold: how many of them are a quorum; 0 = nothing waits for them.
    """

    every_s: float
    threshold: int


@dataclass(frozen=True, slots=True)
class Log:
    """The parts of the open log.

    Attributes:
        is_shared: whether other gateways write it, and show it to the same witnesses.
    """

    ledger: Ledger
    reader: LogReader
    keys: LogKeys
    clock: Clock
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class _Word:
    """A cosignature of the checkpoint ``note``."""

    size: int
    note: str
    cosignature: Cosignature


@dataclass(slots=True)
class _Asked:
    """A witness and where it stands.

    Attributes:
        seen: size of the tree it last cosigned, as far as is known.
        word: its newest cosignature.
        failures: how often in a row it did not cosign.
        due: when it is asked next, on the monotonic clock.
    """

    cosigner: Cosigner
    seen: int = 0
    word: _Word | None = None
    state: str = "waiting"
    failures: int = 0
    due: float = 0.0


class Witnessing(Tended):
    """Implements ``core.witnessing.WitnessDesk``; an async context manager, which keeps asking while it is open."""

    def __init__(self, log: Log, cosigners: Sequence[Cosigner], rhythm: Rhythm, meter: WitnessMeter) -> None:
        """Nobody is asked before it is entered."""
        self._log = log
        self._tree = LogTree(log.reader)
        self._scribe = Scribe(log.clock, log.keys)
        self._asked = [_Asked(cosigner) for cosigner in cosigners]
        self._rhythm = rhythm
        self._meter = meter
        self._covered = 0
        self._since_us: int | None = None
        self._witnessed: str | None = None
        self._rounds = Rounds(self.once, rhythm.every_s, "witnesses could not be asked", at_once=True)

    async def _begin(self) -> None:
        if self._asked:
            await self.recall()
            await super()._begin()

    def standing(self) -> Standing:
        """Where the log stands."""
        states = {one.cosigner.witness.name: one.state for one in self._asked}
        return Standing(self._covered, self._since_us, states)

    def cosigned(self, note: str) -> str:
        """``note`` with the cosignatures there are of it."""
        text = split_note(note)[0]
        words = [one.word for one in self._asked if one.word is not None]
        return note + "".join(word.cosignature.line for word in words if split_note(word.note)[0] == text)

    def witnessed(self) -> str | None:
        """The largest checkpoint that a quorum has cosigned."""
        if self._witnessed is None:
            return None
        # Who trusts the keys of today takes nothing that only a retired one has signed.
        history = self._log.keys.ring.history
        signed = history.signing(Checkpoint.parse(split_note(self._witnessed)[0]).size)
        return self._witnessed if any(reign.key in signed for reign in history.in_force) else None

    async def recall(self) -> None:
        """Take up what witnesses said before the gateway started, or to another gateway on the same log.

        Raises:
            Unavailable: the log cannot be read.
        """
        ring = self._log.keys.ring
        for one in self._asked:
            key = one.cosigner.witness.key
            found = await self._log.reader.ask(partial(newest, key=key))
            if found is None or (one.word is not None and found.size <= one.word.size):
                continue
            if not await self._is_ours(found):
                name = one.cosigner.witness.name
                _LOG.error("the record of what witness %s cosigned last is not of this log: it was altered", name)
                continue
            one.seen, one.state = max(one.seen, found.size), "ok" if one.state == _OVERTAKEN else one.state
            # As it was signed then, byte for byte; a key that is gone cannot sign it any more.
            if all(ring.has(each) for each in ring.history.signing(found.size)):
                note = ring.sign(Checkpoint(ring.history.first.name, found.size, found.root), ring.history)
                one.word = _Word(found.size, note, found.cosignature)
        self._settle()

    async def _is_ours(self, found: Witnessed) -> bool:
        """Whether the witness signed the tree that a row names, and it begins the log's signed tree."""
        # Whoever can write a row would have the log sign whatever tree the row names.
        history = self._log.keys.ring.history
        text = Checkpoint(history.first.name, found.size, found.root).text
        if found.size < 1 or not found.cosignature.holds(text):
            return False
        try:
            end = history.open(await self._tree.checkpoint())
            _, proof = await self._tree.extend(found.size, end.size)
            check_consistency(found.size, found.root, end.size, end.root, proof)
        except (NoteError, NotFound, ProofError):
            return False
        return True

    async def once(self) -> None:
        """One round: ask each witness whose time has come, where there is something new for it.

        Raises:
            Unavailable: the log cannot be read or written.
        """
        begun, begun_us = self._log.clock.monotonic(), self._log.clock.now_us()
        if self._log.is_shared:
            await self.recall()
        try:
            note = await self._tree.checkpoint()
        except NotFound:
            return
        size = Checkpoint.parse(split_note(note)[0]).size
        due = [one for one in self._asked if one.due <= begun and await self._grew(one.seen)]
        before = [(one, one.seen, one.word) for one in due]
        async with create_task_group() as group:
            for one in due:
                group.start_soon(self._turn, one, size, note)
        fresh = [one.word for one in due if one.word is not None and one.word.note is note]
        if fresh:
            drafts = [
                self._scribe.draft(EventType.CHECKPOINT_WITNESSED, Subject(), body_of(note, word.cosignature))
                for word in fresh
            ]
            try:
                await self._log.ledger.append(drafts)
            except Exception:
                # A word that the log does not hold does not count: it is asked for again.
                for one, seen, word in before:
                    one.seen, one.word, one.due = seen, word, begun
                raise
        await self._tell(self._settle(), begun_us)

    def _settle(self) -> bool:
        """See what is a quorum now; whether it covers more than before."""
        least = max(self._rhythm.threshold, 1)
        words = sorted((one.word for one in self._asked if one.word), key=lambda word: word.size, reverse=True)
        before = self._covered
        if len(words) >= least:
            self._covered = max(before, words[least - 1].size)
            same = [word for word in words if word.size == words[least - 1].size]
            if len(same) >= least:
                self._witnessed = self.cosigned(same[0].note)
        return self._covered > before

    async def _tell(self, has_advanced: bool, begun_us: int) -> None:
        if not self._asked or self._rhythm.threshold == 0:
            return
        if not await self._grew(self._covered):
            self._since_us = None
        elif has_advanced or self._since_us is None:
            self._since_us = begun_us
        self._meter.unwitnessed((self._since_us or 0) / _MICRO)

    async def _turn(self, one: _Asked, size: int, note: str) -> None:
        try:
            cosignature = await self._cosignature(one, size, note)
        except WitnessFault as fault:
            self._failed(one, fault)
            return
        except GatewayError as error:  # the log itself cannot be read right now
            _LOG.warning("witness %s could not be asked: %s", one.cosigner.witness.name, error.detail)
            return
        if one.failures:
            _LOG.info("witness %s cosigns again", one.cosigner.witness.name)
        one.seen, one.word, one.state, one.failures = size, _Word(size, note, cosignature), "ok", 0
        one.due = self._log.clock.monotonic() + self._rhythm.every_s

    async def _cosignature(self, one: _Asked, size: int, note: str) -> Cosignature:
        name = one.cosigner.witness.name
        try:
            found = await self._ask(one, size, note)
        except OtherSize as other:
            if self._log.is_shared and other.size > size and not await self._is_beyond(other.size):
                raise WitnessFault(_OVERTAKEN, f"another gateway has shown {name} more of this log") from None
            if other.size > size:
                said = f"{name} has cosigned a tree of {other.size} records and this log has {size}: was it set back?"
                raise WitnessFault("ahead", said) from None
            one.seen = other.size
            try:
                found = await self._ask(one, size, note)
            except OtherSize:
                raise WitnessFault("nonsense", f"{name} names one size and wants another") from None
        if found.time_s > self._log.clock.now_us() // _MICRO + _AHEAD_S:
            raise WitnessFault("nonsense", f"{name} signs for a time that is more than a day ahead")
        return found

    async def _is_beyond(self, size: int) -> bool:
        """Whether the log is smaller than ``size`` still, by now."""
        return Checkpoint.parse(split_note(await self._tree.checkpoint())[0]).size < size

    async def _ask(self, one: _Asked, size: int, note: str) -> Cosignature:
        _, proof = await self._tree.extend(min(one.seen, size), size)
        return await one.cosigner.ask(min(one.seen, size), proof, note)

    def _failed(self, one: _Asked, fault: WitnessFault) -> None:
        if fault.state not in {one.state, _OVERTAKEN}:
            grave = fault.state in {"ahead", "forked"}
            _LOG.log(logging.ERROR if grave else logging.WARNING, "a witness did not cosign: %s", fault)
        every_s = self._rhythm.every_s
        if fault.state == _OVERTAKEN:  # by the other gateway's word, which stands in the log before the next round
            one.state, one.due = fault.state, self._log.clock.monotonic() + every_s
            return
        one.failures = min(one.failures + 1, _MOST_DOUBLINGS)
        one.state = fault.state
        one.due = self._log.clock.monotonic() + max(every_s, min(every_s * 2**one.failures, _LONGEST_S))

    async def _grew(self, size: int) -> bool:
        return await self._log.reader.ask(partial(growth, size=size))

"""The offline verifier: reads a log without a gateway and believes its public key and a checkpoint kept elsewhere only.

Every leaf is hashed anew and must give the signed roots; every run must be a chain without gaps; every intent must have
one ending; every sealed payload must be the one its leaf names, under a data key that is there or was erased on
record. The lists beside the log must be what the records say, and the database must hold nothing else. It streams:
memory grows with runs and open calls only.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.adapters.ledger.additions import PAYLOAD_SLOTS
from gateway.adapters.ledger.database import FAULTS, Database, DatabaseFault
from gateway.adapters.ledger.keyring.sealing import PayloadKey
from gateway.adapters.ledger.storage.files import (
    CHECKPOINT_WINDOW,
    GUARD,
)
from gateway.adapters.ledger.storage.journal import log_size
from gateway.adapters.ledger.storage.site import Site, sited
from gateway.adapters.ledger.verification.contents import Contents, SealedRef
from gateway.adapters.ledger.verification.finding_aids import FindingAids
from gateway.adapters.ledger.verification.landmarks import Landmark, Landmarks
from gateway.adapters.ledger.verification.report import Report
from gateway.adapters.ledger.verification.verify_approvals import REVIEWING, Signatures
from gateway.adapters.ledger.verification.verify_custody import CustodyTrail
from gateway.adapters.ledger.verification.verify_keys import tell_signers, trusted
from gateway.adapters.ledger.verification.verify_kills import KillTrail
from gateway.adapters.ledger.verification.verify_witnesses import Witnesses
from gateway.core.cosigning import TrustPolicy
from gateway.core.log_keys import KeyHistory
from gateway.core.records import ENDINGS, EventType
from gateway.core.tlog import Frontier, NoteError, VerifierKey, leaf_hash

_PAYLOADS = 16  # of up to some MiB each, in memory at once
_STEP = 4096  # records from one word on progress to the next
Progress = Callable[[int, int], None]
_CHAIN_END = frozenset({EventType.RUN_STARTED, EventType.RUN_ENDED, EventType.TOOL_REQUESTED})
_COLUMNS = "idx, leaf, hash, id, ts, type, run_id, seq_run, call_id, tool, effect, agent"


class _Actor(msgspec.Struct, gc=False):
    agent: str | None


class _Body(msgspec.Struct, gc=False):
    tool: str | None = None
    effect: str | None = None
    count: int | None = None
    approval: str | None = None
    reasons: list[str] = []
    binding: str | None = None


class _Leaf(msgspec.Struct, gc=False):
    v: int
    id: str
    type: EventType
    ts: int
    seq_run: int | None
    prev_run: str | None
    run_id: str | None
    call_id: str | None
    actor: _Actor
    payloads: list[SealedRef]
    body: _Body


@dataclass(frozen=True, slots=True)
class Means:
    """What a log is checked with, besides its own files.

    Attributes:
        checkpoint: a signed checkpoint kept elsewhere, which the log must extend.
        kek: the key of the key file ``payload.kek``: each data key is opened.
        deep: open each payload, too, and hold it against its commitment; needs ``kek``.
        policy: which witnesses must have cosigned.
    """

    checkpoint: str | None = None
    kek: PayloadKey | None = field(default=None, repr=False)
    deep: bool = False
    policy: TrustPolicy | None = None


_BARE = Means()


def verify(place: Path | Site, vkey: str, means: Means = _BARE, progress: Progress | None = None) -> Report:
    """Check the log in ``place`` (its folder, database file or other site) against one of its public keys.

    ``vkey`` may be several, one a line: one that the log knows is enough.
    Whatever is wrong with the files is a finding, never an exception. ``progress`` is told, now and then, how many
    records were read and about how many there are.
    """
    site = sited(place)
    report = Report(unchecked=[*_unchecked(means), *site.unchecked])
    try:
        keys = [VerifierKey.parse(line) for line in vkey.split() or [""]]
        # Before the snapshot is taken: the guard of a running gateway may be behind the database, never ahead of it.
        guard = _guard(site.folder / GUARD, report)
        db = site.reader()
    except NoteError as error:
        report.add(None, None, f"the public key cannot be used: {error}")
        return report
    except (*FAULTS, OSError) as error:
        report.add(None, None, f"{site.name} cannot be opened: {error}")
        return report
    try:
        db.snapshot()  # one snapshot, though a gateway may be writing
        for problem in site.problems(db):
            report.add(None, None, f"the database is not as a gateway makes it: {problem}")
        history = trusted(db, keys, report)
        witnesses = Witnesses(history.first.name, means.policy, report)
        kept = [*_landmarks(guard, means, history, report), *witnesses.landmarks(db, means.checkpoint)]
        landmarks = Landmarks(kept, report)
        contents = Contents(db, report, means.kek, deep=means.deep)
        with _checked_pages(site, report):
            _Verification(db, history, report, contents, landmarks).run(progress)
        tell_signers(history, db, report)
    except DatabaseFault as error:
        report.add(report.size, None, f"the log cannot be read on from here: {error}")
    except (*FAULTS, OverflowError, TypeError, ValueError) as error:
        # SQLite hands out values of any type once its file was tampered with; the next record is where it stopped.
        report.add(report.size, None, f"the database is damaged here: {error}")
    finally:
        db.close()
    return report


def _unchecked(means: Means) -> Iterator[str]:
    if means.checkpoint is None:
        yield (
            "whether the newest records were cut off together with the guard beside them, or all was written anew by "
            "who holds the signing key: that takes a checkpoint kept elsewhere"
        )
    if means.kek is None:
        yield "whether the data keys can be opened: payload.kek is not at hand"
    if means.kek is None or not means.deep:
        yield "whether the payloads open and are what the records commit to (their sealed bytes were checked)"


def _guard(path: Path, report: Report) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        report.add(
            None, None, f"the rollback guard {GUARD} is missing: the newest records may have been cut off with it"
        )
    except (OSError, ValueError) as error:
        report.add(None, None, f"the rollback guard {GUARD} cannot be used: {error}")
    return None


def _landmarks(guard: str | None, means: Means, history: KeyHistory, report: Report) -> Iterator[Landmark]:
    kept = (
        (guard, f"the rollback guard {GUARD}", f"the guard {GUARD}"),
        (means.checkpoint, "the checkpoint kept elsewhere", "the checkpoint kept elsewhere"),
    )
    for note, subject, source in kept:
        if note is None:
            continue
        try:
            yield Landmark(source, history.open(note))
        except NoteError as error:
            report.add(None, None, f"{subject} cannot be used: {error}")


@contextmanager
def _checked_pages(site: Site, report: Report) -> Iterator[None]:
    # The database checks its own pages on another core meanwhile: it needs no interpreter for that.
    found: list[str] = []
    thread = threading.Thread(target=_check_pages, args=(site, found), name="pages")
    thread.start()
    try:
        yield
    finally:
        thread.join()
        for said in found:
            report.add(None, None, f"the database is damaged: {said}")


def _check_pages(site: Site, found: list[str]) -> None:
    try:
        found += site.check_pages()
    except FAULTS as error:
        found.append(str(error))


@dataclass(slots=True)
class _Chain:
    """A run so far: its last record's number, stored hash and index; the run's binding; whether it has ended."""

    seq: int
    hash: str
    index: int
    binding: str | None
    ended: bool


class _Verification:
    """One pass over a log."""

    def __init__(
        self, db: Database, history: KeyHistory, report: Report, contents: Contents, landmarks: Landmarks
    ) -> None:
        self._contents = contents
        self._landmarks = landmarks
        self._db = db
        self._history = history
        self._report = report
        self._frontier = Frontier()
        self._chains: dict[str, _Chain] = {}
        self._open_calls: dict[str, int] = {}
        self._signatures = Signatures(report, history.first.text)
        self._custody = CustodyTrail(report, contents.present)
        self._kills = KillTrail(report)
        self._opened: dict[str, bytes] = {}
        self._payloads = db.walk("select pid, sealed from payloads order by pid", _PAYLOADS)
        self._payload = next(self._payloads, None)
        self._aids = FindingAids(db, report)
        self._checkpoints: Iterator[tuple[int, int, str, bytes, int, int]] = db.walk(
            "select win, size, note, peaks, high_us, low_us from checkpoints order by win"
        )
        self._checkpoint = next(self._checkpoints, None)
        self._covered = 0
        self._nodes = 0

    def run(self, progress: Progress | None) -> None:
        report = self._report
        total = log_size(self._db)
        self._landmarks.pass_by(self._frontier)
        for row in self._db.walk(f"select {_COLUMNS} from records order by idx"):  # noqa: S608 - a literal
            self._record(row)
            report.size += 1
            self._landmarks.pass_by(self._frontier)
            if self._checkpoint is not None and self._checkpoint[1] <= report.size:
                self._check_signed()
            if progress is not None and not report.size % _STEP:
                progress(report.size, total)
        self._finish()

    def _record(self, row: tuple[Any, ...]) -> None:
        index, entry, digest, record_id = row[:4]
        report = self._report
        if index != report.size:
            report.add(report.size, None, f"records {report.size} to {index - 1} are missing")
            report.size = index
        actual = leaf_hash(entry)
        for level, place, top in self._frontier.append(actual):
            self._check_node(level, place, top)
        if actual != digest:
            report.add(index, record_id, "the record was altered: its bytes do not have the hash stored with it")
        try:
            leaf = _DECODER.decode(entry)
        except (msgspec.DecodeError, UnicodeDecodeError):
            report.add(index, record_id, "the record cannot be read")
            return
        self._check_columns(leaf, row)
        self._aids.record(index, leaf.id, leaf.ts, leaf.body.reasons if leaf.type is EventType.DECISION else ())
        if leaf.run_id is not None:
            self._check_chain(leaf, index, digest)
        if leaf.type in ENDINGS or leaf.type is EventType.TOOL_REQUESTED:
            self._check_call(leaf, index)
        self._check_content(leaf, index, entry)

    def _check_content(self, leaf: _Leaf, index: int, entry: bytes) -> None:
        self._opened.clear()
        self._custody.record(leaf.type, index, entry)
        self._kills.record(leaf.type, index, entry)
        if leaf.payloads:
            self._check_payloads(leaf, index)
        if leaf.body.approval is not None or leaf.type in REVIEWING:
            self._signatures.record(leaf.type, index, entry, self._opened)

    def _check_node(self, level: int, place: int, top: bytes) -> None:
        row = self._db.execute("select hash from nodes where level = ? and place = ?", (level, place)).fetchone()
        if row != (top,):
            self._report.add(None, None, f"node {place} at level {level} of the tree is not what the records give")
        self._nodes += 1

    def _check_columns(self, leaf: _Leaf, row: tuple[Any, ...]) -> None:
        effect = leaf.body.effect if leaf.type is EventType.DECISION else None
        said = (leaf.id, leaf.ts, leaf.type, leaf.run_id, leaf.seq_run, leaf.call_id)
        if row[3:9] != said or row[9:] != (leaf.body.tool, effect, leaf.actor.agent):
            self._report.add(row[0], leaf.id, "the columns searches use do not say what the record says")

    def _check_chain(self, leaf: _Leaf, index: int, digest: bytes) -> None:
        run_id = str(leaf.run_id)
        chain = self._chains.get(run_id)
        problem = _chain_problem(leaf, chain)
        if problem is not None:
            self._report.add(index, leaf.id, problem)
        ended = leaf.type is EventType.RUN_ENDED
        if chain is None:
            self._chains[run_id] = _Chain(leaf.seq_run or 0, digest.hex(), index, leaf.body.binding, ended)
        else:
            chain.seq, chain.hash, chain.index = leaf.seq_run or 0, digest.hex(), index
            chain.ended = chain.ended or ended

    def _check_call(self, leaf: _Leaf, index: int) -> None:
        call_id = str(leaf.call_id)
        if leaf.type is EventType.TOOL_REQUESTED:
            if call_id in self._open_calls:
                self._report.add(index, leaf.id, f"call {call_id} was requested twice")
            self._open_calls[call_id] = index
        elif self._open_calls.pop(call_id, None) is None:
            self._report.add(index, leaf.id, f"call {call_id} ends here but has no open request")

    def _check_payloads(self, leaf: _Leaf, index: int) -> None:
        for slot, ref in enumerate(leaf.payloads):
            pid = index * PAYLOAD_SLOTS + slot
            self._custody.used(ref.dek, index, leaf.id)
            self._contents.check_key(ref.dek, index, leaf.id)
            if self._payload is None or self._payload[0] != pid:
                self._skip_strays(pid)
            if self._payload is None or self._payload[0] != pid:
                self._report.add(index, leaf.id, f"the sealed {ref.role} payload is missing")
                continue
            if hashlib.sha256(self._payload[1]).hexdigest() != ref.ct_sha256:
                self._report.add(index, leaf.id, f"the sealed {ref.role} payload was altered")
            elif self._contents.opens:
                content = self._contents.check_payload(ref, index, leaf.id, self._payload[1])
                if content is not None:
                    self._opened[ref.role] = content
            self._report.payloads += 1
            self._payload = next(self._payloads, None)

    def _skip_strays(self, until: int | None) -> None:
        while self._payload is not None and (until is None or self._payload[0] < until):
            index = self._payload[0] // PAYLOAD_SLOTS
            self._report.add(index, None, "there is a sealed payload that no record names")
            self._payload = next(self._payloads, None)

    def _check_signed(self) -> None:
        # The newest checkpoint of a window covers all records before it: from the last good one on, they must fit.
        while self._checkpoint is not None and self._checkpoint[1] <= self._report.size:
            window, size, note, peaks, *times = self._checkpoint
            self._checkpoint = next(self._checkpoints, None)
            self._aids.checkpoint(size, *times)
            last = size - 1
            try:
                checkpoint = self._history.open(note)
                signed = Frontier.decode(size, peaks)
            except NoteError as error:
                self._report.add(last, None, f"the checkpoint over {size} records was altered: {error}")
                continue
            if checkpoint.size != size or window != size // CHECKPOINT_WINDOW or signed.root() != checkpoint.root:
                self._report.add(last, None, f"the checkpoint over {size} records does not fit its place")
                continue
            if self._frontier.peaks != signed.peaks:
                self._report.add(last, None, f"records {self._covered} to {last} are not the ones that were signed")
                self._frontier = signed  # go on from what was signed, to find what else was altered
            self._covered = size
            self._report.checkpoint = checkpoint

    def _finish(self) -> None:
        report = self._report
        self._skip_strays(None)
        if self._checkpoint is not None:
            report.add(None, None, f"a checkpoint covers {self._checkpoint[1]} records, only {report.size} are here")
        elif self._covered != report.size:
            report.add(self._covered, None, f"no good checkpoint covers the records from {self._covered} on")
        self._landmarks.finish()
        self._aids.finish()
        self._signatures.finish(self._db)
        self._custody.finish(self._db)
        if self._db.execute("select count(*) from nodes").fetchone() != (self._nodes,):
            report.add(None, None, "there are nodes of the tree that the records do not give")
        report.open_calls = tuple(self._open_calls)
        if dict(self._db.execute("select call_id, idx from intents")) != self._open_calls:
            report.add(None, None, "the list of open calls is not what the records say")
        open_runs = {run_id: chain.binding for run_id, chain in self._chains.items() if not chain.ended}
        if dict(self._db.execute("select run_id, binding from open_runs")) != open_runs:
            report.add(None, None, "the list of open runs is not what the records say")


_DECODER = msgspec.json.Decoder(_Leaf)


def _chain_problem(leaf: _Leaf, chain: _Chain | None) -> str | None:
    if chain is None:
        begins = leaf.type is EventType.RUN_STARTED and leaf.seq_run == 0 and leaf.prev_run is None
        return None if begins else "the run does not begin with its start: records before this one are missing"
    if leaf.seq_run != chain.seq + 1:
        return f"the run has a gap: record {chain.index} is number {chain.seq}, this one is number {leaf.seq_run}"
    if leaf.prev_run != chain.hash:
        return f"the record does not continue record {chain.index} of its run: one of the two was altered"
    if chain.ended and leaf.type in _CHAIN_END:
        return f"{leaf.type} after the run's end"
    miscounted = leaf.type is EventType.RUN_ENDED and leaf.body.count != chain.seq + 2
    return "the run's end does not count its records" if miscounted else None

"""Recorded decisions evaluated again: first as they were made, then with a candidate."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.adapters.rego.engine import EngineSettings, RegoEngine
from gateway.adapters.rego.frames import CHUNK
from gateway.adapters.rego.past import served
from gateway.cli.policies.events import Lacking, Recorded
from gateway.cli.screen import Misconfigured, shown
from gateway.core.bundle import Bundle, BundleError
from gateway.core.decision import Decision, Effect, Evaluation, Phase, fold
from gateway.core.errors import Unavailable
from gateway.core.replaying import Word, approved, listing_of, unlike, word

# Nobody waits for an answer: what took too long then is recorded as a fault, what takes long now is let finish.
_SETTINGS = EngineSettings(workers=1, deadline_s=2.0, queue_wait_s=60.0)
_BATCH = 8 * CHUNK
# Where what people signed counts. At the time it counted where the record says allow; with another policy it would have
# where that policy asks people for what this one denied them.
_AS_IT_WAS = frozenset({Effect.ALLOW})
_INSTEAD = frozenset({Effect.ALLOW, Effect.DENY})
Tick = Callable[[int], None]


class _Engine(Protocol):
    async def evaluate(self, decision_id: str, inputs: Sequence[bytes]) -> Evaluation: ...


_Running = AbstractAsyncContextManager[_Engine]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recorded decision, the word of the policy that made it, and that of the candidate."""

    recorded: Recorded
    before: Word
    after: Word


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A recorded decision that its own policy does not make again: in ``words``, what differs."""

    recorded: Recorded
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of all of them.

    Attributes:
        replayed: those that could be, in log order.
        mismatches: those that came out otherwise than recorded.
        lacking: how many could not be replayed, by why.
    """

    replayed: tuple[Replayed, ...]
    mismatches: tuple[Mismatch, ...]
    lacking: Mapping[Lacking, int]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The documents of one recorded decision; ``call`` is None where only phase ``list`` was asked."""

    recorded: Recorded
    listing: bytes
    call: bytes | None


def replay(
    decisions: Sequence[Recorded],
    past: Callable[[str], Bundle | None],
    instead: Callable[[Bundle], Bundle],
    tick: Tick,
) -> Replay:
    """Evaluate each recorded input with the policy that decided and with what would be in force instead.

    ``tick`` is told after each batch how many documents were evaluated. Not to be called inside an event loop.

    Raises:
        Misconfigured: a policy cannot be served.
    """
    lacking: Counter[Lacking] = Counter()
    by_revision: dict[str, list[Recorded]] = {}
    for one in decisions:
        why = _lacking(one)
        if why is None:
            by_revision.setdefault(one.revision, []).append(one)
        else:
            lacking[why] += 1
    replayed: list[Replayed] = []
    mismatches: list[Mismatch] = []
    for revision, own in by_revision.items():
        bundle = past(revision)
        if bundle is None:
            lacking[Lacking.REVISION] += len(own)
            continue
        pairs = [_pair(one) for one in own]
        before, found = again(bundle, pairs, tick)
        mismatches += found
        after = _words(_served(instead, bundle), pairs, tick, "the candidate")
        replayed += [Replayed(*one) for one in zip(own, before, after, strict=True)]
    ordered = sorted(replayed, key=lambda one: one.recorded.event.ostiary.index)
    return Replay(tuple(ordered), tuple(mismatches), dict(lacking))


def _lacking(one: Recorded) -> Lacking | None:
    # Whoever calls made-up names could fill the report with what any list with a pattern seems to allow newly.
    is_tool = one.input is None or bool(one.input.tool.digest)
    return one.lacking if one.lacking is not None or is_tool else Lacking.NO_TOOL


def again(bundle: Bundle, pairs: Sequence["_Pair"], tick: Tick) -> tuple[list[Word], list[Mismatch]]:
    """The words of the policy that decided, and where they are not what was recorded."""
    made = _decided(served(bundle, _SETTINGS), pairs, tick, f"revision {bundle.revision[:12]}")
    found = [_mismatch(pair.recorded, *decisions) for pair, decisions in zip(pairs, made, strict=True)]
    return [word(*decisions) for decisions in made], [one for one in found if one is not None]


def same(bundle: Bundle, one: Recorded) -> tuple[Word, tuple[str, ...]]:
    """One recorded decision made again, and in words what came out otherwise."""
    words, mismatches = again(bundle, [_pair(one)], lambda _count: None)
    return words[0], mismatches[0].words if mismatches else ()


def _run(engine: _Running, documents: Sequence[bytes], tick: Tick, name: str) -> list[Decision]:
    try:
        return asyncio.run(_decide(engine, documents, tick))
    except BundleError as error:
        words = "\n".join(f"  {shown(problem)}" for problem in error.problems)
        fix = "`ostiary policy check DIR` names the rule"
        raise Misconfigured(f"{name} cannot be evaluated:\n{words}", fix) from None


async def _decide(running: _Running, documents: Sequence[bytes], tick: Tick) -> list[Decision]:
    found: list[Decision] = []
    async with running as engine:
        for at in range(0, len(documents), _BATCH):
            batch = documents[at : at + _BATCH]
            found += fold("replay", batch, await _evaluated(engine, batch))
            tick(len(batch))
    return found


async def _evaluated(engine: _Engine, documents: Sequence[bytes]) -> Evaluation:
    try:
        return await engine.evaluate("replay", documents)
    except Unavailable:
        # One of them hangs or kills the worker: that one is a fault, the others are asked again, each alone.
        alone = [await _alone(engine, document) for document in documents]
    results, faults = tuple(said.results[0] for said in alone), tuple(said.faults[0] for said in alone)
    return Evaluation(results, faults, alone[0].revision, alone[0].engine)


async def _alone(engine: _Engine, document: bytes) -> Evaluation:
    try:
        return await engine.evaluate("replay", [document])
    except Unavailable:
        return Evaluation((None,), ("engine.unavailable",), "", "")


def _served(instead: Callable[[Bundle], Bundle], past: Bundle) -> Bundle:
    try:
        return instead(past)
    except BundleError as error:
        raise Misconfigured("the candidate cannot be served: " + "; ".join(map(shown, error.problems))) from None


def _pair(one: Recorded) -> _Pair:
    try:
        listing = listing_of(one.document)
    except ValueError:
        raise _unreadable(one) from None
    return _Pair(one, listing, None if one.event.ostiary.phase is Phase.LIST else one.document)


def _words(bundle: Bundle, pairs: Sequence[_Pair], tick: Tick, name: str) -> list[Word]:
    return [word(*decisions) for decisions in _decided(RegoEngine(bundle, _SETTINGS), pairs, tick, name, _INSTEAD)]


def _decided(
    engine: _Running, pairs: Sequence[_Pair], tick: Tick, name: str, counted: frozenset[Effect] = _AS_IT_WAS
) -> list[tuple[Decision, Decision | None]]:
    documents = [document for pair in pairs for document in (pair.listing, pair.call) if document is not None]
    answers = iter(_run(engine, documents, tick, name))
    found: list[tuple[Decision, Decision | None]] = []
    for pair in pairs:
        listed = next(answers)
        called = None if pair.call is None else _signed(next(answers), pair, counted)
        found.append((listed, called))
    return found


def _signed(decision: Decision, pair: _Pair, counted: frozenset[Effect]) -> Decision:
    one = pair.recorded
    if one.event.result.effect not in counted:
        return decision
    try:
        return approved(decision, one.document)
    except ValueError:
        raise _unreadable(one) from None


def _unreadable(one: Recorded) -> Misconfigured:
    return Misconfigured(f"the input of decision {shown(one.event.decision_id)} is no policy input")


def _mismatch(one: Recorded, listed: Decision, called: Decision | None) -> Mismatch | None:
    words: tuple[str, ...] = ()
    if not one.is_intact:
        words = ("input: not the one whose digest was recorded",)
    ruling = called or listed
    words += unlike(msgspec.to_builtins(one.event.result), ruling)
    if words and one.event.ostiary.engine != ruling.engine:
        words += (f"engine: recorded {one.event.ostiary.engine}, now {ruling.engine}",)
    return Mismatch(one, words) if words else None

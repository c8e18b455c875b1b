"""Witnesses of a log that two gateways write and show to the same witnesses; and proofs under what these cosigned."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms
from gateway.adapters.ledger.books.witnessing import Log, Rhythm, Witnessing
from gateway.adapters.metrics import PrometheusMeter
from gateway.adapters.witnesses import HttpWitness
from gateway.cli.proving import proven
from gateway.cli.screen import Failed
from gateway.core.cosigning import Cosignature, CosignerKey, Witness
from gateway.core.tlog import Checkpoint, split_note
from gateway.core.witnessing import OtherSize
from tests.contract.test_witnessing import Hands, named, watched
from tests.evidence import make_principal
from tests.ledgers import Books, Walk
from tests.liars import Liar, lying, vkey
from tests.replicas import both, sites

__all__ = ["both", "sites"]

EVERY_S = 60.0


@pytest.fixture
def liar() -> Iterator[Liar]:
    """A witness that does as it is told."""
    with lying() as one:
        yield one


@dataclass(slots=True)
class Slow:
    """A witness that is asked by another gateway, too, while it thinks; implements ``Cosigner``."""

    witness: Witness
    real: HttpWitness
    meanwhile: Callable[[], Awaitable[int]]
    asked: list[int] = field(default_factory=list)

    async def ask(self, old: int, proof: Sequence[bytes], note: str) -> Cosignature:
        """The first time it has cosigned more by then; from then on it is as it should be."""
        self.asked.append(old)
        if len(self.asked) == 1:
            raise OtherSize(await self.meanwhile())
        return await self.real.ask(old, proof, note)


def size_of(note: str | None) -> int:
    """Of a checkpoint."""
    return 0 if note is None else Checkpoint.parse(split_note(note)[0]).size


@asynccontextmanager
async def asking(books: Books, clock: Hands, cosigner: HttpWitness | Slow) -> AsyncIterator[Witnessing]:
    """What one gateway has of the witness."""
    log = Log(books.ledger, books.reader, books.keys, clock, is_shared=True)
    desk = Witnessing(log, [cosigner], Rhythm(EVERY_S, 1), PrometheusMeter())
    await desk.recall()
    yield desk


async def test_being_overtaken_by_the_other_gateway_is_no_alarm(
    both: tuple[Books, Books], liar: Liar, caplog: pytest.LogCaptureFixture
) -> None:
    """The witness has seen more than this gateway showed it, as the other one showed it that; its word counts here."""
    clock, witness = Hands(), Witness("w", CosignerKey.parse(vkey()), liar.url)
    async with HttpWitness(witness) as one, HttpWitness(witness) as real, asking(both[1], clock, one) as theirs:

        async def meanwhile() -> int:
            await Walk(both[1]).go()
            await theirs.once()
            return theirs.standing().size

        async with asking(both[0], clock, Slow(witness, real, meanwhile)) as ours:
            with caplog.at_level(logging.WARNING):
                await ours.once()
            assert ours.standing().states == {"w": "overtaken"}
            assert caplog.messages == []
            clock.passed_s += EVERY_S
            await ours.once()
            assert ours.standing().states == {"w": "ok"}
            assert size_of(ours.witnessed()) == theirs.standing().size > 0
            assert len(liar.asked) == 1, "what the other gateway has its word for is not asked again"
            await Walk(both[0]).go()
            clock.passed_s += EVERY_S
            await ours.once()
            assert ours.standing().size > theirs.standing().size
    assert both[0].verify().findings == []


async def test_a_size_that_no_gateway_has_written_is_an_alarm(both: tuple[Books, Books], liar: Liar) -> None:
    """Whoever else writes the log: nobody has written so much."""
    witness = Witness("w", CosignerKey.parse(vkey()), liar.url)
    liar.manner = "ahead"
    async with HttpWitness(witness) as real, asking(both[0], Hands(), real) as ours:
        await ours.once()
        assert ours.standing().states == {"w": "ahead"}


async def test_a_proof_is_up_to_what_a_quorum_has_cosigned(tmp_path: Path, liar: Liar) -> None:
    """A policy that asks for witnesses takes it, for each record below that; a newer record has to wait."""
    async with watched(tmp_path, named((vkey(), liar.url))) as room:
        await room.round()
        tree, keys, note = room.books.tree, room.books.keys.name.text, room.asking.witnessed()
        size = size_of(note)
        assert 0 < size < len(room.books.records()), "the word of the witness is a record behind it"
        for index in range(size):
            document, _ = proven(await tree.prove(index, note), keys, room.policy)
            assert (document["index"], document["checkpoint"]["size"], document["unchecked"]) == (index, size, [])
        text = await tree.prove(size, note)
        assert proven(text, keys)[0]["index"] == size
        with pytest.raises(Failed, match="quorum"):
            proven(text, keys, room.policy)


async def test_what_only_a_retired_key_signed_is_not_offered(tmp_path: Path, liar: Liar) -> None:
    """A key rotated and retired between two rounds: the next round has the witness cosign by the new one."""
    async with watched(tmp_path, named((vkey(), liar.url))) as room:
        await room.round()
        books, by = room.books, make_principal()
        keys = KeyRoom(books.ledger, books.keys, room.clock, KeyTerms(overlap_h=1))
        await keys.rotate(by)
        assert room.asking.witnessed() is not None, "both keys are in force"
        await keys.retire(by)
        assert room.asking.witnessed() is None
        await room.round()
        text = await books.tree.prove(1, room.asking.witnessed())
        assert proven(text, books.keys.ring.history.newest.key.text, room.policy)[0]["unchecked"] == []

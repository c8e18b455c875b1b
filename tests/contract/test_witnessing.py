"""Witnesses cosign the log: foreign ones, and ones that are down or lie; no call waits for any of them."""

import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger.books.rotating import KeyRoom, KeyTerms
from gateway.adapters.ledger.books.witnessing import Log, Rhythm, Witnessing
from gateway.adapters.ledger.drafting import Scribe, Subject
from gateway.adapters.ledger.verification.verify import Means, verify
from gateway.adapters.metrics import PrometheusMeter
from gateway.adapters.witnesses import HttpWitness
from gateway.core.cosigning import CosignerKey, TrustPolicy, Witness, cosignatures
from gateway.core.records import EventType
from gateway.core.tlog import Checkpoint, split_note
from tests.evidence import make_principal
from tests.foreign.building import quorum, witness, witnessing
from tests.ledgers import Books, Walk, open_books
from tests.liars import Liar, lying, vkey
from tests.waiting import until

__all__ = ["witness"]

EVERY_S = 60.0


class Hands(SystemClock):
    """The real time, which witnesses sign for, with a monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0

    def monotonic(self) -> float:
        """As far as it was moved."""
        return self.passed_s


@dataclass(slots=True)
class Room:
    """Open books whose checkpoints are shown to witnesses."""

    books: Books
    clock: Hands
    asking: Witnessing
    witnesses: tuple[Witness, ...]
    threshold: int
    meter: PrometheusMeter = field(default_factory=PrometheusMeter)

    async def round(self, passed_s: float = EVERY_S) -> None:
        """A call, and the next questions to the witnesses."""
        await Walk(self.books).go()
        self.clock.passed_s += passed_s
        await self.asking.once()

    @property
    def policy(self) -> TrustPolicy:
        """What the gateway tells others to trust."""
        terms = KeyTerms(witnesses=self.witnesses, threshold=self.threshold)
        return KeyRoom(self.books.ledger, self.books.keys, self.clock, terms).policy()

    def states(self) -> list[str]:
        """The witnesses' states."""
        return list(self.asking.standing().states.values())

    def unwitnessed(self) -> float:
        """The metric."""
        found = self.meter.registry.get_sample_value("ostiary_log_unwitnessed_since_seconds")
        assert found is not None
        return found


def named(*pairs: tuple[str, str]) -> tuple[Witness, ...]:
    """Witnesses of (vkey, url)."""
    return tuple(Witness(f"w{at}", CosignerKey.parse(vkey), url) for at, (vkey, url) in enumerate(pairs))


@asynccontextmanager
async def watched(
    folder: Path, witnesses: Sequence[Witness], threshold: int = 1, timeout_s: float = 10.0
) -> AsyncIterator[Room]:
    """The log in ``folder``, with nobody asked but by ``Room.round``."""
    clock, meter = Hands(), PrometheusMeter()
    async with AsyncExitStack() as stack:
        books = await stack.enter_async_context(open_books(folder, clock))
        cosigners = [await stack.enter_async_context(HttpWitness(one, timeout_s)) for one in witnesses]
        log = Log(books.ledger, books.reader, books.keys, clock)
        asking = Witnessing(log, cosigners, Rhythm(EVERY_S, threshold), meter)
        await asking.recall()
        yield Room(books, clock, asking, tuple(witnesses), threshold, meter)


def size_of(note: str) -> int:
    """Of a checkpoint."""
    return Checkpoint.parse(split_note(note)[0]).size


@pytest.mark.requirement("AUDIT-3")
async def test_foreign_witnesses_cosign_and_foreign_code_counts_them(tmp_path: Path, witness: Path) -> None:
    """Checkpoint after checkpoint, with proofs; what is served has a quorum, and verification says up to where."""
    async with open_books(tmp_path / "log"):
        log = (tmp_path / "log/keys/log.vkey").read_text().strip()
    with witnessing(witness, "one.example/w", log) as one, witnessing(witness, "two.example/w", log) as two:
        async with watched(tmp_path / "log", named((one.vkey, one.url), (two.vkey, two.url)), threshold=2) as room:
            note = room.asking.witnessed() or ""
            assert note == ""
            for _ in range(5):
                await room.round()
                assert room.states() == ["ok", "ok"]
                note = room.asking.witnessed() or ""
                assert size_of(note) == room.asking.standing().size
                assert len(cosignatures(note, [each.key for each in room.witnesses])) == 2
                assert quorum(witness, room.policy.text, note, tmp_path)
                assert room.unwitnessed() == 0
            bare = await room.books.tree.checkpoint()
            assert not quorum(witness, room.policy.text, bare, tmp_path)
            own = "".join(line for line in note.splitlines(keepends=True) if ".example/w" not in line)
            assert room.asking.cosigned(own) == note
            assert len(room.books.records("checkpoint.witnessed")) == 10
        report = verify(tmp_path / "log", log, Means(policy=room.policy))
        assert report.findings == []
        assert report.witnessed == size_of(note)
        assert [word.size for word in report.testimonies] == [size_of(note)] * 2
        assert not any("witness" in part for part in report.unchecked)


async def test_a_log_at_rest_is_left_alone(tmp_path: Path, witness: Path) -> None:
    """The words of witnesses are records, too, but nothing to ask about again; nor is a start."""
    async with open_books(tmp_path):
        log = (tmp_path / "keys/log.vkey").read_text().strip()
    with witnessing(witness, "one.example/w", log) as one:
        async with watched(tmp_path, named((one.vkey, one.url))) as room:
            await room.round()
            size = size_of(await room.books.tree.checkpoint())
            for _ in range(3):
                room.clock.passed_s += EVERY_S
                await room.asking.once()
            assert size_of(await room.books.tree.checkpoint()) == size
            kept = room.asking.witnessed()
        async with watched(tmp_path, room.witnesses) as room:
            assert room.asking.witnessed() == kept, "taken up from the log"
            await room.asking.once()
            assert size_of(await room.books.tree.checkpoint()) == size
            await room.round()
            assert room.states() == ["ok"]


async def test_a_witness_that_forgot_or_remembers_more_is_followed(tmp_path: Path, witness: Path) -> None:
    """It says from where it goes on (409), and is asked from there."""
    async with open_books(tmp_path):
        log = (tmp_path / "keys/log.vkey").read_text().strip()
    with witnessing(witness, "one.example/w", log) as one:
        async with watched(tmp_path, named((one.vkey, one.url))) as room:
            for _ in range(3):
                await room.round()
            room.asking._asked[0].seen = 1
            await room.round()
            assert room.states() == ["ok"]
    with witnessing(witness, "one.example/w", log) as again:
        async with watched(tmp_path, named((again.vkey, again.url))) as room:
            await room.round()
            assert room.states() == ["ok"]


async def test_another_history_is_not_cosigned(tmp_path: Path, witness: Path) -> None:
    """Two copies of one log that went on differently: the witness that saw one signs nothing of the other."""
    async with open_books(tmp_path / "a") as books:
        await Walk(books).go()
        log = books.keys.name.text
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with witnessing(witness, "one.example/w", log) as one:
        async with watched(tmp_path / "a", named((one.vkey, one.url))) as room:
            await room.round()
        async with watched(tmp_path / "b", room.witnesses) as room:
            await room.round(0.0)
            assert room.states()[0] in {"forked", "ahead"}
            for _ in range(3):
                await room.round(10_000.0)
                assert room.states() == ["forked"]
            assert room.asking.witnessed() is None
            assert room.books.records("checkpoint.witnessed") == []


async def test_keys_rotate_under_a_witness(tmp_path: Path, witness: Path) -> None:
    """Who knows both keys goes on through overlap and retirement; who knows the old one alone refuses afterwards."""
    async with open_books(tmp_path) as books:
        first = books.keys.name.text
        second = (await books.room.rotate(make_principal())).key.text
    with witnessing(witness, "one.example/w", first, second) as one, witnessing(witness, "two.example/w", first) as two:
        async with watched(tmp_path, named((one.vkey, one.url), (two.vkey, two.url))) as room:
            await room.round()
            assert room.states() == ["ok", "ok"]
            assert [key.text for key in room.policy.logs] == [first, second]
            await room.books.room.retire(make_principal())
            await room.round()
            assert room.states() == ["ok", "refused"]
            assert [key.text for key in room.policy.logs] == [second]
            note = room.asking.witnessed() or ""
            assert quorum(witness, room.policy.text, note, tmp_path)
        for key in (first, second):
            assert verify(tmp_path, key, Means(policy=room.policy, checkpoint=note)).witnessed == size_of(note)


LIES = {
    "wrong key": "nonsense",
    "other size": "nonsense",
    "forged": "nonsense",
    "future": "nonsense",
    "garbage": "nonsense",
    "nothing": "nonsense",
    "packed": "nonsense",
    "newlines": "nonsense",
    "longer": "nonsense",
    "extended": "nonsense",
    "flood": "nonsense",
    "bytes": "nonsense",
    "undecided": "nonsense",
    "error": "refused",
    "busy": "refused",
    "unknown log": "refused",
    "unknown key": "refused",
    "elsewhere": "refused",
    "hangs up": "unreachable",
    "slow": "unreachable",
    "drips": "unreachable",
    "ahead": "ahead",
    "conflict": "forked",
    "same size": "forked",
    "odd size": "forked",
    "no size": "forked",
    "inconsistent": "forked",
}


@pytest.fixture
def liar() -> Iterator[Liar]:
    """A witness that does as it is told."""
    with lying() as one:
        yield one


@pytest.mark.parametrize("manner", LIES)
async def test_a_witness_that_lies_changes_nothing(tmp_path: Path, liar: Liar, manner: str) -> None:
    """Calls go on, nothing of it is recorded, it is asked less and less often, and once it is honest it counts."""
    async with watched(tmp_path, named((vkey(), liar.url)), timeout_s=0.3) as room:
        liar.manner = manner
        await room.round()
        assert room.states() == [LIES[manner]]
        assert room.unwitnessed() > 0
        asked = len(liar.asked)
        await room.round()
        assert len(liar.asked) == asked, "twice as long after the first failure"
        assert room.books.records("checkpoint.witnessed") == []
        assert room.asking.witnessed() is None
        liar.manner = "honest"
        liar.leave.set()
        await room.round()
        assert room.states() == ["ok"]
        assert room.unwitnessed() == 0
        assert len(room.books.records("checkpoint.witnessed")) == 1
        assert room.books.verify().findings == []


async def test_a_witness_that_is_down_does_not_hold_up_another(tmp_path: Path, liar: Liar) -> None:
    """The other one cosigns; signatures beside its own are ignored; no quorum of two is there."""
    liar.manner = "beside"
    down = CosignerKey("down.example/w", bytes(range(32))).text
    async with watched(tmp_path, named((down, "http://127.0.0.1:9/w"), (vkey(), liar.url)), threshold=2) as room:
        await room.round()
        assert room.states() == ["unreachable", "ok"]
        assert room.asking.witnessed() is None
        assert room.unwitnessed() > 0
        assert room.asking.standing().since_us is not None
        report = verify(tmp_path, room.books.keys.name.text, Means(policy=room.policy))
        assert [found.problem for found in report.findings] == [
            "the policy's quorum witnesses of witnesses has cosigned nothing of the log"
        ]
        bare = verify(tmp_path, room.books.keys.name.text)
        assert bare.findings == []
        assert any("ones to trust" in part for part in bare.unchecked)


async def test_a_witness_that_drips_does_not_hold_up_another(tmp_path: Path, liar: Liar) -> None:
    """The other one's word is recorded and counts as soon as the slow one's time is up."""
    liar.manner = "drips"
    with lying() as good:
        async with watched(tmp_path, named((vkey(), liar.url), (vkey(), good.url)), timeout_s=0.3) as room:
            await room.round()
            assert room.states() == ["unreachable", "ok"]
            assert len(room.books.records("checkpoint.witnessed")) == 1
            assert room.unwitnessed() == 0


async def test_calls_do_not_wait_while_a_witness_is_slow(tmp_path: Path, liar: Liar) -> None:
    """A call is made while the question hangs; leaving the log does not wait for the answer either."""
    liar.manner = "slow"
    async with watched(tmp_path, named((vkey(), liar.url)), timeout_s=20.0) as room:
        await Walk(room.books).go()
        async with room.asking:
            await until(lambda: bool(liar.asked))
            await Walk(room.books).go()
            assert room.states() == ["waiting"]
    assert not liar.leave.is_set()


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("root", "00" * 32, "cosignature of liar.example/w is wrong"),
        ("time_s", 5, "cosignature of liar.example/w is wrong"),
        ("witness", "no key", "cannot be read"),
        ("size", "x", "cannot be read"),
    ],
)
async def test_a_made_up_word_of_a_witness_is_found(
    tmp_path: Path, liar: Liar, member: str, value: object, problem: str
) -> None:
    """Whoever holds the signing key cannot make witnesses say what they did not."""
    async with watched(tmp_path, named((vkey(), liar.url))) as room:
        await room.round()
        (record,) = room.books.records("checkpoint.witnessed")
        scribe = Scribe(room.clock, room.books.keys)
        body = record["body"] | {member: value}
        await room.books.ledger.append([scribe.draft(EventType.CHECKPOINT_WITNESSED, Subject(), body)])
    problems = [found.problem for found in verify(tmp_path, room.books.keys.name.text).findings]
    assert len(problems) == 1
    assert problem in problems[0]


async def test_a_log_written_anew_does_not_have_what_witnesses_saw(tmp_path: Path, liar: Liar) -> None:
    """A word that is genuine, but of another tree of the same log, betrays the holder of the key."""
    async with open_books(tmp_path / "a") as books:
        await Walk(books).go()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    async with watched(tmp_path / "a", named((vkey(), liar.url))) as room:
        await room.round()
        (record,) = room.books.records("checkpoint.witnessed")
    async with open_books(tmp_path / "b") as books:
        for _ in range(5):
            await Walk(books).go()
        scribe = Scribe(books.clock, books.keys)
        await books.ledger.append([scribe.draft(EventType.CHECKPOINT_WITNESSED, Subject(), record["body"])])
    problems = [found.problem for found in verify(tmp_path / "b", books.keys.name.text).findings]
    assert len(problems) == 1
    assert "signed by witness liar.example/w and these are other ones" in problems[0]

"""What witnesses have signed of a log, and what that is worth under the policy of whoever verifies it."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.adapters.ledger.database import Database
from gateway.adapters.ledger.storage.witness_records import Witnessed, recorded
from gateway.adapters.ledger.verification.landmarks import Landmark
from gateway.adapters.ledger.verification.report import Report, Testimony
from gateway.core.cosigning import NO_QUORUM, Cosignature, CosignerKey, TrustPolicy, cosignatures
from gateway.core.tlog import Checkpoint, NoteError, split_note

_NOBODY = "whether others were shown another log: no witness has cosigned this one; compare checkpoints with others"
_ANYBODY = "whether the witnesses are ones to trust: name them, and how many it takes, with --policy"


@dataclass(slots=True)
class Witnesses:
    """Cosignatures, each checked; what they are of still has to be found in the log, as landmarks.

    Attributes:
        name: the log's origin.
        policy: of whoever verifies; None = none.
    """

    name: str
    policy: TrustPolicy | None
    report: Report

    def landmarks(self, db: Database, kept: str | None) -> Iterator[Landmark]:
        """What witnesses have signed: by the log's records, and below the checkpoint ``kept`` elsewhere.

        As many as were recorded are in memory while the log is read.

        Raises:
            FAULTS: the log cannot be read.
        """
        newest: dict[CosignerKey, tuple[int, int]] = {}
        for found in recorded(db):
            if isinstance(found, int):
                self.report.add(found, None, "a witness's word cannot be read")
            elif self._holds(found):
                self._take(newest, found.size, found.cosignature)
                yield Landmark(f"witness {found.cosignature.key.name}", Checkpoint(self.name, found.size, found.root))
        for size, word in self._below(kept):
            self._take(newest, size, word)
        self.report.testimonies = tuple(Testimony(key.text, *word) for key, word in sorted(newest.items(), key=_name))
        self._judge(newest)

    def _holds(self, found: Witnessed) -> bool:
        text = Checkpoint(self.name, found.size, found.root).text
        if not found.cosignature.holds(text):
            self.report.add(found.index, None, f"the cosignature of {found.cosignature.key.name} is wrong")
            return False
        if found.size > found.index:
            self.report.add(found.index, None, "the record is of a checkpoint that came after it")
        return True

    def _below(self, note: str | None) -> Iterator[tuple[int, Cosignature]]:
        if note is None or self.policy is None:
            return
        try:
            words = cosignatures(note, [witness.key for witness in self.policy.witnesses])
            size = Checkpoint.parse(split_note(note)[0]).size
        except NoteError as error:
            self.report.add(None, None, f"the checkpoint kept elsewhere cannot be used: {error}")
            return
        for word in words:
            yield size, word

    def _take(self, newest: dict[CosignerKey, tuple[int, int]], size: int, word: Cosignature) -> None:
        before = newest.get(word.key, (0, 0))
        newest[word.key] = max(before, (size, word.time_s))

    def _judge(self, newest: dict[CosignerKey, tuple[int, int]]) -> None:
        report, policy = self.report, self.policy
        if policy is None or policy.quorum == NO_QUORUM:
            report.unchecked.append(_ANYBODY if newest else _NOBODY)
            return
        # Who has cosigned a tree has cosigned all that it is the end of.
        sizes = sorted({size for size, _ in newest.values()}, reverse=True)
        met = (size for size in sizes if policy.is_met({key for key, word in newest.items() if word[0] >= size}))
        report.witnessed = next(met, 0)
        if report.witnessed == 0:
            report.add(None, None, f"the policy's quorum {policy.quorum} of witnesses has cosigned nothing of the log")


def _name(item: tuple[CosignerKey, tuple[int, int]]) -> str:
    return item[0].text

"""What verification of a log says: what is wrong, and what it could not look at."""

from dataclasses import dataclass, field

from gateway.core.tlog import Checkpoint

_MAX_FINDINGS = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written.

    Attributes:
        index: the record's place in the log; None where no single record is meant.
        id: the record's id, as far as it can still be read.
        problem: what is wrong, one sentence.
    """

    index: int | None
    id: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class Signing:
    """What a key has signed.

    Attributes:
        vkey: the key, in C2SP form.
        first: size of the smallest tree it was to sign.
        last: size of the largest.
        since_us: time of the record that added it.
        until_us: time of the record that retired it, or of the newest record that is signed.
        retired: whether it signs no more.
    """

    vkey: str
    first: int
    last: int
    since_us: int
    until_us: int | None
    retired: bool


@dataclass(frozen=True, slots=True)
class Testimony:
    """The largest tree that a witness has cosigned; it speaks for all smaller ones.

    Attributes:
        vkey: the witness's key, in C2SP form.
        size: of that tree.
        time_s: when, by the witness's clock, seconds since the epoch.
    """

    vkey: str
    size: int
    time_s: int


@dataclass(slots=True)
class Report:
    """What verification found.

    Attributes:
        size: how many records were read.
        payloads: how many sealed payloads were checked.
        opened: how many of them were opened and held against their commitments.
        erased: how many payloads nobody can read any more because their data key was destroyed, on record.
        checkpoint: the newest signed checkpoint, where its signature is good.
        findings: what is wrong, at most 1000.
        open_calls: calls whose intent has no ending yet; normal only while a gateway runs or after it was killed.
        unchecked: what was not looked at, one sentence each.
        signers: the keys that signed, oldest first; each tree by all keys that were to sign it.
        signed_us: time of the newest record that is signed, by the gateway's own clock.
        testimonies: the witnesses that have cosigned, whoever they are.
        witnessed: size of the largest tree that a quorum of the given policy has cosigned; None without such a policy.
        notices: what is as it was written and worth knowing, one sentence each.
    """

    size: int = 0
    payloads: int = 0
    opened: int = 0
    erased: int = 0
    checkpoint: Checkpoint | None = None
    findings: list[Finding] = field(default_factory=list)
    open_calls: tuple[str, ...] = ()
    unchecked: list[str] = field(default_factory=list)
    signers: tuple[Signing, ...] = ()
    signed_us: int | None = None
    testimonies: tuple[Testimony, ...] = ()
    witnessed: int | None = None
    notices: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def add(self, index: int | None, record_id: str | None, problem: str) -> None:
        """Note a finding."""
        if len(self.findings) < _MAX_FINDINGS:
            self.findings.append(Finding(index, record_id, problem))

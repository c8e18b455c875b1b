"""What leaves the log in an export: stored bytes with their proofs under one checkpoint, and opened payloads.

Nothing in it has to be believed: the proofs lead to a signed root, and what is opened has the commitment of its record.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OpenedPayload:
    """A payload whose key was not destroyed.

    Attributes:
        role: what it is to its record.
        dek: id of the data key it was sealed with.
        key: what its commitment is made with, 32 bytes: HKDF of the data key. It opens nothing, but whoever has it can
            try guesses against the commitments of all payloads under the same data key.
    """

    role: str
    content: bytes = field(repr=False)
    dek: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Extracted:
    """One record.

    Attributes:
        index: place in the log.
        leaf: the stored bytes.
        proof: inclusion proof, siblings from the leaf up.
        payloads: those that were opened.
    """

    index: int
    leaf: bytes
    proof: tuple[bytes, ...]
    payloads: tuple[OpenedPayload, ...] = ()


@dataclass(frozen=True, slots=True)
class Extract:
    """A page of records in log order.

    Attributes:
        vkey: the log's public key.
        size: records of the tree that the proofs lead to.
        checkpoint: the newest signed note, which is over ``size`` records where no size was asked for.
        next: go on after this index; None = that was all.
    """

    vkey: str
    size: int
    checkpoint: str
    records: tuple[Extracted, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Depth:
    """How much of each record is wanted.

    Attributes:
        size: prove up to the tree of so many records, and leave later ones out; None = the newest signed tree.
        payloads: open them, too.
    """

    size: int | None = None
    payloads: bool = False

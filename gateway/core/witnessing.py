"""Asking witnesses for cosignatures: what one of them is asked and answers, and where the log stands with them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.cosigning import Cosignature, Witness


class WitnessFault(Exception):
    """A witness did not cosign; nothing of the log depends on it.

    Attributes:
        state: an enumeration for operators: ``unreachable``, ``refused``, ``nonsense``, ``ahead``,
            ``forked`` or ``overtaken`` (another gateway on the same log has shown it more meanwhile).
    """

    def __init__(self, state: str, detail: str) -> None:
        """``detail`` is for the gateway's own output."""
        super().__init__(detail)
        self.state = state


class OtherSize(Exception):
    """A witness last cosigned another tree of this log than it was asked to go on from.

    Attributes:
        size: that tree's size.
    """

    def __init__(self, size: int) -> None:
        """Keep the size."""
        super().__init__(f"the witness last cosigned a tree of {size}")
        self.size = size


class Cosigner(Protocol):
    """A witness that can be asked (C2SP tlog-witness, ``add-checkpoint``).

    Attributes:
        witness: its name and key.
    """

    witness: Witness

    async def ask(self, old: int, proof: Sequence[bytes], note: str) -> Cosignature:
        """Its cosignature of the checkpoint ``note``, checked.

        Args:
            old: size of the tree that it last cosigned; 0 = none.
            proof: that this tree is the beginning of the checkpoint's.
            note: the checkpoint, with the log's own signatures.

        Raises:
            OtherSize: it last cosigned a tree of another size.
            WitnessFault: it is not there, refuses, or answers something else.
        """


class WitnessMeter(Protocol):
    """Tells operators."""

    def unwitnessed(self, since_s: float) -> None:
        """Since when records wait for a quorum of witnesses, seconds since the epoch; 0 = none waits."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the log stands with its witnesses.

    Attributes:
        size: size of the largest tree that a quorum has cosigned since the start; 0 = none.
        since_us: since when records wait for a quorum, or None where none does.
        states: by witness, ``ok``, ``waiting`` before its first answer, or the state of its fault.
    """

    size: int = 0
    since_us: int | None = None
    states: Mapping[str, str] = field(default_factory=dict)


class WitnessDesk(Protocol):
    """What witnesses have said. They are asked beside all else: nothing waits for them."""

    def standing(self) -> Standing:
        """Where the log stands."""

    def cosigned(self, note: str) -> str:
        """The log's checkpoint ``note`` with the cosignatures there are of it."""

    def witnessed(self) -> str | None:
        """The largest checkpoint that a quorum has cosigned since the start, with its cosignatures; or None.

        None also where only keys of the log have signed it that were retired since.
        """

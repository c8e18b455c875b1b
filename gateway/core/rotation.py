"""Replacing keys on schedule and on demand: what can be replaced, how old it is, and who replaces it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gateway.core.call import Principal

_HOUR_US = 3_600_000_000
# A rotation that is due may have to wait for the vault or for another gateway before anybody need care.
_GRACE = 1.25
_REST_US = 600_000_000


class KeyKind(StrEnum):
    """What is replaced."""

    SECRET_ID = "secret_id"  # noqa: S105 - the name of a kind
    DATABASE = "database"
    LOG_KEY = "log_key"
    PAYLOAD_KEY = "payload_key"
    ISSUER_KEY = "issuer_key"


class Rotatable(Protocol):
    """One key that the gateway can replace. Closed: until the new one is proven to work, the old one is in force.

    Attributes:
        subject: which one of its kind, e.g. ``database/erp``; empty where there is one.
        every_h: hours between two rotations; 0 = on demand only.
    """

    @property
    def kind(self) -> KeyKind: ...  # noqa: D102

    @property
    def subject(self) -> str: ...  # noqa: D102

    @property
    def every_h(self) -> int: ...  # noqa: D102

    async def settle(self) -> None:
        """Clear away what a rotation left that was broken off; asked once, when the gateway has started.

        Raises:
            GatewayError: it cannot be done now; the next rotation does it.
        """

    async def since_us(self) -> int | None:
        """Since when the present one is in force, microseconds; None = the log of rotations knows better."""

    async def rotate(self) -> None:
        """Replace it; where that was broken off before, this goes on from there.

        Raises:
            GatewayError: it was not replaced, or that cannot be told; what worked before goes on working.
        """


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """How a key stands.

    Attributes:
        since_us: since when it is in force; the log's beginning where it was never replaced.
        failed: why the last attempt since then failed; None = it did not.
        failed_us: when that was.
    """

    kind: KeyKind
    subject: str
    every_h: int
    since_us: int
    failed: str | None = None
    failed_us: int = 0

    def is_due(self, now_us: int) -> bool:
        """Whether its time is up; after a failure, a while later."""
        rests = self.failed is not None and now_us - self.failed_us < _REST_US
        return self.every_h > 0 and not rests and now_us - self.since_us >= self.every_h * _HOUR_US

    def is_overdue(self, now_us: int) -> bool:
        """Whether it should have been replaced a while ago."""
        return self.every_h > 0 and now_us - self.since_us >= self.every_h * _HOUR_US * _GRACE


class RotationDesk(Protocol):
    """The keys that are replaced. Closed: a rotation that cannot be recorded is not begun."""

    async def standings(self) -> Sequence[KeyStanding]:
        """All that can be replaced here.

        Raises:
            Unavailable: the log cannot be read.
        """

    async def rotate(self, by: Principal, kind: KeyKind) -> Sequence[KeyStanding]:
        """Replace all keys of that kind now; how they stand afterwards.

        Raises:
            NotFound: there is none that the gateway may replace.
            Conflict: it cannot be replaced as things stand.
            Unavailable: it was not replaced, or that cannot be told.
        """


class RotationMeter(Protocol):
    """Counts for operators. Cannot fail."""

    def key_age(self, kind: str, subject: str, seconds: float) -> None:
        """How old a key is."""

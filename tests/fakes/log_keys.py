"""The log's keys and witnesses without a log."""

from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.core.call import Principal
from gateway.core.cosigning import TrustPolicy, policy_over
from gateway.core.errors import Conflict
from gateway.core.log_keys import Reign
from gateway.core.tlog import VerifierKey
from gateway.core.witnessing import Standing


def _key() -> VerifierKey:
    return VerifierKey("gateway.test/log", Ed25519PrivateKey.generate().public_key())


@dataclass(slots=True)
class FakeKeyDesk:
    """Keys that sign nothing; each change is one record more."""

    reigns: list[Reign] = field(default_factory=lambda: [Reign(_key(), 0, 1_000)])
    by: list[Principal] = field(default_factory=list)

    def all(self) -> tuple[Reign, ...]:
        """All of them."""
        return tuple(self.reigns)

    def policy(self) -> TrustPolicy:
        """Those in force."""
        return policy_over([reign.key for reign in self.reigns if reign.until is None], (), 0)

    async def rotate(self, by: Principal) -> Reign:
        """One more."""
        if len([reign for reign in self.reigns if reign.until is None]) > 1:
            raise Conflict("two keys are in force", cause_code="log_key")
        self.by.append(by)
        self.reigns.append(Reign(_key(), 5, 2_000, 9_000))
        return self.reigns[-1]

    async def retire(self, by: Principal) -> Reign:
        """One less."""
        if len(self.reigns) == 1:
            raise Conflict("one key is in force", cause_code="log_key")
        self.by.append(by)
        self.reigns[-2] = replace(self.reigns[-2], until=7, until_us=3_000)
        return self.reigns[-2]


@dataclass(slots=True)
class FakeWitnessDesk:
    """What witnesses said, as given."""

    now: Standing = field(default_factory=Standing)
    line: str = ""
    note: str | None = None

    def standing(self) -> Standing:
        """As given."""
        return self.now

    def cosigned(self, note: str) -> str:
        """The same line for each."""
        return note + self.line

    def witnessed(self) -> str | None:
        """As given."""
        return self.note

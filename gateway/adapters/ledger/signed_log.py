"""The signed log as the pipeline sees it: an entry for each call, and for each question about what an agent will do."""

from gateway.adapters.ledger.advisories import AdviceEntry
from gateway.adapters.ledger.allowance import Allowance
from gateway.adapters.ledger.books.runs import RunRegistry
from gateway.adapters.ledger.drafting import Scribe
from gateway.adapters.ledger.entry import CallEntry, Clean, Desk
from gateway.adapters.ledger.ledger import Ledger
from gateway.adapters.ledger.storage.kill_records import Marks
from gateway.core.call import Call, Principal
from gateway.core.ports import Meter


class SignedLog:
    """Implements ``core.ports.AuditLog`` on the ledger."""

    def __init__(self, ledger: Ledger, runs: RunRegistry, scribe: Scribe, meter: Meter, clean: Clean) -> None:
        """``clean`` takes secrets out of an upstream's words before they are sealed."""
        self._desk = Desk(ledger, runs, meter, scribe, Allowance(scribe.clock), clean, Marks(scribe.keys))

    def open(self, call: Call, principal: Principal) -> CallEntry:
        """The entry of one authenticated call; see ``core.ports.AuditLog``."""
        return CallEntry(self._desk, call, principal)

    def consult(self, call: Call, principal: Principal) -> AdviceEntry:
        """The entry of one authenticated question; see ``core.ports.AuditLog``."""
        return AdviceEntry(self._desk, call, principal)

    async def ping(self) -> None:
        """Return when calls can be recorded.

        Raises:
            Unavailable: they cannot.
        """
        await self._desk.ledger.ping()

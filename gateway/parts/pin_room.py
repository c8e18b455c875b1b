"""What people do with pins: look at what changed, and approve exactly that."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.core.approval import Reviewer
from gateway.core.call import Principal
from gateway.core.catalog import Shelf
from gateway.core.errors import Conflict, Forbidden, NotFound, Unavailable
from gateway.core.pinning import Approval, Cause, Consent, Described, Dossier, PinBook, PinState, pin_message
from gateway.core.signing import is_signed
from gateway.core.suspicion import rules_of, suspicions
from gateway.parts.reviewing import Reviewers
from gateway.parts.stock import Stock


@dataclass(frozen=True, slots=True)
class PinRoom:
    """Implements ``core.pinning.PinDesk`` on the stock.

    Attributes:
        roles: see ``PinDesk``.
    """

    stock: Stock
    pins: PinBook
    reviewers: Reviewers
    roles: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The log's name; see ``core.pinning.PinDesk``."""
        return self.reviewers.origin

    def all(self) -> tuple[Dossier, ...]:
        """Every tool; see ``core.pinning.PinDesk``."""
        return tuple(found for server in self.stock.servers for found in self._of(server).values())

    def counts(self) -> Mapping[str, int]:
        """How many, by state; see ``core.pinning.PinDesk``."""
        counted = Counter(found.state for found in self.all())
        return {state: counted[state] for state in PinState}

    def state(self, tool: str) -> PinState:
        """The state of a tool of the catalogue; see ``core.pinning.PinDesk``."""
        server, _, name = tool.partition(".")
        shelf = self.stock.shelves(server).get(name) if server in self.stock.servers else None
        return PinState.PINNED if shelf is None or shelf.quarantine is None else PinState.QUARANTINED

    def show(self, tool: str) -> Dossier:
        """One tool; see ``core.pinning.PinDesk``."""
        server, _, name = tool.partition(".")
        if server not in self.stock.servers:
            raise NotFound("no MCP upstream has or had this tool")
        pin, live = self.pins.of(server).get(name), self.stock.live(server).get(name)
        if pin is None and live is None:
            raise NotFound("no MCP upstream has or had this tool")
        approved = None if pin is None else pin.approved
        odd = () if live is None else suspicions(server, live.definition, self.stock.names())
        shelf = self.stock.shelves(server).get(name)
        return Dossier(tool, _state(approved, shelf), _cause(approved, shelf), approved, live, odd)

    async def pin(self, by: Principal, tool: str, consent: Consent) -> Dossier:
        """Approve a tool; see ``core.pinning.PinDesk``."""
        if by.agent is not None or by.run is not None:
            raise Forbidden("a person approves tools, no agent does", cause_code="agent")
        server, _, _ = tool.partition(".")
        self.show(tool)
        # What is approved is what the upstream says at this moment, or else nothing is.
        if not await self.stock.refresh(server):
            raise Unavailable("the upstream does not answer", retry_after=1, cause_code="upstream_down")
        found = self.show(tool)
        live = _shown(found, consent)
        was = None if found.approved is None else found.approved.digest
        async with self.reviewers.steady():
            self._check_signed(tool, consent, was)
            await self.pins.pin(by, Approval(tool, live, was, rules_of(found.suspicions), consent))
        await self.stock.reshelve(server)
        return self.show(tool)

    def _of(self, server: str) -> dict[str, Dossier]:
        pins, live, shelves = self.pins.of(server), self.stock.live(server), self.stock.shelves(server)
        found = {}
        for name in sorted({*pins, *live}):
            approved = pins[name].approved if name in pins else None
            shelf = shelves.get(name)
            state, cause = _state(approved, shelf), _cause(approved, shelf)
            found[name] = Dossier(f"{server}.{name}", state, cause, approved, live.get(name))
        return found

    def _check_signed(self, tool: str, consent: Consent, was: str | None) -> None:
        if consent.key_id is None and consent.signature is None and not self.roles:
            return
        if consent.key_id is None or consent.signature is None:
            raise Forbidden(f"a reviewer must sign this as {' or '.join(self.roles)}", cause_code="unsigned")
        signer: Reviewer = self.reviewers.active(consent.key_id)
        if not is_signed(signer.public, consent.signature, pin_message(self.origin, tool, consent.digest, was)):
            raise Forbidden("the signature is not of this approval", cause_code="signature")
        if self.roles and not signer.roles.intersection(self.roles):
            raise Forbidden(f"the signer must be {' or '.join(self.roles)}", cause_code="reviewer_role")


def _shown(found: Dossier, consent: Consent) -> Described:
    if found.live is None:
        raise Conflict("the upstream no longer offers this tool", cause_code="pin_gone")
    if found.live.digest != consent.digest:
        raise Conflict("the upstream says something else than what was shown: look again", cause_code="pin_digest")
    return found.live


def _state(approved: Described | None, shelf: Shelf | None) -> PinState:
    if approved is None:
        return PinState.NEW
    return PinState.PINNED if shelf is not None and shelf.quarantine is None else PinState.QUARANTINED


def _cause(approved: Described | None, shelf: Shelf | None) -> Cause | None:
    if approved is None:
        return None
    return Cause.UNUSABLE if shelf is None else shelf.quarantine

"""Pins in memory, and a desk over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.core.call import Principal
from gateway.core.errors import Conflict, GatewayError, NotFound
from gateway.core.pinning import Approval, Cause, Consent, Dossier, Pin, PinState, Quarantine


@dataclass(slots=True)
class FakePins:
    """``PinBook`` that forgets nothing while the test lasts; ``broken`` is raised instead of recording anything."""

    revision: int = 0
    pins: dict[str, dict[str, Pin]] = field(default_factory=dict)
    cases: list[Quarantine] = field(default_factory=list)
    broken: GatewayError | None = None

    def of(self, server: str) -> Mapping[str, Pin]:
        """Those of a server."""
        return dict(self.pins.get(server, {}))

    async def sync(self) -> None:
        """Nobody else is there."""

    async def trust(self, server: str, found: Sequence[Approval]) -> None:
        """Pin what is found, once."""
        if not self.pins.get(server):
            for approval in found:
                self._put(approval)

    async def pin(self, by: Principal, approval: Approval) -> None:
        """Pin one."""
        server, _, name = approval.tool.partition(".")
        before = self.pins.get(server, {}).get(name)
        if approval.was != (None if before is None else before.approved.digest):
            raise Conflict("pinned meanwhile")
        self._put(approval)

    async def quarantine(self, cases: Sequence[Quarantine]) -> None:
        """Let the changed ones be changed; remember each case once."""
        for case in cases:
            server, _, name = case.tool.partition(".")
            pin = self.pins.get(server, {}).get(name)
            if pin is not None and pin.approved.digest == case.pinned and case.cause is Cause.CHANGED:
                self.pins[server][name] = replace(pin, is_changed=True)
                self.revision += 1
        if self.broken is not None:
            raise self.broken
        self.cases += [case for case in cases if case not in self.cases]

    def _put(self, approval: Approval) -> None:
        if self.broken is not None:
            raise self.broken
        server, _, name = approval.tool.partition(".")
        self.pins.setdefault(server, {})[name] = Pin(approval.described)
        self.revision += 1


@dataclass(slots=True)
class FakePinDesk:
    """``PinDesk`` over dossiers that a test gives."""

    origin: str = "test"
    roles: tuple[str, ...] = ()
    dossiers: dict[str, Dossier] = field(default_factory=dict)
    given: list[tuple[str, Consent]] = field(default_factory=list)

    def all(self) -> tuple[Dossier, ...]:
        """Those given."""
        return tuple(self.dossiers.values())

    def counts(self) -> Mapping[str, int]:
        """By state."""
        states = [one.state for one in self.dossiers.values()]
        return {state: states.count(state) for state in PinState}

    def state(self, tool: str) -> PinState:
        """Pinned, unless a dossier says otherwise."""
        found = self.dossiers.get(tool)
        return PinState.PINNED if found is None else found.state

    def show(self, tool: str) -> Dossier:
        """One of them."""
        if tool not in self.dossiers:
            raise NotFound("no such tool")
        return self.dossiers[tool]

    async def pin(self, by: Principal, tool: str, consent: Consent) -> Dossier:
        """Remember the consent."""
        self.given.append((tool, consent))
        return replace(self.show(tool), state=PinState.PINNED, cause=None)

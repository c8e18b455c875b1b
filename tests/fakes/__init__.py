"""Fakes of every port: small, honest about failure, and checked against the Protocols by mypy.

``World`` holds one of each with a shared ``Journal``; ``World.ports()`` is what the pipeline takes.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from gateway.adapters.killing import KillSwitch
from gateway.core import canonical
from gateway.core.call import Call, Channel, Live
from gateway.core.ports import PipelineSettings, Ports
from tests.clock import StepClock
from tests.fakes.approvals import FakeApprovals
from tests.fakes.audit import MemoryAudit
from tests.fakes.callers import FakeIdentity, FakeRuns
from tests.fakes.journal import Journal
from tests.fakes.kills import FakeKillBook, fake_switch
from tests.fakes.rules import FakeLimits, FakeMeter, FakePace, FakePolicy
from tests.fakes.upstream import FakeBroker, FakeCatalog, FakeConnector, FakeRedactor, FakeVerifier

# Every step of an allowed call, in the order the pipeline reaches them.
STAGES = (
    "identity.authenticate",
    "audit.open",
    "runs.enter",
    "entry.entered",
    "catalog.resolve",
    "runs.section",
    "policy.evaluate",
    "catalog.checked",
    "policy.evaluate",
    "entry.decided",
    "section.reserve",
    "runs.section.left",
    "limits.spend",
    "entry.commit",
    "entry.committed",
    "broker.lease",
    "catalog.invoke",
    "connector.invoke",
    "connector.sent",
    "broker.revoked",
    "verifier.verify",
    "redactor.redact",
    "entry.complete",
    "limits.returned",
)


@dataclass(slots=True)
class World:
    """One fake of each port around one journal."""

    journal: Journal = field(default_factory=Journal)
    clock: StepClock = field(default_factory=StepClock)
    meter: FakeMeter = field(default_factory=FakeMeter)
    book: FakeKillBook = field(default_factory=FakeKillBook)
    settings: PipelineSettings = field(default_factory=PipelineSettings)
    identity: FakeIdentity = field(init=False)
    runs: FakeRuns = field(init=False)
    connector: FakeConnector = field(init=False)
    catalog: FakeCatalog = field(init=False)
    policy: FakePolicy = field(init=False)
    approvals: FakeApprovals = field(init=False)
    limits: FakeLimits = field(init=False)
    broker: FakeBroker = field(init=False)
    verifier: FakeVerifier = field(init=False)
    redactor: FakeRedactor = field(init=False)
    audit: MemoryAudit = field(init=False)
    pace: FakePace = field(init=False)
    kills: KillSwitch = field(init=False)

    def __post_init__(self) -> None:
        """Build the parts that share the journal."""
        journal = self.journal
        self.identity, self.runs, self.policy = FakeIdentity(journal), FakeRuns(journal), FakePolicy(journal)
        self.approvals = FakeApprovals(journal)
        self.connector = FakeConnector(journal)
        self.catalog, self.broker = FakeCatalog(journal, self.connector), FakeBroker(journal)
        self.limits, self.verifier, self.redactor = FakeLimits(journal), FakeVerifier(journal), FakeRedactor(journal)
        self.audit, self.pace = MemoryAudit(journal), FakePace(journal)
        self.kills = fake_switch(self.book)

    def ports(self) -> Ports:
        """The ports as the pipeline takes them; mypy holds each fake to its Protocol here."""
        return Ports(
            clock=self.clock,
            identity=self.identity,
            kills=self.kills,
            runs=self.runs,
            catalog=self.catalog,
            policy=self.policy,
            approvals=self.approvals,
            limits=self.limits,
            broker=self.broker,
            verifier=self.verifier,
            redactor=self.redactor,
            audit=self.audit,
            pace=self.pace,
            meter=self.meter,
            settings=self.settings,
        )

    def call(
        self, name: str = "erp.stock", arguments: bytes = b"{}", token: str = "good", run: str | None = None
    ) -> Call:
        """A call as an edge would hand it over."""
        return Call(
            id=self.clock.uuid(),
            at_us=self.clock.now_us(),
            origin=Live(token),
            channel=Channel.REST,
            tool=name,
            arguments=canonical.arguments(canonical.parse(arguments)),
            run=run,
        )


def fake_ports(**overrides: Any) -> Ports:
    """Ports on fakes; ``overrides`` are real parts under test, by field name."""
    return replace(World().ports(), **overrides)

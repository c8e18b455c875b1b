"""A sandbox that runs nothing: it answers every run with ``outcome`` and remembers what it was given."""

from dataclasses import dataclass, field

from gateway.core.errors import GatewayError
from gateway.core.sandbox import BoxLimits, Capabilities, Ended, Outcome, Spent

FULL = Capabilities(
    backend="fake 1.0",
    held={"memory": "cgroup2", "pids": "cgroup2", "cpu": "cgroup2", "inodes": "cgroup2", "seccomp": "bpf"},
    seccomp="5" * 64,
    own_uid=True,
)
DONE = Outcome(Ended.EXITED, 0, b"42\n", b"", Spent(wall_ms=30, cpu_ms=20, memory_kb=9_000))


@dataclass(slots=True)
class FakeSandbox:
    """The ``SandboxRunner`` port without boxes.

    Attributes:
        seen: what its probe says.
        outcome: what each run answers, or the error it raises.
        ran: the code, input and caps of each run.
    """

    seen: Capabilities = FULL
    outcome: Outcome | GatewayError = DONE
    ran: list[tuple[bytes, bytes, BoxLimits]] = field(default_factory=list)

    async def probe(self) -> Capabilities:
        """What the test said."""
        return self.seen

    async def run(self, code: bytes, stdin: bytes, limits: BoxLimits, admitted: Capabilities) -> Outcome:
        """Note it, and answer what the test said."""
        assert admitted == self.seen
        self.ran.append((code, stdin, limits))
        if isinstance(self.outcome, GatewayError):
            raise self.outcome
        return self.outcome

"""What happens in one run, made from its seed alone.

The faults and the points at which they can strike are a grid. ``GRID`` is all of it in a fixed random order, and seed
``n`` gets entry ``n``: any stretch of seeds is a fair sample, and as many seeds as entries are the whole grid.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Final

TIMEOUT_S: Final = 0.5
PAY_LIMIT: Final = 1000
PAY_AMOUNT: Final = 600
MOST_PASSINGS: Final = 4
MOST_FILES: Final = 10


class Fault(StrEnum):
    """What breaks."""

    NONE = "none"
    KILLED = "gateway.killed"
    KILLED_AT_UPSTREAM = "gateway.killed_at_upstream"
    KILLED_ANY_TIME = "gateway.killed_any_time"
    KILLED_STARTING = "gateway.killed_starting"
    STOPPED = "gateway.stopped"
    POLICY_KILLED = "policy.killed"
    POLICY_FROZEN = "policy.frozen"
    POLICY_GARBAGE = "policy.garbage"
    LEDGER_FULL = "ledger.full"
    LEDGER_FULL_A_WHILE = "ledger.full_a_while"
    LEDGER_READONLY = "ledger.readonly"
    LEDGER_SLOW = "ledger.slow"
    UPSTREAM_REFUSES = "upstream.refuses"
    UPSTREAM_KILLED = "upstream.killed"
    UPSTREAM_FROZEN = "upstream.frozen"
    DATABASE_LOCKED = "database.locked"
    DATABASE_GONE = "database.gone"
    CREDENTIAL_GONE = "credential.gone"
    CLIENT_GONE = "client.gone"


# These strike when they like, not at a point of the pipeline.
UNPLACED: Final = frozenset(
    {Fault.NONE, Fault.KILLED_AT_UPSTREAM, Fault.KILLED_ANY_TIME, Fault.KILLED_STARTING},
)
DEADLY: Final = frozenset(
    {Fault.KILLED, Fault.KILLED_AT_UPSTREAM, Fault.KILLED_ANY_TIME, Fault.KILLED_STARTING},
)
# After these the gateway itself may be unable to record how its last calls ended: the restart does.
MUTE: Final = frozenset({Fault.LEDGER_FULL, Fault.LEDGER_FULL_A_WHILE, Fault.LEDGER_READONLY})
_UNPLACED_TIMES: Final = 24
_KILLED_TIMES: Final = 4


class Step(StrEnum):
    """The stages of ``gateway.core.pipeline.handle`` in order, brackets with their beginning and end."""

    IDENTITY = "identity"
    AUDIT_OPEN = "audit.open"
    RUN = "run"
    ENTERED = "entered"
    RESOLVE = "resolve"
    SECTION_OPEN = "section.open"
    POLICY = "policy"
    DECIDED = "decided"
    RESERVE = "reserve"
    SECTION_CLOSE = "section.close"
    LIMITS_OPEN = "limits.open"
    COMMIT = "commit"
    LEASE_OPEN = "lease.open"
    INVOKE = "invoke"
    LEASE_CLOSE = "lease.close"
    VERIFY = "verify"
    REDACT = "redact"
    COMPLETE = "complete"
    LIMITS_CLOSE = "limits.close"
    AUDIT_CLOSE = "audit.close"
    ANSWER = "answer"


class Side(StrEnum):
    """On which side of a step."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Point:
    """Where a fault strikes: before or after a step."""

    step: Step
    side: Side

    def __str__(self) -> str:
        """As in ``before commit``."""
        return f"{self.side} {self.step}"


class Kind(StrEnum):
    """Why a call may, or may not, reach an upstream."""

    PERMITTED = "permitted"
    DENIED = "denied"
    HIDDEN = "hidden"
    UNKNOWN = "unknown"
    FORGED = "forged"
    MALFORMED = "malformed"


class Surface(StrEnum):
    """How a call comes in."""

    REST = "rest"
    MCP = "mcp"
    MCP_SESSION = "mcp_session"


class Peer(StrEnum):
    """How the MCP upstream is reached."""

    STATELESS = "http_stateless"
    HANDSHAKE = "http_handshake"
    PIPES = "stdio"


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call of a run.

    Attributes:
        marker: its own, carried as an argument and found again in log and journal.
        tool: ``server.tool``.
        mode: how the upstream treats it, see ``peer`` and ``upstream``.
        after_s: when it is made, seconds from the start.
    """

    marker: str
    tool: str
    kind: Kind
    surface: Surface
    mode: str
    after_s: float

    @property
    def arguments(self) -> dict[str, object]:
        """What is sent as arguments."""
        found: dict[str, object] = {"marker": self.marker}
        if self.tool.endswith(".pay"):
            found |= {"amount": PAY_AMOUNT, "currency": "EUR"}
        if self.kind is Kind.MALFORMED:
            found["surplus"] = 1
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Attributes:
        fault: what breaks.
        point: where, or None for a fault that needs none.
        passing: at which passing of that point, from 1; for a start, how many files its state folder has by then.
        at_s: when, for a fault that strikes at any time: seconds from the first call.
        opened: whether a person opens the run; otherwise sessions imply it.
    """

    seed: int
    fault: Fault
    point: Point | None
    passing: int
    at_s: float
    peer: Peer
    opened: bool
    calls: tuple[PlannedCall, ...]


_READS: Final = ("api.look", "books.find", "peer.look")
_WRITES: Final = ("api.write", "books.enter", "peer.write")
_DESTRUCTIVE: Final = ("api.remove", "books.strike", "peer.remove")
_MONEY: Final = ("api.pay", "peer.pay")
_REFUSED: Final = (
    ("api.blocked", Kind.DENIED),
    ("api.secret", Kind.HIDDEN),
    ("peer.hidden", Kind.HIDDEN),
    ("api.nothing", Kind.UNKNOWN),
    ("api.write", Kind.FORGED),
    ("books.enter", Kind.FORGED),
    ("peer.write", Kind.MALFORMED),
    ("books.strike", Kind.MALFORMED),
)
_MODES: Final = ("hang", "late", "too_late", "half", "garbage", "garbled", "close", "fail", "refuse", "misfit")


def _grid() -> tuple[tuple[Fault, Point | None], ...]:
    points = [Point(step, side) for step in Step for side in Side]
    entries: list[tuple[Fault, Point | None]] = []
    for fault in Fault:
        if fault in UNPLACED:
            entries += [(fault, None)] * _UNPLACED_TIMES
        else:
            entries += [(fault, point) for point in points] * (_KILLED_TIMES if fault is Fault.KILLED else 1)
    Random(0).shuffle(entries)  # noqa: S311 - a fixed order, no secret
    return tuple(entries)


GRID: Final = _grid()


def plan(seed: int) -> Plan:
    """The run of a seed."""
    random = Random(seed)  # noqa: S311 - repeatable on purpose
    fault, point = GRID[seed % len(GRID)]
    calls = _calls(seed, random)
    if fault is Fault.KILLED_AT_UPSTREAM:
        calls = _deadly(calls, random)
    return Plan(
        seed=seed,
        fault=fault,
        point=point,
        passing=random.randint(1, MOST_FILES if fault is Fault.KILLED_STARTING else MOST_PASSINGS),
        at_s=random.uniform(0.0, TIMEOUT_S),
        peer=random.choice(tuple(Peer)),
        opened=random.random() < 0.5,  # noqa: PLR2004 - a coin
        calls=calls,
    )


def _calls(seed: int, random: Random) -> tuple[PlannedCall, ...]:
    wanted = [(random.choice(tools), Kind.PERMITTED) for tools in (_READS, _WRITES, _DESTRUCTIVE, _MONEY)]
    wanted += [(tool, Kind.PERMITTED) for tool in random.sample(_READS + _WRITES + _DESTRUCTIVE, 3)]
    # Two payments of which a run may make one.
    wanted += [(wanted[3][0], Kind.PERMITTED), *random.sample(_REFUSED, 3)]
    random.shuffle(wanted)
    return tuple(_call(f"m{seed}-{number}", tool, kind, random) for number, (tool, kind) in enumerate(wanted))


def _call(marker: str, tool: str, kind: Kind, random: Random) -> PlannedCall:
    misbehaves = not tool.startswith("books.") and random.random() < 0.4  # noqa: PLR2004 - most calls go well
    mode = random.choice(_MODES) if misbehaves else "answer"
    surface = random.choice(tuple(Surface))
    return PlannedCall(marker, tool, kind, surface, mode, random.choice((0.0, 0.0, random.uniform(0.0, 0.1))))


def _deadly(calls: tuple[PlannedCall, ...], random: Random) -> tuple[PlannedCall, ...]:
    near = [call for call in calls if call.kind is Kind.PERMITTED and not call.tool.startswith("books.")]
    chosen = random.choice(near)
    return tuple(replace(call, mode="kill") if call is chosen else call for call in calls)

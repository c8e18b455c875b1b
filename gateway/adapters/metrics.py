"""Counts and timings for operators, as a Prometheus page.

Label values are bounded whatever callers send: a tool outside the catalogue counts as ``unlisted``, and of each other
enumeration only the first values get a series of their own, the rest share ``other``.
"""

import time
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.core.decision import Effect

UNLISTED = "unlisted"
OTHER = "other"
_MAX_TOOLS = 1000
_MAX_VALUES = 128
_EFFECTS = frozenset(Effect)
_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_DECISION_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


class _Vocabulary:
    """The first ``most`` values seen keep their name; later ones are ``other``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: set[str] = set()

    def name(self, value: str) -> str:
        if value in self._seen:
            return value
        if len(self._seen) >= self._most:
            return OTHER
        self._seen.add(value)
        return value


class _Count:
    """One series of a counter; the library's own looks at what it is each time it is added to."""

    __slots__ = ("number", "since")

    def __init__(self) -> None:
        self.number = 0
        self.since = time.time()

    def into(self, family: CounterMetricFamily, labels: Mapping[str, str]) -> None:
        family.add_metric(list(labels.values()), self.number, self.since)


class _Times:
    """One series of a histogram: how often it took no longer than each of ``bounds``, and how long all together."""

    __slots__ = ("bounds", "counts", "seconds", "since")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0
        self.since = time.time()

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds

    def into(self, family: HistogramMetricFamily, labels: Mapping[str, str]) -> None:
        bounds = [*map(floatToGoString, self.bounds), "+Inf"]
        family.add_metric(list(labels.values()), list(zip(bounds, accumulate(self.counts), strict=True)), self.seconds)
        family.add_sample(f"{family.name}_created", dict(labels), self.since)


class _Tallies(Collector):
    """What every call adds to, by label values."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], _Count] = {}
        self.call_seconds: dict[str, _Times] = {}
        self.decisions: dict[tuple[str, str], _Count] = {}
        self.decision_seconds = _Times(_DECISION_BUCKETS)

    def collect(self) -> Iterator[Metric]:
        """The four of them."""
        calls = CounterMetricFamily("ostiary_calls", "Calls that ended.", labels=["tool", "outcome"])
        for (tool, outcome), count in self.calls.items():
            count.into(calls, {"tool": tool, "outcome": outcome})
        yield calls
        seconds = HistogramMetricFamily("ostiary_call_seconds", "Arrival to answer.", labels=["tool"])
        for tool, times in self.call_seconds.items():
            times.into(seconds, {"tool": tool})
        yield seconds
        decisions = CounterMetricFamily("ostiary_decisions", "Policy decisions.", labels=["effect", "reason"])
        for (effect, reason), count in self.decisions.items():
            count.into(decisions, {"effect": effect, "reason": reason})
        yield decisions
        decided = HistogramMetricFamily("ostiary_decision_seconds", "Question to decision.", labels=[])
        self.decision_seconds.into(decided, {})
        yield decided


class PrometheusMeter:
    """The Meter port on prometheus-client, with a registry of its own. Belongs to one event loop.

    Series: ``ostiary_calls_total{tool,outcome}``, ``ostiary_call_seconds{tool}``, ``ostiary_decision_seconds``,
    ``ostiary_decisions_total{effect,reason}``, ``ostiary_unauthenticated_total{code}``,
    ``ostiary_leases{state}``, ``ostiary_lease_faults_total{step,cause}``, ``ostiary_key_age_seconds{kind,subject}``,
    ``ostiary_kills``, ``ostiary_log_unwitnessed_since_seconds``, ``ostiary_policy_stale``,
    ``ostiary_policy_shadow_total{result}``, ``ostiary_policy_shadow_watching`` and ``ostiary_tools_quarantined``.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._listed: frozenset[str] = frozenset()
        self._tools = _Vocabulary(_MAX_TOOLS)
        self._outcomes, self._reasons, self._codes = (_Vocabulary(_MAX_VALUES) for _ in range(3))
        self._tallies = _Tallies()
        registry.register(self._tallies)
        self._refused = Counter(
            "ostiary_unauthenticated", "Requests without a good credential.", ["code"], registry=registry
        )
        leases = Gauge("ostiary_leases", "Minted logins: in use, or waiting to be ended.", ["state"], registry=registry)
        self._leases = (leases.labels("live"), leases.labels("pending"))
        self._lease_faults = Counter(
            "ostiary_lease_faults",
            "Credentials that could not be had, not be ended with their calls, or what they left not be dropped.",
            ["step", "cause"],
            registry=registry,
        )
        self._kills = Gauge("ostiary_kills", "Kills in force.", registry=registry)
        self._unwitnessed = Gauge(
            "ostiary_log_unwitnessed_since_seconds",
            "Since when records wait for a quorum of witnesses, as a Unix time; 0 = none waits.",
            registry=registry,
        )
        self._stale = Gauge("ostiary_policy_stale", "1 while newer policy is not in force.", registry=registry)
        self._shadowed = Counter(
            "ostiary_policy_shadow", "Decisions compared with the candidate's.", ["result"], registry=registry
        )
        self._watching = Gauge("ostiary_policy_shadow_watching", "1 while a candidate is asked.", registry=registry)
        self._key_ages = Gauge(
            "ostiary_key_age_seconds", "Age of keys that are replaced.", ["kind", "subject"], registry=registry
        )
        self._quarantined = Gauge("ostiary_tools_quarantined", "Pinned tools that may not be used.", registry=registry)
        # What a caller or an engine says, and the series that it counts in.
        self._called: dict[tuple[str, str], tuple[_Count, _Times]] = {}
        self._decided: dict[tuple[str, str], _Count] = {}

    def quarantined(self, tools: int) -> None:
        """So many pinned tools may not be used."""
        self._quarantined.set(tools)

    def admit(self, tools: Collection[str]) -> None:
        """Name the tools (``server.tool``) of the catalogue: they get series of their own, the first 1000 named."""
        self._listed = frozenset(tools)

    def called(self, tool: str, outcome: str, seconds: float) -> None:
        """One call ended: ``outcome`` is ``completed`` or an error code."""
        name = tool if tool in self._listed else UNLISTED
        count, times = self._called.get((name, outcome)) or self._bind_call(name, outcome)
        count.number += 1
        times.add(seconds)

    def decided(self, effect: str, reason: str, seconds: float) -> None:
        """One decision was made; ``effect`` is an ``Effect`` and ``reason`` the first reason id."""
        count = self._decided.get((effect, reason)) or self._bind_decision(effect, reason)
        count.number += 1
        self._tallies.decision_seconds.add(seconds)

    def unauthenticated(self, code: str) -> None:
        """A request without a good credential."""
        self._refused.labels(self._codes.name(code)).inc()

    def leases(self, live: int, pending: int) -> None:
        """How many minted logins there are: used by a call, and waiting to be ended."""
        self._leases[0].set(live)
        self._leases[1].set(pending)

    def lease_fault(self, step: str, cause: str) -> None:
        """A credential could not be had, or not be ended with its call; ``cause`` is a ``VaultCause`` or the like."""
        self._lease_faults.labels(step, self._codes.name(cause)).inc()

    def kills(self, in_force: int) -> None:
        """How many kills are in force."""
        self._kills.set(in_force)

    def unwitnessed(self, since_s: float) -> None:
        """Since when records of the log wait for witnesses, seconds since the epoch; 0 = none waits."""
        self._unwitnessed.set(since_s)

    def policy_stale(self, stale: bool) -> None:
        """Whether what the sources of policy hold is not in force."""
        self._stale.set(stale)

    def shadowed(self, result: str) -> None:
        """What came of one decision and its candidate's: a ``shadow.Result``."""
        self._shadowed.labels(result).inc()

    def shadow_watching(self, watching: bool) -> None:
        """Whether the policy in the shadow is there to be asked."""
        self._watching.set(watching)

    def key_age(self, kind: str, subject: str, seconds: float) -> None:
        """How old a key is that is replaced from time to time."""
        self._key_ages.labels(kind, subject).set(seconds)

    def page(self) -> tuple[str, bytes]:
        """(content type, text) of the metrics page."""
        return CONTENT_TYPE_LATEST, generate_latest(self.registry)

    def _bind_call(self, tool: str, outcome: str) -> tuple[_Count, _Times]:
        key = (tool if tool == UNLISTED else self._tools.name(tool), self._outcomes.name(outcome))
        count = self._tallies.calls.setdefault(key, _Count())
        times = self._tallies.call_seconds.setdefault(key[0], _Times(_CALL_BUCKETS))
        return self._called.setdefault(key, (count, times))

    def _bind_decision(self, effect: str, reason: str) -> _Count:
        known = str(effect) if effect in _EFFECTS else OTHER
        key = (known, self._reasons.name(reason))
        return self._decided.setdefault(key, self._tallies.decisions.setdefault(key, _Count()))

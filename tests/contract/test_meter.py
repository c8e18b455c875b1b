"""The Meter port: what operators can count on being counted, in bounded space."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.adapters.metrics import PrometheusMeter
from gateway.core.decision import Effect


def samples(meter: PrometheusMeter, name: str) -> dict[tuple[str, ...], float]:
    """Values of one series by its label values, labels in alphabetical order."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(meter.page()[1].decode())
        for sample in family.samples
        if sample.name == name
    }


def test_calls_are_counted_by_tool_and_outcome() -> None:
    """Two outcomes of one tool are two counts; the time lands in the tool's histogram."""
    meter = PrometheusMeter()
    meter.admit(["files.read"])
    meter.called("files.read", "completed", 0.02)
    meter.called("files.read", "completed", 0.02)
    meter.called("files.read", "denied", 0.001)
    assert samples(meter, "ostiary_calls_total") == {("completed", "files.read"): 2, ("denied", "files.read"): 1}
    assert samples(meter, "ostiary_call_seconds_count") == {("files.read",): 3}


def test_tools_outside_the_catalogue_share_one_series() -> None:
    """A caller who asks for made-up tools makes no new series."""
    meter = PrometheusMeter()
    meter.admit(["files.read"])
    for number in range(500):
        meter.called(f"made.up{number}", "unknown_tool", 0.001)
    assert samples(meter, "ostiary_calls_total") == {("unknown_tool", "unlisted"): 500}


def test_a_tool_that_left_the_catalogue_keeps_its_count() -> None:
    """Counters never go back when the catalogue changes."""
    meter = PrometheusMeter()
    meter.admit(["a.b"])
    meter.called("a.b", "completed", 0.1)
    meter.admit(["c.d"])
    meter.called("a.b", "unknown_tool", 0.1)
    assert samples(meter, "ostiary_calls_total") == {("completed", "a.b"): 1, ("unknown_tool", "unlisted"): 1}


def test_reasons_outcomes_and_codes_are_bounded() -> None:
    """Past 128 values of a label, further ones count as ``other`` and nothing is lost."""
    meter = PrometheusMeter()
    for number in range(1000):
        meter.decided(Effect.DENY, f"rule.{number}", 0.0005)
        meter.called("x.y", f"outcome{number}", 0.0005)
        meter.unauthenticated(f"code{number}")
    for name in ("ostiary_decisions_total", "ostiary_calls_total", "ostiary_unauthenticated_total"):
        counted = samples(meter, name)
        assert len(counted) == 129
        assert sum(counted.values()) == 1000
        assert max(counted.values()) == 872


def test_catalogue_of_any_size_makes_at_most_1001_tool_series() -> None:
    """The thousand-and-first tool shares ``other``."""
    meter = PrometheusMeter()
    tools = [f"s.t{number}" for number in range(1100)]
    meter.admit(tools)
    for tool in tools:
        meter.called(tool, "completed", 0.1)
    counted = samples(meter, "ostiary_calls_total")
    assert len(counted) == 1001
    assert counted["completed", "other"] == 100


def test_decisions_are_counted_by_effect_and_reason_and_timed() -> None:
    """Effect values outside the closed set count as ``other``."""
    meter = PrometheusMeter()
    meter.decided(Effect.ALLOW, "scope.granted", 0.0005)
    meter.decided("nonsense", "scope.granted", 0.0005)
    assert samples(meter, "ostiary_decisions_total") == {("allow", "scope.granted"): 1, ("other", "scope.granted"): 1}
    assert samples(meter, "ostiary_decision_seconds_count") == {(): 2}


def test_hostile_label_values_cannot_break_the_page() -> None:
    """Quotes, line feeds and backslashes arrive escaped, and the page still parses."""
    meter = PrometheusMeter()
    evil = 'a"b\nostiary_calls_total{tool="x"} 9\\'
    meter.decided(Effect.DENY, evil, 0.1)
    assert samples(meter, "ostiary_decisions_total") == {("deny", evil): 1}
    assert samples(meter, "ostiary_calls_total") == {}


def test_two_meters_do_not_share_counts() -> None:
    """Each meter has a registry of its own."""
    one, two = PrometheusMeter(), PrometheusMeter()
    one.unauthenticated("missing")
    assert samples(two, "ostiary_unauthenticated_total") == {}
    assert one.page()[0].startswith("text/plain")

"""What the benchmark of policy decisions asks, and what it concludes."""

import json

import jsonschema_rs
import pytest

from gateway.adapters.rego import contract
from loadtests.load import REFERENCE_PROBE_MS
from loadtests.policy import ALL, CONNECTIONS, ONE, REMEMBERED, Case, Sample, figures, question, table, targets


def rounds(slowness: float = 1.0, **worse: float) -> list[dict[Case, Sample]]:
    """Three rounds in which every promise is kept, but for what ``worse`` says of the calls one package decides."""
    told = {}
    for name in (REMEMBERED, ONE, ALL):
        for connections in CONNECTIONS:
            times = {"gateway_us": 35.0 * slowness, "worker_us": (150.0 if name == ONE else 900.0) * slowness}
            times |= worse if name == ONE else {}
            told[Case(name, connections)] = Sample(questions=100, probe_ms=REFERENCE_PROBE_MS * slowness, **times)
    return [told] * 3


@pytest.mark.parametrize("name", [REMEMBERED, ONE, ALL])
def test_questions_are_as_the_gateway_makes_them(name: str) -> None:
    """They fit the schema of policy inputs; where all packages are to speak, no two have a run in common."""
    validator = jsonschema_rs.validator_for(json.loads(contract.text(contract.INPUT)))
    documents = [json.loads(text) for number in range(3) for text in question(name, number)]
    assert all(validator.is_valid(document) for document in documents)
    assert len({document["run"]["id"] for document in documents}) == (3 if name == ALL else 1)


def test_every_promise_is_judged_at_reference_speed() -> None:
    """A slow machine is taken into account; each target is missed by its own figure only."""
    assert [target.met for target in targets(figures(rounds()))] == [True] * 4
    assert [target.met for target in targets(figures(rounds(slowness=2.0)))] == [True] * 4
    assert [target.met for target in targets(figures(rounds(gateway_us=60.0)))] == [False, True, True, True]
    assert [target.met for target in targets(figures(rounds(gateway_us=101.0)))] == [False, False, True, True]
    assert [target.met for target in targets(figures(rounds(worker_us=201.0)))] == [True, True, False, True]


def test_the_table_names_every_case_and_target() -> None:
    """One row for each case and load, one for each promise."""
    found = figures(rounds(worker_us=300.0))
    document = {
        "seed": 1,
        "counts": {"rounds": 3, "questions": 1800},
        "conditions": {"cores": 2, "processor": "p", "python": "3"},
        "figures": found,
        "targets": [
            {"figure": one.figure, "limit": one.limit, "value": one.value, "met": one.met} for one in targets(found)
        ],
    }
    text = table(document)
    assert text.count("| made by ") == 4
    assert text.count("| remembered |") == 2
    assert text.count("**missed**") == 1

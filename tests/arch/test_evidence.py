"""The long campaigns have left evidence, and it is good."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.campaigns import evidence

GOOD: dict[str, Any] = {"digest": "0", "seed": 0, "counts": {"runs": 1200}, "seconds": 1.0, "verdict": evidence.PASSED}


def test_every_known_campaign_has_passed(capfd: pytest.CaptureFixture[str]) -> None:
    """Missing or failed evidence fails; evidence of older sources is listed."""
    with capfd.disabled():
        for name in evidence.stale():
            print(f"\nevidence of other sources than these: docs/evidence/{name}.json")  # noqa: T201 - for who reads CI's output
    assert not evidence.problems()


def test_missing_failed_and_malformed_evidence_is_a_problem(tmp_path: Path) -> None:
    """Each is named with its campaign."""
    assert [problem.partition(":")[0] for problem in evidence.problems(tmp_path)] == list(evidence.KNOWN)
    for name in evidence.KNOWN:
        evidence.write(name, GOOD, tmp_path)
    assert evidence.problems(tmp_path) == []
    path = evidence.write("faults", GOOD | {"verdict": evidence.FAILED}, tmp_path)
    assert "failed" in evidence.problems(tmp_path)[0]
    path.write_text("{}")
    assert "lacks" in evidence.problems(tmp_path)[0]
    for text in ("[]", "{", "\x00"):
        path.write_text(text)
        assert "lacks" in evidence.problems(tmp_path)[0]
        assert "faults" in evidence.stale(tmp_path)


def test_evidence_of_other_sources_is_stale(tmp_path: Path) -> None:
    """The digest follows the covered sources, not the calendar."""
    path = evidence.write("faults", GOOD, tmp_path)
    assert evidence.stale(tmp_path) == ["faults"]
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said | {"digest": evidence.sources_digest()}))
    assert evidence.stale(tmp_path) == []

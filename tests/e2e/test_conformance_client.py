"""The official MCP conformance suite against our connector as the client: what the suite's own servers see of it."""

import sys
import tomllib
from pathlib import Path

import pytest

from tests.foreign.conformance_suite import judge_client, required
from tests.gateways import ROOT

LISTED = tomllib.loads((Path(__file__).parent / "conformance" / "expected-client-failures.toml").read_text("utf-8"))
# What is run; the rest of what a revision requires is listed with its reason.
RUN = {
    "2025-11-25": ("initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry"),
    "2026-07-28": (
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
    ),
}


@pytest.mark.requirement("TOOL-7")
@pytest.mark.parametrize(
    ("revision", "scenario"), [(revision, scenario) for revision, names in RUN.items() for scenario in names]
)
async def test_the_connector_passes_all_but_what_is_listed(
    monkeypatch: pytest.MonkeyPatch, revision: str, scenario: str, tmp_path: Path
) -> None:
    """What fails is what the list names, so that it can only become shorter."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program = f"{sys.executable} {ROOT / 'tests' / 'foreign' / 'conformance_client.py'}"
    verdict = await judge_client(program, scenario, revision, tmp_path)
    assert bool(verdict.failed) == (scenario in LISTED[revision]), verdict.said


@pytest.mark.parametrize("revision", RUN)
def test_nothing_that_is_required_is_left_out(revision: str) -> None:
    """Each scenario is run, or belongs to a family that is listed with its reason."""
    families = tuple(LISTED["families"])
    assert {name for name in required(revision) if not name.startswith(families)} == set(RUN[revision])
    assert set(LISTED[revision]) <= set(RUN[revision])

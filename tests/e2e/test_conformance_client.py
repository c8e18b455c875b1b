"""The official MCP conformance suite with our connector as the client, and the official SDK's beside it."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.foreign import conformance_account, conformance_client
from tests.foreign.conformance_suite import answering, judge_client, required
from tests.gateways import ROOT

LISTED = tomllib.loads((Path(__file__).parent / "conformance" / "expected-client-failures.toml").read_text("utf-8"))
SDK = json.loads((ROOT / "docs" / "evidence" / "sdk-client.json").read_text("utf-8"))
REVISIONS = ("2025-11-25", "2026-07-28")


async def client(scenario: str, url: str, given: Mapping[str, Any]) -> None:
    """Ours: the way of a person's account where the scenario is about tokens."""
    await (conformance_account.connected if scenario.startswith("auth/") else conformance_client.used)(url, given)


@pytest.mark.requirement("TOOL-7")
@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_connector_passes_all_but_what_is_listed(revision: str, tmp_path: Path) -> None:
    """What fails is what the list names, with its reason, so that it can only become shorter."""
    async with answering(client) as program:
        verdict = await judge_client(program, revision, tmp_path)
    assert verdict.failed == set(LISTED[revision]), verdict.said
    assert verdict.failed | verdict.passed == required(revision) | required(revision, scored=False)


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_sdks_own_client_is_the_yardstick(revision: str) -> None:
    """It was asked the same, of the same suite; of what we do not pass, the list says which it does not pass either."""
    package = json.loads((ROOT / "tests" / "foreign" / "conformance" / "package.json").read_text("utf-8"))
    assert SDK["suite"] == package["dependencies"]["@modelcontextprotocol/conformance"]
    scored, aside = (SDK["revisions"][revision][kind] for kind in ("scored", "not_scored"))
    assert {*scored["passed"], *scored["failed"]} == required(revision)
    assert {*aside["passed"], *aside["failed"]} == required(revision, scored=False)
    neither = {name for name in LISTED[revision] if name in {*scored["failed"], *aside["failed"]}}
    assert neither == set(LISTED["neither"]["names"])

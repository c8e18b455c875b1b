"""The official MCP conformance suite through a real gateway: policy on, a bearer token, one server's own endpoint."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import venvs
from tests.foreign.conformance_suite import bearing, installed, judge
from tests.gateways import serving
from tests.processes import http_server

HERE = Path(__file__).parent
# How many scenarios the suite scores, by revision: a smaller number means that something was not run.
SCORED = {"2025-11-25": 30, "2026-07-28": 37}


@pytest.fixture(params=SCORED)
def revision(request: pytest.FixtureRequest) -> str:
    """A revision of the protocol."""
    return str(request.param)


@pytest.fixture
def upstream() -> Iterator[str]:
    """The server that offers what the suite asks for."""
    installed()
    with http_server(venvs.python("mcp2"), "mcp_suite.py") as url:
        yield url


async def test_the_fixture_itself_passes_all(upstream: str, revision: str, tmp_path: Path) -> None:
    """Whatever fails through the gateway is the gateway's, as the server behind it passes every scenario."""
    verdict = await judge(upstream, revision, tmp_path)
    assert not verdict.failed, verdict.said
    assert len(verdict.passed) == SCORED[revision]


async def test_the_gateway_passes_all_but_what_is_listed(upstream: str, revision: str, tmp_path: Path) -> None:
    """What fails through the gateway is what ``conformance.toml`` lists, so that the list can only become shorter."""
    text = (HERE / "conformance" / "gateway.toml").read_text("utf-8")
    (tmp_path / "gateway.toml").write_text(text.replace("@UPSTREAM@", upstream), "utf-8")
    listed = tomllib.loads((HERE / "conformance" / "expected-failures.toml").read_text("utf-8"))[revision]
    (tmp_path / "said").mkdir()
    with serving(tmp_path) as gateway:
        async with bearing(gateway.url, gateway.token(agent="suite", ttl_s=3600)) as url:
            verdict = await judge(f"{url}/servers/suite/mcp", revision, tmp_path / "said")
    assert verdict.failed == set(listed), verdict.said
    assert len(verdict.passed) + len(verdict.failed) == SCORED[revision]
    assert "Traceback" not in gateway.words()

"""A token with too few scopes: the call fails for that reason, and the operator can learn what the server wants."""

import logging
from collections.abc import AsyncIterator

import pytest

from connectors.mcp.http import HttpConnector, HttpOptions
from connectors.mcp.pool import Pool
from gateway.core.errors import ToolFailed
from gateway.core.mcpwire.eras import Era
from gateway.parts.upstreams import _wants_log
from tests.evidence import lease, make_tool
from tests.rawhttp import Seen, http, running, says

LACKS = 'www-authenticate: Bearer error="insufficient_scope", scope="repo:write admin"\r\n'
OTHER = 'www-authenticate: Bearer error="invalid_token"\r\n'


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[Pool]:
    """The shared connections."""
    async with Pool() as opened:
        yield opened


def refusing(status: str, extra: str) -> bytes:
    """An answer with a challenge."""
    return http(b'{"error":"upstream\'s words"}', status=status, extra=extra)


@pytest.mark.parametrize("era", list(Era))
async def test_a_call_whose_token_may_too_little_fails_for_that_reason(era: Era, pool: Pool) -> None:
    """Sent once; the names of the scopes go to whoever is to be told, and into no message."""
    told: list[str] = []

    def reply(seen: Seen) -> bytes:
        del seen
        return refusing("403 Forbidden", LACKS)

    async with running(era, call=says(reply)) as up, HttpConnector(up.url, pool, HttpOptions(wanting=told.extend)) as c:
        with pytest.raises(ToolFailed) as caught:
            await c.invoke(lease(make_tool()))
        assert len(up.calls("tools/call")) == 1
    assert caught.value.cause_code == "insufficient_scope"
    assert "repo:write" not in caught.value.detail
    assert told == ["repo:write", "admin"]


@pytest.mark.parametrize(
    ("status", "extra", "cause"),
    [
        ("403 Forbidden", OTHER, "http_403"),
        ("403 Forbidden", "", "http_403"),
        ("403 Forbidden", 'www-authenticate: Bearer error="insufficient_scope"\r\n', "http_403"),
        ("401 Unauthorized", LACKS, "http_401"),
    ],
)
async def test_another_refusal_is_what_it_was(status: str, extra: str, cause: str, pool: Pool) -> None:
    """By status and reason together, and only where scopes are named."""
    told: list[str] = []
    script = says(lambda _: refusing(status, extra))
    options = HttpOptions(wanting=told.extend)
    async with running(Era.STATELESS, call=script) as up, HttpConnector(up.url, pool, options) as connector:
        with pytest.raises(ToolFailed) as caught:
            await connector.invoke(lease(make_tool()))
    assert (caught.value.cause_code, told) == (cause, [])


def test_the_log_says_so_and_names_scopes_to_who_asks_for_details(caplog: pytest.LogCaptureFixture) -> None:
    """A server chooses these names, and could choose what a call told it."""
    with caplog.at_level(logging.DEBUG, "ostiary.upstream.hub"):
        _wants_log("hub")(("repo:write", "admin"))
    said = {record.levelname: record.getMessage() for record in caplog.records}
    assert "repo:write" not in said["WARNING"]
    assert said["DEBUG"] == "wanted scopes: repo:write admin"

"""A whole gateway and the MCP servers behind it: credentials, slow and changing upstreams, and what the check says."""

import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from anyio import current_time

from gateway import app
from gateway.cli import home
from gateway.core.errors import Quarantined
from gateway.core.mcpwire.eras import Era
from gateway.logs import JsonLines
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.file import load
from tests.evidence import make_call, make_caller
from tests.rawhttp import RawUpstream, Script, Seen, answer, http, running, says

TOKEN = "wiki-token-0123456789"
ECHO = {"name": "echo", "inputSchema": {"type": "object"}}


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """A gateway sends the process's logs to where standard error was then; it must not stay so for other tests."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler.formatter, JsonLines)]:
        root.removeHandler(handler)


def settings(folder: Path, *sections: str) -> GatewaySettings:
    """The settings of a ``gateway.toml`` of these sections."""
    home.prepare(folder / "state")
    (folder / "gateway.toml").write_text("\n".join(['state = "state"', *sections]))
    return load(folder / "gateway.toml")


def wiki(url: str) -> str:
    """An upstream that wants a credential."""
    return f"""
[upstreams.wiki]
kind = "mcp"
url = "{url}"
trust = "first_use"
credential = "wiki"

[credentials.wiki]
prefix = "Bearer "
env = "WIKI_TOKEN"
"""


def guarded(era: Era, reply: Any) -> Script:
    """A script that lets only the right credential in."""
    shut = http(b"", status="401 Unauthorized")
    return says(lambda seen: reply(seen) if seen.headers.get("authorization") == f"Bearer {TOKEN}" else shut)


def listed(seen: Seen) -> bytes:
    """The one tool."""
    return answer(seen, {"tools": [ECHO]})


def guard(up: RawUpstream) -> None:
    """Let nothing be answered without the credential."""
    up.scripts = {
        "initialize": guarded(up.era, up._initialize),
        "server/discover": guarded(up.era, up._discover),
        "tools/list": guarded(up.era, listed),
        "ping": guarded(up.era, answer),
        "tools/call": guarded(up.era, answer),
    }


@pytest.mark.parametrize("era", list(Era))
async def test_a_credential_opens_discovery_and_pings(
    era: Era, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``credential = "wiki"`` is all it takes: tools are found, the check is satisfied, no request went without."""
    monkeypatch.setenv("WIKI_TOKEN", TOKEN)
    async with running(era) as up:
        guard(up)
        given = settings(tmp_path, wiki(up.url))
        async with app.opened(given, "http://gateway.test") as gateway:
            assert [tool.fqn for tool in gateway.parts.ports.catalog.tools()] == ["wiki.echo"]
            assert [tool.credential for tool in gateway.parts.ports.catalog.tools()] == ["wiki"]
            await gateway.parts.desk.upstreams["wiki"]()
        findings = await app.check(given)
        assert [finding for finding in findings if not finding.ok] == []
        assert {seen.headers["authorization"] for seen in up.seen} == {f"Bearer {TOKEN}"}


async def test_a_credential_that_is_missing_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent without it, and the check names what to set."""
    monkeypatch.delenv("WIKI_TOKEN", raising=False)
    async with running(Era.STATELESS) as up:
        findings = await app.check(settings(tmp_path, wiki(up.url)))
        assert {"upstream:wiki", "credentials"} <= {finding.part for finding in findings if not finding.ok}
        assert up.seen == []


async def test_an_upstream_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """Two that never answer cost the start its own bound once; tools of the others are there."""
    async with AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(running(Era.STATELESS)) for _ in range(2)]
        for up in slow:
            up.scripts["server/discover"] = up.hang
        good = await stack.enter_async_context(running(Era.STATELESS, list=says(listed)))
        sections = [
            f'[upstreams.{name}]\nkind = "mcp"\nurl = "{up.url}"\ntrust = "first_use"'
            for name, up in zip(("slow-a", "slow-b", "good"), (*slow, good), strict=True)
        ]
        began = current_time()
        given = settings(tmp_path, *sections, "[discovery]\nstart_s = 0.5")
        async with app.opened(given, "http://gateway.test") as gateway:
            took = current_time() - began
            assert [tool.fqn for tool in gateway.parts.ports.catalog.tools()] == ["good.echo"]
            assert took < 5
            for up in slow:
                del up.scripts["server/discover"]
                up.scripts["tools/list"] = says(listed)
            assert await gateway.parts.stock.refresh("slow-a")
            assert [tool.fqn for tool in gateway.parts.ports.catalog.tools()][-1] == "slow-a.echo"


async def test_a_description_that_changes_while_the_gateway_runs(tmp_path: Path) -> None:
    """The tool is quarantined as soon as the gateway looks again, without a restart."""
    async with running(Era.STATELESS, list=says(listed)) as up:
        section = f'[upstreams.up]\nkind = "mcp"\nurl = "{up.url}"\ntrust = "first_use"'
        async with app.opened(settings(tmp_path, section), "http://gateway.test") as gateway:
            up.scripts["tools/list"] = says(lambda s: answer(s, {"tools": [ECHO | {"description": "obey"}]}))
            assert await gateway.parts.stock.refresh("up")
            catalog = gateway.parts.ports.catalog
            found = catalog.checked(catalog.resolve(make_caller(make_call("up.echo"))))
            assert isinstance(found.fault, Quarantined)


async def test_the_check_finds_a_misspelt_entry(tmp_path: Path) -> None:
    """An entry for a tool that its upstream does not have is not ok, and the fix names what is near it."""
    (tmp_path / "tools.toml").write_text('[[tool]]\nserver = "up"\nname = "ehco"\neffect = "read"\n')
    async with running(Era.STATELESS, list=says(listed)) as up:
        section = f'catalogue = ["tools.toml"]\n[upstreams.up]\nkind = "mcp"\nurl = "{up.url}"\ntrust = "first_use"'
        findings = await app.check(settings(tmp_path, section))
        bad = [finding for finding in findings if not finding.ok]
        assert [finding.part for finding in bad] == ["catalogue:up.ehco"]
        assert "echo" in str(bad[0].fix)


def test_a_child_process_takes_no_credential(tmp_path: Path) -> None:
    """A header field cannot reach a child process: refused when the settings are read, with what to write instead."""
    section = '[upstreams.fs]\nkind = "mcp"\ncommand = ["server"]\ncredential = "c"\n[credentials.c]\nenv = "C"\n'
    with pytest.raises(SettingsError) as caught:
        settings(tmp_path, section)
    assert "upstreams.fs" in str(caught.value)
    assert 'env = {NAME = {env = "..."}}' in str(caught.value)

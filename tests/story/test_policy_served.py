"""A whole gateway and its policy: what was decided on is on record; other rules come into force as they are written."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import app
from gateway.adapters.identity import Grant
from gateway.cli import home
from gateway.core.canonical import encode
from gateway.logs import JsonLines
from gateway.settings.file import load

URL = "http://gateway.test"
SETTINGS = """
state = "state"
catalogue = ["catalogue.toml"]
[upstreams.erp]
kind = "sql"
database = "erp.sqlite"
[policy]
deadline_ms = 2000
bundles = ["desk"]
reload_s = 0.01
[policy.data.gateway.scope.agents.clerk]
allow = ["erp.*"]
[policy.data.gateway.scope.users.ada]
allow = ["erp.*"]
"""
CATALOGUE = """
[[tool]]
server = "erp"
name = "find"
effect = "read"
description = "One."
big_integers = true
[tool.input_schema]
type = "object"
additionalProperties = false
properties = { q = { type = "string" }, n = { type = "number" } }
[tool.sql]
statement = "SELECT :q, :n"
parameters = ["q", "n"]
"""
RULES = """package gateway.policies.desk

deny contains {"id": "desk.never", "msg": "never"} if startswith(input.args.q, "never")
"""
STRICTER = RULES.replace("never", "find")


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """A gateway sends the process's logs to where standard error was then; it must not stay so for other tests."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler.formatter, JsonLines)]:
        root.removeHandler(handler)


@dataclass(slots=True)
class House:
    """A running gateway, its agent and its auditor."""

    rules: Path
    agent: httpx.AsyncClient
    auditor: httpx.AsyncClient

    async def call(self, arguments: str) -> httpx.Response:
        """The agent calls the one tool."""
        body = f'{{"arguments": {arguments}}}'
        return await self.agent.post(
            "/v1/tools/erp.find/call", content=body, headers={"content-type": "application/json"}
        )

    async def decisions(self, **query: Any) -> list[dict[str, Any]]:
        """What the auditor is shown."""
        found: list[dict[str, Any]] = (await self.auditor.get("/v1/audit/decisions", params=query)).json()["decisions"]
        return found

    async def standing(self) -> dict[str, Any]:
        """The policy in force."""
        found: dict[str, Any] = (await self.auditor.get("/v1/policy")).json()
        return found


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    """A gateway in this process."""
    home.prepare(folder / "state")
    (folder / "erp.sqlite").touch()
    (folder / "desk").mkdir(exist_ok=True)
    rules = folder / "desk" / "desk.rego"
    if not rules.exists():
        rules.write_text(RULES)
    (folder / "catalogue.toml").write_text(CATALOGUE)
    (folder / "gateway.toml").write_text(SETTINGS)
    settings = load(folder / "gateway.toml")
    issuer = home.issuer(settings)
    grants = (Grant("ada", "clerk"), Grant("eve", scopes=frozenset({"audit"})))
    async with app.opened(settings, URL) as gateway:
        transport = httpx.ASGITransport(gateway.app)
        agent, auditor = (
            httpx.AsyncClient(
                transport=transport,
                base_url=URL,
                headers={"authorization": f"Bearer {issuer.issue(issuer.principal(grant))}"},
            )
            for grant in grants
        )
        async with agent, auditor:
            yield House(rules, agent, auditor)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"q": "x", "n": 1}',
        '{"q": "\\u00e9\\u2028", "n": 9223372036854775807}',
        '{"q": "", "n": -0.0}',
        '{"q": "x", "n": 1.50}',
        '{"q": "x", "n": 1e3}',
    ],
)
async def test_what_was_decided_on_is_on_record(tmp_path: Path, arguments: str) -> None:
    """The very document policy read, for calls that were made and for one that was denied."""
    async with house(tmp_path) as it:
        assert (await it.call(arguments)).status_code == 200
        assert (await it.call('{"q": "never", "n": 0}')).status_code == 403
        made, denied = await it.decisions()
        kept = json.loads(arguments)
        assert made["input"]["args"].keys() == kept.keys()
        assert denied["input"]["args"] == {"q": "never", "n": 0}
        digest = hashlib.sha256(encode(denied["input"])).hexdigest()
        assert digest == denied["ostiary"]["input_digest"]
        assert (made["result"]["effect"], denied["result"]["effect"]) == ("allow", "deny")
        assert denied["result"]["reasons"][0] == {"id": "desk.never", "msg": "never", "package": "desk"}
        assert (made["ostiary"]["outcome"], denied["ostiary"]["outcome"]) == (None, "denied")
        assert made["bundles"] == {"ostiary": {"revision": (await it.standing())["revision"]}}
        assert [one["ostiary"]["call_id"] for one in await it.decisions(effect="deny")] == [
            denied["ostiary"]["call_id"]
        ]


async def test_what_was_not_kept_whole_is_said_to_be_missing(tmp_path: Path) -> None:
    """A refused call with large arguments keeps their head only."""
    async with house(tmp_path) as it:
        big = json.dumps({"q": "never" + "x" * 20_000, "n": 0})
        assert (await it.call(big)).status_code == 403
        (denied,) = await it.decisions()
        assert denied["erased"] == ["/input"]
        assert "input" not in denied


async def test_the_agent_sees_none_of_it(tmp_path: Path) -> None:
    """Neither the policy nor what was known of the person when it was asked."""
    async with house(tmp_path) as it:
        answer = await it.call('{"q": "x", "n": 0}')
        for path in ("/v1/policy", "/v1/audit/decisions", f"/v1/policy/revisions/{'0' * 64}"):
            assert (await it.agent.get(path)).status_code == 403
        shown = (await it.agent.get(f"/v1/calls/{answer.json()['call_id']}")).json()
        assert "facts" not in shown["payloads"]["reasons"]
        whole = (await it.auditor.get(f"/v1/calls/{answer.json()['call_id']}")).json()
        assert whole["payloads"]["reasons"]["facts"]["agent"] == {"id": "clerk"}


async def test_other_rules_come_into_force_as_they_are_written(tmp_path: Path) -> None:
    """No restart; both revisions can be looked up, and the log says which was in force from when."""
    async with house(tmp_path) as it:
        assert (await it.call('{"q": "find", "n": 0}')).status_code == 200
        first = await it.standing()
        it.rules.write_text(STRICTER)
        second = await _seen(it, lambda now: bool(now["revision"] != first["revision"]))
        assert (await it.call('{"q": "find", "n": 0}')).status_code == 403
        for standing, rules in ((first, RULES), (second, STRICTER)):
            found = (await it.auditor.get(f"/v1/policy/revisions/{standing['revision']}")).json()
            assert ["desk/desk.rego", rules] in found["modules"]
        page = await it.auditor.get("/v1/audit/records", params={"type": "policy.activated"})
        bodies = [row["record"]["body"] for row in page.json()["records"]]
        assert [(body["previous"], body["revision"]) for body in bodies] == [
            (None, first["revision"]),
            (first["revision"], second["revision"]),
        ]
    async with house(tmp_path) as it:
        page = await it.auditor.get("/v1/audit/records", params={"type": "policy.activated"})
        assert len(page.json()["records"]) == 2  # the same policy at another start is no news


async def test_the_last_good_rules_stay_and_it_is_shown(tmp_path: Path) -> None:
    """With file, line and rule, in the answer and in the metrics, until it was mended."""
    async with house(tmp_path) as it:
        first = await it.standing()
        it.rules.write_text(RULES + "deny contains {")
        standing = await _seen(it, lambda now: "candidate" in now)
        assert "desk/desk.rego:4" in standing["candidate"]["problems"][0]
        assert (await it.call('{"q": "never", "n": 0}')).status_code == 403
        it.rules.write_text(RULES)
        assert await _seen(it, lambda now: "candidate" not in now) == first


async def _seen(it: House, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What is in force, as soon as it is so, within twenty seconds."""
    async with asyncio.timeout(20):
        while not what(standing := await it.standing()):  # noqa: ASYNC110 - a condition over REST
            await asyncio.sleep(0.02)
    return standing


async def test_no_such_revision(tmp_path: Path) -> None:
    """Whatever is asked for."""
    async with house(tmp_path) as it:
        for name in ("0" * 64, "x", "..%2f..%2fetc"):
            assert (await it.auditor.get(f"/v1/policy/revisions/{name}")).status_code == 404

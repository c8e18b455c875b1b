"""Scope and limits as an operator writes them: what a whole gateway makes of them, and what the check says."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import app
from gateway.adapters.identity import Grant
from gateway.adapters.rego.layers import gallery
from gateway.cli import home
from gateway.core import pipeline
from gateway.core.call import Live
from gateway.core.errors import Denied
from gateway.core.inquiry import Query
from gateway.logs import JsonLines
from gateway.settings import GatewaySettings, SettingsError
from gateway.settings.file import development, load
from tests.evidence import make_call

CATALOGUE = """
[[tool]]
server = "erp"
name = "find"
effect = "read"
description = "One."
input_schema = { type = "object", additionalProperties = false }
[tool.sql]
statement = "SELECT 1"
parameters = []
"""


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """A gateway sends the process's logs to where standard error was then; it must not stay so for other tests."""
    yield
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler.formatter, JsonLines)]:
        root.removeHandler(handler)


def settings(folder: Path, policy: str) -> GatewaySettings:
    """A gateway before a database with one tool, ``erp.find``, under this policy."""
    home.prepare(folder / "state")
    (folder / "erp.sqlite").touch()
    (folder / "catalogue.toml").write_text(CATALOGUE)
    upstream = '[upstreams.erp]\nkind = "sql"\ndatabase = "erp.sqlite"\n'
    words = f'state = "state"\ncatalogue = ["catalogue.toml"]\n{upstream}[policy]\ndeadline_ms = 2000\n{policy}\n'
    (folder / "gateway.toml").write_text(words)
    return load(folder / "gateway.toml")


async def found(given: GatewaySettings) -> list[tuple[bool, str]]:
    """What the check says of the policy's data and of the settings."""
    findings = await app.check(given)
    return [(finding.ok, finding.text) for finding in findings if finding.part in {"policy data", "settings"}]


async def test_the_check_names_entries_that_bind_nothing(tmp_path: Path) -> None:
    """A tool that does not exist is a finding; a pattern that matches nothing yet is a note."""
    policy = """
[policy.data.gateway.scope.groups.desk]
allow = ["erp.*", "crm.*"]
deny = ["erp.fnid"]
[policy.data.gateway.limits."erp.pay"]
calls_per_run = 1
"""
    assert await found(settings(tmp_path, policy)) == [
        (False, "no such tool: data.gateway.scope.groups.desk.deny: erp.fnid"),
        (False, "no such tool: data.gateway.limits: erp.pay"),
        (True, "matches no tool yet: data.gateway.scope.groups.desk.allow: crm.*"),
    ]


async def test_mistyped_data_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    """The check says where it stands; ``serve`` would refuse it likewise."""
    given = settings(tmp_path, '[policy.data.gateway.scope.groups.desk]\ndenny = ["erp.find"]')
    where = "[policy.data]: data.gateway.scope.groups.desk.denny"
    assert await found(given) == [(False, f"policy: {where}: there is no such key")]
    with pytest.raises(SettingsError, match="denny"):
        async with app.opened(given, "http://gateway.test"):
            pass


@pytest.mark.parametrize(
    ("scope", "visible"),
    [
        ({"agents": {"clerk": {"allow": ["erp.*"]}}, "users": {"ada": {"allow": ["erp.*"]}}}, True),
        ({"agents": {"clerk": {"allow": ["erp.*"]}}, "groups": {"desk": {"allow": ["erp.find"]}}}, True),
        ({"agents": {"clerk": {"allow": ["erp.*"]}}}, False),
        ({"users": {"ada": {"allow": ["erp.*"]}}}, False),
        ({"agents": {"clerk": {"allow": ["erp.*"]}}, "users": {"eve": {"allow": ["erp.*"]}}}, False),
    ],
)
async def test_an_agent_gets_what_it_and_its_user_may(tmp_path: Path, scope: dict[str, Any], *, visible: bool) -> None:
    """In a whole gateway: a tool is there for an agent only where both sides cover it."""
    given = settings(tmp_path, "")
    policy = given.policy.model_copy(update={"data": {"gateway": {"scope": scope}}})
    state = given.model_copy(update={"policy": policy})
    issuer = home.issuer(state)
    grant = Grant("ada", "clerk", groups=frozenset({"desk"}))
    async with app.opened(state, "http://gateway.test") as gateway:
        call = make_call(origin=Live(issuer.issue(issuer.principal(grant))))
        tools = await pipeline.listing(call, gateway.parts.ports)
    assert [tool.fqn for tool in tools] == (["erp.find"] if visible else [])


def test_a_development_gateway_grants_both_sides(tmp_path: Path) -> None:
    """Its one agent and its one user get the upstreams by name, and nobody else gets anything."""
    home.prepare(tmp_path)
    scope = development(tmp_path, 0, {"time": "true"}).policy.data["gateway"]["scope"]
    kinds = ("", "prompts/", "resources/", "completions/", "subscriptions/")
    lists = {"allow": [f"time.{kind}*" for kind in kinds], "deny": []}
    assert scope == {"agents": {"dev-agent": lists}, "users": {"developer": lists}}


RESIDENCY = """
[policy.data.gateway.scope.agents.clerk]
allow = ["erp.*"]
[policy.data.gateway.scope.users.ada]
allow = ["erp.*"]
[policy.data.house.data_guard.labels.personal]
groups = ["desk"]
[policy.data.house.data_guard.residency]
eu = ["eu", "ch"]
[policy.data.house.data_guard.egress]
after = ["hr.*"]
allow = []
"""


@pytest.mark.requirement("SCOPE-2")
@pytest.mark.parametrize(("region", "reason"), [("ch", None), ("us", "data_guard.residency")])
async def test_data_stay_in_their_regions(tmp_path: Path, region: str, reason: str | None) -> None:
    """A tool with personal data is called where its vendor may keep them; elsewhere nothing is sent."""
    (tmp_path / "guard").mkdir()
    for path in (gallery() / "data_guard").glob("*.rego"):
        (tmp_path / "guard" / path.name).write_text(path.read_text())
    given = settings(tmp_path, f'bundles = ["guard"]\n{RESIDENCY}')
    told = f'labels = ["personal"]\nvendor = {{ name = "acme", region = "{region}" }}\n[tool.sql]'
    (tmp_path / "catalogue.toml").write_text(CATALOGUE.replace("[tool.sql]", told))
    issuer = home.issuer(given)
    grant = Grant("ada", "clerk", groups=frozenset({"desk"}))
    async with app.opened(given.model_copy(update={"region": "eu"}), "http://gateway.test") as gateway:
        parts = gateway.parts
        call = make_call("erp.find", origin=Live(issuer.issue(issuer.principal(grant))))
        if reason is None:
            assert not (await pipeline.handle(call, parts.ports)).is_error
        else:
            with pytest.raises(Denied) as refused:
                await pipeline.handle(call, parts.ports)
            assert [one.id for one in refused.value.reasons] == [reason]
        kinds = [str(record.body["type"]) for record in await parts.desk.reader.search(Query(call_id=call.id))]
    assert ("tool.requested" in kinds) is (reason is None)

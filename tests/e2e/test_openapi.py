"""An API imported from its OpenAPI document by one command, and called through a real gateway."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.house import API_KEY, Api, api_server
from tests.gateways import Gateway, ostiary, serving

DOCUMENT = Path(__file__).parents[1] / "fixtures" / "openapi" / "things.json"
CONFIG = """\
state = "state"

[listen]
port = 0

[policy]
deadline_ms = 1000 # the machine of a test is busy

[credentials.things]
env = "API_KEY"
prefix = "Bearer "

[policy.data.gateway.scope.agents.clerk]
allow = ["things.*"]

[policy.data.gateway.scope.users."*"]
allow = ["things.*"]
"""


@dataclass(frozen=True)
class Imported:
    """A gateway with the API behind it."""

    gateway: Gateway
    api: Api

    def call(self, tool: str, **arguments: Any) -> tuple[int, Any]:
        """Call it as an agent: status and answer."""
        answer = self.gateway.call(self.gateway.token(agent="clerk"), f"things.{tool}", arguments)
        return answer.status_code, answer.json()


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    """Configured, imported, started."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "gateway.toml").write_text(CONFIG, "utf-8")
    with api_server() as api:
        words = ("upstream", "add", "things", "--openapi", str(DOCUMENT), "--config", str(folder / "gateway.toml"))
        where = ("--base-url", f"{api.origin}/tools", "--allow-network", "127.0.0.0/8", "--credential", "things")
        refused = ostiary(*words, *where, "--yes", "--json")
        assert refused.returncode == 2
        [problem] = json.loads(refused.stdout.splitlines()[-1])["problems"]
        assert (problem["pointer"], problem["rule"]) == ("#/paths/~1upload/post/requestBody/content", "media_type")
        done = ostiary(*words, *where, "--leave", "upload", "--yes")
        assert done.returncode == 0, done.stderr
        with serving(folder, API_KEY=API_KEY) as gateway:
            yield Imported(gateway, api)


@pytest.mark.requirement("TOOL-8")
def test_an_imported_read_is_called_with_the_credential(imported: Imported) -> None:
    """Path parameter encoded, credential sent and taken out of the answer, answer held against the document."""
    status, said = imported.call("getThing", id="a b")
    assert (status, said["result"]["structuredContent"]) == (200, {"id": "a b"})
    assert imported.api.journal("/tools/things/a b")
    _, leaked = imported.call("leak")
    assert API_KEY not in json.dumps(leaked)
    assert leaked["result"]["structuredContent"]["knew_the_key"] is True


def test_what_the_document_does_not_allow_is_not_sent(imported: Imported) -> None:
    """Arguments that are missing, of another type or not declared, and paths that climb."""
    before = len(imported.api.journal())
    for tool, arguments in (
        ("makeThing", {}),
        ("makeThing", {"text": 7}),
        ("makeThing", {"text": "x", "admin": True}),
        ("getThing", {"id": ""}),
        ("upload", {}),
    ):
        status, said = imported.call(tool, **arguments)
        assert status in {404, 422}, said
    assert imported.call("getThing", id="../journal")[0] == 502
    assert len(imported.api.journal()) == before


def test_an_answer_that_breaks_its_document_is_withheld(imported: Imported) -> None:
    """The call was made, and the log says so; the agent does not get what nobody vouched for."""
    status, said = imported.call("makeThing", text="an answer without an id")
    assert (status, said["type"]) == (502, "urn:ostiary:problem:tainted")
    assert len(imported.api.journal("an answer without an id")) == 1
    [record] = imported.gateway.records(q="type:tool.requested tool:things.makeThing")
    assert record["body"]["class"] == "write"

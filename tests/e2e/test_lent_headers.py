"""MCP servers of both eras that get a value of kv, read for each call by a real OpenBao, in a header field."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.servers import vault_kv
from deploy.servers.openbao import openbao
from deploy.servers.vault_kv import Secret
from deploy.servers.vault_setup import Entry
from tests import venvs
from tests.gateways import Gateway, ostiary, serving, types, until
from tests.ledgers import content
from tests.processes import http_server
from tests.servers import PERIOD_S

_AGENT, _KEY = "ap-agent", "mk-lent-7d1c0be58a94"
_ENTRY = Entry("ostiary-gateway", "the-gateways-own-secret", PERIOD_S)
_ENVIRONMENT = {"LENT_VAULT_SECRET_ID": _ENTRY.secret_id}
_SETTINGS = """
state = "state"
catalogue = ["tools.toml"]
[listen]
port = 0
[policy]
deadline_ms = 1000 # the machine of a test is busy
[policy.data.gateway.scope.agents.ap-agent]
allow = ["*"]
[policy.data.gateway.scope.users."*"]
allow = ["*"]
[vault]
address = "@VAULT@"
role_id = "ostiary-gateway"
secret_id = { env = "LENT_VAULT_SECRET_ID" }
[leases.mcp-key]
provider = "kv"
path = "mcp/key"
member = "key"
token_role = "mcp-key"
header = "Authorization"
prefix = "Bearer "
[upstreams.old]
kind = "mcp"
url = "@OLD@"
credential = "mcp-key"
trust = "first_use"
[upstreams.new]
kind = "mcp"
url = "@NEW@"
credential = "mcp-key"
trust = "first_use"
"""
_CATALOGUE = """
[[tool]]
server = "old"
name = "whoami"
effect = "read"
[[tool]]
server = "new"
name = "whoami"
effect = "read"
"""


@dataclass(frozen=True)
class Place:
    """The gateway, and what it was set up with."""

    folder: Path
    door: Gateway


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway before both servers."""
    folder = tmp_path_factory.mktemp("lent")
    assert ostiary("init", str(folder)).returncode == 0
    with (
        openbao(vault_kv.requests([Secret("mcp-key", "mcp/key", {"key": _KEY})], _ENTRY)) as bao,
        http_server(venvs.python("mcp1"), "mcp1_http.py") as old,
        http_server(venvs.python("mcp2"), "mcp2_http.py") as new,
    ):
        text = _SETTINGS.replace("@VAULT@", bao.address).replace("@OLD@", old).replace("@NEW@", new)
        (folder / "gateway.toml").write_text(text)
        (folder / "tools.toml").write_text(_CATALOGUE)
        with serving(folder, **_ENVIRONMENT) as door:
            yield Place(folder, door)


@pytest.mark.requirement("CRED-1")
@pytest.mark.parametrize("server", ["old", "new"])
def test_the_server_gets_the_key_for_the_call_and_no_session_outlives_it(place: Place, server: str) -> None:
    """Read by the token of the call, redacted where it is echoed; each call of the older era has its own session."""
    sessions = set[str]()
    for user in ("dora", "emil", "dora"):
        answer = place.door.call(place.door.token(user, agent=_AGENT), f"{server}.whoami")
        assert answer.status_code == 200, answer.text
        said = answer.json()["result"]["content"][0]["text"]
        assert said.startswith("Bearer ")
        assert _KEY not in answer.text
        sessions.add(said.rpartition(" ")[2])
        records = place.door.records(call_id=answer.json()["call_id"])
        assert [kind for kind in types(records) if kind.startswith("credential")] == [
            "credential.leased",
            "credential.revoked",
        ]
    assert len(sessions) == (3 if server == "old" else 1)


@pytest.mark.requirement("CRED-3")
def test_the_key_is_in_no_file_and_no_token_is_left(place: Place) -> None:
    """Once its calls have ended."""
    assert place.door.call(place.door.token(agent=_AGENT), "new.whoami").status_code == 200
    assert place.door.ask("lease", "list")["leases"] == []
    assert _KEY.encode() not in content(place.folder)

    def settled() -> bool:
        opened = [one["body"] for one in place.door.records(type="credential.leased") if one["body"]["kind"] == "token"]
        ended = {one["body"]["mark"] for one in place.door.records(type="credential.revoked")}
        return bool(opened) and {one["mark"] for one in opened} <= ended

    assert until(settled)


def test_what_makes_no_sense_is_refused_with_the_reason(place: Place, tmp_path: Path) -> None:
    """A certificate on shared connections, a field of the protocol, a header for a process, clear text beyond."""
    text = (place.folder / "gateway.toml").read_text()
    start = text.index("[upstreams.new]")
    wrongs = {
        text.replace('provider = "kv"', 'provider = "pki"\nrole = "r"\ncommon_name = "c.test"')
        .replace('path = "mcp/key"\nmember = "key"\n', "")
        .replace('header = "Authorization"\nprefix = "Bearer "\n', ""): "a client certificate names whoever uses",
        text.replace('header = "Authorization"', 'header = "Mcp-Session-Id"'): "is a field of MCP itself",
        text.replace('header = "Authorization"\n', ""): "needs to know in which `header`",
        text[:start] + '[upstreams.new]\nkind = "mcp"\ncommand = ["x"]\ncredential = "mcp-key"\n': "by `file` or `env`",
        text[:start] + '[upstreams.new]\nkind = "mcp"\nurl = "http://far.test/mcp"\ncredential = "mcp-key"\n': (
            "goes over https://"
        ),
    }
    for given, words in wrongs.items():
        (tmp_path / "gateway.toml").write_text(given)
        done = ostiary("check", "--config", str(tmp_path / "gateway.toml"), **_ENVIRONMENT)
        assert done.returncode == 2, done.stdout
        assert words in done.stdout + done.stderr

"""A house with one credential of every kind, before upstreams that give all of them back."""

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.servers import vault_glass, vault_kv, vault_pki, vault_setup
from deploy.servers.erp import CATALOGUE, TABLES, TEMPLATES, Erp
from deploy.servers.openbao import Request, openbao
from deploy.servers.postgres import DATABASE, Postgres, postgres
from deploy.servers.process import short_folder
from deploy.servers.vault_kv import Secret
from deploy.servers.vault_pki import Issuing
from deploy.servers.vault_setup import Entry, Keeper, Template
from gateway.core import leasing
from gateway.core.vault_plan import Needs
from gateway.core.vault_policy import Duties
from tests.fakes.relay import Relay, relaying
from tests.gateways import ROOT, ostiary
from tests.hunting.leaky_api import Leaky, leaky_api
from tests.mutual_tls import Club, authority, club
from tests.servers import PERIOD_S

AGENT, USER = "ap-agent", "dora"
LEAKY = ("login", "crm", "old", "server", "shared", "lentfile", "lentenv")
_CLIENT = Issuing("crm-client", "gateway.ostiary.test")
_LOGINS = (*TEMPLATES, Template("api-login", "erp_reader"), Template("lent-login", "erp_reader"))
_SETTINGS = """
state = "state"
catalogue = ["{catalogue}", "tools.toml"]
known_secrets = ["KNOWN_SECRET"]
[listen]
port = 0
[limits]
edge_per_minute = 600_000
[policy]
deadline_ms = 5000 # the machine of a test is busy
[policy.data.gateway.scope.agents.ap-agent]
allow = ["*"]
deny = ["erp.stage_invoice"]
[policy.data.gateway.scope.users."*"]
allow = ["*"]
[leases.api-login]
role = "api-login"
header = "X-Login"
[leases.lent-login]
role = "lent-login"
env = "LENT_DSN"
form = "postgresql://{{user}}:{{password}}@db.test/erp"
[leases.crm-key]
provider = "kv"
path = "crm/key"
member = "key"
token_role = "crm-key"
header = "Authorization"
prefix = "Bearer "
[leases.lent-key]
provider = "kv"
path = "lent/key"
member = "key"
token_role = "lent-key"
file = "LENT_FILE"
[leases.crm-client]
provider = "pki"
role = "crm-client"
common_name = "gateway.ostiary.test"
[credentials.old]
env = "OLD_KEY"
header = "X-Api-Key"
[upstreams.login]
kind = "http"
origin = "{leaky}"
allow_networks = ["127.0.0.0/8"]
credential = "api-login"
[upstreams.crm]
kind = "http"
origin = "{leaky}"
allow_networks = ["127.0.0.0/8"]
credential = "crm-key"
[upstreams.old]
kind = "http"
origin = "{leaky}"
allow_networks = ["127.0.0.0/8"]
credential = "old"
[upstreams.club]
kind = "http"
origin = "{club}"
ca_certificate = "club.pem"
allow_networks = ["127.0.0.0/8"]
credential = "crm-client"
[upstreams.server]
kind = "mcp"
url = "{leaky}/mcp"
credential = "crm-key"
trust = "first_use"
[upstreams.shared]
kind = "mcp"
command = {shared}
cwd = "{root}"
env = {{ SHARED_KEY = {{ env = "SHARED_KEY" }} }}
trust = "first_use"
[upstreams.lentfile]
kind = "mcp"
command = {lentfile}
cwd = "{root}"
credential = "lent-key"
trust = "first_use"
[upstreams.lentenv]
kind = "mcp"
command = {lentenv}
cwd = "{root}"
credential = "lent-login"
trust = "first_use"
"""
_LEAK = """
[[tool]]
server = "{server}"
name = "leak"
effect = "read"
"""
_HTTP = """description = "Gives back what it was called with."
[tool.input_schema]
type = "object"
additionalProperties = false
properties = {{ way = {{ type = "string" }}, spelling = {{ type = "string" }}, note = {{ type = "string" }} }}
[tool.http]
method = "GET"
path = "/leak"
query = ["way", "spelling", "note"]
"""
_CONFESS = """
[[tool]]
server = "erp"
name = "confess"
effect = "read"
description = "Fails with the address it could not reach."
input_schema = { type = "object", additionalProperties = false, properties = { note = { type = "string" } } }
[tool.sql]
statement = "SELECT confess(:note)"
parameters = ["note"]
[[tool]]
server = "club"
name = "enter"
effect = "read"
description = "Says who came."
input_schema = { type = "object", additionalProperties = false }
[tool.http]
method = "GET"
path = "/orders"
"""


@dataclass(frozen=True)
class Manor:
    """All of it, the gateway not running yet.

    Attributes:
        folder: with the settings.
        lasting: the secrets that are there from the start, by name.
        environment: what the gateway's environment needs.
    """

    folder: Path
    erp: Erp
    relay: Relay
    leaky: Leaky
    club: Club
    lasting: dict[str, str] = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The secrets that the gateway is given in its environment."""
        names = {"OLD_KEY": "static credential", "KNOWN_SECRET": "known secret", "SHARED_KEY": "child's lasting secret"}
        given = {variable: self.lasting[name] for variable, name in names.items()}
        return given | self.erp.environment | {vault_glass.SECRET_VARIABLE: self.lasting["break-glass secret id"]}


@contextmanager
def manor(folder: Path, server: Path) -> Iterator[Manor]:
    """Settings in ``folder`` and all servers; ``server`` gets the certificate of one."""
    lasting = {
        name: f"{name.replace(' ', '').replace(chr(39), '')[:6]}{secrets.token_hex(16)}"
        for name in (
            "secret id", "break-glass secret id", "static credential", "known secret", "child's lasting secret",
            "kv value of crm", "kv value that is lent",
        )
    }  # fmt: skip
    entry = Entry("ostiary-gateway", lasting["secret id"], PERIOD_S)
    assert ostiary("init", str(folder)).returncode == 0
    with postgres() as database, leaky_api() as leaky, short_folder("ostiary-relay-") as between:
        keeper = Keeper("ostiary_keeper", str(database.folder), DATABASE, secrets.token_hex(24))
        _tables(database, keeper, lasting["known secret"])
        with (
            openbao(_vault(keeper, entry, lasting)) as bao,
            relaying(between / "bao.sock", bao.socket) as relay,
            club(server, authority(bao)) as guarded,
        ):
            found = Manor(folder, Erp(database, bao, entry), relay, leaky, guarded, lasting)
            _furnish(found)
            yield found


def _tables(database: Postgres, keeper: Keeper, known: str) -> None:
    confess = (
        "CREATE FUNCTION confess(note text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        f"'canary-of-the-hunt-harmless %: cannot reach postgresql://erp:{known}@db.test/erp', note "
        f"USING DETAIL = 'password {known}', HINT = 'is {known[::-1]} right?'; END $$"
    )
    database.run(*vault_setup.groups_sql(_LOGINS[:2], keeper), *TABLES, confess)


def _vault(keeper: Keeper, entry: Entry, lasting: dict[str, str]) -> list[Request]:
    values = [
        Secret("crm-key", "crm/key", {"key": lasting["kv value of crm"]}),
        Secret("lent-key", "lent/key", {"key": lasting["kv value that is lent"]}),
    ]
    logins = [leasing.Template(one.name, vault_setup.MOUNT, one.name, one.name, one.ttl_s) for one in _LOGINS]
    templates = (*logins, *vault_kv.templates(values), vault_pki.template(_CLIENT))
    asked = Needs(templates, Duties(), role_id=entry.role_id, period_s=entry.period_s)
    return [
        *vault_setup.held(asked),
        *vault_setup.databases(_LOGINS, keeper),
        *vault_kv.values(values),
        *vault_pki.authority([_CLIENT]),
        vault_setup.secret_id(asked.name, entry.secret_id),
        *vault_glass.requests(lasting["break-glass secret id"]),
    ]


def _furnish(found: Manor) -> None:
    def child(variable: str) -> str:
        words = [sys.executable, "-m", "tests.fixtures.leaky_stdio", variable, str(found.folder / f"{variable}.starts")]
        return str(words)

    settings = _SETTINGS.format(
        catalogue=CATALOGUE,
        leaky=found.leaky.origin,
        club=found.club.origin,
        root=ROOT,
        shared=child("SHARED_KEY"),
        lentfile=child("LENT_FILE"),
        lentenv=child("LENT_DSN"),
    )
    settings += found.erp.gateway_toml(f"unix://{found.relay.path}") + vault_glass.settings_toml()
    tools = _CONFESS
    for server in LEAKY:
        tools += _LEAK.format(server=server) + (_HTTP.format() if server in {"login", "crm", "old"} else "")
    (found.folder / "tools.toml").write_text(tools)
    (found.folder / "gateway.toml").write_text(settings)
    (found.folder / "club.pem").write_bytes(found.club.certificate.read_bytes())

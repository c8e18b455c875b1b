"""A gateway with packages of the gallery in force, before an HTTP API and a database."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner

from gateway.cli.root import ostiary as command
from tests.e2e.house import SECRETS, Api, api_server
from tests.gateways import Gateway, ostiary, serving, until

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]
region = "eu"

[listen]
port = 0

[policy]
deadline_ms = 1000
reload_s = 0.1
bundles = ["policies"]

[approvals]
hold_s = 0.2

[upstreams.infra]
kind = "http"
origin = "{api}"
credential = "api"
allow_networks = ["127.0.0.0/8"]

[upstreams.crm]
kind = "http"
origin = "{api}"
credential = "api"
allow_networks = ["127.0.0.0/8"]

[upstreams.iam]
kind = "sql"
database = "iam.sqlite"

[credentials.api]
prefix = "Bearer "
env = "API_KEY"

[policy.data.gateway.scope.groups.desk]
allow = ["infra.*", "iam.*", "crm.*"]

[policy.data.gateway.scope.agents."*"]
allow = ["infra.*", "iam.*", "crm.*"]
"""
CATALOGUE = """\

[[tool]]
server = "infra"
name = "scale"
effect = "write"
description = "Scale something."
[tool.input_schema]
type = "object"
required = ["what", "environment"]
additionalProperties = false
properties.what = { type = "string" }
properties.environment = { type = "string" }
properties.count = { type = "integer" }
properties.ticket = { type = "string" }
[tool.http]
method = "POST"
path = "/tools/things"
body = "rest"

[[tool]]
server = "iam"
name = "grant"
effect = "write"
description = "Give somebody a role."
[tool.input_schema]
type = "object"
required = ["user", "role", "days"]
additionalProperties = false
properties.user = { type = "string" }
properties.role = { type = "string" }
properties.days = { type = "integer" }
[tool.sql]
statement = "INSERT INTO grants (user, role, days) VALUES (:user, :role, :days)"
parameters = ["user", "role", "days"]
mode = "write"

[[tool]]
server = "iam"
name = "find"
effect = "read"
description = "The roles of somebody."
input_schema = { type = "object", required = ["user"], properties = { user = { type = "string" } }, \
additionalProperties = false }
[tool.sql]
statement = "SELECT role, days FROM grants WHERE user = :user"
parameters = ["user"]

[[tool]]
server = "iam"
name = "revoke"
effect = "write"
description = "Take all roles from somebody."
input_schema = { type = "object", required = ["user"], properties = { user = { type = "string" } }, \
additionalProperties = false }
[tool.sql]
statement = "DELETE FROM grants WHERE user = :user"
parameters = ["user"]
mode = "write"
"""
CRM_TOOL = """
[[tool]]
server = "crm"
name = "NAME"
effect = "write"
description = "Write something."
labels = [LABELS]
vendor = { name = "acme", region = "eu", price_micros = PRICE }
input_schema = { type = "object", properties = { what = { type = "string" } }, additionalProperties = false }
[tool.http]
method = "POST"
path = "/tools/things"
body = ["what"]
"""
CRM = {"note": ("", "0"), "call": ("", "500001"), "update": ('"health"', "0"), "report": ('"sox"', "0")}
# These packages have settings of the test's own; the others are in force with those that are copied along.
OWN: dict[str, dict[str, Any]] = {
    "evidence": {"rules": {"revoking": {"tools": ["iam.revoke"], "needs": {"the roles were found": ["iam.find"]}}}},
    "confidence": {
        "tools": ["iam.revoke"],
        "effects": ["write"],
        "silent": "deny",
        "people": {},
        "deny_below": 50,
        "ask_below": 80,
        "ask_above_risk": 90,
        "deny_above_risk": 90,
    },
    "verify_only": {"agents": ["watcher"], "checks": [], "changes": "ask", "reads": "ask", "people": {}},
    "phases": {"rollouts": {"notes": {"tools": ["crm.note"], "phase": "observe", "groups": ["crm-pilot"]}}},
}
PACKAGES = ("infrastructure", "access", "escalation", *OWN)


@dataclass(frozen=True)
class Site:
    """A gateway with packages of the gallery, and what stands behind it."""

    gateway: Gateway
    api: Api
    key: str

    def rows(self, user: str) -> list[tuple[Any, ...]]:
        """What the database says of a user, read past the gateway."""
        with contextlib.closing(sqlite3.connect(self.gateway.folder / "iam.sqlite")) as database:
            return database.execute("SELECT role, days FROM grants WHERE user = ?", (user,)).fetchall()

    def post(self, token: str, tool: str, body: dict[str, Any]) -> httpx.Response:
        """A call with whatever stands beside its arguments."""
        with self.gateway.client(token) as client:
            return client.post(f"/v1/tools/{tool}/call", json=body)

    def set(self, name: str, settings: dict[str, Any]) -> None:
        """Write the settings of a package, at once."""
        place = self.gateway.folder / "policies" / "house" / name / "data.json"
        new = place.with_suffix(".new")
        new.write_text(json.dumps(settings), "utf-8")
        new.replace(place)

    def approved(self, token: str, tool: str, arguments: dict[str, Any], answer: httpx.Response) -> httpx.Response:
        """What became of a parked call once Vera has signed it."""
        self.gateway.ask("approve", parked(answer), "--yes", "--key", self.key)
        (done,) = until(lambda: [one for one in (self.gateway.call(token, tool, arguments),) if one.status_code == 200])
        return done


def parked(answer: httpx.Response) -> str:
    """The approval a call waits for."""
    assert answer.status_code == 202, answer.text
    return str(answer.json()["approval_id"])


@contextlib.contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """Copy and set the packages, furnish the tools, and serve ``folder``; Vera may approve."""
    for name in PACKAGES:
        assert CliRunner().invoke(command, ["policy", "new", name, str(folder / "policies")]).exit_code == 0
    for name, settings in OWN.items():
        (folder / "policies" / "house" / name / "data.json").write_text(json.dumps(settings), "utf-8")
    with contextlib.closing(sqlite3.connect(folder / "iam.sqlite")) as database, database:
        database.execute("CREATE TABLE grants (user TEXT, role TEXT, days INT)")
    more = (
        CRM_TOOL.replace("NAME", name).replace("LABELS", labels).replace("PRICE", price)
        for name, (labels, price) in CRM.items()
    )
    (folder / "catalogue.toml").write_text(CATALOGUE + "".join(more), "utf-8")
    with api_server() as api:
        (folder / "gateway.toml").write_text(CONFIG.format(api=api.origin), "utf-8")
        with serving(folder, **SECRETS) as gateway:
            key = str(folder / "vera.pem")
            assert ostiary("reviewer", "keygen", "--key", key).returncode == 0
            roles = [word for role in ("operations", "owner", "privacy") for word in ("--role", role)]
            gateway.ask("reviewer", "enrol", "--person", "vera", "--key", key, *roles)
            yield Site(gateway, api, key)

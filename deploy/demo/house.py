"""The house of the demo: real servers, a gateway as an operator would start it, and all of it gone afterwards."""

import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.demo import command
from deploy.demo.command import OSTIARY, ROOT, CommandFailed
from deploy.demo.screen import Event, Screen
from deploy.servers.erp import SECRET_VARIABLE, Erp, erp
from deploy.servers.process import ServerError
from deploy.servers.vault_setup import Template

HERE = Path(__file__).resolve().parent
VENVS = Path(os.environ.get("OSTIARY_VENVS", ROOT / ".venvs"))
AGENTS_PYTHON = VENVS / "servers" / "bin" / "python"
PERIOD_S = 6
TEMPLATES = (
    Template("erp-read", "erp_reader"),
    Template("erp-write", "erp_writer"),
    Template("pay-out", "pay_clerk"),
    Template("reporting", "reporter"),
)
_TABLES = (
    "CREATE TABLE orders (number text PRIMARY KEY, vendor text, total bigint, currency text)",
    "CREATE TABLE invoices (invoice text PRIMARY KEY, order_number text, amount bigint, currency text)",
    "CREATE TABLE transfers (iban text, amount bigint, currency text, reference text)",
    "INSERT INTO orders VALUES ('PO-1001', 'V-7', 400000, 'EUR'), ('PO-1002', 'V-9', 12000, 'EUR')",
)
_GRANTS = (
    # Who wrote a row stands in it: a user that existed for that one call.
    "ALTER TABLE invoices ADD COLUMN made_by text DEFAULT current_user",
    "ALTER TABLE transfers ADD COLUMN made_by text DEFAULT current_user",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "GRANT SELECT ON orders TO erp_reader",
    "GRANT INSERT ON invoices TO erp_writer",
    "GRANT INSERT ON transfers TO pay_clerk",
    "GRANT SELECT ON orders TO reporter",
)
_SLOW_TOOL = """
[[tool]]
server = "erp"
name = "reconcile"
effect = "read"
open_world = false
description = "Count the open orders, slowly."

[tool.input_schema]
type = "object"
required = ["seconds"]
additionalProperties = false
properties.seconds = { type = "integer", minimum = 0, maximum = 25 }

[tool.sql]
statement = "SELECT count(*) AS open, pg_sleep(:seconds) IS NULL AS slept FROM orders"
parameters = ["seconds"]
"""
_CODE_TOOL = """
[[tool]]
server = "code"
name = "run"
effect = "write"
reversible = true
open_world = false
description = "Run a Python program in a sandbox; `data` is JSON on its standard input."

[tool.input_schema]
type = "object"
required = ["code"]
additionalProperties = false
properties.code = { type = "string", maxLength = 20000 }
properties.data = {}

[tool.code]
code = "code"
input = "data"
limits = { memory_mb = 128, wall_s = 10, cpu_s = 5 }
"""


@dataclass(slots=True)
class House:
    """What runs, and what could not.

    Attributes:
        folder: the gateway's configuration, state and words.
        erp: PostgreSQL and OpenBao; None where they cannot run here, and SQLite stands in.
        box: what the sandbox of this machine can hold (``ostiary sandbox probe``); None where there is none.
        skipped: what cannot be shown here, and why.
    """

    folder: Path
    vendor_port: int
    vendor_key: str = field(repr=False)
    erp: Erp | None = None
    box: dict[str, Any] | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    gateway: "subprocess.Popen[bytes] | None" = None
    url: str = ""

    @property
    def state(self) -> Path:
        """The gateway's state folder."""
        return self.folder / "state"

    def start(self) -> None:
        """Start the gateway.

        Raises:
            CommandFailed: it did not start; the message is what it said.
        """
        environment = {**os.environ, "VENDOR_KEY": self.vendor_key, **(self.erp.environment if self.erp else {})}
        words = [*OSTIARY, "serve", "--config", str(self.folder / "gateway.toml"), "--json"]
        with (self.folder / "gateway.err").open("ab") as errors:
            self.gateway = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, env=environment, cwd=ROOT)
        line = self.gateway.stdout.readline() if self.gateway.stdout else b""
        said = json.loads(line) if line else {}
        if "url" not in said:
            raise CommandFailed(f"the gateway did not start: {(self.folder / 'gateway.err').read_text('utf-8')}")
        self.url = said["url"]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the gateway, politely or not, and wait until it is gone."""
        if self.gateway is None:
            return
        self.gateway.send_signal(how)
        try:
            self.gateway.wait(20)
        except subprocess.TimeoutExpired:
            self.gateway.kill()
            self.gateway.wait()
        if self.gateway.stdout:
            self.gateway.stdout.close()
        self.gateway = None

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Look into the database past the gateway."""
        if self.erp is not None:
            return self.erp.postgres.run(query)[0]
        with closing(sqlite3.connect(self.folder / "erp.sqlite")) as database:
            return database.execute(query).fetchall()


@contextmanager
def built(folder: Path, screen: Screen) -> Iterator[House]:
    """Start everything; on exit it is gone. What this machine cannot run is noted in ``House.skipped``."""
    with ExitStack() as stack:
        key = secrets.token_hex(12)
        house = House(folder, stack.enter_context(_vendor_api(key)), key)
        stack.callback(house.stop)
        with screen.working("starting PostgreSQL and OpenBao"):
            _databases(house, screen, stack)
        with screen.working("trying out the sandbox of this machine"):
            _sandbox(house, screen)
        _write(house)
        with screen.working("starting the gateway and a real MCP server"):
            house.start()
        screen.event(Event("the gateway", "done", "listening", f"{house.url}/mcp, policy and log embedded"))
        yield house


def _databases(house: House, screen: Screen, stack: ExitStack) -> None:
    try:
        house.erp = stack.enter_context(erp(PERIOD_S, templates=TEMPLATES, tables=(*_TABLES, *_GRANTS)))
    except ServerError as error:
        why = f"no leases can be shown: {error}"
        house.skipped["leases"] = why
        screen.event(Event("PostgreSQL and OpenBao", "skipped", "SKIPPED", why))
        _sqlite(house.folder)
        return
    (version,) = house.erp.postgres.run("SHOW server_version")[0][0]
    words = "passwords by scram, a Unix socket, no user of the gateway's own"
    screen.event(Event("PostgreSQL", "done", str(version), words))
    screen.event(Event("OpenBao", "done", "unsealed", "set up by declaration; no root token was ever handed out"))


def _sqlite(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        for statement in _TABLES:
            database.execute(statement)


def _sandbox(house: House, screen: Screen) -> None:
    said = command.run("sandbox", "probe")
    found = said.document if isinstance(said.document, dict) else {}
    if not found.get("backend"):
        why = str(found.get("reason") or said.words.strip() or "no sandbox")
        house.skipped["sandbox"] = why
        screen.event(Event("the sandbox", "skipped", "SKIPPED", why))
        return
    house.box = found
    missing = found.get("missing") or []
    words = "no network, no files but its own, caps on memory, processes, time and output"
    if missing:
        words = f"degraded: no cap on {', '.join(missing)} here; the demo's policy accepts that for its own code"
    screen.event(Event("the sandbox", "done", str(found["backend"]), words))


def _write(house: House) -> None:
    places = {
        "DATABASES": _leased(house.erp) if house.erp else _PLAIN,
        "REPORT_LOGIN": 'credential = "reporting"' if house.erp else "",
        "VENDOR_PORT": str(house.vendor_port),
        "SERVERS_PYTHON": str(AGENTS_PYTHON),
        "SANDBOX": _boxed(house.box) if house.box else "",
        "SLOW": _SLOW_TOOL if house.erp else "",
        "CODE": _CODE_TOOL if house.box else "",
    }
    for name in ("gateway.toml", "catalogue.toml"):
        text = (HERE / name).read_text("utf-8")
        for word, value in places.items():
            text = text.replace(f"@{word}@", value)
        (house.folder / name).write_text(text, "utf-8")
    shutil.copytree(HERE / "policy", house.folder / "policy")


_PLAIN = """
[upstreams.erp]
kind = "sql"
database = "erp.sqlite"

[upstreams.pay]
kind = "sql"
database = "erp.sqlite"
"""


def _leased(servers: Erp) -> str:
    leases = "".join(f'\n[leases.{one.name}]\nrole = "{one.name}"\nttl_s = 120\n' for one in TEMPLATES)
    return f"""
[vault]
address = "{servers.openbao.address}"
role_id = "{servers.entry.role_id}"
secret_id = {{ env = "{SECRET_VARIABLE}" }}
{leases}header = "X-Database-Login" # the report server gets its login with each call

[upstreams.erp]
kind = "sql"
url = "{servers.postgres.url}"
read_lease = "erp-read"
write_lease = "erp-write"

[upstreams.pay]
kind = "sql"
url = "{servers.postgres.url}"
write_lease = "pay-out"
"""


def _boxed(box: dict[str, Any]) -> str:
    missing: Sequence[str] = box.get("missing") or ()
    accepted = f"\n[policy.data.gateway.sandbox]\naccept_missing = {json.dumps(list(missing))}\n" if missing else ""
    return f'[upstreams.code]\nkind = "code"\n{accepted}'


@contextmanager
def _vendor_api(key: str) -> Iterator[int]:
    words = [sys.executable, str(HERE / "vendor_api.py")]
    with subprocess.Popen(words, env={**os.environ, "VENDOR_KEY": key}, stdout=subprocess.PIPE) as process:
        try:
            yield int(process.stdout.readline() if process.stdout else 0)
        finally:
            process.kill()

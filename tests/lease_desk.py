"""A gateway process whose users a real OpenBao mints in a real PostgreSQL, and all three looked at from outside."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deploy.servers import warden
from deploy.servers.erp import READ, WRITE, Erp, erp
from deploy.servers.process import short_folder
from deploy.servers.warden import Warden
from tests.e2e.test_leases import furnish
from tests.edge_world import modern
from tests.fakes.relay import Relay, relaying
from tests.gateways import Gateway, serving, types, until
from tests.servers import PERIOD_S

AGENT = "ap-agent"
WARDEN = "the-wardens-own-secret"
# Minted users in the middle of a statement, and all sessions of minted users.
ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(%' AND usename LIKE 'v-%'"
SESSIONS = "SELECT usename FROM pg_stat_activity WHERE usename LIKE 'v-%'"
_SLOW_WRITE = """
[[tool]]
server = "erp"
name = "slow_stage"
effect = "write"
description = "Stages an invoice, and takes its time."
[tool.input_schema]
type = "object"
additionalProperties = false
required = ["invoice", "seconds"]
properties = { invoice = { type = "string" }, seconds = { type = "integer" } }
[tool.sql]
mode = "write"
statement = \"\"\"
INSERT INTO staged_invoices (order_number, invoice, amount)
SELECT 'PO-1001', :invoice, 1 FROM pg_sleep(:seconds) RETURNING invoice\"\"\"
parameters = ["invoice", "seconds"]
[tool.limits]
timeout_s = 30
"""


@dataclass(frozen=True, slots=True)
class Said:
    """What a caller heard.

    Attributes:
        status: of REST; of MCP: 200 for a result, 0 for an error result.
        code: ``completed``, or the error's.
    """

    surface: str
    status: int
    code: str
    cause: str | None
    call_id: str
    text: str


@dataclass(frozen=True)
class Desk:
    """A gateway, its relay to the vault, the vault's warden and the database.

    Attributes:
        since: index of the last record that was there before.
        vault: where the gateway asks the vault.
    """

    gateway: Gateway
    erp: Erp
    relay: Relay
    warden: Warden
    token: str
    threads: ThreadPoolExecutor
    since: int = -1
    vault: str = ""

    def call(self, surface: str, tool: str, **arguments: Any) -> Said:
        """Call a tool over ``rest`` or ``mcp``."""
        if surface == "rest":
            return heard_rest(self.gateway.call(self.token, tool, arguments))
        params = {"name": tool.replace(".", "__"), "arguments": arguments}
        with self.gateway.client(self.token) as client:
            return heard_mcp(client.post("/mcp", **modern("tools/call", params)))

    def begin(self, surface: str, tool: str, **arguments: Any) -> "Future[Said]":
        """The same in the background."""
        return self.threads.submit(self.call, surface, tool, **arguments)

    def asleep(self) -> int:
        """How many minted users are in the middle of a statement."""
        return int(self.erp.postgres.run(ASLEEP)[0][0][0])

    def sessions(self) -> list[str]:
        """Sessions of minted users."""
        return [str(user) for (user,) in self.erp.postgres.run(SESSIONS)[0]]

    def staged(self, invoice: str) -> int:
        """How many such invoices were staged."""
        return int(self.erp.postgres.run(f"SELECT count(*) FROM staged_invoices WHERE invoice = '{invoice}'")[0][0][0])

    def left(self) -> list[str]:
        """What is minted at this moment and no gateway's own: roles, sessions, leases, minting tokens."""
        found = [f"role {user}" for user in self.erp.minted()] + [f"session {user}" for user in self.sessions()]
        found += [f"lease {lease}" for lease in self.warden.leases(READ, WRITE)]
        return found + [f"token {token.policy}" for token in self.warden.tokens() if token.policy in {READ, WRITE}]

    def metric(self, series: str) -> float:
        """The sum of the series whose name and labels begin so; 0 where there are none."""
        page = self.gateway.http.get("/metrics").text
        rows = re.findall(rf"^{re.escape(series)}\S* (\S+)$", page, re.MULTILINE)
        return sum(float(value) for value in rows)

    def records(self, **query: Any) -> list[dict[str, Any]]:
        """Records of the log since this desk began."""
        return self.gateway.records(after=self.since, **query)

    def of_call(self, said: Said) -> list[dict[str, Any]]:
        """The records of the call that was answered so."""
        return self.gateway.records(call_id=said.call_id)

    def story(self, said: Said) -> list[str]:
        """Their types."""
        return types(self.of_call(said))


def heard_rest(answer: httpx.Response) -> Said:
    """What REST said."""
    body = answer.json()
    code = "completed" if answer.is_success else str(body["type"]).rpartition(":")[2]
    return Said("rest", answer.status_code, code, body.get("cause"), str(body["call_id"]), answer.text)


def heard_mcp(answer: httpx.Response) -> Said:
    """What MCP said."""
    call_id, result = answer.headers["ostiary-call-id"], answer.json()["result"]
    if not result.get("isError"):
        return Said("mcp", 200, "completed", None, call_id, answer.text)
    body = httpx.Response(200, text=result["content"][0]["text"]).json()
    return Said("mcp", 0, body["error"], body.get("cause"), body["call_id"], answer.text)


def free_port() -> int:
    """A port of loopback nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def equip(folder: Path, both: Erp, address: str) -> None:
    """A gateway's folder that has the slow write, too."""
    furnish(folder, both, address)
    (folder / "slow.toml").write_text(_SLOW_WRITE)
    config = folder / "gateway.toml"
    config.write_text(config.read_text().replace("catalogue = [", 'catalogue = ["slow.toml", ', 1))


@contextmanager
def opened(folder: Path, *, over_tcp: bool = False, period_s: int = PERIOD_S) -> Iterator[Desk]:
    """Servers and a gateway of their own; ``over_tcp``: the gateway asks the vault by a port, without the relay."""
    port = free_port() if over_tcp else None
    with (
        erp(period_s, warden.requests(WARDEN), port=port) as both,
        short_folder("ostiary-relay-") as place,
        relaying(place / "bao.sock", both.openbao.socket) as relay,
    ):
        address = f"unix://{relay.path}" if port is None else f"http://127.0.0.1:{port}"
        equip(folder, both, address)
        with ThreadPoolExecutor(8) as threads, serving(folder, **both.environment) as gateway:
            try:
                watch = Warden(both.openbao, WARDEN)
                yield Desk(gateway, both, relay, watch, gateway.token(agent=AGENT), threads, vault=address)
            finally:
                relay.let_go.set()


def nothing_is_left(desk: Desk, seconds: float = 25.0) -> None:
    """Wait until nothing is; fails at the deadline."""
    until(lambda: not desk.left(), seconds=seconds)

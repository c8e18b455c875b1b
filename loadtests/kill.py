"""``make bench NAME=kill``: fifty minted users in the middle of their statements, one kill, and how long until none is.

A real gateway before a real PostgreSQL whose users a real OpenBao mints; OpenBao keeps its leases in PostgreSQL, and
then with raft. From the moment the kill is asked for, PostgreSQL's own list is read until it has neither a minted user
nor a session of one, and the vault's own list of leases until it is empty.

Run: ``python -m loadtests.kill``; ``--rounds 1`` looks without writing evidence.
"""

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.servers import vault_glass
from deploy.servers.erp import CATALOGUE, READ, WRITE, Erp, erp
from deploy.servers.openbao import Storage, in_postgres, raft
from deploy.servers.postgres import Postgres
from deploy.servers.process import ServerError
from loadtests import evidence
from loadtests.load import ROOT, probe_ms
from loadtests.processes import BenchmarkError, serving

EVIDENCE: Final = ROOT / "docs" / "evidence" / "kill-speed.json"
LEASES: Final = 50
LEAST_ROUNDS: Final = 5
TARGETS_S: Final[Mapping[str, float]] = {"postgresql": 1.0, "raft": 2.0}
_AGENT: Final = "bench"
_OSTIARY: Final = (sys.executable, "-m", "gateway")
_PREFIXES: Final = [f"database/creds/{name}" for name in (READ, WRITE)]
_LEFT: Final = """
SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'),
       (SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-%')
"""
_DEADLINE_S: Final = 60.0
_AGAIN: Final = frozenset({httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE})
_WAIT: Final = """
[[tool]]
server = "erp"
name = "wait"
effect = "read"
description = "Waits in the database."
input_schema = { type = "object", additionalProperties = false, properties = { seconds = { type = "integer" } } }
[tool.sql]
statement = "SELECT current_user AS me FROM pg_sleep(:seconds)"
parameters = ["seconds"]
[tool.limits]
timeout_s = 50
per_minute = 6000
concurrency = 64
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One kill.

    Attributes:
        kind: what was stopped: an agent in one run, an agent in fifty runs, or everything.
        answered_s: until the answer that counts what was ended.
        gone_s: until PostgreSQL listed no minted user and no session of one, and the vault no lease.
    """

    storage: str
    kind: str
    answered_s: float
    gone_s: float
    cut: Mapping[str, int]


def of_postgres(database: Postgres) -> Storage:
    """Storage of OpenBao in a database of its own."""
    password = secrets.token_hex(16)
    database.run(f"CREATE ROLE bao LOGIN PASSWORD '{password}'", "CREATE DATABASE bao OWNER bao")
    return in_postgres(f"user=bao password={password} dbname=bao host={database.folder} sslmode=disable")


STORAGES: Final[Mapping[str, Callable[[Postgres], Storage]]] = {"postgresql": of_postgres, "raft": lambda _: raft}


def furnish(folder: Path, servers: Erp) -> Path:
    """Keys and settings of a gateway; returns the file of settings."""
    if subprocess.run([*_OSTIARY, "init", str(folder)], capture_output=True, check=False).returncode:
        raise BenchmarkError("ostiary init failed")
    (folder / "wait.toml").write_text(_WAIT)
    page = folder / "gateway.toml"
    page.write_text(
        f"""
state = "state"
catalogue = ["{CATALOGUE}", "wait.toml"]
[listen]
port = 0
[kill]
lift_quorum = 1
[policy.data.gateway.scope.agents.{_AGENT}]
allow = ["*"]
[policy.data.gateway.scope.users.dora]
allow = ["*"]
"""
        + servers.gateway_toml()
        + vault_glass.settings_toml()
    )
    return page


class Site:
    """One gateway before its servers."""

    def __init__(self, servers: Erp, admin_socket: str, url: str, glass: str) -> None:
        self._servers = servers
        self._operator = httpx.Client(transport=httpx.HTTPTransport(uds=admin_socket), base_url="http://localhost")
        self._callers = httpx.Client(base_url=url, timeout=_DEADLINE_S, limits=httpx.Limits(max_connections=LEASES))
        vault = httpx.HTTPTransport(uds=str(servers.openbao.socket))
        self._vault = httpx.Client(transport=vault, base_url="http://localhost", timeout=_DEADLINE_S)
        self._glass = glass

    def token(self) -> str:
        """A token of the agent: each is a run of its own."""
        wish = {"user": "dora", "agent": _AGENT, "scopes": ["tools"], "ttl_s": 3600}
        return str(self._operator.post("/v1/tokens", json=wish).json()["token"])

    def call(self, token: str) -> httpx.Response:
        """A statement that would take 45 s."""
        headers = {"authorization": f"Bearer {token}"}
        while True:  # nothing was done: fifty at once are more than a busy vault, or the throttle of strangers, takes
            body = {"arguments": {"seconds": 45}}
            answer = self._callers.post("/v1/tools/erp.wait/call", json=body, headers=headers)
            if answer.status_code not in _AGAIN:
                return answer
            time.sleep(0.05)

    def round(self, storage: str, kind: str, threads: ThreadPoolExecutor) -> Round:
        """Open fifty, kill, and look until none is left.

        Raises:
            BenchmarkError: they did not open, or did not go.
        """
        tokens = [self.token() for _ in range(LEASES if kind == "agent_many_runs" else 1)]
        calls = [threads.submit(self.call, tokens[at % len(tokens)]) for at in range(LEASES)]
        self._until(lambda: self._left() == (LEASES, LEASES) or self._refused(calls))
        wish = {"kind": "all" if kind == "all" else "agent", "name": "" if kind == "all" else _AGENT, "reason": "bench"}
        began = time.monotonic()
        asked: Future[httpx.Response] = threads.submit(self._operator.post, "/v1/kills", json=wish, timeout=_DEADLINE_S)
        self._until(lambda: self._left() == (0, 0))
        self._until(lambda: self._listed() == 0)
        gone = time.monotonic() - began
        answer = asked.result()
        answered = answer.elapsed.total_seconds()
        if answer.status_code != httpx.codes.CREATED or {call.result().status_code for call in calls} != {502}:
            raise BenchmarkError(f"the kill was answered {answer.status_code} {answer.text[:300]}")
        lifted = self._operator.post(f"/v1/kills/{answer.json()['kill_id']}/lift", json={"reason": "bench"})
        if "lifted_us" not in lifted.json():
            raise BenchmarkError(f"it could not be lifted: {lifted.text}")
        return Round(storage, kind, round(answered, 4), round(gone, 4), answer.json()["cut"])

    def _refused(self, calls: list["Future[httpx.Response]"]) -> bool:
        for call in calls:
            if call.done():
                raise BenchmarkError(f"a call did not wait in the database: {call.result().text[:300]}")
        return False

    def _left(self) -> tuple[int, int]:
        ((users, sessions),) = self._servers.postgres.run(_LEFT)[0]
        return int(users), int(sessions)

    def _listed(self) -> int:
        login = {"role_id": vault_glass.ROLE_ID, "secret_id": self._glass}
        token = self._vault.post("/v1/auth/approle/login", json=login).json()["auth"]["client_token"]
        found = 0
        for prefix in _PREFIXES:
            answer = self._vault.request(
                "LIST", f"/v1/sys/leases/lookup/{prefix}/", headers={"x-vault-token": token}
            ).json()
            found += len((answer.get("data") or {}).get("keys") or ())
        return found

    def _until(self, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not look():
            if time.monotonic() > deadline:
                raise BenchmarkError(f"it did not come to that: {self._left()} users and sessions")
            time.sleep(0.01)


def measured(storage: str, rounds: int) -> list[Round]:
    """All rounds with one storage, the kinds in turn."""
    glass = secrets.token_hex(24)
    with (
        tempfile.TemporaryDirectory(prefix="ostiary-kill-") as name,
        erp(30, vault_glass.requests(glass), storage=STORAGES[storage]) as servers,
        ThreadPoolExecutor(LEASES + 2) as threads,
    ):
        page = furnish(Path(name), servers)
        more = {**servers.environment, vault_glass.SECRET_VARIABLE: glass}
        command = [*_OSTIARY, "serve", "--config", str(page), "--json"]
        with serving(command, Path(name), "gateway", more) as (_, said):
            site = Site(servers, said["admin_socket"], said["url"], glass)
            site.round(storage, "agent", threads)  # warm
            kinds = ("agent", "agent_many_runs", "all")
            return [site.round(storage, kind, threads) for _ in range(rounds) for kind in kinds]


def verdict(found: list[Round]) -> dict[str, Any]:
    """By storage and kind: median and worst, and whether the target is met by the worst."""
    figures: dict[str, Any] = {}
    for storage, kind in dict.fromkeys((one.storage, one.kind) for one in found):
        mine = [one for one in found if (one.storage, one.kind) == (storage, kind)]
        gone = [one.gone_s for one in mine]
        figures[f"{storage}/{kind}"] = {
            "rounds": len(mine),
            "gone_median_s": statistics.median(gone),
            "gone_worst_s": max(gone),
            "answered_median_s": statistics.median(one.answered_s for one in mine),
            "target_s": TARGETS_S[storage],
            "met": max(gone) <= TARGETS_S[storage],
        }
    return figures


def main() -> int:
    """Run from the command line; the exit code: 1 = a target is missed, 2 = the run is void."""
    options = _options()
    began, digest = time.monotonic(), evidence.sources_digest()
    try:
        before = probe_ms()
        found = [one for storage in STORAGES for one in measured(storage, options.rounds)]
        with tempfile.TemporaryDirectory(prefix="ostiary-kill-") as name:
            conditions = evidence.conditions(Path(name), {})
    except (BenchmarkError, ServerError) as error:
        print(f"void: {error}", file=sys.stderr)
        return 2
    figures = verdict(found)
    said = {
        "commit": evidence.commit(),
        "digest": digest,
        "seconds": round(time.monotonic() - began, 1),
        "leases": LEASES,
        "conditions": conditions,
        "probe_ms": statistics.mean([before, probe_ms()]),
        "load_average": os.getloadavg()[0],
        "figures": figures,
        "rounds": [asdict(one) for one in found],
        "verdict": "passed" if all(each["met"] for each in figures.values()) else "failed",
    }
    print(json.dumps(figures, indent=1))
    return _written(said, options.rounds)


def _written(said: Mapping[str, Any], rounds: int) -> int:
    if rounds < LEAST_ROUNDS:
        print(f"not written: fewer than {LEAST_ROUNDS} rounds")
    elif said["digest"] != evidence.sources_digest():
        print("void: the covered sources were changed during the run", file=sys.stderr)
        return 2
    else:
        EVIDENCE.write_text(json.dumps(said, indent=1) + "\n", "utf-8")
        print(f"written: {EVIDENCE}")
    return 0 if said["verdict"] == "passed" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How long a kill takes.")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="of each kind (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

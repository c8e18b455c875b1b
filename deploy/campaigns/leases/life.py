"""The gateway's lives on one state folder, and the clients that call it while it lives."""

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.campaigns.leases.steps import Death
from deploy.servers.erp import CATALOGUE, READ, SECRET_VARIABLE, Erp
from deploy.servers.postgres import commits_held
from gateway.adapters.ledger.storage.files import DATABASE, connect_readonly
from loadtests.load import ROOT

_PATIENCE_S: Final = 60.0
_LIFE_S: Final = 20.0
_LOOK_S: Final = 0.01
_CLIENTS: Final = 4
_CALLS_A_RUN: Final = 3
_CALLS_BEFORE_END: Final = 24
# A minting has this lock from its beginning on (`vault_setup`).
_COMMITS_LOGIN: Final = """
    SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND classid = 7809638 AND mode = 'ShareLock' AND wait_event = 'SyncRep'
"""
_AGENT: Final = "clerk"
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_WISH: Final = {"user": "dora", "agent": _AGENT, "groups": ["desk"], "scopes": ["tools"], "ttl_s": 3600}


class LifeError(Exception):
    """A gateway did not start, or did not end: the campaign is over."""


@dataclass(slots=True)
class House:
    """One folder, and the gateway that lives in it.

    Attributes:
        answered: calls that were answered as completed, in all lives.
        invoices: how many invoices were asked to be staged.
    """

    folder: Path
    erp: Erp = field(repr=False)
    answered: int = 0
    invoices: int = 0
    _process: "subprocess.Popen[bytes] | None" = None
    _said: dict[str, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def mark(self) -> Path:
        """Is there once the step was reached."""
        return self.folder / "reached"

    @property
    def lives(self) -> bool:
        """Whether the gateway has not ended."""
        return self._process is not None and self._process.poll() is None

    def furnish(self) -> None:
        """Write the settings: reads may share a login within their run, writes have one each."""
        sections = self.erp.gateway_toml().replace(f'role = "{READ}"\n', f'role = "{READ}"\nscope = "run"\n', 1)
        scope = "".join(
            f'[policy.data.gateway.scope.{who}]\nallow = ["erp.*"]\n' for who in (f"agents.{_AGENT}", "groups.desk")
        )
        head = f'state = "state"\ncatalogue = ["{CATALOGUE}"]\n[listen]\nport = 0\n[policy]\ndeadline_ms = 1000\n'
        limits = "[limits]\nprincipal_per_minute = 100_000\nedge_per_minute = 100_000\n"
        (self.folder / "gateway.toml").write_text(head + limits + scope + sections)

    def begin(self, death: Death | None) -> bool:
        """Start a gateway that dies this death; whether it lived long enough to be ready.

        Raises:
            LifeError: it neither started nor died.
        """
        self.mark.unlink(missing_ok=True)
        doom = ("NONE", "0", "0") if death is None else (death.step.name, str(death.turn), str(death.share))
        command = [sys.executable, "-m", "deploy.campaigns.leases.victim", *doom, str(self.mark)]
        command += ["serve", "--config", str(self.folder / "gateway.toml"), "--json"]
        environment = {**os.environ, SECRET_VARIABLE: self.erp.entry.secret_id, "PYTHONPATH": str(ROOT)}
        with (self.folder / "gateway.err").open("ab") as words:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command, stdout=subprocess.PIPE, stderr=words, cwd=ROOT, env=environment, start_new_session=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            self._said = json.loads(line)
        elif not self.mark.exists():
            words_of_it = (self.folder / "gateway.err").read_text("utf-8", "replace")[-1500:]
            raise LifeError(f"the gateway did not start again:\n{words_of_it}")
        return bool(line)

    def load(self, *, stops: bool = False) -> bool:
        """Call it until it dies; whether it reached its step. ``stops``: it is asked to end after a while."""
        process = self._living()
        deadline = time.monotonic() + _LIFE_S
        with ThreadPoolExecutor(_CLIENTS) as threads:
            clients = [threads.submit(self._client) for _ in range(_CLIENTS)]
            enough = self.answered + _CALLS_BEFORE_END
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
                if stops and self.answered >= enough:
                    process.terminate()
                    stops = False
            self.bury()
            for client in clients:
                client.result()
        return self.mark.exists()

    def cut_off(self, calls: int) -> bool:
        """Call it, hold the database's commits up after so many calls, and kill it while one that mints is on its way.

        Whether one was. The vault finds its client gone while the database commits, and keeps no lease.
        """
        self._living()
        deadline = time.monotonic() + _LIFE_S
        with ThreadPoolExecutor(_CLIENTS) as threads:
            clients = [threads.submit(self._client) for _ in range(_CLIENTS)]
            enough = self.answered + calls
            while self.answered < enough and time.monotonic() < deadline:
                time.sleep(_LOOK_S)
            with commits_held(self.erp.postgres):
                while not (is_minting := self._commits_login()) and time.monotonic() < deadline:
                    time.sleep(_LOOK_S)
                self.bury()
                while self._commits_login() and time.monotonic() < deadline:
                    time.sleep(_LOOK_S)
            for client in clients:
                client.result()
        return is_minting

    def _commits_login(self) -> bool:
        return bool(self.erp.postgres.run(_COMMITS_LOGIN)[0][0][0])

    def wait(self) -> bool:
        """Wait until it dies by itself; whether it reached its step."""
        process = self._living()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LIFE_S)
        self.bury()
        return self.mark.exists()

    def bury(self) -> None:
        """End all of it, at once."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()

    def stop(self) -> None:
        """End it in order.

        Raises:
            LifeError: it did not end well.
        """
        process = self._living()
        process.terminate()
        if process.wait(_PATIENCE_S):
            raise LifeError(f"the gateway ended with exit code {process.returncode}")
        self.bury()

    def marks(self) -> frozenset[str]:
        """The marks of all tokens and logins that the log says were minted."""
        with closing(connect_readonly(self.folder / "state" / DATABASE)) as database:
            rows = database.execute("select leaf from records where type = 'credential.leased'")
            return frozenset(str(json.loads(leaf)["body"]["mark"]) for (leaf,) in rows)

    def verified(self) -> dict[str, Any]:
        """What ``ostiary audit verify`` says."""
        command = [sys.executable, "-m", "gateway", "audit", "verify", "--state", str(self.folder / "state"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S603 - our own
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    def _client(self) -> None:
        with suppress(httpx.HTTPError):
            while True:
                token = self._token()
                headers = {"authorization": f"Bearer {token}"}
                with httpx.Client(base_url=self._said["url"], headers=headers, verify=_NO_TLS, timeout=30) as http:
                    for turn in range(_CALLS_A_RUN):
                        self._call(http, write=turn != 1)

    def _token(self) -> str:
        transport = httpx.HTTPTransport(uds=self._said["admin_socket"], verify=_NO_TLS)
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as http:
            return str(http.post("/v1/tokens", json=_WISH).raise_for_status().json()["token"])

    def _call(self, http: httpx.Client, *, write: bool) -> None:
        with self._lock:
            self.invoices += 1
            number = self.invoices
        given = {"order": "PO-1001", "invoice": f"R-{number}", "amount": "1.00"} if write else {"number": "PO-1001"}
        tool = "erp.stage_invoice" if write else "erp.find_order"
        answer = http.post(f"/v1/tools/{tool}/call", json={"arguments": given})
        with self._lock:
            self.answered += answer.is_success

    def _living(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise LifeError("no gateway lives")
        return self._process

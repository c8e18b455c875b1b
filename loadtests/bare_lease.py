"""What a leased call cannot do without, and nothing else: mint a login, connect with it, ask, close, revoke.

The same servers, the same requests as the gateway's, on one kept connection by the standard library's HTTP client: no
faster way is known to Python programs.
"""

import itertools
import json
import socket
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import asyncpg

from deploy.servers.erp import READ, Erp
from deploy.servers.vault_setup import MOUNT
from loadtests.processes import BenchmarkError

STATEMENT: Final = "SELECT 1 AS one"
_DEADLINE_S: Final = 20.0
_LAST_OK: Final = 299


@dataclass(frozen=True, slots=True)
class Parts:
    """How long each part took, microseconds.

    Attributes:
        mint: the request for a login.
        session: connect, ask, close.
        revoke: the request to end it, waited for.
    """

    mint: float
    session: float
    revoke: float

    @property
    def whole(self) -> float:
        """All of it."""
        return self.mint + self.session + self.revoke


class _Line(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(slots=True)
class BareLeases:
    """Logs in as the gateway does, and keeps one minting token, as the gateway does for a run."""

    erp: Erp
    _line: _Line = field(init=False, repr=False)
    _own: str = field(init=False, repr=False)
    _minting: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Connect and log in.

        Raises:
            BenchmarkError: the vault refuses.
        """
        self._line = _Line(self.erp.openbao.socket)
        entry = {"role_id": self.erp.entry.role_id, "secret_id": self.erp.entry.secret_id}
        self._own = self._ask("POST", "auth/approle/login", None, entry)["auth"]["client_token"]
        self._minting = self._ask("POST", f"auth/token/create/{READ}", self._own, {})["auth"]["client_token"]

    async def once(self) -> Parts:
        """One login, from its minting to its end.

        Raises:
            BenchmarkError: the vault refuses, or the answer is wrong.
        """
        began = time.perf_counter_ns()
        minted = self._ask("GET", f"{MOUNT}/creds/{READ}", self._minting, None)
        at = [began, time.perf_counter_ns()]
        connection = await asyncpg.connect(
            host=str(self.erp.postgres.folder),
            user=minted["data"]["username"],
            password=minted["data"]["password"],
            database=self.erp.postgres.database,
            ssl=False,
        )
        try:
            found = await connection.fetchval(STATEMENT)
        finally:
            await connection.close(timeout=_DEADLINE_S)
        at.append(time.perf_counter_ns())
        self._ask("POST", "sys/leases/revoke", self._own, {"lease_id": minted["lease_id"], "sync": True})
        at.append(time.perf_counter_ns())
        if found != 1:
            raise BenchmarkError(f"the database answered {found}")
        mint, session, revoke = ((after - before) / 1e3 for before, after in itertools.pairwise(at))
        return Parts(mint, session, revoke)

    def close(self) -> None:
        """End the minting token and the connection."""
        self._ask("POST", "auth/token/revoke-self", self._own, {})
        self._line.close()

    def _ask(self, method: str, path: str, token: str | None, body: Any) -> Any:
        headers = {"X-Vault-Request": "true"} | ({} if token is None else {"X-Vault-Token": token})
        self._line.request(method, f"/v1/{path}", None if body is None else json.dumps(body), headers)
        answer = self._line.getresponse()
        text = answer.read()
        if answer.status > _LAST_OK:
            raise BenchmarkError(f"the vault answered {answer.status} to {path}")
        return json.loads(text) if text else {}

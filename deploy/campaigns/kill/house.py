"""The gateway's lives: its folder, its starts, its deaths, and what an operator asks it."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.core.tlog import Checkpoint
from loadtests.load import ROOT

HERE: Final = Path(__file__).parent
GATEWAY: Final = (sys.executable, "-m", "gateway")
_PATIENCE_S: Final = 60.0
_END_S: Final = 5.0
_LOOK_S: Final = 0.001
# Nothing here speaks TLS, and loading the system's certificates takes time.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_HOLDER: Final = {"user": "dora", "agent": "clerk", "groups": ["desk"], "scopes": ["tools"], "ttl_s": 86_000}
_OPENER: Final = {"user": "dora", "groups": ["desk"], "scopes": ["runs", "tools"], "ttl_s": 3600}


class HouseError(Exception):
    """The gateway did not start, or left something behind: the campaign is over."""


@dataclass(slots=True)
class House:
    """One folder and the gateway that lives in it, one life after another.

    Attributes:
        command: how a gateway is started; ``serve ...`` is added.
        port: where it listens in all its lives.
        code: exit code of the last life that is over; negative = the signal that ended it.
    """

    folder: Path
    command: Sequence[str]
    port: int = 0
    code: int = 0
    _process: asyncio.subprocess.Process | None = None
    _operator: httpx.AsyncClient | None = None
    _words: Any = field(default=None, repr=False)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    @property
    def database(self) -> Path:
        """The log."""
        return self.state / "log.db"

    def furnish(self, tool: str, more: str = "") -> None:
        """Write the configuration of a gateway before the tool at this URL; ``more`` stands at its end."""
        self.folder.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        for name in ("gateway.toml", "catalogue.toml"):
            text = (HERE / name).read_text("utf-8").replace("@PORT@", str(self.port)).replace("@TOOL@", tool)
            (self.folder / name).write_text(text + (more if name == "gateway.toml" else ""), "utf-8")

    async def begin(self) -> None:
        """Start a gateway, in a process group of its own; it is not ready yet."""
        command = [*self.command, "serve", "--config", str(self.folder / "gateway.toml"), "--json"]
        with (self.folder / "gateway.err").open("ab") as words:
            self._process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=words, cwd=ROOT, start_new_session=True
            )

    async def ready(self) -> None:
        """Wait until it takes calls.

        Raises:
            HouseError: it does not.
        """
        process = self._living()
        assert process.stdout is not None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
        said = json.loads(line or b"{}")
        if "admin_socket" not in said:
            words = (self.folder / "gateway.err").read_text("utf-8", "replace")[-2000:]
            raise HouseError(f"the gateway did not start again: {said}\n{words}")
        transport = httpx.AsyncHTTPTransport(uds=said["admin_socket"], verify=_NO_TLS)
        self._operator = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=_PATIENCE_S)

    @property
    def lives(self) -> bool:
        """Whether it was started and not killed since."""
        return self._process is not None

    async def kill(self) -> bool:
        """SIGKILL to the whole process group; whether that ended it, once nothing of it is left.

        Raises:
            HouseError: something is.
        """
        process = self._living()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self.code = await process.wait()
        deadline = time.monotonic() + _END_S
        while _lives(process.pid):
            if time.monotonic() > deadline:
                raise HouseError("a process of the gateway's group outlived SIGKILL")
            await asyncio.sleep(_LOOK_S)
        await self._gone()
        return self.code == -signal.SIGKILL

    def ask_to_end(self) -> None:
        """SIGTERM; it ends in its own time."""
        self._living().send_signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Wait for a clean end.

        Raises:
            HouseError: there was none.
        """
        process = self._living()
        async with asyncio.timeout(_PATIENCE_S):
            code = await process.wait()
        await self._gone()
        if code:
            raise HouseError(f"the gateway ended with exit code {code}")

    async def put_away(self) -> None:
        """End whatever still lives."""
        if self._process is not None:
            await self.kill()

    async def tokens(self, standing: int, opened: int) -> list[str]:
        """Tokens with runs of their own: the agent's standing ones, and those of runs that a person opened."""
        found = [str((await self._post("/v1/tokens", _HOLDER))["token"]) for _ in range(standing)]
        person = {"authorization": f"Bearer {(await self._post('/v1/tokens', _OPENER))['token']}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=person, verify=_NO_TLS) as http:
            for _ in range(opened):
                answer = await http.post("/v1/runs", json={"goal": "be killed", "agent": "clerk"})
                answer.raise_for_status()
                found.append(str(answer.json()["token"]))
        return found

    async def checkpoint(self) -> str:
        """The newest checkpoint, a signed note.

        Raises:
            httpx.HTTPError: the gateway is dead.
        """
        return (await self._get("/v1/audit/log/checkpoint")).text

    async def extension(self, old: Checkpoint, new: Checkpoint) -> list[str]:
        """The gateway's proof that one is the beginning of the other, hashes in base64.

        Raises:
            httpx.HTTPError: the gateway is dead.
        """
        answer = await self._get(f"/v1/audit/log/consistency?old={old.size}&new={new.size}")
        return [str(line) for line in answer.json()["proof"]]

    async def verified(self) -> dict[str, Any]:
        """What ``ostiary audit verify`` says of the files."""
        words = [*GATEWAY, "audit", "verify", "--state", str(self.state), "--json"]
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
        )
        said, words_of_it = await process.communicate()
        if process.returncode not in {0, 1} or not said:
            raise HouseError(f"verification did not run: {words_of_it.decode('utf-8', 'replace')[-2000:]}")
        document: dict[str, Any] = json.loads(said.splitlines()[-1])
        return document

    async def _get(self, path: str) -> httpx.Response:
        if self._operator is None:
            raise httpx.ConnectError("no gateway lives")
        answer = await self._operator.get(path)
        answer.raise_for_status()
        return answer

    async def _post(self, path: str, wish: dict[str, Any]) -> dict[str, Any]:
        assert self._operator is not None
        answer = await self._operator.post(path, json=wish)
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document

    async def _gone(self) -> None:
        self._process = None
        if self._operator is not None:
            operator, self._operator = self._operator, None
            await operator.aclose()

    def _living(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise HouseError("no gateway lives")
        return self._process


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True

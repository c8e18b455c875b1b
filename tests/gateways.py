"""A real gateway as a process of its own, and what a test asks it from outside."""

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx

from tests import forked
from tests.forked import Forked
from tests.log_schema import conforming

OSTIARY = (sys.executable, "-m", "gateway")
ROOT = Path(__file__).resolve().parent.parent
T = TypeVar("T")
_PATIENCE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.05
_PAGE = 1000
# Nothing here speaks TLS, and loading the system's certificates takes longer than most requests.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class Gateway:
    """A running gateway.

    Attributes:
        folder: with ``gateway.toml``, the state folder ``state`` and the gateway's own words in ``gateway.err``.
        process: the gateway itself.
        url: where it listens.
        http: asks as the operator, by the admin socket.
    """

    folder: Path
    process: "subprocess.Popen[bytes] | Forked"
    url: str
    http: httpx.Client = field(repr=False)

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / "state"

    def token(self, user: str = "dora", agent: str | None = None, **more: Any) -> str:
        """A token for ``user``, a person of the group ``desk``; ``more`` replaces members of the request."""
        wish = {"user": user, "groups": ["desk"], "scopes": ["tools"], "ttl_s": 600} | more
        if agent is not None:
            wish["agent"] = agent
        answer = self.http.post("/v1/tokens", json=wish)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    @contextmanager
    def client(self, token: str | None) -> Iterator[httpx.Client]:
        """An HTTP client that has the URL and ``token`` only."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=_PATIENCE_S, verify=NO_TLS) as client:
            yield client

    def call(self, token: str, tool: str, arguments: dict[str, Any] | None = None) -> httpx.Response:
        """Call ``server.tool`` over REST."""
        with self.client(token) as client:
            return client.post(f"/v1/tools/{tool}/call", json={"arguments": arguments or {}})

    def run(self, agent: str, user: str = "dora", **wish: Any) -> tuple[str, str]:
        """A run that ``user`` opens for ``agent`` with their own token: its id, and the run's token."""
        with self.client(self.token(user, scopes=["runs", "tools"])) as person:
            answer = person.post("/v1/runs", json={"goal": "a test", "agent": agent, **wish})
        assert answer.status_code == 201, answer.text
        return answer.json()["run"]["id"], answer.json()["token"]

    def size(self) -> int:
        """How many records the log has, by its newest signed checkpoint."""
        return int(self.http.get("/v1/audit/log/checkpoint").text.split("\n")[1])

    def records(self, **query: Any) -> list[dict[str, Any]]:
        """Records of the log, in order; ``after`` is the index of the last one that is not wanted."""
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": query.pop("after", -1)}
        while "next" in page:
            answer = self.http.get("/v1/audit/records", params={**query, "after": page["next"], "limit": _PAGE})
            page = answer.json()
            found += [conforming(row["record"]) for row in page["records"]]
        return found

    def ask(self, *words: str, token: str | None = None, code: int = 0) -> Any:
        """The JSON of ``ostiary WORDS --json``, asked by the admin socket; it must end with the exit code ``code``."""
        done = ostiary(*words, "--json", OSTIARY_STATE=str(self.state), **({"OSTIARY_TOKEN": token} if token else {}))
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def words(self) -> str:
        """What the gateway wrote for its operator."""
        return (self.folder / "gateway.err").read_text("utf-8")


def ostiary(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of ours to its end."""
    whole = {**os.environ, **environment}
    if forked.fit(whole):
        return forked.ended(words, whole, ROOT)
    return subprocess.run([*OSTIARY, *words], capture_output=True, text=True, env=whole, cwd=ROOT, check=False)


@contextmanager
def serving(folder: Path, *, program: Sequence[str] = OSTIARY, **environment: str) -> Iterator[Gateway]:
    """``ostiary serve`` on ``folder/gateway.toml``; ended by SIGTERM where the test has not ended it."""
    with (folder / "gateway.err").open("ab") as words:
        process = _started(program, folder, {**os.environ, **environment}, words)
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "gateway.err").read_text("utf-8")
        said = json.loads(line)
        assert "admin_socket" in said, said
        transport = httpx.HTTPTransport(uds=said["admin_socket"], verify=NO_TLS)
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=_PATIENCE_S) as operator:
            try:
                yield Gateway(folder, process, said["url"], operator)
            finally:
                if process.poll() is None:
                    process.terminate()
                try:
                    process.wait(_PATIENCE_S)
                finally:
                    process.kill()


def _started(
    program: Sequence[str], folder: Path, environment: dict[str, str], words: IO[bytes]
) -> "subprocess.Popen[bytes] | Forked":
    command = ["serve", "--config", str(folder / "gateway.toml"), "--json"]
    if program == OSTIARY and forked.fit(environment):
        return Forked(command, environment, ROOT, None, words)
    return subprocess.Popen([*program, *command], stdout=subprocess.PIPE, stderr=words, cwd=ROOT, env=environment)


def by_script(python: Path, script: Path, gateway: Gateway, token: str, *words: str) -> Any:
    """What ``script`` says last, in JSON: a process of another environment, that has URL, token and ``words`` only."""
    environment = {"PATH": os.defpath, "OSTIARY_URL": gateway.url, "OSTIARY_TOKEN": token}
    command = [str(python), str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=_PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def until(look: Callable[[], T], *, seconds: float = _PATIENCE_S) -> T:
    """What ``look`` finds as soon as it is true; fails at the deadline."""
    deadline, pause = time.monotonic() + seconds, _FIRST_PAUSE_S
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come true in time"
        # Most looks ask a server: what takes long is not kept from coming true by being asked after.
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
    return found


def types(records: Sequence[dict[str, Any]]) -> list[str]:
    """What happened, by record, without the starts of runs."""
    return [record["type"] for record in records if record["type"] != "run.started"]

"""Real issuers as processes of their own: Node programs, where npm could install them; a machine without says so."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateways import NO_TLS

SOURCE = Path(__file__).parent / "issuers"
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class RealIssuer:
    """A running issuer.

    Attributes:
        url: its identifier.
        process: the program.
    """

    url: str
    process: "subprocess.Popen[str]"

    def token(self, **form: str) -> str:
        """An access token by client credentials; ``form`` replaces members."""
        whole = {"grant_type": "client_credentials", "scope": "tools"} | form
        answer = httpx.post(f"{self.url}/token", data=whole, auth=("planner", "planner-s3cret"), verify=NO_TLS)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def mutated(self, header: dict[str, Any], payload: dict[str, Any]) -> str:
        """A token of the hostile issuer with these members laid over it; None takes one out."""
        return self.token(mutate=json.dumps({"header": header, "payload": payload}))

    def line(self) -> dict[str, Any]:
        """The next thing it says; what its library says beside it is passed over."""
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if line.startswith("{"))
        said: dict[str, Any] = json.loads(line)
        return said


@contextmanager
def running(folder: Path, script: str, *words: str, port: int = 0) -> Iterator[RealIssuer]:
    """``script`` of this folder, run in ``folder``; skips the test where Node or its packages are not there."""
    root = Path(os.environ.get("OSTIARY_VENVS") or Path(__file__).parents[2] / ".venvs")
    node, modules = shutil.which("node"), root / "issuers" / "node_modules"
    if node is None or not modules.is_dir():
        pytest.skip(f"{modules} is missing, or Node: identity providers are not tried (Debian: apt install npm)")
    folder.mkdir(exist_ok=True)
    shutil.copy(SOURCE / script, folder / script)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(modules)
    command = [node, script, str(port), *words]
    with (folder / f"{script}.err").open("ab") as words_said:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=words_said, text=True)
    with process:
        try:
            issuer = RealIssuer("", process)
            yield RealIssuer(issuer.line()["issuer"], process)
        finally:
            process.kill()
            process.wait(_PATIENCE_S)

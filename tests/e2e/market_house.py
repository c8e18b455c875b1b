"""One gateway before the reference servers of MCP, for all tests that look at real upstreams and real clients."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from gateway.core.approval import Verdict
from gateway.core.signing import approval_message
from tests import venvs
from tests.approval_world import Person
from tests.gateways import Gateway, serving

HERE = Path(__file__).parent / "market"
PAGE = "Everything here is fresh.\n"


@dataclass(frozen=True)
class Market:
    """The gateway and what stands behind it.

    Attributes:
        gateway: the gateway.
        site: address of a web site that has the page ``PAGE`` as ``/page.txt``.
        modules: the folder of the npm packages; None where they are not installed.
        reviewer: may sign what waits for people.
    """

    gateway: Gateway
    site: str
    modules: Path | None
    reviewer: Person

    @property
    def folder(self) -> Path:
        """What the servers work on: ``files``, ``repository``, ``books.sqlite``."""
        return self.gateway.folder

    def titles(self) -> list[str]:
        """The books, read past the gateway."""
        with contextlib.closing(sqlite3.connect(self.folder / "books.sqlite")) as database:
            return [title for (title,) in database.execute("SELECT title FROM books")]

    def waiting(self, run_id: str) -> list[str]:
        """The approvals that calls of the run have asked for."""
        asked = self.gateway.records(run_id=run_id, type="approval.requested")
        return [record["body"]["approval"] for record in asked]

    def sign(self, approval_id: str) -> None:
        """Approve over REST, with the reviewer's own key."""
        place = f"/v1/approvals/{approval_id}"
        statement = self.gateway.http.get(place).json()["statement"]
        signature = self.reviewer.private.sign(approval_message(statement, Verdict.APPROVE, None))
        word = {"verdict": "approve", "key_id": self.reviewer.key_id, "signature": signature.hex()}
        answer = self.gateway.http.post(f"{place}/decision", json=word)
        assert answer.status_code == 200, answer.text


def npm_modules() -> tuple[str, Path] | None:
    """Node, and the folder of the npm packages; None where one is missing."""
    root = Path(os.environ.get("OSTIARY_VENVS") or Path(__file__).parents[2] / ".venvs")
    node, modules = shutil.which("node"), root / "typescript" / "node_modules"
    return (node, modules) if node is not None and modules.is_dir() else None


def furnish(folder: Path, npm: tuple[str, Path] | None) -> None:
    """Write configuration and policy into ``folder``, and what the servers work on."""
    text = (HERE / "gateway.toml").read_text("utf-8")
    places = {"MCP1": venvs.python("mcp1").parent, "SERVERS": venvs.python("servers").parent, "FOLDER": folder}
    if npm is not None:
        text += (HERE / "npm.toml").read_text("utf-8")
        places |= {"NODE": Path(npm[0]), "MODULES": npm[1]}
    for name, value in places.items():
        text = text.replace(f"@{name}@", str(value))
    (folder / "gateway.toml").write_text(text, "utf-8")
    shutil.copytree(HERE / "policy", folder / "policy")
    (folder / "files").mkdir()
    (folder / "files" / "prices.txt").write_text("apples 3\npears 4\n")
    with contextlib.closing(sqlite3.connect(folder / "books.sqlite")) as database, database:
        database.execute("CREATE TABLE books (title TEXT)")
        database.execute("INSERT INTO books VALUES ('The Door')")
    work = folder / "repository"
    author = ("-c", "user.name=a test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "init", "--quiet", work], check=True)
    (work / "staged.txt").write_text("not committed yet\n")
    subprocess.run(["git", *author, "-C", work, "commit", "--quiet", "--allow-empty", "-m", "the first"], check=True)
    subprocess.run(["git", "-C", work, "add", "staged.txt"], check=True)


class Pages(SimpleHTTPRequestHandler):
    """A web site that says nothing to its operator."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def web_site(folder: Path) -> Iterator[str]:
    """A web site on loopback with one page; yields its address."""
    folder.mkdir()
    (folder / "page.txt").write_text(PAGE)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Market]:
    """One gateway before all reference servers that can be had here."""
    folder, npm, reviewer = tmp_path_factory.mktemp("market"), npm_modules(), Person("vera")
    furnish(folder, npm)
    with web_site(folder / "site") as site, serving(folder) as gateway:
        wish = {"public": reviewer.public.hex(), "person": "vera", "roles": [], "accounts": [], "nonce": "00" * 32}
        enrolled = gateway.http.post("/v1/reviewers", json=wish)
        assert enrolled.status_code in {200, 201}, enrolled.text
        yield Market(gateway, site, npm and npm[1], reviewer)
    assert gateway.process.returncode == 0
    assert "Traceback" not in gateway.words()

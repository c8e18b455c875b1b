"""Makes docs/sample-export: a gateway, an agent's short run, a treasurer's signature, and the export of it.

Everything in it is made up; the keys it is signed with are gone when this ends.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from deploy.demo import command
from deploy.demo.command import OSTIARY, ROOT

HERE = Path(__file__).resolve().parent
PLACE = ROOT / "docs" / "sample-export"
_TABLES = (
    "CREATE TABLE orders (number text PRIMARY KEY, vendor text, total bigint, currency text)",
    "CREATE TABLE transfers (iban text, amount bigint, currency text, reference text)",
    "CREATE TABLE closed (year bigint)",
    "INSERT INTO orders VALUES ('PO-1001', 'Nordwind GmbH', 400000, 'EUR')",
)
_WHO = ("--user", "clerk", "--group", "accounts-payable", "--scope", "runs", "--scope", "tools")
_PAYMENT = {"iban": "DE02120300000000202051", "amount": 400000, "currency": "EUR", "reference": "PO-1001"}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A gateway on ``folder``; its URL."""
    for name in ("gateway.toml", "catalogue.toml"):
        shutil.copy(HERE / name, folder)
    with closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        for statement in _TABLES:
            database.execute(statement)
    words = [*OSTIARY, "serve", "--config", str(folder / "gateway.toml"), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT) as gateway:  # noqa: S603 - our own command
        try:
            line = gateway.stdout.readline() if gateway.stdout else b""
            yield json.loads(line)["url"]
        finally:
            gateway.terminate()


def call(url: str, token: str, tool: str, arguments: dict[str, Any]) -> Any:
    """An agent's call; what it was told."""
    words = ["tool", "call", tool, "--url", url, "--arguments", json.dumps(arguments)]
    return command.run(*words, OSTIARY_TOKEN=token).document


def worked(folder: Path, url: str) -> str:
    """The run: an order is read, a payment waits for the treasurer and is made, two things are refused; its id."""
    state, key = folder / "state", str(folder / "vera.pem")
    command.ask("reviewer", "keygen", "--key", key)
    command.ask("reviewer", "enrol", "--person", "vera.lind", "--role", "treasurer", "--key", key, state=state)
    person = command.ask("token", "issue", *_WHO, "--ttl", "900", state=state)["token"]
    wish = ["--goal", "Pay order PO-1001 of Nordwind GmbH", "--agent", "ap-agent", "--budget", "calls=20"]
    run = command.ask("run", "open", "--url", url, *wish, OSTIARY_TOKEN=person)
    agent = run["token"]
    call(url, agent, "erp.find_order", {"number": "PO-1001"})
    waits = call(url, agent, "pay.transfer", _PAYMENT)["approval_id"]
    command.ask("approve", waits, "--yes", "--key", key, state=state)
    while command.ask("approval", "show", waits, state=state)["state"] in {"approved", "executing"}:
        pass  # it is carried out now; each question takes a moment
    waits = call(url, agent, "pay.transfer", {**_PAYMENT, "iban": "GB29NWBK60161331926819"})["approval_id"]
    command.ask("reject", waits, "--reason", "Nordwind has no account there", "--key", key, state=state)
    call(url, agent, "erp.close_year", {"year": 2026})
    command.ask("run", "end", run["run_id"], "--url", url, OSTIARY_TOKEN=person)
    return str(run["run_id"])


def main() -> int:
    """Make the sample anew; the exit code."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with served(folder) as url:
            run = worked(folder, url)
            output = folder / "sample-export"
            words = ["--run", run, "--payloads", "-o", str(output)]
            said = command.ask("audit", "export", *words, state=folder / "state")
        shutil.rmtree(PLACE, ignore_errors=True)
        shutil.copytree(output, PLACE)
        PLACE.chmod(0o755)
        (PLACE.parent / "sample-export.vkey").write_text(said["vkey"] + "\n", "ascii")
    sys.stdout.write(f"{PLACE.relative_to(ROOT)}: {said['records']} records, run {run}, key {said['vkey']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``make demo``: a gateway with a real MCP server, a database and an HTTP API; an agent that behaves, and misbehaves.

Everything runs on loopback in a temporary folder and is gone afterwards. With ``CI=true`` any step that ends otherwise
than expected makes the exit code 1.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OSTIARY = ROOT / ".venv" / "bin" / "ostiary"
VENVS = Path(os.environ.get("OSTIARY_VENVS", ROOT / ".venvs"))
VENDOR_KEY = "vk-demo-9f31c6a2d84b"

# Step -> how it must end. Anything else is a finding.
EXPECTED = {
    "list the tools": "listed",
    "read an order": "completed",
    "read the clock": "completed",
    "look a vendor up": "completed",
    "stage an invoice": "completed",
    "stage another": "completed",
    "go over 5,000.00 in the run": "denied",
    "a tool it may see, not use so": "denied",
    "a tool outside its scope": "protocol error -32602",
    "a tool that does not exist": "protocol error -32602",
    "a wrong type": "invalid_arguments",
    "an unknown argument": "invalid_arguments",
    "the same key twice": "malformed_request",
    "not a number": "malformed_request",
    "broken JSON": "malformed_request",
    "SQL in an argument": "completed",
    "vendor look-up 2": "completed",
    "vendor look-up 3": "completed",
    "vendor look-up 4": "throttled",
    "a forged token": "unauthenticated",
}


def main() -> int:
    """Run the demo; 0 when everything ended as expected."""
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="ostiary-demo-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        console.print(Panel("Every tool call goes through one door: [bold]Ostiary[/bold]", expand=False))
        served = stack.enter_context(gateway(console, folder, stack.enter_context(vendor_api(console))))
        run = open_run(console, folder, served["url"])
        steps = act(console, served["url"], run["token"])
        findings = judge(steps)
        findings += show_run(console, folder, run)
        stack.close()
        findings += verify(console, folder)
    for finding in findings:
        console.print(f"[red]✗ {finding}[/red]")
    if not findings:
        console.print("[green]✓[/green] All as expected. Nothing was executed that policy did not allow.")
    return 1 if findings else 0


@contextlib.contextmanager
def vendor_api(console: Console) -> Iterator[int]:
    """The HTTP API on a free port."""
    console.print("[dim]starting[/dim] a local HTTP API")
    code = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"
    port = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    command = [sys.executable, str(HERE / "vendor_api.py"), str(port)]
    process = subprocess.Popen(command, env={**os.environ, "VENDOR_KEY": VENDOR_KEY})
    try:
        yield port
    finally:
        end(process)


@contextlib.contextmanager
def gateway(console: Console, folder: Path, vendor_port: int) -> Iterator[dict[str, Any]]:
    """A gateway with its own state, as an operator would start one; yields what it says of itself."""
    world(folder, vendor_port)
    console.print("[dim]starting[/dim] the gateway, a SQLite database and a real MCP server (mcp-server-time)")
    command = [str(OSTIARY), "serve", "--config", str(folder / "gateway.toml"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "VENDOR_KEY": VENDOR_KEY})
    try:
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise SystemExit("the gateway did not start; its words are above")
        served: dict[str, Any] = json.loads(line)
        console.print(f"[dim]listening[/dim] {served['mcp_url']}")
        yield served
    finally:
        end(process)


def world(folder: Path, vendor_port: int) -> None:
    """Write the configuration and fill the database."""
    text = (HERE / "gateway.toml").read_text("utf-8")
    python = VENVS / "servers" / "bin" / "python"
    text = text.replace("@VENDOR_PORT@", str(vendor_port)).replace("@SERVERS_PYTHON@", str(python))
    (folder / "gateway.toml").write_text(text, "utf-8")
    shutil.copy(HERE / "catalogue.toml", folder)
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        database.execute(
            "CREATE TABLE orders (number TEXT PRIMARY KEY, vendor TEXT, total INT, currency TEXT, placed TEXT)"
        )
        database.execute(
            "CREATE TABLE staging (invoice TEXT PRIMARY KEY, order_number TEXT, amount INT, currency TEXT)"
        )
        database.execute("INSERT INTO orders VALUES ('PO-1001', 'V-7', 400000, 'EUR', '2026-03-02')")


def open_run(console: Console, folder: Path, url: str) -> dict[str, Any]:
    """A person opens a run with a goal; the agent gets nothing but the run's token."""
    who = ["--user", "clerk", "--group", "accounts-payable", "--scope", "runs", "--scope", "tools"]
    person = ostiary(folder, "token", "issue", *who, "--ttl", "600")["token"]
    goal = "Stage the invoices of Alpine Paper against order PO-1001"
    options = ["--url", url, "--token", person, "--goal", goal, "--agent", "ap-agent"]
    opened = ostiary(None, "run", "open", *options)
    console.print(f"[dim]run opened by[/dim] clerk: {goal}\n")
    return opened


def act(console: Console, url: str, token: str) -> list[dict[str, Any]]:
    """Let the agent work; show each step as it comes."""
    command = [str(VENVS / "servers" / "bin" / "python"), str(HERE / "agent.py")]
    environment = {"PATH": os.environ["PATH"], "OSTIARY_URL": url, "OSTIARY_TOKEN": token}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    steps = []
    for line in process.stdout or ():
        step = json.loads(line)
        steps.append(step)
        show(console, step)
    if process.wait(timeout=60) != 0:
        steps.append({"step": "the agent's exit", "outcome": "crashed", "surface": "", "tool": "", "said": ""})
    return steps


def show(console: Console, step: dict[str, Any]) -> None:
    """One step: what was tried, how it ended, what the agent was told."""
    mark, colour = ("✓", "green") if step["outcome"] in {"completed", "listed"} else ("■", "yellow")
    console.print(f"[{colour}]{mark}[/] {step['step']:<32} [{colour}]{step['outcome']}[/]")
    told = Text(f"  {step['surface']} {step['tool']}: {words(step)}", style="dim")
    told.truncate(console.width - 1, overflow="ellipsis")
    console.print(told)


def words(step: dict[str, Any]) -> str:
    """What the agent read, in short."""
    said = step["said"]
    if isinstance(said, dict) and said.get("reasons"):
        reason = said["reasons"][0]
        return f"{reason['id']}: {reason['msg']}"
    if isinstance(said, dict) and "detail" in said:
        return str(said["detail"])
    if isinstance(said, dict) and "message" in said:
        return str(said["message"])
    return said if isinstance(said, str) else json.dumps(said)


def judge(steps: list[dict[str, Any]]) -> list[str]:
    """What did not end as expected, and any secret an agent got to see."""
    ended = {step["step"]: step["outcome"] for step in steps}
    findings = [
        f"{step}: expected {EXPECTED.get(step)}, got {ended.get(step)}"
        for step in EXPECTED.keys() | ended.keys()
        if EXPECTED.get(step) != ended.get(step)
    ]
    if VENDOR_KEY in json.dumps(steps):
        findings.append("the vendor key reached the agent")
    injected: Any = next((step["said"] for step in steps if step["step"] == "SQL in an argument"), {})
    if injected != {"rows": [], "row_count": 0}:
        findings.append(f"SQL in an argument did something: {injected}")
    return findings


def show_run(console: Console, folder: Path, run: dict[str, Any]) -> list[str]:
    """The run's timeline from the signed log, as an operator sees it."""
    records = ostiary(folder, "audit", "run", run["run_id"])["records"]
    count = {kind: sum(record["type"] == kind for record in records) for kind in sorted({r["type"] for r in records})}
    console.print("\n[bold]The signed log of this run[/bold]: " + ", ".join(f"{n} {kind}" for kind, n in count.items()))
    intents, ends = count.get("tool.requested", 0), count.get("tool.completed", 0)
    console.print(f"every upstream call has its own earlier durable intent: {intents} intents, {ends} completions")
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database:
        staged = database.execute("SELECT invoice, amount FROM staging ORDER BY invoice").fetchall()
        orders = database.execute("SELECT count(*) FROM orders").fetchone()[0]
    console.print(f"in the database: staged {staged}, orders left {orders}\n")
    good = staged == [("INV-1", 180_000), ("INV-2", 220_000)] and orders == 1 and intents == ends
    return [] if good else [f"the world is not as the log says: {staged}, {orders} orders, {count}"]


def verify(console: Console, folder: Path) -> list[str]:
    """A separate process checks the whole log; then one byte of a copy is flipped and must be found."""
    whole = ostiary_code(folder / "state")
    console.print(
        f"[bold]audit verify[/bold] (separate process, gateway stopped): {'sound' if whole[0] == 0 else whole[1]}"
    )
    broken = folder / "broken"
    shutil.copytree(folder / "state", broken)
    with contextlib.closing(sqlite3.connect(broken / "log.db")) as database, database:
        index, leaf = database.execute("SELECT idx, leaf FROM records ORDER BY idx DESC LIMIT 1 OFFSET 3").fetchone()
        flipped = bytearray(leaf)
        flipped[len(flipped) // 2] ^= 1
        database.execute("UPDATE records SET leaf = ? WHERE idx = ?", (bytes(flipped), index))
    found = ostiary_code(broken)
    console.print(
        f"one bit of record {index} flipped: {found[1].strip().splitlines()[0] if found[0] else 'NOT FOUND'}\n"
    )
    findings = [] if whole[0] == 0 else ["the log does not verify"]
    if found[0] == 0 or str(index) not in found[1]:
        findings.append("a flipped bit was not found")
    return findings


def ostiary(folder: Path | None, *words: str) -> dict[str, Any]:
    """A command of ours with ``--json``; its last line."""
    state = ["--state", str(folder / "state")] if folder else []
    done = subprocess.run([str(OSTIARY), *words, *state, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"ostiary {' '.join(words)}: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def ostiary_code(state: Path) -> tuple[int, str]:
    """``audit verify`` of a state folder: exit code and words."""
    command = [str(OSTIARY), "audit", "verify", "--state", str(state)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a server to end, and insist after a while."""
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())

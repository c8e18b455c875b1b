"""The PostgreSQL connector on a real server: logins, types, and every way a session can end."""

import logging
import resource
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import structs

from connectors.sql.postgres import PostgresConnector, check, target
from deploy.servers.erp import Erp
from deploy.servers.postgres import Postgres, postgres
from deploy.servers.process import short_folder
from gateway.core.call import Login
from gateway.core.errors import GatewayError, NotSent, OutcomeUnknown, ToolFailed, Unavailable
from gateway.core.tool import EffectClass, ToolLimits
from tests.evidence import lease, make_tool
from tests.fakes.relay import Relay, relaying
from tests.sql_shops import PASSWORD, Shop, insert, postgres_shop, sql_tool
from tests.waiting import until


@pytest.fixture
async def shop(real_erp: Erp) -> AsyncIterator[Shop]:
    """The shop in PostgreSQL."""
    async with postgres_shop(real_erp.postgres) as found:
        yield found


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that a test may end."""
    with postgres() as server:
        yield server


async def failure(shop: Shop, which: Any, arguments: Any = None) -> GatewayError:
    """How a call fails."""
    with pytest.raises(GatewayError) as caught:
        await shop.call(which, arguments)
    return caught.value


async def test_values_keep_their_meaning_in_json(shop: Shop) -> None:
    """Numerics and times are text, booleans booleans, arrays lists; UUIDs, addresses and JSON documents are text."""
    statement = """SELECT true AS flag, 12.50::numeric AS amount, 'NaN'::numeric AS nan, date '2026-01-31' AS day,
        timestamptz '2026-01-31 12:00+00' AS at, timestamp '2026-01-31 12:00' AS local, time '12:30' AS clock,
        ARRAY[1, NULL, 9007199254740993] AS list, '{"a": 1}'::jsonb AS document,
        'c0ffee00-0000-4000-8000-000000000000'::uuid AS id, inet '10.0.0.1' AS address, 'x'::char(3) AS padded"""
    found = await shop.call(sql_tool(statement))
    assert found.value["structuredContent"]["rows"] == [
        {
            "flag": True,
            "amount": "12.50",
            "nan": "NaN",
            "day": "2026-01-31",
            "at": "2026-01-31T12:00:00+00:00",
            "local": "2026-01-31T12:00:00",
            "clock": "12:30:00",
            "list": [1, None, "9007199254740993"],
            "document": '{"a": 1}',
            "id": "c0ffee00-0000-4000-8000-000000000000",
            "address": "10.0.0.1",
            "padded": "x  ",
        }
    ]


@pytest.mark.parametrize("kind", ["bytea", "interval", "point", "int4range"])
async def test_types_without_json_form_are_refused(shop: Shop, kind: str) -> None:
    """The statement casts them to text; a NULL of them is null."""
    values = {"bytea": r"\x00", "interval": "1 day", "point": "(1,2)", "int4range": "[1,2)"}
    assert isinstance(await failure(shop, sql_tool(f"SELECT '{values[kind]}'::{kind} AS a")), ToolFailed)
    found = await shop.call(sql_tool(f"SELECT NULL::{kind} AS a, '{values[kind]}'::{kind}::text AS b"))
    assert found.value["structuredContent"]["rows"][0]["a"] is None


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("bool", True, True),
        ("int", 7, 7),
        ("bigint", "9007199254740993", "9007199254740993"),
        ("float8", 1, 1.0),
        ("numeric", "12.5", "12.5"),
        ("numeric", 3, "3"),
        ("text", "7", "7"),
        ("text", 7, "7"),
        ("varchar", "ü", "ü"),
        ("date", "2026-01-31", "2026-01-31"),
        ("timestamp", "2026-01-31T10:00:00", "2026-01-31T10:00:00"),
        ("timestamptz", "2026-01-31T10:00:00Z", "2026-01-31T10:00:00+00:00"),
        ("time", "10:00", "10:00:00"),
        ("uuid", "c0ffee00-0000-4000-8000-000000000000", "c0ffee00-0000-4000-8000-000000000000"),
        ("jsonb", '{"a": 1}', '{"a": 1}'),
        ("date", None, None),
    ],
)
async def test_arguments_become_what_the_parameter_is(shop: Shop, kind: str, value: Any, shown: Any) -> None:
    """JSON has no dates or decimals: their text is bound as the type the statement asks for."""
    found = await shop.call(sql_tool(f"SELECT CAST(:a AS {kind}) AS a", "a"), {"a": value})
    assert found.value["structuredContent"]["rows"] == [{"a": shown}]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("bool", 2),
        ("int", 1.5),
        ("int", "one"),
        ("int", 2**40),
        ("numeric", "a lot"),
        ("float8", "1"),
        ("date", "31.1.2026"),
        ("timestamp", "2026-01-31T10:00:00Z"),
        ("timestamptz", "2026-01-31T10:00:00"),
        ("uuid", "none"),
    ],
)
async def test_arguments_that_are_no_such_value_change_nothing(shop: Shop, kind: str, value: Any) -> None:
    """Refused here or by the server; never silently something else."""
    error = await failure(shop, sql_tool(f"SELECT CAST(:a AS {kind}) AS a", "a"), {"a": value})
    assert isinstance(error, ToolFailed)


async def test_changed_rows_are_said_where_postgresql_says_them(shop: Shop) -> None:
    """A data-changing CTE under a SELECT does not say; under a change it does."""
    found = await shop.call(
        sql_tool("WITH x AS (UPDATE orders SET total = 1 RETURNING id) SELECT id FROM x", mode="write")
    )
    assert (found.value["structuredContent"]["row_count"], found.value["structuredContent"]["changed"]) == (2, None)
    found = await shop.call(
        sql_tool("WITH x AS (SELECT 1 AS i) UPDATE orders SET total = 2 WHERE id IN (SELECT i FROM x)", mode="write")
    )
    assert found.value["structuredContent"]["changed"] == 1


async def test_a_read_cannot_make_itself_a_write(shop: Shop) -> None:
    """The transaction is READ ONLY, and stays so."""
    for statement in (
        "SELECT set_config('transaction_read_only', 'off', true) AS a",
        "SELECT nextval('lines_id_seq') AS a",
    ):
        assert isinstance(await failure(shop, sql_tool(statement)), ToolFailed)


async def test_no_session_outlives_its_call(shop: Shop) -> None:
    """Whether it ended well, failed or was left."""
    await shop.call(sql_tool("SELECT 1 AS a"))
    await failure(shop, sql_tool("SELECT a FROM nowhere"))
    with anyio.move_on_after(0.1):
        await shop.call(sql_tool("SELECT 1 AS a FROM pg_sleep(600)"))
    count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'shopper' AND datname = current_database()"
    await until(lambda: shop.rows(count) == [(0,)])
    assert shop.rows("SELECT count(*) FROM orders") == [(2,)]


@pytest.mark.requirement("CRED-3")
async def test_a_wrong_password_is_not_sent_and_stands_nowhere(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """Refused by scram; neither password nor address is in the error, its causes, its traceback or the debug log."""
    caplog.set_level(logging.DEBUG)
    for login in (Login("shopper", "wrongPassword7531"), Login("nobodyAtAll", "wrongPassword7531")):
        error = await failure(replace(shop, login=login), sql_tool("SELECT 1 AS a"))
        assert isinstance(error, NotSent)
        assert error.cause_code == "login_refused"
        words = "".join(traceback.format_exception(error)) + caplog.text + error.detail + repr(error)
        assert "wrongPassword7531" not in words
        assert "postgresql:" not in error.detail


async def test_without_a_login_nothing_is_tried(shop: Shop) -> None:
    """A call without a minted user is a fault of the gateway, not a log-in as somebody else."""
    error = await failure(replace(shop, login=None), sql_tool("SELECT 1 AS a"))
    assert (type(error), error.cause_code) == (NotSent, "no_login")


async def test_a_server_that_is_not_there_is_not_reached(tmp_path: Path) -> None:
    """No socket, no such port, something else behind it: not sent, not ready."""
    (tmp_path / ".s.PGSQL.5432").write_text("no socket")
    for url in (f"postgresql:///x?host={tmp_path}", "postgresql:///x?host=/nowhere", "postgresql://127.0.0.1:1/x"):
        async with PostgresConnector(target(url)) as connector:
            call = structs.replace(lease(sql_tool("SELECT 1 AS a")), login=Login("a", PASSWORD))
            with pytest.raises(NotSent) as caught:
                await connector.invoke(call)
            assert caught.value.cause_code == "upstream_down"
            with pytest.raises(Unavailable):
                await connector.ping()


@pytest.mark.parametrize("mode", ["read", "write"])
async def test_a_server_that_dies_in_the_middle_changed_nothing(own_server: Postgres, mode: str) -> None:
    """COMMIT was never sent, so it is certain: failed, not unknown."""
    sleep = "SELECT 1 AS a FROM pg_sleep(600)"
    which = sql_tool(sleep) if mode == "read" else sql_tool(f"UPDATE orders SET big = ({sleep})", mode="write")
    async with PostgresConnector(target(own_server.url)) as connector:
        own_server.run(f"CREATE ROLE shopper LOGIN SUPERUSER PASSWORD '{PASSWORD}'", "CREATE TABLE orders (big int)")
        own_server.run("INSERT INTO orders VALUES (1)")
        ended: list[GatewayError] = []

        async def call() -> None:
            with pytest.raises(GatewayError) as caught:
                await connector.invoke(structs.replace(lease(which), login=Login("shopper", PASSWORD)))
            ended.append(caught.value)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(call)
                sleeping = (
                    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active'"
                )
                await until(lambda: own_server.run(sleeping)[0] == [(2,)])  # this look is one of them
                own_server.process.kill()
        assert (type(ended[0]), ended[0].cause_code) == (ToolFailed, "connection_lost")
        with pytest.raises(Unavailable):
            await connector.ping()


async def test_a_commit_that_is_not_answered_leaves_the_outcome_unknown(real_erp: Erp) -> None:
    """The connection is cut between COMMIT and its answer; here the row is there."""
    async with postgres_shop(real_erp.postgres) as shop:
        with short_folder("ostiary-relay-") as folder:
            server = real_erp.postgres.folder / ".s.PGSQL.5432"
            with relaying(folder / ".s.PGSQL.5432", server) as relay:
                error = await _cut_at_commit(shop, folder, relay)
        assert (type(error), error.cause_code) == (OutcomeUnknown, "commit")
        # The client is cut before the server hears of it.
        await until(lambda: shop.rows("SELECT sku FROM lines") == [("cut",)])


async def _cut_at_commit(shop: Shop, folder: Path, relay: Relay) -> GatewayError:
    database = shop.rows("SELECT current_database()")[0][0]
    async with PostgresConnector(target(f"postgresql:///{database}?host={folder}")) as connector:
        relay.cut = b"COMMIT"
        return await failure(replace(shop, connector=connector), insert(), {"order_id": 1, "sku": "cut"})


async def test_a_deadlock_or_lock_timeout_is_safe_to_repeat(shop: Shop) -> None:
    """The server undid it: nothing happened."""
    which = sql_tool("SELECT pg_terminate_backend(pg_backend_pid()) AS a")
    assert (await failure(shop, which)).cause_code == "connection_lost"
    raising = "SELECT raise_it() AS a"
    shop.rows(
        "CREATE FUNCTION raise_it() RETURNS int LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40P01'; END$$"
    )
    assert isinstance(await failure(shop, sql_tool(raising)), NotSent)


async def test_statements_are_planned_without_being_run(shop: Shop) -> None:
    """What is wrong with a statement, by the server's words; a wrong login is said, too."""
    connector = shop.connector
    assert isinstance(connector, PostgresConnector)
    login = Login("shopper", PASSWORD)
    assert await connector.plan(login, insert()) is None
    assert await connector.plan(login, sql_tool("SELECT a FROM nowhere")) == 'relation "nowhere" does not exist'
    assert await connector.plan(Login("shopper", "wrongPassword"), insert()) == "28P01"
    async with PostgresConnector(target("postgresql:///x?host=/nowhere")) as away:
        assert await away.plan(login, insert()) == "no connection"
    assert shop.rows("SELECT count(*) FROM lines") == [(0,)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user@host/x",
        "postgresql:///x",
        "postgresql://host",
        "postgresql://host/x?sslmode=disable",
        "postgresql://host/x/y",
        "mysql://host/x",
        "postgresql://host:port/x",
    ],
)
def test_urls_that_name_no_database_or_hold_a_user_are_refused(url: str) -> None:
    """Users are minted, never configured; TLS is not switched off in passing."""
    with pytest.raises(ValueError, match=r"PostgreSQL|Port"):
        target(url)


def test_beyond_loopback_the_certificate_is_verified() -> None:
    """Unless the operator says otherwise, or it is on this machine."""
    far = target("postgresql://db.example.org/x")
    assert far.tls is not None
    assert far.tls.check_hostname
    assert far.port == 5432
    assert target("postgresql://db.example.org:6432/x", insecure=True).tls is None
    assert target("postgresql://127.0.0.1/x").tls is None
    assert target("postgresql:///x?host=/run/pg&port=6432").port == 6432


@pytest.mark.parametrize(
    ("statement", "parameters", "words"),
    [
        ("SELECT id FROM orders WHERE id = :id", ["id"], None),
        ("SELECT :a AS a", [], "has :a, which is no parameter"),
        ("SELECT 1 AS a", ["a"], "'a' is not in the statement"),
        ("SELECT $1 AS a", [], "written :name"),
        ("SELECT 'a", [], "no end"),
        ("DROP TABLE orders", [], "starts with one of"),
    ],
)
def test_check_finds_bad_statements_without_a_database(
    statement: str, parameters: list[str], words: str | None
) -> None:
    """Held against parameters and schema when the catalogue is loaded."""
    found = check(sql_tool(statement, *parameters))
    assert found == [] if words is None else words in " ".join(found)


def test_check_holds_the_binding_against_the_effect() -> None:
    """A read that says it writes."""
    loose = make_tool("sql", effect=EffectClass.WRITE, schema={"properties": {}}, binding={"statement": "SELECT 1"})
    assert "effect class write" in " ".join(check(loose))


async def test_a_broken_statement_of_a_tool_is_not_sent(shop: Shop) -> None:
    """Whatever the catalogue let through."""
    error = await failure(shop, sql_tool("SELECT $1 AS a", limits=ToolLimits(timeout_s=5)))
    assert (type(error), error.cause_code) == (NotSent, "binding")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int4", "1_000"),
        ("int4", "\u0661\u0662"),
        ("int8", " 7 "),
        ("int8", "+7"),
        ("int8", "007"),
        ("numeric", "NaN"),
        ("numeric", "Infinity"),
        ("numeric", "1_0.5"),
        ("numeric", "1e3"),
        ("numeric", " 1.5"),
        ("numeric", "\u0661.5"),
        ("date", "2026-W53-4"),
        ("date", "20260131"),
        ("date", "infinity"),
        ("timestamp", "20260131T120000"),
        ("timestamptz", "2026-01-31T12:00:00.123456789Z"),
        ("time", "T12:00"),
    ],
)
async def test_what_reads_as_something_else_is_no_value(shop: Shop, kind: str, text: str) -> None:
    """What policy read is what is sent: no second spelling of a number or a day gets through."""
    tool = sql_tool(f"SELECT (:a::{kind})::text AS a", "a")
    error = await failure(shop, tool, {"a": text})
    assert (type(error), error.cause_code) == (NotSent, "argument")


@pytest.mark.parametrize(("rows", "max_rows"), [(60, 1), (60, 1000), (1, 1000)])
async def test_what_is_too_much_is_refused_before_it_is_in_memory(shop: Shop, rows: int, max_rows: int) -> None:
    """Values of 30 MB where one may be returned: the session is ended at the byte that is too many."""
    statement = f"SELECT repeat('x', 30000000) AS a FROM generate_series(1, {rows})"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = await failure(shop, sql_tool(statement, max_rows=max_rows, limits=ToolLimits(timeout_s=60)))
    assert (type(error), error.cause_code) == (ToolFailed, "output_size")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


async def test_what_fits_in_a_result_is_never_too_long_on_the_wire(shop: Shop) -> None:
    """Short numbers, nulls and empty texts, which the wire spells at length, up to the very bound of the result."""
    room = ToolLimits(timeout_s=60, max_output_bytes=200_000)
    for item, length in (("1::bigint", 4), ("NULL::bigint", 10), ("''::text", 8), ("0::numeric", 10), ("1::float8", 8)):
        statement = f"SELECT array_agg({item}) AS a FROM generate_series(1, {190_000 // length})"
        found = await shop.call(sql_tool(statement, limits=room))
        assert len(found.body) > 150_000, item
    narrow = "SELECT 1::bigint AS a FROM generate_series(1, :n)"
    assert len((await shop.call(sql_tool(narrow, "n", max_rows=9999, limits=room), {"n": 9999})).body) > 150_000


async def test_a_write_that_returns_too_much_is_undone(shop: Shop) -> None:
    """It is ended before COMMIT."""
    statement = "UPDATE orders SET city = 'gone' RETURNING repeat('x', 30000000) AS a"
    error = await failure(shop, sql_tool(statement, mode="write", limits=ToolLimits(timeout_s=60)))
    assert (type(error), error.cause_code) == (ToolFailed, "output_size")
    assert shop.rows("SELECT count(*) FROM orders WHERE city = 'gone'") == [(0,)]

"""The SQL connector on real SQLite files."""

import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from connectors.sql import SqliteConnector, check
from gateway.core.call import Raw
from gateway.core.errors import NotSent, OutcomeUnknown, ToolFailed, Unavailable
from gateway.core.tool import ConnectorKind, EffectClass, Tool, ToolLimits
from gateway.core.verify import Verifier
from tests.evidence import lease, make_tool

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS top FROM n"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A small database."""
    path = tmp_path / "shop #1?.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(
            """
            CREATE TABLE orders (id INTEGER PRIMARY KEY, city TEXT, total REAL, big INTEGER, raw BLOB);
            INSERT INTO orders VALUES (1, 'Bern', 9.5, 9007199254740993, NULL), (2, 'Zürich', NULL, 1, x'00ff');
            CREATE TABLE lines (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL
                REFERENCES orders(id) DEFERRABLE INITIALLY DEFERRED, sku TEXT UNIQUE);
            """
        )
    return path


@pytest.fixture
async def shop(database: Path) -> AsyncIterator[SqliteConnector]:
    """The connector on it."""
    async with SqliteConnector(database, busy_s=0.05) as connector:
        yield connector


@pytest.fixture
def rows(database: Path) -> Iterator[sqlite3.Connection]:
    """Another process's look at the database."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        yield connection


def tool(statement: str, *parameters: Any, mode: str = "read", limits: ToolLimits | None = None, **more: Any) -> Tool:
    """A SQL tool whose schema takes its parameters."""
    names = [item if isinstance(item, str) else item["pointer"].split("/")[1] for item in parameters]
    schema = {"type": "object", "properties": {name: {} for name in names}, "additionalProperties": False}
    return make_tool(
        "sql",
        schema=schema,
        limits=limits,
        connector=ConnectorKind.SQL,
        effect=EffectClass.READ if mode == "read" else EffectClass.WRITE,
        binding={"statement": statement, "parameters": parameters, "mode": mode, **more},
    )


async def call(shop: SqliteConnector, which: Tool, arguments: Mapping[str, Any] | bytes | None = None) -> Raw:
    """The result of a call; it must keep the output contract."""
    raw = await shop.invoke(lease(which, arguments))
    assert json.loads(raw.body) == raw.value
    Verifier().verify(raw)
    return raw


def insert(sku: str = ":sku") -> Tool:
    """A tool that adds an order line."""
    return tool(
        f"INSERT INTO lines (order_id, sku) VALUES (:order_id, {sku}) RETURNING id", "order_id", "sku", mode="write"
    )


async def test_a_read_returns_rows_as_json(shop: SqliteConnector) -> None:
    """NULL is null, floats are floats, an integer beyond 2^53 is a string; the text says the same."""
    found = await call(
        shop, tool("SELECT id, city, total, big FROM orders WHERE id <= :top ORDER BY id", "top"), {"top": 2}
    )
    rows = [
        {"id": 1, "city": "Bern", "total": 9.5, "big": "9007199254740993"},
        {"id": 2, "city": "Zürich", "total": None, "big": 1},
    ]
    assert found.value["structuredContent"] == {"rows": rows, "row_count": 2}
    assert json.loads(found.value["content"][0]["text"]) == found.value["structuredContent"]


@pytest.mark.requirement("TOOL-1")
async def test_arguments_are_values_never_code(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """An injection is a city that does not exist."""
    hostile = "Bern' OR 1=1; DROP TABLE orders --"
    found = await call(shop, tool("SELECT id FROM orders WHERE city = :city", "city"), {"city": hostile})
    assert found.value["structuredContent"] == {"rows": [], "row_count": 0}
    assert rows.execute("SELECT count(*) FROM orders").fetchone() == (2,)


async def test_every_json_scalar_can_be_bound(shop: SqliteConnector) -> None:
    """A pointer reaches into the arguments; a missing one is NULL; booleans are 0 and 1."""
    which = tool("SELECT :a AS a, :b AS b, :c AS c, :d AS d", "a", "b", {"name": "c", "pointer": "/deep/0/x"}, "d")
    found = await call(shop, which, {"a": True, "b": "t", "deep": [{"x": 1.5}]})
    assert found.value["structuredContent"]["rows"] == [{"a": 1, "b": "t", "c": 1.5, "d": None}]


@pytest.mark.parametrize("arguments", [{"a": [1]}, {"a": {}}, {"a": 2**63}, {"a": 1, "b": 2}])
async def test_arguments_that_cannot_be_bound_are_not_sent(shop: SqliteConnector, arguments: dict[str, Any]) -> None:
    """Structures, integers beyond 64 bits, and arguments no parameter takes."""
    with pytest.raises(NotSent) as caught:
        await call(shop, tool("SELECT :a AS a", "a"), arguments)
    assert caught.value.cause_code == "argument"


async def test_a_write_is_committed_and_counted(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """What it returns and how many rows it changed; then it is there for everyone."""
    found = await call(shop, insert(), {"order_id": 1, "sku": "a"})
    assert found.value["structuredContent"] == {"rows": [{"id": 1}], "row_count": 1, "changed": 1}
    assert rows.execute("SELECT sku FROM lines").fetchall() == [("a",)]


@pytest.mark.parametrize(("second", "word"), [({"order_id": 1, "sku": "a"}, "UNIQUE"), ({"sku": "b"}, "NOT NULL")])
async def test_a_violated_constraint_is_a_result_the_model_can_act_on(
    shop: SqliteConnector, rows: sqlite3.Connection, second: dict[str, Any], word: str
) -> None:
    """``isError`` with the constraint's name; nothing was changed and the next write works."""
    await call(shop, insert(), {"order_id": 1, "sku": "a"})
    found = await call(shop, insert(), second)
    assert found.value["isError"] is True
    assert word in json.loads(found.value["content"][0]["text"])["message"]
    await call(shop, insert(), {"order_id": 1, "sku": "c"})
    assert rows.execute("SELECT sku FROM lines ORDER BY 1").fetchall() == [("a",), ("c",)]


async def test_a_constraint_checked_at_commit_rolls_back(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """A deferred foreign key is found out by COMMIT: rolled back, and said so."""
    found = await call(shop, insert(), {"order_id": 77, "sku": "a"})
    assert found.value["isError"] is True
    assert rows.execute("SELECT count(*) FROM lines").fetchone() == (0,)


@pytest.mark.requirement("TOOL-1")
async def test_reads_cannot_write(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """A statement that changes something fails on a read connection even where the catalogue mislabels it."""
    which = tool("WITH x AS (SELECT 1) DELETE FROM orders WHERE id IN (SELECT * FROM x)")
    with pytest.raises(ToolFailed):
        await call(shop, which)
    assert rows.execute("SELECT count(*) FROM orders").fetchone() == (2,)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT load_extension('/lib/x.so') AS a",
        "SELECT * FROM pragma_database_list",
        "SELECT 1 AS a; SELECT 2 AS b",
        "SELECT raw FROM orders WHERE id = 2",
        "SELECT 9e999 AS a",
        "SELECT 1 AS a, 2 AS a",
        "SELECT nothing FROM nowhere",
        "SELECT CAST(x'ff' AS TEXT) AS a",
        "WITH x AS (SELECT 1) INSERT INTO lines (order_id) SELECT * FROM x",
    ],
)
async def test_statements_that_do_more_than_rows_fail(shop: SqliteConnector, statement: str) -> None:
    """Extensions, pragmas, a second statement, bytes, infinity, ambiguous columns, broken text."""
    with pytest.raises(ToolFailed):
        await call(shop, tool(statement))


@pytest.mark.parametrize(
    "statement",
    ["PRAGMA journal_mode = OFF", "ATTACH '/tmp/x' AS y", "DROP TABLE orders", "COMMIT", "", "-- DELETE", "VACUUM"],
)
async def test_statements_of_another_kind_are_not_sent(shop: SqliteConnector, statement: str) -> None:
    """A binding that is no select, insert, update or delete is never run."""
    for mode in ("read", "write"):
        with pytest.raises(NotSent) as caught:
            await call(shop, tool(statement, mode=mode))
        assert caught.value.cause_code == "binding"


@pytest.mark.requirement("TOOL-1")
async def test_a_writer_cannot_change_the_schema(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """The authorizer refuses what is no row, also behind a CTE."""
    with pytest.raises(ToolFailed):
        await call(shop, tool("INSERT INTO sqlite_master (name) VALUES ('x')", mode="write"))
    assert rows.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'x'").fetchone() == (0,)


async def test_too_many_rows_or_bytes_fail_and_undo(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """Nothing is shortened silently, and a write whose answer is too large is rolled back."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n"
    assert (await call(shop, tool(many, max_rows=50))).value["structuredContent"]["row_count"] == 50
    for which in (
        tool(many, max_rows=49),
        tool("SELECT hex(zeroblob(40000)) AS a", limits=ToolLimits(max_output_bytes=70_000)),
        tool("SELECT hex(zeroblob(400)) AS a", limits=ToolLimits(max_output_bytes=1_000)),
        tool("UPDATE orders SET city = 'x' RETURNING city", mode="write", max_rows=1),
        tool("UPDATE orders SET city = 'x' RETURNING raw", mode="write"),
    ):
        with pytest.raises(ToolFailed):
            await call(shop, which)
    assert rows.execute("SELECT count(*) FROM orders WHERE city = 'x'").fetchone() == (0,)


async def test_declared_columns_are_held(shop: SqliteConnector) -> None:
    """A schema change that renames a column is a failure, not another shape."""
    await call(shop, tool("SELECT id FROM orders", columns=["id"]))
    with pytest.raises(ToolFailed):
        await call(shop, tool("SELECT id AS ident FROM orders", columns=["id"]))


async def test_a_locked_database_is_not_sent(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """Another process writes: nothing began, trying again is safe, and afterwards it works."""
    rows.execute("BEGIN IMMEDIATE")
    with pytest.raises(NotSent) as caught:
        await call(shop, insert(), {"order_id": 1, "sku": "a"})
    assert caught.value.cause_code == "busy"
    rows.execute("ROLLBACK")
    await call(shop, insert(), {"order_id": 1, "sku": "a"})


async def test_a_commit_that_meets_a_reader_is_rolled_back(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """A reader holds its lock when COMMIT wants the file: rolled back for certain, so not sent."""
    reading = rows.execute("BEGIN")
    reading.execute("SELECT * FROM orders").fetchone()
    with pytest.raises(NotSent):
        await call(shop, insert(), {"order_id": 1, "sku": "a"})
    rows.execute("ROLLBACK")
    assert rows.execute("SELECT count(*) FROM lines").fetchone() == (0,)


async def test_a_statement_ends_at_its_deadline(shop: SqliteConnector) -> None:
    """An endless query is interrupted before the caller's patience ends, and the connector stays usable."""
    with pytest.raises(ToolFailed) as caught:
        await call(shop, tool(FOREVER, limits=ToolLimits(timeout_s=0.2)))
    assert caught.value.cause_code == "timeout"
    assert (await call(shop, tool("SELECT 1 AS a"))).value["structuredContent"]["row_count"] == 1


async def test_a_statement_without_time_left_is_not_sent(shop: SqliteConnector) -> None:
    """Whose time passed while it waited for a thread never begins."""
    with pytest.raises(NotSent) as caught:
        await call(shop, tool("SELECT 1 AS a", limits=ToolLimits(timeout_s=0.0)))
    assert caught.value.cause_code == "busy"


async def test_one_tool_may_be_called_again_and_again(shop: SqliteConnector) -> None:
    """Its statement is read once; a new entry of the same name is read anew."""
    first = tool("SELECT 1 AS a")
    for which in (first, first, tool("SELECT 2 AS a"), first):
        found = await call(shop, which)
        assert found.value["structuredContent"]["rows"] == [{"a": 1 if which is first else 2}]


async def test_cancellation_interrupts_and_rolls_back(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """When the caller is gone the thread is too, and an unfinished write changed nothing."""
    endless = tool(f"UPDATE orders SET total = (SELECT top FROM ({FOREVER}))", mode="write")
    with anyio.fail_after(5):
        with anyio.move_on_after(0.1) as scope:
            await call(shop, endless)
        assert scope.cancelled_caught
        await call(shop, insert(), {"order_id": 1, "sku": "a"})
    assert rows.execute("SELECT total FROM orders WHERE id = 1").fetchone() == (9.5,)


async def test_a_waiting_write_can_be_cancelled(shop: SqliteConnector, rows: sqlite3.Connection) -> None:
    """Writes queue for one thread; one that is cancelled while waiting never runs."""
    endless = tool(f"UPDATE orders SET total = (SELECT top FROM ({FOREVER}))", mode="write")
    async with anyio.create_task_group() as group:
        group.start_soon(_until_cancelled, shop, endless, None)
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0.05) as scope:
            await call(shop, insert(), {"order_id": 1, "sku": "late"})
        assert scope.cancelled_caught
        group.cancel_scope.cancel()
    assert rows.execute("SELECT count(*) FROM lines").fetchone() == (0,)


async def _until_cancelled(shop: SqliteConnector, which: Tool, arguments: dict[str, Any] | None) -> None:
    await call(shop, which, arguments)


async def test_reads_run_beside_each_other_and_leave_no_threads(database: Path) -> None:
    """Thirty reads at a time share four threads, which end with the connector."""
    before = threading.active_count()
    async with SqliteConnector(database) as shop, anyio.create_task_group() as group:
        for _ in range(30):
            group.start_soon(_until_cancelled, shop, tool("SELECT :a AS a", "a"), {"a": 1})
    assert threading.active_count() <= before


async def test_a_missing_database_is_never_made(tmp_path: Path) -> None:
    """Reads and writes of a file that is not there reach nothing."""
    async with SqliteConnector(tmp_path / "none.db") as shop:
        for which in (tool("SELECT 1 AS a"), tool("DELETE FROM x", mode="write")):
            with pytest.raises(NotSent):
                await call(shop, which)
        with pytest.raises(Unavailable):
            await shop.ping()
    assert not _files(tmp_path)


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_file_that_is_no_database_is_not_ready(tmp_path: Path, shop: SqliteConnector) -> None:
    """Ping tells a usable database from another file."""
    await shop.ping()
    (tmp_path / "text.db").write_text("no database, but long enough to be taken for one" * 50)
    async with SqliteConnector(tmp_path / "text.db") as broken:
        with pytest.raises(Unavailable):
            await broken.ping()


@pytest.mark.parametrize("ended", [False, True])
async def test_a_failing_disk_at_commit_leaves_the_outcome_unknown(
    database: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """An I/O error in the middle of COMMIT is not called a failure without effect, ended transaction or not."""
    real = sqlite3.connect

    class Failing(sqlite3.Connection):
        """A connection whose COMMIT meets a broken disk."""

        def execute(self, sql: str, *rest: Any) -> sqlite3.Cursor:
            """Fail on COMMIT with the error SQLite has for it."""
            if sql != "COMMIT":
                return super().execute(sql, *rest)
            if ended:
                super().execute("ROLLBACK")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
            raise error

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: real(*args, factory=Failing, **kwargs))
    async with SqliteConnector(database) as shop:
        with pytest.raises(OutcomeUnknown):
            await call(shop, insert(), {"order_id": 1, "sku": "a"})


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (tool("SELECT id FROM orders WHERE id = :id", "id"), None),
        (insert(), None),
        (tool("SELECT id FROM nowhere"), "no such table"),
        (tool("SELECT :a AS a"), "has :a, which is no parameter"),
        (tool("SELECT 1 AS a", "a"), "'a' is not in the statement"),
        (tool("SELECT ? AS a"), "refuses the statement"),
        (tool("SELECT 1; SELECT 2"), "one statement"),
        (tool("SELECT load_extension('x')"), "not authorized"),
        (tool("DROP TABLE orders"), "starts with one of"),
        (tool("SELECT 1 AS a", mode="sideways"), "not a valid Mode"),
        (tool("SELECT 1 AS a", max_rows=0), "max_rows"),
        (tool("SELECT 1 AS a", maxrows=5), "unknown keys"),
        (tool("SELECT :a AS a", "a", "a"), "named twice"),
        (tool("SELECT :a AS a", {"name": "a b", "pointer": "/a"}), "a parameter is"),
    ],
)
def test_check_finds_bad_statements_before_they_run(database: Path, which: Tool, words: str | None) -> None:
    """``ostiary check``: the statement is planned against the database and held against the schema."""
    found = check(which, database)
    assert found == [] if words is None else words in " ".join(found)


def test_check_holds_the_binding_against_schema_and_effect(database: Path) -> None:
    """Undeclared, unbound and further arguments, and a read that says it writes."""
    loose = make_tool("sql", effect=EffectClass.WRITE, schema={"properties": {"x": {}}},
                      binding={"statement": "SELECT :y AS y", "parameters": ["y"]})  # fmt: skip
    found = " ".join(check(loose, database))
    for words in ("binds 'y'", "'x' is declared", "additionalProperties", "effect class write"):
        assert words in found
    assert "cannot be opened" in check(tool("SELECT 1 AS a"), database / "missing")[0]

"""What a SQL tool does is the same on every database: one suite, on SQLite and on a real PostgreSQL."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from gateway.core.errors import NotSent, ToolFailed
from gateway.core.tool import ToolLimits
from tests.sql_shops import Shop, insert, postgres_shop, sql_tool, sqlite_shop


@pytest.fixture(params=["sqlite", "postgres"])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    """The shop in one of the databases."""
    opened = sqlite_shop(tmp_path) if request.param == "sqlite" else postgres_shop(_server(request))
    async with opened as found:
        yield found


def _server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue("real_erp").postgres


async def test_a_read_returns_rows_as_json(shop: Shop) -> None:
    """NULL is null, floats are floats, an integer beyond 2^53 is a string; the text says the same."""
    which = sql_tool("SELECT id, city, total, big FROM orders WHERE id <= :top ORDER BY id", "top")
    found = await shop.call(which, {"top": 2})
    rows = [
        {"id": 1, "city": "Bern", "total": 9.5, "big": "9007199254740993"},
        {"id": 2, "city": "Zürich", "total": None, "big": 1},
    ]
    assert found.value["structuredContent"] == {"rows": rows, "row_count": 2}
    assert json.loads(found.value["content"][0]["text"]) == found.value["structuredContent"]
    assert json.loads(found.body) == found.value


@pytest.mark.requirement("TOOL-1")
@pytest.mark.parametrize("hostile", ["Bern' OR 1=1; DROP TABLE orders --", "$1", ":city", "\\'; --", "$$"])
async def test_arguments_are_values_never_code(shop: Shop, hostile: str) -> None:
    """An injection is a city that does not exist."""
    found = await shop.call(sql_tool("SELECT id FROM orders WHERE city = :city", "city"), {"city": hostile})
    assert found.value["structuredContent"] == {"rows": [], "row_count": 0}
    assert shop.rows("SELECT count(*) FROM orders") == [(2,)]


async def test_a_parameter_may_stand_twice_and_reach_into_the_arguments(shop: Shop) -> None:
    """By pointer; a missing argument is NULL."""
    statement = "SELECT id FROM orders WHERE city = :c AND (id = :i OR id = :i) AND CAST(:none AS TEXT) IS NULL"
    which = sql_tool(statement, {"name": "c", "pointer": "/deep/0/x"}, {"name": "i", "pointer": "/i"}, "none")
    found = await shop.call(which, {"deep": [{"x": "Bern"}], "i": 1})
    assert found.value["structuredContent"]["rows"] == [{"id": 1}]


async def test_words_that_look_like_parameters_are_left_alone(shop: Shop) -> None:
    """In strings, quoted names and comments."""
    which = sql_tool("SELECT ':x' AS \"a:b\" /* :y */ FROM orders WHERE id = :id -- :z", "id")
    assert (await shop.call(which, {"id": 1})).value["structuredContent"]["rows"] == [{"a:b": ":x"}]


@pytest.mark.parametrize("arguments", [{"a": [1]}, {"a": {}}, {"a": 2**63}, {"a": 1, "b": 2}])
async def test_arguments_that_cannot_be_bound_are_not_sent(shop: Shop, arguments: dict[str, Any]) -> None:
    """Structures, integers beyond 64 bits, and arguments no parameter takes."""
    with pytest.raises(NotSent) as caught:
        await shop.call(sql_tool("SELECT id FROM orders WHERE id = :a", "a"), arguments)
    assert caught.value.cause_code == "argument"


async def test_a_write_is_committed_and_counted(shop: Shop) -> None:
    """What it returns and how many rows it changed; then it is there for everyone."""
    found = await shop.call(insert(), {"order_id": 1, "sku": "a"})
    rows = [{"order_id": 1, "sku": "a"}]
    assert found.value["structuredContent"] == {"rows": rows, "row_count": 1, "changed": 1}
    assert shop.rows("SELECT sku FROM lines") == [("a",)]
    found = await shop.call(sql_tool("UPDATE orders SET city = :city", "city", mode="write"), {"city": "Chur"})
    assert found.value["structuredContent"] == {"rows": [], "row_count": 0, "changed": 2}


@pytest.mark.parametrize("second", [{"order_id": 1, "sku": "a"}, {"sku": "b"}])
async def test_a_violated_constraint_is_a_result_the_model_can_act_on(shop: Shop, second: dict[str, Any]) -> None:
    """``isError`` with the constraint's words; nothing was changed and the next write works."""
    await shop.call(insert(), {"order_id": 1, "sku": "a"})
    found = await shop.call(insert(), second)
    assert found.value["isError"] is True
    said = json.loads(found.value["content"][0]["text"])
    assert said["error"] == "constraint"
    assert "lines" in said["message"]
    await shop.call(insert(), {"order_id": 1, "sku": "c"})
    assert shop.rows("SELECT sku FROM lines ORDER BY 1") == [("a",), ("c",)]


async def test_a_constraint_checked_at_commit_rolls_back(shop: Shop) -> None:
    """A deferred foreign key is found out by COMMIT: rolled back, and said so."""
    found = await shop.call(insert(), {"order_id": 77, "sku": "a"})
    assert found.value["isError"] is True
    assert shop.rows("SELECT count(*) FROM lines") == [(0,)]


@pytest.mark.requirement("TOOL-1")
async def test_reads_cannot_write(shop: Shop) -> None:
    """A statement that changes something fails in a read even where the catalogue mislabels it."""
    which = sql_tool("WITH x AS (SELECT 1 AS i) DELETE FROM orders WHERE id IN (SELECT i FROM x)")
    with pytest.raises(ToolFailed):
        await shop.call(which)
    assert shop.rows("SELECT count(*) FROM orders") == [(2,)]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 AS a; SELECT 2 AS b",
        "SELECT raw FROM orders WHERE id = 2",
        "SELECT total * 1e308 * 1e308 AS a FROM orders WHERE id = 1",
        "SELECT 1 AS a, 2 AS a",
        "SELECT nothing FROM nowhere",
    ],
)
async def test_statements_that_do_more_than_rows_fail(shop: Shop, statement: str) -> None:
    """A second statement, bytes, infinity, ambiguous columns, tables that are not there."""
    with pytest.raises(ToolFailed):
        await shop.call(sql_tool(statement))


@pytest.mark.parametrize(
    "statement", ["DROP TABLE orders", "COMMIT", "", "-- DELETE", "VACUUM", "COPY orders TO STDOUT"]
)
async def test_statements_of_another_kind_are_not_sent(shop: Shop, statement: str) -> None:
    """A binding that is no select, insert, update or delete is never run."""
    for mode in ("read", "write"):
        with pytest.raises(NotSent) as caught:
            await shop.call(sql_tool(statement, mode=mode))
        assert caught.value.cause_code == "binding"


async def test_too_many_rows_or_bytes_fail_and_undo(shop: Shop) -> None:
    """Nothing is shortened silently, and a write whose answer is too large is rolled back."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150) SELECT i FROM n"
    found = await shop.call(sql_tool(many, max_rows=150))
    assert found.value["structuredContent"]["row_count"] == 150
    for which in (
        sql_tool(many, max_rows=149),
        sql_tool("SELECT city FROM orders", limits=ToolLimits(max_output_bytes=70)),
        sql_tool("UPDATE orders SET city = 'x' RETURNING city", mode="write", max_rows=1),
        sql_tool("UPDATE orders SET city = 'x' RETURNING raw", mode="write"),
    ):
        with pytest.raises(ToolFailed):
            await shop.call(which)
    assert shop.rows("SELECT count(*) FROM orders WHERE city = 'x'") == [(0,)]


async def test_declared_columns_are_held(shop: Shop) -> None:
    """A schema change that renames a column is a failure, not another shape."""
    await shop.call(sql_tool("SELECT id FROM orders", columns=["id"]))
    with pytest.raises(ToolFailed):
        await shop.call(sql_tool("SELECT id AS ident FROM orders", columns=["id"]))


async def test_a_statement_ends_at_its_deadline(shop: Shop) -> None:
    """An endless query ends before the caller's patience does, and the connector stays usable."""
    with pytest.raises(ToolFailed) as caught:
        await shop.call(sql_tool(shop.endless, limits=ToolLimits(timeout_s=0.3)))
    assert caught.value.cause_code == "timeout"
    found = await shop.call(sql_tool("SELECT 1 AS a"))
    assert found.value["structuredContent"]["row_count"] == 1


async def test_cancellation_ends_the_statement_and_changes_nothing(shop: Shop) -> None:
    """When the caller is gone an unfinished write is rolled back."""
    endless = sql_tool(f"UPDATE orders SET big = (SELECT top FROM ({shop.endless}) AS forever)", mode="write")
    with anyio.fail_after(10):
        with anyio.move_on_after(0.2) as scope:
            await shop.call(endless)
        assert scope.cancelled_caught
        await shop.call(insert(), {"order_id": 1, "sku": "a"})
    assert shop.rows("SELECT big FROM orders WHERE id = 2") == [(1,)]


async def test_a_database_that_is_there_is_ready(shop: Shop) -> None:
    """The readiness check returns, and changes nothing."""
    await shop.connector.ping()
    assert shop.rows("SELECT count(*) FROM orders") == [(2,)]

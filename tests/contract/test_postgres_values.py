"""Values that parsers and libraries bend: PostgreSQL gets what policy read, and what it holds is what is shown."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.servers.erp import Erp
from gateway.core.errors import GatewayError, NotSent, ToolFailed
from tests.sql_shops import Shop, postgres_shop, sql_tool


@pytest.fixture
async def shop(real_erp: Erp) -> AsyncIterator[Shop]:
    """The shop in PostgreSQL."""
    async with postgres_shop(real_erp.postgres) as found:
        yield found


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (
            "numeric",
            ["NaN", "Infinity", "-Infinity", "1_000", "١٢", " 7 ", "7\n", "1e3", "0x10", "+1", "01", ".5", "1."],
        ),
        ("money", ["1_000", "1,000.00", "$5", "NaN", "(5)"]),
        ("int8", ["1_000", "١٢", " 7 ", "1e3", "0x10", "+1", "01", "-0", "1.0", ""]),
        ("int4", ["1_0", "²"]),
        ("float8", [2**53 + 1, "NaN", "1"]),
        ("date", ["20261231", "2026-W53-4", "2026-W53", "infinity", "today", "2026-02-30", "٢٠٢٦-01-01", 20261231]),
        ("time", ["T10:00", "1000", "10", "24:00", "10:00+02", "10:00:00,5", "10:00:00.1234567", "now"]),
        ("timestamp", ["2026-01-31", "20260131T1000", "2026-01-31x10:00", "2026-01-31T10:00Z", "infinity", "now"]),
        ("timestamptz", ["2026-01-31T10:00", "2026-01-31T10:00+0200", "2026-01-31T10:00+02:00:01", "infinity", "now"]),
        (
            "uuid",
            [
                "C0FFEE00-0000-4000-8000-000000000000",
                "c0ffee00000040008000000000000000",
                "{c0ffee00-0000-4000-8000-000000000000}",
                "urn:uuid:c0ffee00-0000-4000-8000-000000000000",
            ],
        ),
    ],
)
async def test_a_text_that_a_parser_would_bend_is_refused(shop: Shop, kind: str, values: list[Any]) -> None:
    """Policy decided on the text; another spelling of the value could have got past it."""
    tool = sql_tool(f"SELECT CAST(:a AS {kind})::text AS a", "a")
    for value in values:
        with pytest.raises(NotSent) as caught:
            await shop.call(tool, {"a": value})
        assert caught.value.cause_code == "argument", value


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("numeric", "-12.50", "-12.50"),
        ("numeric", "0", "0"),
        ("numeric", 1234567890.125, "1234567890.125"),
        ("numeric", 12345678901234567, "12345678901234567"),
        ("money", "-5.25", "-$5.25"),
        ("int8", "-9223372036854775808", "-9223372036854775808"),
        ("float8", 2**53, "9.007199254740992e+15"),
        ("float8", 1.5, "1.5"),
        ("date", "0001-01-01", "0001-01-01"),
        ("time", "10:00:00.123456", "10:00:00.123456"),
        ("timestamp", "2026-01-31 10:00", "2026-01-31 10:00:00"),
        ("timestamptz", "2026-01-31T10:00:00+02:00", "2026-01-31 08:00:00+00"),
    ],
)
async def test_what_is_bound_is_what_was_written(shop: Shop, kind: str, value: Any, text: str) -> None:
    """PostgreSQL says so itself."""
    zoned = f"CAST(:a AS {kind}) AT TIME ZONE 'UTC' || '+00'" if kind == "timestamptz" else f"CAST(:a AS {kind})"
    found = await shop.call(sql_tool(f"SELECT ({zoned})::text AS a", "a"), {"a": value})
    assert found.value["structuredContent"]["rows"] == [{"a": text}]


async def test_a_check_is_not_passed_by_nan(shop: Shop) -> None:
    """PostgreSQL sorts NaN above all numbers, so `amount > 0` holds for it: none gets there."""
    shop.rows("CREATE TABLE paid (amount numeric CHECK (amount > 0))")
    shop.rows("GRANT ALL ON paid TO shopper")
    pay = sql_tool("INSERT INTO paid VALUES (:amount)", "amount", mode="write")
    for amount in ("NaN", "Infinity"):
        with pytest.raises(NotSent):
            await shop.call(pay, {"amount": amount})
    assert shop.rows("SELECT count(*) FROM paid") == [(0,)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("'infinity'::date", "infinity"),
        ("'-infinity'::date", "-infinity"),
        ("'-infinity'::timestamptz", "-infinity"),
        ("'infinity'::timestamp", "infinity"),
        ("date '9999-12-31'", "9999-12-31"),
        ("date '0001-01-01'", "0001-01-01"),
        ("date '0044-03-15 BC'", "0044-03-15 BC"),
        ("date '10000-01-01'", "10000-01-01"),
        ("time '24:00'", "24:00:00"),
        ("timetz '12:00+14'", "12:00:00+14:00"),
        ("timestamptz '2026-01-31 12:00:00.5+02'", "2026-01-31T10:00:00.500000+00:00"),
        ("ARRAY['infinity', '2026-01-31', NULL]::date[]", ["infinity", "2026-01-31", None]),
        ("ARRAY['10000-01-01']::timestamp[]", ["10000-01-01 00:00:00"]),
        ("'Infinity'::numeric", "Infinity"),
    ],
)
async def test_times_are_what_the_database_holds(shop: Shop, value: str, shown: Any) -> None:
    """Infinity is no day of the year 9999, and what no calendar library knows is shown as PostgreSQL says it."""
    found = await shop.call(sql_tool(f"SELECT {value} AS a"))
    assert found.value["structuredContent"]["rows"] == [{"a": shown}]


async def test_a_result_does_not_depend_on_how_the_role_writes_dates(shop: Shop) -> None:
    """The role's own DateStyle and zone."""
    for setting in ("DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Kolkata'"):
        shop.rows(f"ALTER ROLE shopper SET {setting}")
    try:
        found = await shop.call(
            sql_tool("SELECT CAST(:d AS date) AS d, CAST(:t AS timestamptz) AS t", "d", "t"),
            {"d": "2026-02-01", "t": "2026-02-01T12:00:00Z"},
        )
    finally:
        shop.rows("ALTER ROLE shopper RESET ALL")
    assert found.value["structuredContent"]["rows"] == [{"d": "2026-02-01", "t": "2026-02-01T12:00:00+00:00"}]


@pytest.mark.parametrize("mode", ["read", "write"])
async def test_a_value_the_library_cannot_read_changed_nothing(shop: Shop, mode: str) -> None:
    """Its own error, in the middle of a transaction that was never committed: failed, not unknown."""
    value = "ARRAY[tsrange('0044-03-15 BC', 'infinity')]::tsrange[]"
    interval = "make_interval(years => 178000000)"
    for column in (value, interval):
        statement = {
            "read": f"SELECT {column} AS a",
            "write": f"UPDATE orders SET city = 'x' RETURNING {column} AS a",
        }[mode]
        with pytest.raises(GatewayError) as caught:
            await shop.call(sql_tool(statement, mode=mode))
        assert isinstance(caught.value, ToolFailed), column
    assert shop.rows("SELECT count(*) FROM orders WHERE city = 'x'") == [(0,)]

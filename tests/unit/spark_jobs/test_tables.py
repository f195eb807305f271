from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import tables
from k2.registry.platform import Layer, load_platform
from tables import LAYOUTS, Found, create_statement, mistakes, wanted_properties

PLATFORM = load_platform()
TABLE = "silver_kraken_trades"


def found() -> Found:
    """A table as it should be."""
    properties = wanted_properties(PLATFORM, TABLE)
    layout = LAYOUTS[Layer.SILVER]
    return Found(layout.ddl, (f"day({layout.days_of})",), properties.pop("format-version"), properties | {"owner": "root"})


def test_a_table_as_declared_has_no_mistakes() -> None:
    """Properties beyond the wanted ones are nobody's mistake."""
    assert mistakes(PLATFORM, TABLE, found()) == []


@pytest.mark.parametrize("key", sorted(wanted_properties(PLATFORM, TABLE)))
@pytest.mark.parametrize("value", ["other", None])
def test_each_property_is_verified(key: str, value: str | None) -> None:
    """A property that differs or is missing is named with its value, the wanted one and the fix."""
    table = found()
    if key == "format-version":
        table = replace(table, format_version=str(value))
    elif value is None:
        del table.properties[key]
    else:
        table.properties[key] = value
    (message,) = mistakes(PLATFORM, TABLE, table)
    wanted = wanted_properties(PLATFORM, TABLE)[key]
    assert message.startswith(
        f"k2.market_data.{TABLE}: property {key} is {str(value)!r}" if key == "format-version" else f"k2.market_data.{TABLE}: property {key} is {value!r}"
    )
    assert f"'{key}' = '{wanted}'" in message


def test_columns_and_partitions_are_verified() -> None:
    """A column of another type, or a table without partitions, is refused."""
    table = replace(found(), columns=found().columns.replace("price DECIMAL(38,8)", "price DECIMAL(18,8)"), partitions=())
    columns, partitions = mistakes(PLATFORM, TABLE, table)
    assert "DECIMAL(18,8)" in columns and "expected" in columns
    assert "partitioned by nothing, expected day(trade_time)" in partitions


@pytest.mark.parametrize("table", list(PLATFORM.tables))
def test_the_statement_creates_what_is_verified(table: str) -> None:
    """DDL names the layer's columns and partitions, and the table's own file size."""
    statement = create_statement(PLATFORM, table)
    layout = LAYOUTS[PLATFORM.tables[table].layer]
    assert f"CREATE TABLE IF NOT EXISTS k2.market_data.{table} ({layout.ddl}) USING iceberg PARTITIONED BY (days({layout.days_of}))" in statement
    assert f"'write.target-file-size-bytes' = '{PLATFORM.tables[table].target_file_size_mb * 1024 * 1024}'" in statement
    assert layout.days_of in layout.names


class Creating:
    """A Spark whose catalog fails so often; what it made, or another driver meanwhile, is there from then on."""

    def __init__(self, failures: int, *, made_elsewhere: bool = False) -> None:
        self.failures, self.made_elsewhere, self.table = failures, made_elsewhere, None

    def sql(self, statement: str) -> None:
        if self.failures:
            self.failures -= 1
            self.table = object() if self.made_elsewhere else None
            raise RuntimeError("duplicate key value violates unique constraint")
        self.table = object() if statement.startswith("CREATE TABLE") else self.table


@pytest.fixture
def ensure(monkeypatch: pytest.MonkeyPatch) -> Callable[[Creating], object]:
    monkeypatch.setattr(tables, "load_table", lambda spark, *_: spark.table)
    monkeypatch.setattr(tables, "_verify", lambda *_: None)
    return lambda spark: tables.ensure_table(spark, None, PLATFORM, TABLE)


def test_drivers_that_start_together_create_what_is_missing_once(ensure: Callable[[Creating], object]) -> None:
    """Whoever comes second finds what the first has made, or tries again; a catalog that goes on failing is an error."""
    for spark in (Creating(0), Creating(1), Creating(2), Creating(1, made_elsewhere=True)):
        assert ensure(spark) is spark.table is not None
    with pytest.raises(RuntimeError, match="duplicate key"):
        ensure(Creating(3))

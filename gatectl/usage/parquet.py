"""Rows of usage as Parquet, by pyarrow (`pip install 'gatewayd[parquet]'`): typed, money as decimals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, BinaryIO

from gatectl.errors import GatectlError
from gatectl.kinds import Object

_GROUP_ROWS = 50_000  # of a row group: 10 MiB of rows in memory, and enough for columns to compress
_MONEY = (38, 9)  # digits in all, digits after the point: a nano
_TIMES, _MONIES, _FLOATS = ("time",), ("price", "cost"), ("p50_ms", "p95_ms", "p99_ms")
_TEXTS = ("period", "tenant", "service", "route", "key", "client", "status")


def writer(fields: Sequence[str]) -> Callable[[Iterator[Sequence[Object]], BinaryIO], None]:
    """Writes these fields. Raises GatectlError where pyarrow is missing: before anything is asked."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        raise GatectlError("Parquet needs pyarrow", "pip install 'gatewayd[parquet]', or take --format csv") from None
    schema = pyarrow.schema([(name, _type(pyarrow, name)) for name in fields])

    def write(pages: Iterator[Sequence[Object]], file: BinaryIO) -> None:
        with parquet.ParquetWriter(file, schema, compression="zstd") as written:
            rows: list[Object] = []
            for page in pages:
                rows += page
                if len(rows) >= _GROUP_ROWS:
                    written.write_table(pyarrow.table(_columns(rows, fields), schema=schema))
                    rows = []
            if rows:
                written.write_table(pyarrow.table(_columns(rows, fields), schema=schema))

    return write


def _type(pyarrow: Any, name: str) -> Any:
    if name in _TIMES:
        return pyarrow.timestamp("ms", tz="UTC")
    if name in _MONIES:
        return pyarrow.decimal128(*_MONEY)
    if name in _FLOATS:
        return pyarrow.float64()
    return pyarrow.string() if name in _TEXTS else pyarrow.int64()


def _columns(rows: Sequence[Object], fields: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [_value(name, row[name]) for row in rows] for name in fields}


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _TIMES:
        return datetime.fromisoformat(value)
    return Decimal(value) if name in _MONIES else value

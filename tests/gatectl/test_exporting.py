"""`usage export` into a file: whole or not at all, in each format."""

from __future__ import annotations

import csv
import json
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]

from tests.gatectl.conftest import Gatectl, press_until_it_ends
from tests.gatectl.fake_daemon import FakeDaemon
from tests.gatectl.test_failures import TAILED, answering, assert_one_line

WHOLE = "gatectl: exporting\ngatectl: exported, 3 rows\n"


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("options", ["", "--format csv"])
def test_csv(gatectl: Gatectl, tmp_path: Path, options: str) -> None:
    file = tmp_path / "usage.csv"
    file.write_text("what was there before")
    ended = gatectl("usage", "export", "--out", str(file), *options.split())
    assert (ended.code, ended.out, ended.err) == (0, "", WHOLE)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [row["requests"] for row in rows] == ["1202", "1203", "0"]
    assert (rows[2]["route"], rows[2]["p50_ms"], rows[2]["price"]) == ('a,"b"', "", "")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("daemon")
def test_ndjson_by_the_name_of_the_file(gatectl: Gatectl, tmp_path: Path) -> None:
    file = tmp_path / "usage.ndjson"
    assert gatectl("usage", "export", "--out", str(file), "-q").err == ""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["cost"] for row in rows] == ["1.199", "1.199", "0"]


@pytest.mark.usefixtures("daemon")
def test_parquet_has_types(gatectl: Gatectl, tmp_path: Path) -> None:
    file = tmp_path / "usage.parquet"
    assert gatectl("usage", "export", "--out", str(file)).code == 0
    table = parquet.read_table(file)
    types = {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)}
    assert types["time"] == "timestamp[ms, tz=UTC]"
    assert types["cost"] == types["price"] == "decimal128(38, 9)"
    assert (types["requests"], types["p50_ms"], types["status"]) == ("int64", "double", "string")
    first, _, refused = table.to_pylist()
    assert first["time"] == datetime(2026, 11, 20, 2, tzinfo=UTC)
    assert first["cost"] == Decimal("1.199")
    assert (refused["p50_ms"], refused["price"], refused["requests"]) == (None, None, 0)
    gatectl("usage", "export", "--out", str(file), "--columns", "time,cost")
    assert parquet.read_table(file).schema.names == ["time", "cost"]


def test_without_pyarrow_one_line_says_what_to_install(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    ended = gatectl("usage", "export", "--out", str(tmp_path / "usage.parquet"), PYTHONPATH=str(tmp_path))
    assert_one_line(ended, 1, "Parquet needs pyarrow; pip install 'gatewayd[parquet]'")
    assert daemon.requests == []


@pytest.mark.usefixtures("daemon")
def test_what_cannot_be_written_is_one_line(gatectl: Gatectl, tmp_path: Path) -> None:
    ended = gatectl("usage", "export", "--out", str(tmp_path / "none" / "usage.csv"))
    assert_one_line(ended, 1, "cannot write", "No such file or directory")
    ended = gatectl("usage", "export", "--out", str(tmp_path), "-q")
    assert_one_line(ended, 1, f"cannot write {tmp_path}: Is a directory")
    assert_one_line(gatectl("usage", "export", "-t", "nobody"), 3, "there is no tenant 'nobody'")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_export_leaves_what_was_there(gatectl: Gatectl, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_text("before")
    line = b'{"time": "2026-11-20T02:00:00Z"}\n'
    with answering(folder / "admin.sock", TAILED, b"%x\r\n%b\r\n" % (len(line), line)):
        ended = gatectl("usage", "export", "--out", str(file), "-q")
    assert_one_line(ended, 6, "the gateway went away in the middle of its answer")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_ctrl_c_leaves_nothing(gatectl: Gatectl, folder: Path, tmp_path: Path) -> None:
    with answering(folder / "admin.sock", TAILED, then_wait=True):
        argv = gatectl.argv("usage", "export", "--out", str(tmp_path / "usage.csv"), "-q")
        process = subprocess.Popen(argv, env=gatectl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not list(tmp_path.iterdir()):
            assert process.poll() is None
        press_until_it_ends(process)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []

"""`gatewayd journal FILE`: what it prints of a segment that is whole, in use, cut anywhere or not one at all."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.errors import EXPIRED_KEY
from gatewayd.journal_reader import _STEP_SLOTS, Found, open_segment, print_segments, read_records
from gatewayd.proxy.journal import Journal
from gatewayd.records import (
    ADMITTED,
    MORE_BYTES,
    SEGMENT_BYTES,
    SLOT_BYTES,
    Record,
    pack_header,
    pack_record,
    unpack_records,
)

WORKER = b"w" * 16
NOON_NS = 1_795_262_400_123_456_789  # 2026-11-21 12:00 UTC
RECORDS = [
    Record(ADMITTED, NOON_NS, 1, 2, 3, 4, 5, 0, 6, 200, 0, 1, 10, 1024, 120, 900, b"ab12cd3400000001", 7),
    Record(0, NOON_NS, 1, 2, 3, 4, 0, 0, 6, 429, EXPIRED_KEY.number, 1, 0, 180, 60, 0, b"\x1b]0;x".ljust(16, b"\0")),
    Record(MORE_BYTES | 1 << 9, NOON_NS, 1, 2, 3, 4, 0, 0, 6, 101, 0, 0, 7, 8, 0, 0, b"ab12cd3400000003"),
]
SMALL = pack_header(NOON_NS, WORKER) + b"".join(pack_record(*record) for record in RECORDS) + bytes(2 * SLOT_BYTES)
WHOLE = SMALL.ljust(SEGMENT_BYTES, b"\0")


def read(path: Path) -> tuple[list[Record], Found]:
    descriptor, found = open_segment(path)
    try:
        return [record for _, record in read_records(descriptor, found) if record is not None], found
    finally:
        os.close(descriptor)


def printed(capsys: pytest.CaptureFixture[str], *files: Path, as_json: bool = False) -> tuple[int, list[str]]:
    status = print_segments(list(files), as_json=as_json)
    shown = capsys.readouterr()
    assert shown.err == ""
    return status, shown.out.splitlines()


def test_a_line_for_each_record_between_what_wrote_it_and_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.gwj"
    path.write_bytes(WHOLE)
    status, (first, heading, *rows, last) = printed(capsys, path)
    assert status == 0
    assert first == f"{path}: worker {WORKER.hex()}, begun 2026-11-21T12:00:00.123456Z, 32767 slots, not in use"
    assert " ".join(heading.split()) == (
        "time tenant service route key gen client price status units in out gateway us upstream us request says"
    )
    assert [" ".join(row.split()) for row in rows] == [
        "2026-11-21T12:00:00.123456Z 1 2 3 4 7 5 6 200 1 10 1024 120 900 ab12cd3400000001 admitted",
        r"2026-11-21T12:00:00.123456Z 1 2 3 4 0 0 6 429 1 0 180 60 0 \x1b]0;x expired_key",
        "2026-11-21T12:00:00.123456Z 1 2 3 4 0 0 6 101 0 7 8 0 0 ab12cd3400000003 more-bytes 0x200",
    ]
    assert last == "3 records, 0 torn slots, 0 bytes not understood"


def test_a_json_object_for_each_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.gwj"
    path.write_bytes(WHOLE)
    status, lines = printed(capsys, path, as_json=True)
    first, *rows, last = [json.loads(line) for line in lines]
    assert status == 0
    assert first == {
        "type": "segment", "file": str(path), "worker": WORKER.hex(), "begun": "2026-11-21T12:00:00.123456Z",
        "slots": 32767, "in_use": False,
    }  # fmt: skip
    assert rows[0] == {
        **RECORDS[0]._asdict(), "type": "record", "slot": 0, "time": "2026-11-21T12:00:00.123456Z",
        "flags": ["admitted"], "request_id": "ab12cd3400000001", "problem": "",
    }  # fmt: skip
    assert [row["problem"] for row in rows] == ["", "expired_key", ""]
    assert last == {
        "type": "end", "records": 3, "torn": 0, "in_the_making": 0, "bytes_not_understood": 0, "bytes_missing": 0
    }  # fmt: skip


def test_a_segment_in_use_and_the_record_that_is_being_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(tmp_path, WORKER, NOON_NS)
    journal.append(pack_record(*RECORDS[0]))
    (path,) = tmp_path.iterdir()
    journal._map[2 * SLOT_BYTES : 2 * SLOT_BYTES + 50] = pack_record(*RECORDS[1])[:50]
    status, lines = printed(capsys, path)
    assert status == 0
    assert lines[0].endswith(", in use")
    assert lines[-1] == "1 record, 0 torn slots, 0 bytes not understood, 1 record in the making"
    journal.append(pack_record(*RECORDS[1]))
    assert printed(capsys, path)[1][-1] == "2 records, 0 torn slots, 0 bytes not understood"
    journal.append(bytes(8).replace(b"\0", b"x").ljust(SLOT_BYTES, b"\0"))
    journal.append(pack_record(*RECORDS[2]))
    status, lines = printed(capsys, path)
    assert (status, lines[-1]) == (1, "3 records, 1 torn slot, 0 bytes not understood"), "it was not the last one"
    journal.close()
    assert print_segments([path], as_json=False) == 1


def test_a_segment_that_is_written_to_while_it_is_read_is_not_damaged(tmp_path: Path) -> None:
    journal = Journal(tmp_path, WORKER, NOON_NS)
    for _ in range(_STEP_SLOTS - 1):
        journal.append(pack_record(*RECORDS[0]))
    (path,) = tmp_path.iterdir()
    descriptor, found = open_segment(path)
    reading = read_records(descriptor, found)
    next(reading)  # the first step has been read: its last slot was empty
    for _ in range(3):
        journal.append(pack_record(*RECORDS[0]))
    assert len(list(reading)) == _STEP_SLOTS - 2
    os.close(descriptor)
    journal.close()
    assert (found.records, found.is_damaged) == (_STEP_SLOTS - 1, False)


def test_several_files_and_what_is_no_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, stranger, empty = tmp_path / "a.gwj", tmp_path / "b\x1b.gwj", tmp_path / "c.gwj"
    whole.write_bytes(WHOLE)
    stranger.write_bytes(b"x" * 500)
    empty.touch()
    os.mkfifo(tmp_path / "fifo")
    status = print_segments([stranger, tmp_path / "none", tmp_path / "fifo", tmp_path, whole, empty], as_json=False)
    shown = capsys.readouterr()
    assert status == 1
    lines = shown.out.splitlines()
    assert lines[0] == f"{tmp_path}/b\\x1b.gwj: not a journal segment"
    assert lines[1] == "0 records, 0 torn slots, 500 bytes not understood"
    assert lines[-2:] == [f"{empty}: not a journal segment", "0 records, 0 torn slots, 0 bytes not understood"]
    assert len(lines) == 10
    assert shown.err.splitlines() == [
        f"gatewayd: {tmp_path}/none: no such file or directory",
        f"gatewayd: {tmp_path}/fifo: it is no file",
        f"gatewayd: {tmp_path}: it is no file",
    ]


def test_bytes_that_a_reader_of_the_format_does_not_come_to(tmp_path: Path) -> None:
    path = tmp_path / "a.gwj"
    other_version = bytearray(pack_record(*RECORDS[0]))
    other_version[4] = 9
    other_version[:4] = struct.pack("<I", zlib.crc32(other_version[4:]))
    data = SMALL[: 4 * SLOT_BYTES] + bytes(other_version) + bytes(SLOT_BYTES) + b"x" * 130
    path.write_bytes(data)
    records, found = read(path)
    assert records == RECORDS
    assert (found.torn, found.strange_bytes) == (0, 128 + 130)
    assert found.missing_bytes == SEGMENT_BYTES - len(data)
    assert str(found).endswith(f"258 bytes not understood, cut short by {found.missing_bytes} bytes")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_segment_cut_at_every_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    path = tmp_path / "a.gwj"
    for cut in range(len(SMALL)):
        path.write_bytes(SMALL[:cut])
        slots, rest = divmod(cut, SLOT_BYTES)
        whole = RECORDS[: max(0, slots - 1)]
        assert unpack_records(SMALL[SLOT_BYTES:cut]) == (whole, len(whole) * SLOT_BYTES)
        records, found = read(path)
        assert records == whole, cut
        is_torn = 1 <= slots <= len(RECORDS) and rest > 0
        assert (found.torn, found.strange_bytes) == (int(is_torn), 0 if slots else cut), cut
        status, lines = printed(capsys, path, as_json=as_json)
        assert status == 1
        assert len(lines) == 2 + len(whole) + is_torn + (slots > 0 and not as_json)


DAMAGES = st.lists(
    st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=300)), min_size=1, max_size=4
)


@given(DAMAGES, st.integers(0, len(SMALL)), st.binary(max_size=200), st.booleans())
def test_whatever_a_file_holds_there_is_no_traceback_and_no_invented_record(
    damages: list[tuple[int, bytes]], cut: int, more: bytes, as_json: bool
) -> None:
    data = bytearray(SMALL)
    for at, damage in damages:
        data[at : at + len(damage)] = damage
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gwj"
        path.write_bytes(data[:cut] + more)
        assert print_segments([path], as_json=as_json) == 1  # it is short at the least
        records, found = read(path)
        assert all(record in RECORDS for record in records)
        assert found.records == len(records)


def test_the_command(tmp_path: Path) -> None:
    """The process: its exit status, and a reader that goes away."""
    path = tmp_path / "a.gwj"
    path.write_bytes(pack_header(NOON_NS, WORKER) + pack_record(*RECORDS[0]) * 32767)
    argv = [sys.executable, "-m", "gatewayd", "journal", str(path)]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("\n32767 records, 0 torn slots, 0 bytes not understood\n")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0
    path.write_bytes(SMALL)
    assert subprocess.run(argv, capture_output=True, timeout=60).returncode == 1

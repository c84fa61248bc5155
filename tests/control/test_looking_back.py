"""The newest requests that match, from journals as they are on the disk: several workers, full ones, damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.control.looking_back import newest
from gatewayd.control.segments import TAKEN_FOLDER
from gatewayd.control.tailing import Wanted
from gatewayd.records import SLOT_BYTES, pack_header, pack_record
from tests.control.conftest import Admin
from tests.control.test_tailing import NOON_NS, Journals, journals, named, record

__all__ = ["journals", "named"]


def segment(folder: Path, name: str, *numbers: int, status: int = 200) -> tuple[str, int]:
    """Of records by their milliseconds; its name and where it ends."""
    data = pack_header(1, b"w" * 16) + b"".join(pack_record(*record(n, status=status)) for n in numbers)
    (folder / name).write_bytes(data)
    return name, len(data)


def numbers(found: object) -> list[int]:
    return [(each.time_ns - NOON_NS) // 10**6 for each in found.records]  # type: ignore[attr-defined]


def test_of_many_segments_the_newest_in_the_order_of_time(tmp_path: Path) -> None:
    (tmp_path / TAKEN_FOLDER).mkdir()
    ends = dict(
        [
            segment(tmp_path, "1-a-0.gwj", 1, 5, 9),
            segment(tmp_path, "1-b-0.gwj", 2, 4, 8),
            (segment(tmp_path / TAKEN_FOLDER, "0-a-0.gwj", 0, 3)),
            ("gone.gwj", 4 * SLOT_BYTES),
        ]
    )
    assert numbers(newest(tmp_path, ends, Wanted(), 4)) == [4, 5, 8, 9]
    found = newest(tmp_path, ends, Wanted(), 100)
    assert numbers(found) == [0, 1, 2, 3, 4, 5, 8, 9]
    assert (found.ended_by, found.looked_back_to_ns) == ("kept", NOON_NS + 1_750_000)
    assert newest(tmp_path, ends, Wanted(), 4).ended_by == "limit"
    ends["1-a-0.gwj"] -= SLOT_BYTES
    assert numbers(newest(tmp_path, ends, Wanted(), 2)) == [5, 8], "what is behind the position is not looked at"


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.sampled_from([200, 404])), max_size=60),
    st.integers(1, 20),
)
def test_whatever_is_where(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, int, int]], limit: int
) -> None:
    """As if all were sorted by when they ended and looked at one by one."""
    folder = tmp_path_factory.mktemp("journals")
    made.sort(key=lambda each: each[1])
    ends = {}
    for worker in range(4):
        data = pack_header(1, b"w" * 16)
        data += b"".join(pack_record(*record(n, status=status)) for at, n, status in made if at == worker)
        (folder / f"{worker}.gwj").write_bytes(data)
        ends[f"{worker}.gwj"] = len(data)
    expected = [number for _, number, status in made if status == 404][-limit:]
    assert numbers(newest(folder, ends, Wanted(statuses=frozenset({404})), limit)) == expected


def test_damage_is_stepped_over(tmp_path: Path) -> None:
    name, end = segment(tmp_path, "1-a-0.gwj", *range(5))
    for place in (2, 5):  # the last one too
        with (tmp_path / name).open("r+b") as file:
            file.seek(place * SLOT_BYTES + 50)
            file.write(b"\xff")
    assert numbers(newest(tmp_path, {name: end}, Wanted(), 9)) == [0, 2, 3]


def test_since_and_until_and_how_far_it_looked(tmp_path: Path) -> None:
    name, end = segment(tmp_path, "1-a-0.gwj", *range(3000))
    ms = 10**6
    found = newest(tmp_path, {name: end}, Wanted(), 9, since_ns=NOON_NS + 2997 * ms)
    assert numbers(found) == [2997, 2998, 2999]
    assert (found.ended_by, found.looked_back_to_ns) == ("since", NOON_NS + 2997 * ms)
    assert numbers(newest(tmp_path, {name: end}, Wanted(), 2, until_ns=NOON_NS + 2997 * ms)) == [2995, 2996]
    found = newest(tmp_path, {name: end}, Wanted(statuses=frozenset({5})), 2, most_bytes=1000)
    assert found.ended_by == "bytes"
    assert NOON_NS + 1900 * ms < found.looked_back_to_ns < NOON_NS + 2000 * ms


def test_one_that_took_long_stands_where_it_ended(tmp_path: Path) -> None:
    data = pack_header(1, b"w" * 16)
    data += b"".join(pack_record(*record(n)) for n in range(1, 2000))
    data += pack_record(*record(0, upstream_us=3_000_000))
    (tmp_path / "a.gwj").write_bytes(data)
    assert numbers(newest(tmp_path, {"a.gwj": len(data)}, Wanted(), 2)) == [0, 1999]


def test_what_the_answer_says(named: Admin, journals: Journals) -> None:
    journals.append(*map(record, range(5)))
    told = named.get("/v1/logs", limit=2)
    assert [item["request_id"][-1] for item in told["items"]] == ["3", "4"]
    assert (told["looked_back_to"], told["ended_by"]) == ("2026-11-21T12:00:00Z", "limit")
    assert named.get("/v1/logs", since="2026-11-21T12:00:01Z")["ended_by"] == "since"
    problem = named.refused("not_found", "GET", "/v1/logs", params={"client": "kiosq"})
    assert problem["did_you_mean"] == "kiosk"
    backwards = {"since": "2026-11-21T12:00:00Z", "until": "2026-11-21T11:00:00Z"}
    named.refused("invalid", "GET", "/v1/logs", params=backwards)
    named.refused("invalid", "GET", "/v1/logs", params={"limit": "0"})
    named.refused("invalid", "GET", "/v1/logs", params={"status": "429,x"})


def test_what_is_put_away_is_still_found(named: Admin, journals: Journals) -> None:
    journals.append(*map(record, range(5)))
    journals.take()
    journals.journal.close()
    journals.take()
    assert list((journals.folder / TAKEN_FOLDER).iterdir()), "its writer is gone"
    assert len(named.get("/v1/logs")["items"]) == 5

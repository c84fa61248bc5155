"""Charts of characters."""

from __future__ import annotations

from gatectl.commands.usage import drawn as drawn_usage
from gatectl.plots import bars, courses, grouped_sums, sparkline


def test_bars_fill_the_width_and_show_the_least() -> None:
    drawn = bars([("orders", 1000), ("b", 500), ("c", 1), ("none", 0)], 40).splitlines()
    assert [len(line) for line in drawn[:1]] == [39]
    assert drawn[1].count("█") * 2 == drawn[0].count("█") or "▌" in drawn[1]
    assert "▏" in drawn[2]
    assert drawn[3].split() == ["none", "0"]


def test_bars_of_nothing() -> None:
    assert bars([], 80) == ""
    assert bars([("a", 0)], 80).split() == ["a", "0"]


def test_long_labels_are_shortened() -> None:
    assert all(len(line) <= 30 for line in bars([("a-service-with-a-long-name", 3)], 30).splitlines())


def test_sparkline_has_eight_levels_and_blanks() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8], 8) == " ▂▃▄▅▆▇██"
    assert sparkline([0, 0], 0) == "  "


def test_groups_keep_the_sum() -> None:
    assert grouped_sums([1, 2, 3, 4, 5], 2) == [6, 9]
    assert grouped_sums([1, 2], 10) == [1, 2]
    assert grouped_sums([], 10) == []


def test_courses_share_a_scale() -> None:
    drawn = courses([("a", [8, 8]), ("b", [4, 0])], "00:00", "01:00", 80).splitlines()
    assert drawn[0].startswith("a  ██████  peak 8")
    assert drawn[1].startswith("b  ▅▅▅     peak 4".replace("▅", "▅"))
    assert "00:00" in drawn[2]
    assert courses([], "", "", 80) == ""


def test_hours_without_requests_have_their_place_in_a_course() -> None:
    items = [
        {"time": "2026-11-20T22:00:00Z", "service": "orders", "requests": 8},
        {"time": "2026-11-21T01:00:00Z", "service": "orders", "requests": 4},
    ]
    course = drawn_usage(items, ["service"], "hour", 80).splitlines()[1]
    assert course.split("  peak")[0] == "orders  ███      ▅▅▅"

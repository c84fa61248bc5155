"""Charts of characters."""

from __future__ import annotations

from typing import Any

import pytest

from gatectl.plots import (
    ASCII,
    BLOCKS,
    COLOURED,
    Day,
    Ink,
    bars,
    courses,
    grouped_sums,
    heat,
    ink_of,
    legend,
    sparkline,
)
from gatectl.usage.charts import drawn as drawn_usage


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
    answer = answered(items, "2026-11-20T22:00:00Z", "2026-11-21T02:00:00Z")
    course = drawn_usage(answer, ["service"], "hour", None, 80, BLOCKS).splitlines()[1]
    assert course.split("  peak")[0] == "orders  ███      ▅▅▅"


def answered(items: list[dict[str, Any]], since: str, until: str) -> dict[str, Any]:
    return {"since": since, "until": until, "items": items}


MAP = [
    Day("2026-11-20", [None] * 20 + [1, 25, 26, 100]),
    Day("2026-11-21", [0, 50, 51, 75, 76] + [None] * 19),
]


def test_a_heat_map_has_a_row_a_day_and_a_column_an_hour() -> None:
    assert heat(MAP, 100, 0).splitlines() == [
        "            00    06    12    18",
        "2026-11-20                      ░░▒█  152",
        "2026-11-21  ·▒▓▓█                     252",
    ]
    assert legend(100) == "· none  ░ up to 25  ▒ 50  ▓ 75  █ 100\n"


@pytest.mark.parametrize(("width", "cell"), [(0, 1), (80, 2), (120, 4), (200, 4)])
@pytest.mark.parametrize("ink", [BLOCKS, ASCII])
def test_a_heat_map_fits(width: int, cell: int, ink: Ink) -> None:
    lines = heat(MAP, 100, width, ink).splitlines()
    assert {len(line) for line in lines[1:]} == {12 + 24 * cell + 2 + 3}
    assert not width or max(map(len, lines)) <= width


def test_a_heat_map_of_one_request_says_so() -> None:
    assert legend(1) == "· none  █ up to 1\n"
    assert "█" in heat([Day("2026-11-20", [1] + [0] * 23)], 1, 80)
    assert legend(1, ASCII) == ". none  # up to 1\n"


def test_colours_are_only_for_terminals_that_have_them() -> None:
    colourful = {"TERM": "xterm-256color"}
    assert ink_of("utf-8", colourful, terminal=True) is COLOURED
    assert ink_of("utf-8", colourful, terminal=False) is BLOCKS
    assert ink_of("utf-8", {"TERM": "dumb"}, terminal=True) is BLOCKS
    assert ink_of("utf-8", {**colourful, "NO_COLOR": ""}, terminal=True) is BLOCKS
    assert ink_of("iso8859-1", colourful, terminal=True) is ASCII
    assert ink_of(None, {}, terminal=False) is ASCII
    shaded = heat(MAP, 100, 80, COLOURED)
    assert shaded.count("\x1b[0m") == 8
    assert all(f"\x1b[38;5;{colour}m" in shaded for colour in COLOURED.colours)


def test_ascii_is_enough_for_every_chart() -> None:
    drawn = bars([("a-long-service", 8), ("b", 1), ("c", 0)], 30, ASCII) + sparkline(range(9), 8, ASCII)
    drawn += heat(MAP, 100, 80, ASCII) + legend(100, ASCII)
    assert drawn.isascii()
    assert [line.count("#") > 0 for line in drawn.splitlines()[:3]] == [True, True, False]


def test_hours_of_several_days_are_a_heat_map_for_each_group() -> None:
    items = [
        {"time": "2026-11-20T22:00:00Z", "service": name, "requests": number}
        for number, name in enumerate(("a", "b", "c", "d", "e", "f", "g"), 1)
    ]
    answer = answered(items, "2026-11-20T02:00:00Z", "2026-11-21T04:00:00Z")
    text = drawn_usage(answer, ["service"], "hour", None, 80, BLOCKS)
    assert [line for line in text.splitlines() if len(line) == 1] == ["g", "f", "e", "d", "c", "b"]
    assert "1 more are not drawn" in text
    assert text.startswith("requests per hour, UTC\n")
    a_day = answered(items, "2026-11-20T02:00:00Z", "2026-11-21T03:00:00Z")
    assert drawn_usage(a_day, ["service"], "hour", None, 80, BLOCKS).startswith("requests per hour\n")
    assert drawn_usage(answer, ["service"], "hour", "line", 80, BLOCKS).startswith("requests per hour\n")
    assert drawn_usage(answer, ["service"], "hour", "bars", 80, BLOCKS).startswith("requests\n")


def test_a_course_shows_that_requests_have_ceased() -> None:
    items = [{"service": "orders", "time": "2026-11-20T05:00:00Z", "requests": 7}]
    answer = {"since": "2026-11-20T03:00:00Z", "until": "2026-11-20T09:00:00Z", "items": items}
    _, course, axis = drawn_usage(answer, ["service"], "hour", "line", 80, BLOCKS).splitlines()
    assert course == f"orders  {' ' * 6}███{' ' * 9}  peak 7"
    assert axis.split() == ["2026-11-20", "03:00Z", "2026-11-20", "08:00Z"]
    by_day = answer | {"since": "2026-11-18T22:00:00Z", "items": [items[0] | {"time": "2026-11-20T00:00:00Z"}]}
    assert "orders        ███  peak 7" in drawn_usage(by_day, ["service"], "day", None, 80, BLOCKS)

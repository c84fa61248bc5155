"""Charts drawn with characters: bars to compare, sparklines to see a course, heat maps to see the hours of days.

Pure: numbers in, text out. What a chart may be drawn with is its `Ink`, which `ink_of` chooses for an output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gatectl import colours


class Ink(NamedTuple):
    """Characters of a chart, from little to much. `colours` (of 256) take the place of shades where there are some."""

    eighths: str  # of a bar's last cell, from nothing to all of it
    levels: str
    shades: str
    none: str  # an hour in which nothing was
    cut: str  # the end of a label that was too long
    colours: tuple[int, ...] = ()


BLOCKS = Ink(" ▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "░▒▓█", "·", "…")
ASCII = Ink("    #####", ".:-=+*#@", ".+*#", ".", "~")
# Dark violet to yellow: in order also for the colour-blind, and seen on light and on dark ground.
COLOURED = BLOCKS._replace(colours=(54, 31, 36, 77, 220))

_HOURS = 24
_DAY_WIDTH = len("2026-11-20")
_WIDEST_HOUR = 4


def ink_of(encoding: str | None, environment: Mapping[str, str], *, terminal: bool) -> Ink:
    """For an output of that encoding: colours only on a terminal that has them, and never against NO_COLOR."""
    try:
        "".join(BLOCKS[:5]).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return COLOURED if terminal and colours.many(environment) and "NO_COLOR" not in environment else BLOCKS


def bars(rows: Sequence[tuple[str, float]], width: int, ink: Ink = BLOCKS) -> str:
    """A horizontal bar a row, the longest filling what labels and figures leave of `width`."""
    if not rows:
        return ""
    label_width = min(max(len(label) for label, _ in rows), width // 3)
    figures = [f"{value:,.0f}" for _, value in rows]
    room = max(width - label_width - max(map(len, figures)) - 4, 8)
    most = max(value for _, value in rows) or 1
    lines = []
    for (label, value), figure in zip(rows, figures, strict=True):
        lines.append(f"{_fit(label, label_width, ink)}  {bar(value / most * room, ink)} {figure}".rstrip())
    return "\n".join(lines) + "\n"


def bar(cells: float, ink: Ink = BLOCKS) -> str:
    """`cells` columns in eighths; what is not nothing shows at least one."""
    eighths = round(cells * 8) or (1 if cells > 0 else 0)
    whole, rest = divmod(eighths, 8)
    return (ink.eighths[8] * whole + ink.eighths[rest].strip()) or (ink.eighths[8] if eighths else "")


def sparkline(values: Sequence[float], most: float, ink: Ink = BLOCKS) -> str:
    """A character a value, eight levels up to `most`; a space where nothing was."""
    if most <= 0:
        return " " * len(values)
    return "".join(ink.levels[min(int(value / most * 8), 7)] if value > 0 else " " for value in values)


def courses(rows: Sequence[tuple[str, Sequence[float]]], first: str, last: str, width: int, ink: Ink = BLOCKS) -> str:
    """A sparkline a row, all of one height scale, above a line with the first and the last time.

    Few values are drawn wider; more values than columns are summed in equal groups.
    """
    if not rows:
        return ""
    label_width = min(max(len(label) for label, _ in rows), width // 3)
    room = max(width - label_width - 14, 8)
    grouped = [(label, grouped_sums(values, room)) for label, values in rows]
    most = max(max(values, default=0) for _, values in grouped)
    count = max(len(values) for _, values in grouped)
    times = min(max(room // max(count, 1), 1), 3)
    length = count * times
    lines = []
    for label, values in grouped:
        wider = [value for value in values for _ in range(times)]
        peak = f"peak {max(values, default=0):,.0f}"
        lines.append(f"{_fit(label, label_width, ink)}  {sparkline(wider, most, ink):<{length}}  {peak}")
    axis = first + " " * max(length - len(first) - len(last), 1) + last
    return "\n".join([*lines, " " * (label_width + 2) + axis]) + "\n"


def grouped_sums(values: Sequence[float], room: int) -> list[float]:
    """At most `room` values, each the sum of equally many neighbours (the last of what is left)."""
    step = -(-len(values) // room) if values else 1
    return [sum(values[start : start + step]) for start in range(0, len(values), step)]


class Day(NamedTuple):
    """A row of a heat map: a value for each of the 24 hours, None for one that was not asked for."""

    name: str
    hours: Sequence[float | None]


def heat(days: Sequence[Day], most: float, width: int, ink: Ink = BLOCKS) -> str:
    """A row a day, a column an hour, shaded by how much of `most` it is; at the end of a row what the day sums to."""
    sums = [f"{sum(filter(None, day.hours)):,.0f}" for day in days]
    sum_width = max(map(len, sums), default=0)
    cell = min(max((width - _DAY_WIDTH - sum_width - 4) // _HOURS, 1), _WIDEST_HOUR)
    scale = "".join(f"{hour:02}".ljust(6 * cell) for hour in range(0, _HOURS, 6)).rstrip()
    lines = [" " * (_DAY_WIDTH + 2) + scale]
    for day, total in zip(days, sums, strict=True):
        cells = "".join(_shade(value, most, cell, ink) for value in day.hours)
        lines.append(f"{day.name:<{_DAY_WIDTH}}  {cells}  {total:>{sum_width}}")
    return "\n".join(lines) + "\n"


def legend(most: float, ink: Ink = BLOCKS) -> str:
    """Up to how much each shade of a heat map stands for."""
    steps = len(ink.colours or ink.shades)
    parts, before = [f"{ink.none} none"], 0
    for step in range(steps):
        high = int(most) * (step + 1) // steps
        if high > before:
            parts.append(f"{_shade(high, most, 1, ink)} {'' if before else 'up to '}{high:,}")
            before = high
    return "  ".join(parts) + "\n"


def _shade(value: float | None, most: float, cell: int, ink: Ink) -> str:
    if value is None:
        return " " * cell
    if value <= 0:
        return ink.none + " " * (cell - 1)
    steps = len(ink.colours or ink.shades)
    step = min(-int(-value * steps // most) - 1, steps - 1)
    if not ink.colours:
        return ink.shades[step] * cell
    return f"\x1b[38;5;{ink.colours[step]}m{ink.eighths[8] * cell}\x1b[0m"


def _fit(label: str, width: int, ink: Ink) -> str:
    return f"{label if len(label) <= width else label[: width - 1] + ink.cut:<{width}}"

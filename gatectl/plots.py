"""Charts drawn with characters: bars to compare, a sparkline a row to see a course. Pure: numbers in, text out."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"


def bars(rows: Sequence[tuple[str, float]], width: int) -> str:
    """A horizontal bar a row, the longest filling what labels and figures leave of `width`."""
    if not rows:
        return ""
    label_width = min(max(len(label) for label, _ in rows), width // 3)
    figures = [f"{value:,.0f}" for _, value in rows]
    room = max(width - label_width - max(map(len, figures)) - 4, 8)
    most = max(value for _, value in rows) or 1
    lines = []
    for (label, value), figure in zip(rows, figures, strict=True):
        lines.append(f"{_fit(label, label_width)}  {_bar(value / most * room)} {figure}".rstrip())
    return "\n".join(lines) + "\n"


def _bar(cells: float) -> str:
    """`cells` columns in eighths; what is not nothing shows at least one."""
    eighths = round(cells * 8) or (1 if cells > 0 else 0)
    return _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def sparkline(values: Sequence[float], most: float) -> str:
    """A character a value, eight levels up to `most`; a space where nothing was."""
    if most <= 0:
        return " " * len(values)
    return "".join(_LEVELS[min(int(value / most * 8), 7)] if value > 0 else " " for value in values)


def courses(rows: Sequence[tuple[str, Sequence[float]]], first: str, last: str, width: int) -> str:
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
        lines.append(f"{_fit(label, label_width)}  {sparkline(wider, most):<{length}}  {peak}")
    axis = first + " " * max(length - len(first) - len(last), 1) + last
    return "\n".join([*lines, " " * (label_width + 2) + axis]) + "\n"


def grouped_sums(values: Sequence[float], room: int) -> list[float]:
    """At most `room` values, each the sum of equally many neighbours (the last of what is left)."""
    step = -(-len(values) // room) if values else 1
    return [sum(values[start : start + step]) for start in range(0, len(values), step)]


def _fit(label: str, width: int) -> str:
    return f"{label if len(label) <= width else label[: width - 1] + '…':<{width}}"

"""Usage as a chart below its table: which chart suits it, and its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from gatectl import plots
from gatectl.errors import MisuseError
from gatectl.kinds import Object, hour_text
from gatectl.times import rfc3339

FORMS = ("bars", "line", "heat")
_MOST_MAPS = 6  # of one range: more are no picture any more
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


def form_for(asked: str | None, interval: str | None) -> str | None:
    """The chart that was asked for, if the interval allows it; None leaves it to the answer."""
    if asked in ("line", "heat") and interval is None:
        raise MisuseError(f"--plot-as {asked} draws a course of time", "add --interval hour")
    if asked == "heat" and interval != "hour":
        raise MisuseError("--plot-as heat draws the hours of days", "take --interval hour")
    return asked


def drawn(
    answer: Object, dimensions: Sequence[str], interval: str | None, form: str | None, width: int, ink: plots.Ink
) -> str:
    """Requests by group. Without a form: bars, by interval courses, and a heat map where hours are of several days."""
    since, until = (datetime.fromisoformat(str(answer[name])) for name in ("since", "until"))
    if form is None:
        # 24h begin and end within an hour, and are widened to 25: still a day.
        several_days = interval == "hour" and until - since > _DAY + _HOUR
        form = "bars" if interval is None else "heat" if several_days else "line"
    groups: dict[str, dict[str, float]] = {}
    for item in answer["items"]:
        group = groups.setdefault(" ".join(str(item[name]) for name in dimensions), {})
        time = str(item.get("time", ""))
        group[time] = group.get(time, 0) + item["requests"]
    if form == "bars":
        rows = [(name, sum(group.values())) for name, group in groups.items()]
        return "requests\n" + plots.bars(rows, width, ink)
    if form == "heat":
        return "requests per hour, UTC\n" + _maps(groups, since, until, width, ink)
    assert interval is not None
    moments = _moments(since, until, interval)
    courses = [(name, [group.get(moment, 0) for moment in moments]) for name, group in groups.items()]
    ends = hour_text(moments[0]), hour_text(moments[-1])
    return f"requests per {interval}\n" + plots.courses(courses, *ends, width, ink)


def _moments(since: datetime, until: datetime, interval: str) -> list[str]:
    """All of the range, also where nothing was: that requests have ceased is what a person has to see."""
    step = _DAY if interval == "day" else _HOUR
    first = since.replace(hour=0) if interval == "day" else since
    return [rfc3339(first + step * number) for number in range(-((first - until) // step))]


def _maps(
    groups: Mapping[str, Mapping[str, float]], since: datetime, until: datetime, width: int, ink: plots.Ink
) -> str:
    """A map for each group, the heaviest first, all of one scale."""
    most = max(max(group.values()) for group in groups.values())
    heaviest = sorted(groups, key=lambda name: -sum(groups[name].values()))
    text = ""
    for name in heaviest[:_MOST_MAPS]:
        title = f"\n{name}\n" if len(groups) > 1 else ""
        text += title + plots.heat(_days(groups[name], since, until), most, width, ink)
    if left := len(groups) - _MOST_MAPS:
        text += f"\n{left} more are not drawn; narrow it with --service, --key or --by\n" if left > 0 else ""
    return text + "\n" + plots.legend(most, ink)


def _days(group: Mapping[str, float], since: datetime, until: datetime) -> list[plots.Day]:
    days = []
    day = since.replace(hour=0)
    while day < until:
        hours = [day + _HOUR * number for number in range(24)]
        days.append(
            plots.Day(
                day.date().isoformat(),
                [group.get(rfc3339(hour), 0) if since <= hour < until else None for hour in hours],
            )
        )
        day += _DAY
    return days

"""How values look, by the kind of their column: to people, and to programs.

A person wants `12,345`, `10 MiB` and `3 min ago`; a program what the gateway said. Kinds know nothing of forms, widths
or colours.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gatectl.price_text import price_text

Object = Mapping[str, Any]
When = Callable[[Any], str]  # the text of a time, in words or to the second


class Kind(NamedTuple):
    """How values of a kind look to people and to programs, and on which side of a column they stand."""

    human: Callable[[Any], str]
    plain: Callable[[Any], str]
    right: bool = False
    aged: Callable[[Any, When], str] | None = None  # of kinds that tell times, with these as `When` tells them


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(_text(part) for part in value)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return str(value)


def time_text(value: Any) -> str:
    """2026-11-21T02:00:00Z as 2026-11-21 02:00:00Z; the Z stays, for people work in other zones."""
    return str(value).replace("T", " ")


def hour_text(value: Any) -> str:
    """2026-11-21T02:00:00Z as 2026-11-21 02:00Z: the seconds of a full hour say nothing."""
    return time_text(value).replace(":00Z", "Z")


def _clock(value: Any) -> str:
    """2026-11-21T02:00:00.123Z as 02:00:00.123Z: of what is happening now, everybody knows the day."""
    return str(value).partition("T")[2] or str(value)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}".rstrip("0").rstrip(".")


def _money(value: Any) -> str:
    """1234567.5 as 1,234,567.5; what is no amount (a line of an invoice that has none) as it is."""
    match = _AMOUNT.fullmatch(str(value))
    return f"{match[1]}{int(match[2]):,}{match[3]}" if match else str(value)


def _size(value: Any) -> str:
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if amount >= 100 or amount == int(amount) else f"{amount:.1f} {unit}"


_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))


def _duration(value: Any) -> str:
    """86400 as 1 d, 5400 as 1 h 30 min, 2.5 as 2.5 s."""
    left, parts = value, []
    for size_s, unit in _SPANS:
        count, left = divmod(left, size_s)
        parts += [f"{count:.0f} {unit}"] if count else []
    return " ".join([*parts, f"{left:g} s"] if left or not parts else parts)


def _seconds(value: Any) -> str:
    """Whole: `g` would make 2.592e+06 of 30 days."""
    return str(int(value)) if value == int(value) else str(value)


_SHARE_CELLS = 20


def _share(value: Any) -> str:
    """43.2% and a bar of as much of 20 cells."""
    from gatectl import plots

    ink = plots.ink_of(sys.stdout.encoding, os.environ, terminal=False)
    return f"{100 * value:5.1f}%  {plots.bar(_SHARE_CELLS * value, ink)}"


_AMOUNT = re.compile(r"(-?)(\d+)((?:\.\d+)?)", re.ASCII)
_WINDOWS = {1: "s", 60: "min", 3600: "h", 86400: "d"}


def _per(window_s: Any) -> str:
    return _WINDOWS.get(window_s) or f"{window_s}s"


def _rates(value: Any) -> str:
    return ",".join(f"{rate['limit']}/{_per(rate['window_s'])}" for rate in value) or "none"


def _rates_grouped(value: Any) -> str:
    return ", ".join(f"{rate['limit']:,}/{_per(rate['window_s'])}" for rate in value) or "none"


def _bursts(value: Any) -> str:
    return ",".join(str(rate["burst"]) for rate in value)


def _bursts_grouped(value: Any) -> str:
    return ", ".join(f"{rate['burst']:,}" for rate in value)


def _percents(value: Any) -> str:
    return ",".join(f"{percent}%" for percent in value)


def _grants(value: Any, when: When = time_text) -> str:
    """A line each: what was given or forgiven, and why."""
    return "\n".join(_grant(grant, when) for grant in value)


def _grant(grant: Any, when: When) -> str:
    reason = f" ({grant['reason']})" if grant["reason"] else ""
    if grant["kind"] == "reset":
        return f"reset {_at(when(grant['created_at']))}{reason}"
    return f"+{_number(grant['units'])}{_until(when(grant['until']))}{reason}"


def _events(value: Any, when: When = time_text) -> str:
    """One a line: 2026-11-21 02:00:00Z quota.threshold delivered."""
    return "\n".join(_event(event, when) for event in value)


def _event(event: Any, when: When) -> str:
    more = {
        "pending": f", attempt {event['attempts'] + 1} due {when(event['next_at'])}",
        "failed": f", given up after {event['attempts']} attempt{'s' * (event['attempts'] != 1)}",
    }.get(event["state"], "")
    error = f": {event['error']}" if event["error"] else ""
    return f"{when(event['created_at'])} {event['type']} {event['state']}{more}{error}"


def _at(when: str) -> str:
    """`at 2026-11-21 ...`, but `1 h ago`."""
    return f"at {when}" if when[:1].isdigit() and when.endswith("Z") else when


def _until(when: str) -> str:
    """` until 2026-11-28 ...`, but `, ends in 6 days`."""
    return f" until {when}" if when[:1].isdigit() and when.endswith("Z") else f", ends {when}"


def _any(value: Any) -> str:
    return _text(value) if value else "any"


def _chosen(value: Any) -> str:
    return _text(value) if value else "key's own"


def _pairs(value: Any) -> str:
    return ",".join(f"{name}={text}" for name, text in value.items())


def _generations(value: Any, when: When = time_text) -> str:
    """One a line: 2 current, used 2026-11-21 02:00:00Z."""
    return "\n".join(
        f"{each['number']} {each['status']}"
        + (_until(when(each["expires_at"])) if each["status"] == "active" else "")
        + (f", used {when(each['last_used_at'])}" if each["last_used_at"] else ", never used")
        for each in value
    )


def _scope(value: Any) -> str:
    return _text(value) if value else "all"


def _weights(value: Any) -> list[str]:
    return [f"{url}={weight}" for url, weight in value.items()]


def _header_rules(value: Any) -> list[str]:
    """As they are typed."""
    return [f"{rule['action']} {rule['name']}" + (f": {rule['value']}" if rule.get("value") else "") for rule in value]


KINDS: Mapping[str, Kind] = {
    "text": Kind(_text, _text),
    "lines": Kind(lambda value: "\n".join(value), _text),  # a list; for people one a line
    "weights": Kind(lambda value: "\n".join(_weights(value)), lambda value: _text(_weights(value))),
    "headers": Kind(lambda value: "\n".join(_header_rules(value)), lambda value: _text(_header_rules(value))),
    "status": Kind(_text, _text),
    "time": Kind(time_text, str, aged=lambda value, when: when(value)),
    "moment": Kind(time_text, str),  # a bound of a range: what it is matters, not how long ago
    "hour": Kind(hour_text, str),
    "clock": Kind(_clock, str),
    "number": Kind(_number, _text, right=True),
    "rate": Kind(lambda value: f"{_number(round(value, 1))}/s", _text, right=True),
    "millis": Kind(lambda value: f"{_number(value)} ms", _text, right=True),
    "ratio": Kind(lambda value: f"{value:.1%}", _text, right=True),
    "quota": Kind(lambda value: f"{value:,}/month", _text, right=True),
    "money": Kind(_money, str, right=True),
    "price": Kind(price_text, price_text, right=True),  # of a whole plan
    "share": Kind(_share, _text),
    "size": Kind(_size, _text, right=True),
    "seconds": Kind(_duration, _seconds, right=True),
    "rates": Kind(_rates_grouped, _rates),
    "bursts": Kind(_bursts_grouped, _bursts),
    "percents": Kind(_percents, _text),
    "grants": Kind(_grants, _text, aged=_grants),
    "events": Kind(_events, _text, aged=_events),
    "any": Kind(_any, _any),
    "chosen": Kind(_chosen, _chosen),  # of a route's service: none named is the key's
    "labels": Kind(_pairs, _pairs),
    "generations": Kind(_generations, _text, aged=_generations),
    "scope": Kind(_scope, _scope),  # services of a key: none named is all
}

SAYING_NONE = ("any", "chosen", "scope")  # kinds in which nothing named means something


def told(kind: str, value: Any, now: int | None, *, exactly: bool = False) -> str:
    """The text for a person. With the gateway's clock at `now` times are told from there; one, `exactly`: both ways."""
    of = KINDS[kind]
    if of.aged is None or now is None:
        return of.human(value)
    from gatectl.ages import age  # only for who looks at it

    def when(time: Any) -> str:
        exact, words = time_text(time), age(time, now)
        return f"{words} ({exact})" if words and exactly and kind == "time" else words or exact

    return of.aged(value, when)

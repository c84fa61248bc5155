"""What plans, tenants, clients and keys have in common: windows as people write them and as rows hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from gatewayd.conf import RateConf
from gatewayd.control.admin.inputs import checked
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.spelling import Rate
from gatewayd.policy.amounts import LARGEST_COUNT, is_month, parse_quota, parse_rate

Rates = Annotated[tuple[Rate, ...], msgspec.Meta(max_length=16)]
Burst = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_COUNT)]

_rates = msgspec.json.Decoder(tuple[RateConf, ...])


class RateView(msgspec.Struct):
    """A window: `limit` in `window_s` seconds, refilled evenly, at most `burst` at once."""

    name: str
    limit: int
    window_s: int
    burst: int


def show_rates(rates: Sequence[RateConf]) -> list[RateView]:
    return [RateView(rate.name, rate.limit, rate.window_s, rate.burst) for rate in rates]


def decode_rates(column: str) -> tuple[RateConf, ...]:
    return _rates.decode(column)


def encode_rates(rates: Sequence[RateConf]) -> str:
    return msgspec.json.encode(rates).decode()


def windows_and_quota(
    texts: Sequence[str], burst: int | None, quota: str | int | None
) -> tuple[tuple[RateConf, ...], int | None]:
    """Windows and quota as they were written; `10000/month` among the rates is the quota."""
    monthly = [text for text in texts if is_month(text.partition("/")[2])]
    if len(monthly) + (quota is not None) > 1:
        raise invalid("quota", "the quota is given twice; N/month among the rates is one too")
    rates = tuple(checked("rates", lambda text: parse_rate(text, burst), text) for text in texts if text not in monthly)
    if len({rate.window_s for rate in rates}) < len(rates):
        raise invalid("rates", "two rates have the same window; give one of them")
    if burst is not None and not rates:
        raise invalid("burst", "burst belongs to a rate; give one such as 60/min")
    written = monthly[0] if monthly else quota
    return rates, None if written is None else checked("rates" if monthly else "quota", parse_quota, written)


def windows(texts: Sequence[str], burst: int | None) -> tuple[RateConf, ...]:
    """Windows where there is no quota."""
    rates, monthly = windows_and_quota(texts, burst, None)
    if monthly is not None:
        raise invalid("rates", "a calendar month is a quota, which plans and keys have; give a window such as 1000/d")
    return rates


def with_bursts_kept(rates: tuple[RateConf, ...], before: tuple[RateConf, ...]) -> tuple[RateConf, ...]:
    """A window that stays keeps the burst that was set for it; one that had the limit for its burst still does.

    One that says its own burst has that."""
    bursts = {rate.window_s: rate.burst for rate in before if rate.burst != rate.limit}
    return tuple(
        msgspec.structs.replace(rate, burst=bursts.get(rate.window_s, rate.burst)) if rate.burst == rate.limit else rate
        for rate in rates
    )

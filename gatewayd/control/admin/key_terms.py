"""What a key may be told apart from its name: where it is valid, for how long, and what it has in place of its plan's.

The columns of a row from the fields of a request; each field complains by its own name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlmodel import Session

from gatewayd.conf import RateConf
from gatewayd.control.admin.inputs import checked
from gatewayd.control.admin.problems import invalid
from gatewayd.control.admin.refs import plan_by, service_by
from gatewayd.control.admin.spelling import Expiry, Price, QuotaText, Rate
from gatewayd.control.compile import Overrides
from gatewayd.control.prices import price_id_of
from gatewayd.control.tables import Key, Tenant
from gatewayd.policy.allowing import check_allow, check_network
from gatewayd.policy.amounts import LARGEST_COUNT, is_month, parse_expiry, parse_quota, parse_rate
from gatewayd.policy.money import parse_price
from gatewayd.policy.pricing import Terms

# An empty list is refused: in an answer it means "all", and a script that found nothing must not open everything.
Scope = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]
# Here an empty list takes the limits away that there were: whoever gives one has named the field.
Rules = Annotated[tuple[str, ...], msgspec.Meta(max_length=100)]
Rates = Annotated[tuple[Rate, ...], msgspec.Meta(min_length=1, max_length=16)]
Count = Annotated[int, msgspec.Meta(ge=1, le=LARGEST_COUNT)]
Labels = Annotated[dict[str, str], msgspec.Meta(max_length=50)]

RULES = "names and labels are printable, times are to come, windows differ, rules and networks are such"
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", re.ASCII)
_LONGEST_VALUE = 200
_overrides = msgspec.json.Decoder(Overrides)


class KeyTerms(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields that `create` and `set` have in common. Null takes away; what is not given stays as it is."""

    services: Scope | UnsetType | None = UNSET
    plan: str | UnsetType | None = UNSET
    expires: Expiry | UnsetType | None = UNSET
    allow: Rules | UnsetType | None = UNSET
    networks: Rules | UnsetType | None = UNSET
    labels: Labels | UnsetType | None = UNSET
    rates: Rates | UnsetType | None = UNSET
    burst: Count | UnsetType = UNSET
    quota: QuotaText | int | UnsetType | None = UNSET
    in_flight_limit: Count | UnsetType | None = UNSET
    price: Price | UnsetType | None = UNSET


def set_terms(session: Session, tenant: Tenant, key: Key, wanted: KeyTerms, now: int) -> None:
    """Into the row, whatever was given."""
    if wanted.plan is not UNSET:
        key.plan_id = None if wanted.plan is None else plan_by(session, tenant, wanted.plan).id
    if wanted.services is not UNSET:
        key.service_ids = scope_of(session, tenant, wanted.services)
    for name, value in columns_of(wanted, now).items():
        setattr(key, name, value)
    overrides = changed_overrides(_overrides.decode(key.overrides), wanted)
    if wanted.price is not UNSET:
        terms = price_of(wanted)
        price_id = None if terms is None else price_id_of(session, terms)
        overrides = msgspec.structs.replace(overrides, price_id=price_id)
    key.overrides = _json(overrides)


def columns_of(wanted: KeyTerms, now: int) -> dict[str, Any]:
    """What the row holds of what was given, checked: all that is neither another row nor in place of the plan's."""
    columns: dict[str, Any] = {}
    if wanted.expires is not UNSET:
        columns["expires_at"] = expiry_of(wanted.expires, now)
    if wanted.allow is not UNSET:
        columns["allow"] = _json([checked("allow", check_allow, rule) for rule in wanted.allow or ()])
    if wanted.networks is not UNSET:
        columns["networks"] = _json([checked("networks", check_network, network) for network in wanted.networks or ()])
    if wanted.labels is not UNSET:
        columns["labels"] = _json(check_labels(wanted.labels or {}))
    return columns


def scope_of(session: Session, tenant: Tenant, refs: Sequence[str] | None) -> str | None:
    if refs is None:
        return None
    ids = {service_by(session, tenant, ref).id for ref in refs}
    return _json(sorted(id_ for id_ in ids if id_ is not None))


def expiry_of(text: str | None, now: int) -> int | None:
    return None if text is None else checked("expires", lambda written: parse_expiry(written, now), text)


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    for name, value in labels.items():
        if _LABEL.fullmatch(name) is None:
            raise invalid("labels", f"{name[:80]!r} is not a label: letters, digits, '.', '_', '/' and '-', at most 63")
        if len(value) > _LONGEST_VALUE or not value.isprintable():
            raise invalid("labels", f"the value of {name} is too long, or holds a control character")
    return dict(labels)


def price_of(wanted: KeyTerms) -> Terms | None:
    """The key's own price, where one is given."""
    if wanted.price is UNSET or wanted.price is None:
        return None
    return Terms(request_nanos=checked("price", parse_price, wanted.price))


def changed_overrides(before: Overrides, wanted: KeyTerms) -> Overrides:
    """What the key has in place of its plan's, but for a price."""
    changes: dict[str, Any] = {}
    if wanted.rates is not UNSET or wanted.burst is not UNSET:
        changes["rates"] = _rates(before.rates, wanted)
    if wanted.quota is not UNSET:
        changes["quota"] = None if wanted.quota is None else checked("quota", parse_quota, wanted.quota)
    if wanted.in_flight_limit is not UNSET:
        changes["in_flight_limit"] = wanted.in_flight_limit
    return msgspec.structs.replace(before, **changes)


def _rates(before: tuple[RateConf, ...] | None, wanted: KeyTerms) -> tuple[RateConf, ...] | None:
    burst = None if wanted.burst is UNSET else wanted.burst
    if wanted.rates is UNSET:
        if not before:
            raise invalid("burst", "burst belongs to a rate of the key's own; give one such as 60/min")
        return tuple(msgspec.structs.replace(rate, burst=burst) for rate in before)
    if wanted.rates is None:
        return None
    for text in wanted.rates:
        if is_month(text.partition("/")[2]):
            raise invalid("rates", f"{text[:40]!r} is a quota; give it as one")
    rates = tuple(checked("rates", lambda text: parse_rate(text, burst), text) for text in wanted.rates)
    if len({rate.window_s for rate in rates}) < len(rates):
        raise invalid("rates", "two rates have the same window; give one of them")
    return rates


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

"""Rows as a document of the configuration defines them: names in place of numbers, what has its default left out.

What a document wants and what is there are both brought into this form, from the columns of a row, and so compared
alike: `60/m` and `60/min` are no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from gatewayd.conf import BreakerConf, HeaderRuleConf, HealthConf
from gatewayd.control.admin.keys import NewKey
from gatewayd.control.admin.plan_prices import AskedPrice, new_terms
from gatewayd.control.admin.plans import NewPlan
from gatewayd.control.admin.routes import NewRoute
from gatewayd.control.admin.service_options import breaker_of, health_of
from gatewayd.control.admin.services import NewService
from gatewayd.control.admin.tenants import NewTenant
from gatewayd.control.admin.terms import decode_rates
from gatewayd.control.compile import Overrides
from gatewayd.errors import GatewayError
from gatewayd.policy.amounts import format_rate, format_time
from gatewayd.policy.differences import Kind
from gatewayd.policy.invoicing import show_terms
from gatewayd.policy.money import format_nanos
from gatewayd.policy.pricing import Terms

Defined = dict[str, Any]
Columns = Mapping[str, Any]


class KeyEntry(NewKey, kw_only=True):
    """A key without its secret. `id`: where its name is not enough. No services: it may call none; null: all."""

    id: str | UnsetType = UNSET
    services: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)] | UnsetType | None = UNSET


class TenantEntry(NewTenant, kw_only=True):
    """A tenant with what is in it. A section that is not given is not managed.

    Whether it is suspended is not said: like a drained target and a disabled key that is of a day, and an apply must
    not lift it.
    """

    default_plan: str | None = None
    services: tuple[NewService, ...] | UnsetType = UNSET
    plans: tuple[NewPlan, ...] | UnsetType = UNSET
    routes: tuple[NewRoute, ...] | UnsetType = UNSET
    keys: tuple[KeyEntry, ...] | UnsetType = UNSET


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """The configuration, or what of it somebody wants to manage."""

    version: Literal[1]
    tenants: tuple[TenantEntry, ...]


ENTRIES: Mapping[Kind, type[msgspec.Struct]] = {
    "tenant": TenantEntry,
    "service": NewService,
    "plan": NewPlan,
    "route": NewRoute,
    "key": KeyEntry,
}
SECTIONS: Mapping[str, Kind] = {"services": "service", "plans": "plan", "routes": "route", "keys": "key"}
NO_SERVICE = "[0]"  # a scope that holds none: numbers begin with 1


def _defaults(entry: type[msgspec.Struct]) -> Defined:
    """Of each field that has one, as JSON has it. What may be unset is nothing then."""
    defaults = {field.encode_name: default_of(field) for field in msgspec.structs.fields(entry) if not field.required}
    return {
        name: None if value is UNSET else msgspec.json.decode(msgspec.json.encode(value))
        for name, value in defaults.items()
    }


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """Of a field that need not be given."""
    return field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default


DEFAULTS: Mapping[Kind, Defined] = {kind: _defaults(entry) for kind, entry in ENTRIES.items()}
_FREE = show_terms(Terms())
_HEALTH, _BREAKER = msgspec.to_builtins(HealthConf()), msgspec.to_builtins(BreakerConf())
_list = msgspec.json.Decoder(list[Any])
_labels = msgspec.json.Decoder(dict[str, str])
_overrides = msgspec.json.Decoder(Overrides)
_rules = msgspec.json.Decoder(tuple[HeaderRuleConf, ...])


def _sparse(full: Defined, defaults: Defined) -> Defined:
    return {name: value for name, value in full.items() if name not in defaults or defaults[name] != value}


def define_tenant(row: Columns, default_plan: str | None) -> Defined:
    return _sparse(
        {
            **{name: row[name] for name in ("slug", "name", "currency", "time_zone", "contact")},
            "allow": _list.decode(row["allow"]),
            "rates": rates_of(row["rates"]),
            "default_plan": default_plan,
        },
        DEFAULTS["tenant"],
    )


_OF_SERVICE = (
    "auth", "preserve_host", "timeout_s", "connect_timeout_s", "first_byte_timeout_s", "idle_timeout_s",
    "tunnel_lifetime_s", "body_limit_bytes", "in_flight_limit", "key_header", "tls_verify", "tls_server_name",
    "tls_ca_file", "tls_cert_file", "tls_key_file", "balance", "hash_on",
)  # fmt: skip


def define_service(row: Columns, targets: Sequence[tuple[str, int]]) -> Defined:
    """`targets`: URL and weight of each."""
    rules = _rules.decode(row["header_rules"]) if row["header_rules"] != "[]" else ()
    return _sparse(
        {
            "slug": row["slug"],
            "targets": [url for url, _ in targets],
            "paths": _list.decode(row["paths"]),
            **{name: row[name] for name in _OF_SERVICE},
            "weights": {url: weight for url, weight in sorted(targets) if weight != 1},
            "health": _sparse(msgspec.to_builtins(health_of(row["health"])), _HEALTH),
            "breaker": _sparse(msgspec.to_builtins(breaker_of(row["breaker"])), _BREAKER),
            "request_headers": [_rule(rule) for rule in rules if rule.side == "request"],
            "response_headers": [_rule(rule) for rule in rules if rule.side == "response"],
        },
        DEFAULTS["service"],
    )


def _rule(rule: HeaderRuleConf) -> Defined:
    shown = {"action": rule.action, "name": rule.name}
    return {**shown, "value": rule.value} if rule.value else shown


def define_plan(row: Columns, price: Terms) -> Defined:
    return _sparse(
        {
            "name": row["name"],
            "rates": rates_of(row["rates"]),
            "quota": row["quota"],
            "quota_mode": "soft" if row["quota_soft"] else "hard",
            **{name: row[name] for name in ("in_flight_limit", "shadow")},
            "alerts": _list.decode(row["alerts"]),
            "clients_limit": row["clients_limit"],
        },
        DEFAULTS["plan"],
    ) | _price(price)


@lru_cache(10_000)
def _price(terms: Terms) -> Defined:
    """The price of a request is left out where it follows from the rest: plans have one unless they have another."""
    shown = _sparse(show_terms(terms), _FREE)
    if shown.get("tier_mode") == "graduated":
        del shown["tier_mode"]
    rest = {name: value for name, value in shown.items() if name != "price"}
    try:
        follows = new_terms(msgspec.convert(rest, AskedPrice)) == terms
    except GatewayError:  # not without a price
        follows = False
    return rest if follows else {"price": format_nanos(terms.request_nanos), **rest}


_OF_ROUTE = ("path", "exact", "host", "prefix", "name", "auth", "weight", "timeout_s", "first_byte_timeout_s")


def define_route(row: Columns, service: str | None) -> Defined:
    return _sparse(
        {
            "name": row["name"],
            "service": service,
            "methods": None if row["methods"] is None else _list.decode(row["methods"]),
            **{name: row[name] for name in _OF_ROUTE if name != "name"},
            "rates": rates_of(row["rates"]),
            "body_limit_bytes": row["body_limit_bytes"],
            "networks": _list.decode(row["networks"]),
        },
        DEFAULTS["route"],
    )


def define_key(row: Columns, services: Iterable[str] | None, plan: str | None, price: Terms | None) -> Defined:
    """`price`: the key's own, in place of its plan's. Whether it is disabled is no part of what it is, but of a day."""
    own = _overrides.decode(row["overrides"])
    expires_at = row["expires_at"]
    return _sparse(
        {
            "name": row["name"],
            "services": None if services is None else sorted(services),
            "plan": plan,
            "expires": None if expires_at is None else format_time(expires_at),
            "allow": _list.decode(row["allow"]) or None,
            "networks": _list.decode(row["networks"]) or None,
            "labels": dict(sorted(_labels.decode(row["labels"]).items())) or None,
            "rates": None if own.rates is None else [format_rate(rate) for rate in own.rates],
            "quota": own.quota,
            "in_flight_limit": own.in_flight_limit,
            "price": None if price is None else format_nanos(price.request_nanos),
        },
        DEFAULTS["key"],
    )


def rates_of(column: str) -> list[str]:
    return [] if column == "[]" else [format_rate(rate) for rate in decode_rates(column)]

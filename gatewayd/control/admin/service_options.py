"""Options of a service that are objects of their own in the API: health, breaker, header rules."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from gatewayd.conf import BreakerConf, HeaderRuleConf, HealthConf
from gatewayd.control.admin.inputs import checked
from gatewayd.control.admin.problems import invalid
from gatewayd.policy.breaker import LONGEST_WINDOW_S
from gatewayd.policy.header_rules import HIDDEN, Side, check_rule

Balance = Literal["round-robin", "least-outstanding", "hash"]
Often = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]
Pause = Annotated[float, msgspec.Meta(gt=0, le=3600)]
SlowStart = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Times = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Failures = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Window = Annotated[float, msgspec.Meta(ge=1, le=LONGEST_WINDOW_S)]

_HEALTH_PATH = re.compile(r"/[\x21\x22\x24-\x7e]{0,1023}")  # visible ASCII, without a fragment
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_HASH_ON = ("address", "key", "client")

Conf = TypeVar("Conf", HealthConf, BreakerConf)


class HealthOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is not given stays as it is."""

    path: str | UnsetType | None = UNSET
    interval_s: Often | UnsetType = UNSET
    timeout_s: Pause | UnsetType = UNSET
    healthy_after: Times | UnsetType = UNSET
    unhealthy_after: Times | UnsetType = UNSET
    eject_after: Times | UnsetType | None = UNSET
    eject_s: Pause | UnsetType = UNSET
    slow_start_s: SlowStart | UnsetType = UNSET


class BreakerOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    failures: Failures | UnsetType = UNSET
    ratio: Ratio | UnsetType = UNSET
    window_s: Window | UnsetType = UNSET
    open_s: Pause | UnsetType = UNSET


class HeaderRule(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    action: Literal["set", "add", "remove"]
    name: str
    value: str = ""


HeaderRules = Annotated[tuple[HeaderRule, ...], msgspec.Meta(max_length=100)]

_health = msgspec.json.Decoder(HealthConf)
_breaker = msgspec.json.Decoder(BreakerConf)
_rules = msgspec.json.Decoder(tuple[HeaderRuleConf, ...])


def health_of(stored: str) -> HealthConf:
    return _health.decode(stored)


def breaker_of(stored: str) -> BreakerConf:
    return _breaker.decode(stored)


def rules_of(stored: str, side: Side) -> tuple[HeaderRule, ...]:
    return tuple(HeaderRule(rule.action, rule.name, rule.value) for rule in _rules.decode(stored) if rule.side == side)


def changed_health(stored: str, options: HealthOptions) -> str:
    """What the row is to hold. Raises AdminError."""
    health = _with(health_of(stored), options)
    if health.path is not None and HIDDEN in health.path:
        raise invalid("health.path", f"{HIDDEN} stands for the query of the path, and is none; give the query itself")
    if health.path is not None and _HEALTH_PATH.fullmatch(health.path) is None:
        raise invalid("health.path", "must begin with / and hold only visible ASCII characters, without #")
    return msgspec.json.encode(health).decode()


def changed_breaker(stored: str, options: BreakerOptions) -> str:
    return msgspec.json.encode(_with(breaker_of(stored), options)).decode()


def _with(conf: Conf, options: HealthOptions | BreakerOptions) -> Conf:
    given = {name: value for name in options.__struct_fields__ if (value := getattr(options, name)) is not UNSET}
    return msgspec.structs.replace(conf, **given)


def checked_rules(request: tuple[HeaderRule, ...], response: tuple[HeaderRule, ...], key_header: str) -> str:
    """What the row is to hold. `key_header`: that of the service, which no rule may touch."""
    sides: tuple[tuple[Side, tuple[HeaderRule, ...]], ...] = (("request", request), ("response", response))
    confs = [HeaderRuleConf(side, rule.action, rule.name, rule.value) for side, rules in sides for rule in rules]
    for conf in confs:
        checked(f"{conf.side}_headers", lambda rule: check_rule(rule, key_header), conf)
    return msgspec.json.encode(confs).decode()


def check_hash_on(on: str) -> str:
    """What a hash goes by."""
    if on in _HASH_ON:
        return on
    kind, _, name = on.partition(":")
    if kind != "header" or not name:
        raise ValueError("must be address, key, client or header:NAME")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name[:80]!r} is not the name of a header")
    return on

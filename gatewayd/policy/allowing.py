"""Lists of what is allowed: methods and paths within a service, and networks to call from.

    METHODS PATH      METHODS: `*`, or names with commas between; PATH: as it is within the service
    GET /v1/users     this path and no other
    GET,HEAD /u/{id}  `{name}` is any one segment, but not an empty one, nor one that a service may read as several
    * /v1/*           `/*` at the end is everything below: /v1/ and /v1/a/b, but not /v1 itself

A path is compared as the service gets it, that is once a route has stripped or rewritten its prefix, and byte by byte:
what is percent-encoded matches no rule that spells it out. A list allows what one of its rules does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import NamedTuple

from gatewayd.policy.addresses import check_characters, short, without_names
from gatewayd.policy.forwarding import Networks

Allowed = re.Pattern[bytes]  # of "METHOD PATH"

_METHOD = re.compile(r"[A-Z0-9!#$%&'*+.^_`|~-]{1,32}", re.ASCII)  # RFC 9110 section 9.1, in capitals
# Without a slash that is encoded or turned round: many servers decode it before they look at the path.
_SEGMENT = r"(?:(?!%2[fF]|%5[cC])[^/\\])+"
# As many lists as are in use at once; keys of one kind, imported by the thousand, share theirs.
_COMPILED = 4096


class Bounds(NamedTuple):
    """Within what a key is valid."""

    networks: Networks  # empty: everywhere
    allowed: Allowed | None  # None: everything


def check_methods(text: str) -> tuple[str, ...] | None:
    """`GET,HEAD` in capitals and in their order, each once; None for `*`."""
    if text == "*":
        return None
    methods = [method.strip().upper() for method in text.split(",")]
    for method in methods:
        if _METHOD.fullmatch(method) is None or method == "*":
            raise ValueError(f"{short(method)} is not a method such as GET")
    return tuple(sorted(set(methods)))


def check_allow(text: str) -> str:
    """A rule as it is kept and shown. Raises ValueError with a sentence."""
    parts = text.split()
    if len(parts) != 2:
        raise ValueError(f"{short(text)} is not a rule such as 'GET /v1/users/*': methods, a space and a path")
    methods, path = check_methods(parts[0]), parts[1]
    check_characters(without_names(path.removesuffix("*") if path.endswith("/*") else path))
    if "*" in path.removesuffix("/*"):
        raise ValueError(f"{short(text)} has a * that is not the end of its path; write {{name}} for any one segment")
    return f"{'*' if methods is None else ','.join(methods)} {path}"


def check_network(text: str) -> str:
    """`10.0.0.0/8`, `2001:db8::/32` or one address, as it is kept and shown. Raises ValueError with a sentence."""
    return str(_network(text))


@lru_cache(_COMPILED)
def compile_allow(rules: tuple[str, ...]) -> Allowed:
    """Checked rules as one pattern, to be asked of a whole `METHOD PATH`."""
    return re.compile(b"|".join(_rule_pattern(rule) for rule in rules), re.DOTALL)


@lru_cache(_COMPILED)
def compile_networks(networks: tuple[str, ...]) -> Networks:
    return tuple(ip_network(network) for network in networks)


def bounds_of(networks: tuple[str, ...], allow: tuple[str, ...]) -> Bounds | None:
    """None where there are none."""
    if not networks and not allow:
        return None
    return Bounds(compile_networks(networks), compile_allow(allow) if allow else None)


def _rule_pattern(rule: str) -> bytes:
    methods, path = rule.split(" ")
    method = "[^ ]+" if methods == "*" else f"(?:{'|'.join(re.escape(name) for name in methods.split(','))})"
    below = path.endswith("/*")
    segments: Iterable[str] = path.removesuffix("/*").split("/")
    pattern = "/".join(_SEGMENT if segment[:1] == "{" else re.escape(segment) for segment in segments)
    return f"{method} {pattern}{'/.*' if below else ''}".encode()


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        given = ip_interface(text.strip())
    except ValueError:
        raise ValueError(f"{short(text)} is not a network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7") from None
    network = given.network
    if given.ip != network.network_address:
        raise ValueError(f"{short(text)} has bits set beyond its prefix; the network is {network}")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:  # clients with such addresses are seen as IPv4
        return IPv4Network((mapped, network.prefixlen - 96))
    return network

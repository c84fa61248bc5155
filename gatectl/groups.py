"""Under which headings the options of a long command stand: those of `service add` are 37.

An option is in one group in whatever command it is, and `--no-x` beside `--x`. What is in none is just an option, and
so is everything in a command that can be taken in at a glance.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

REST = "Options"
GLANCE = 12  # options

# In the order of the headings.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "Address": ("to", "target", "path", "host", "method", "exact", "prefix", "preserve-host"),
    "Who may call": ("auth", "key-header", "service", "all-services", "allow", "network", "expires", "no-expiry"),
    "Limits": (
        "plan", "rate", "burst", "quota", "quota-mode", "max-in-flight", "clients", "body-limit", "shadow", "alert",
        "weight",
    ),
    "Prices": (
        "price", "unit-price", "mib-price", "base-fee", "minimum", "included", "tier", "tiers", "package", "count",
        "billable",
    ),
    "Time": ("timeout", "connect-timeout", "first-byte-timeout", "idle-timeout", "tunnel-lifetime"),
    "TLS to the targets": ("tls-verify", "tls-server-name", "tls-ca", "tls-cert", "tls-key"),
    "Balancing": ("balance", "hash-on", "slow-start"),
    "Health": (
        "health", "health-every", "health-timeout", "healthy-after", "unhealthy-after", "eject-after", "eject-for",
        "breaker", "breaker-failures", "breaker-ratio", "breaker-window", "breaker-open",
    ),
    "Headers": ("request-header", "response-header"),
}  # fmt: skip
_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def group_of(option: str) -> str:
    """The heading of `--no-path`, say."""
    name = option.lstrip("-")
    return _GROUP_OF.get(name) or _GROUP_OF.get(name.removeprefix("no-")) or REST


def in_order(headings: Iterable[str]) -> list[str]:
    """As GROUPS has them; then the rest, and what a command calls its own."""
    known = [*GROUPS, REST]
    return sorted(headings, key=lambda heading: known.index(heading) if heading in known else len(known))

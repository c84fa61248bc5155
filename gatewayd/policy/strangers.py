"""What strangers may cost: how many come in a second, and how often an address shows a wrong token.

A token cannot be guessed (131 random bits), so nobody is locked out: who shows one that is live is heard, also from an
address that others have spoilt, such as that of a proxy. After `FAILURES` in a window the wrong ones are answered 429.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

FAILURES = 10
WINDOW_S = 60.0
ADDRESSES = 4096  # remembered; of more, the one that was counted first is forgotten


class Strangers:
    """Wrong tokens of the last minute. `<Strangers 3 addresses>`"""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}  # since when, how many

    def __repr__(self) -> str:
        return f"<Strangers {len(self._counts)} addresses>"

    def failed(self, address: str, now: float) -> float:
        """Count one more. Returns 0, or for how many seconds this address has had its share."""
        place = network_of(address)
        since, count = self._counts.get(place, (now, 0))
        if not 0 <= now - since < WINDOW_S:
            since, count = now, 0
        if place not in self._counts and len(self._counts) >= ADDRESSES:
            del self._counts[next(iter(self._counts))]
        self._counts[place] = since, count + 1
        return since + WINDOW_S - now if count >= FAILURES else 0.0


class Turnstile:
    """Lets `rate` a second through, and up to `burst` that come at once. `<Turnstile 50/s>`"""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate, self._burst = rate, burst
        self._free_at = float("-inf")  # when all that went through would have been let through one by one

    def __repr__(self) -> str:
        return f"<Turnstile {self._rate:g}/s>"

    def wait_s(self, now: float) -> float:
        """How long the next one has to wait. It is counted as gone through."""
        self._free_at = max(self._free_at, now - self._burst / self._rate) + 1 / self._rate
        return max(0.0, self._free_at - now)


def network_of(address: str) -> str:
    """What one machine is known by: its address, of IPv6 the /64, since any machine has all the addresses of one."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)

"""What is measured: one row a case. A case is one load, given in turn to each of its subjects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KIB = 1024

# What a browser's fetch sends, besides Host: fifteen in all with the key.
BROWSER_HEADERS = (
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari/537.36"),
    ("Accept", "application/json, text/plain, */*"),
    ("Accept-Language", "en-GB,en;q=0.9,de;q=0.7"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://shop.example/orders?page=2"),
    ("Origin", "https://shop.example"),
    ("Cookie", "theme=dark; session=0f8fad5bd9cb469fa16570867728950e; consent=1"),
    ("Sec-Fetch-Dest", "empty"),
    ("Sec-Fetch-Mode", "cors"),
    ("Sec-Fetch-Site", "same-site"),
    ("Cache-Control", "no-cache"),
    ("Pragma", "no-cache"),
    ("If-None-Match", '"33a64df551425fcc55e4d42a148795d9"'),
    ("DNT", "1"),
)


@dataclass(frozen=True)
class Case:
    """One load: a request, repeated over some connections."""

    name: str
    path: str  # of the upstream, see `upstream.py`
    body_bytes: int  # of the response; 0: not checked
    connections: int = 32
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    sends_bytes: int = 0
    key: Literal["good", "limited", "unknown"] = "good"
    status: int = 200
    exceptions: int = 0  # answers that may have another status
    varied: bool = False  # every request carries a header of its own, so that no two heads are alike
    direct: bool = False  # also without a gateway, for the latency it adds
    websocket: bool = False  # messages of `sends_bytes` there and back, one at a time on each connection
    scales: bool = False  # one worker against two, and no nginx
    journal: bool = False  # gatewayd without a journal against each way of keeping one, and no nginx
    default: bool = False  # measured when no case is named


CASES = (
    Case("get-1k", "/1k", KIB, direct=True, default=True),
    Case("one-connection", "/1k", KIB, connections=1, direct=True, default=True),
    Case("journal", "/1k", KIB, journal=True, default=True),
    # The worker reads a connection's header fields once for as long as they repeat; here neither side's ever do.
    Case("get-1k-varied", "/1k-varied", KIB, varied=True, default=True),
    Case("headers-15", "/1k", KIB, headers=BROWSER_HEADERS),
    Case("post-1k", "/1k", KIB, method="POST", sends_bytes=KIB),
    Case("get-16k", "/16k", 16 * KIB),
    Case("get-1m", "/1m", KIB * KIB, connections=8),
    Case("unknown-key", "/1k", 0, key="unknown", status=401),
    # The slowest limit that nginx knows lets one through a minute.
    Case("over-limit", "/1k", 0, key="limited", status=429, exceptions=5),
    Case("websocket", "/echo", 0, sends_bytes=100, websocket=True),
    Case("two-workers", "/1k", KIB, scales=True),
)


def chosen(names: str) -> tuple[Case, ...]:
    """The cases of a comma-separated list; `default` and `all` stand for several. Raises ValueError with a sentence."""
    if names == "all":
        return CASES
    if names == "default":
        return tuple(case for case in CASES if case.default)
    known = {case.name: case for case in CASES}
    if unknown := [name for name in names.split(",") if name not in known]:
        raise ValueError(f"no case is called {unknown[0]!r}: choose among {', '.join(known)}, all, default")
    return tuple(known[name] for name in names.split(","))

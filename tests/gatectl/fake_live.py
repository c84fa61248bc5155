"""What the fake daemon has to say of the present: a picture of `top`, and lines of `logs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.gatectl.problems import ProblemError


def rates(requests_s: float, errors: float = 0.0, refused: float = 0.0, p50: float | None = 1.5) -> dict[str, Any]:
    p99 = None if p50 is None else 25 * p50
    return {"requests_s": requests_s, "errors_ratio": errors, "refused_ratio": refused, "bytes_in_s": 0.0,
            "bytes_out_s": 1024 * requests_s, "p50_ms": p50, "p99_ms": p99}  # fmt: skip


def picture() -> dict[str, Any]:
    """Busy, with a target that is not well and a key at its limit."""

    def service(name: str, ill: int, in_flight: int, **figures: Any) -> dict[str, Any]:
        return {**figures, "service": name, "tenant": "default", "in_flight": in_flight, "targets": 2,
                "targets_ill": ill}  # fmt: skip

    def key(prefix: str, name: str, pressure: float | None, limit: str | None, **figures: Any) -> dict[str, Any]:
        return {**figures, "key": prefix, "name": name, "tenant": "default", "in_flight": 1, "pressure": pressure,
                "limit": limit}  # fmt: skip

    def target(
        service: str, port: int, state: str, error: str | None, requests_s: float, errors: float, p50: float | None
    ) -> dict[str, Any]:
        return {"service": service, "tenant": "default", "url": f"http://127.0.0.1:{port}", "state": state,
                "error": error, "requests_s": requests_s, "errors_ratio": errors, "p50_ms": p50,
                "p99_ms": None if p50 is None else p50 * 20, "in_flight": 3}  # fmt: skip

    return {
        "time": "2026-11-21T12:00:03Z", "window_s": 10, "version": "0.1.0", "started_at": "2026-11-18T08:00:00Z",
        "url": "http://127.0.0.1:8080", "workers": 2, "workers_serving": 2, "journal_records": 3, "journal_s": 0,
        "problems": ["target http://127.0.0.1:8003 of service products is open: it refused the connection"],
        "total": {**rates(1284.3, 0.0125, 0.041), "in_flight": 12},
        "services": [
            service("orders", 0, 7, **rates(1234.0, 0.0004, 0.0427)),
            service("products", 1, 5, **rates(50.3, 0.31, 0.0, 48.25)),
            service("quiet", 0, 0, **rates(0.0, p50=None)),
        ],
        "keys": [
            key("gw_ab12cd34", "ci", 1.0, "minute", **rates(1180.5, 0.0, 0.0446)),
            key("gw_bc23df45", "", 0.815, "month", **rates(103.8, 0.15)),
            key("gw_cd34fg56", "Überwachung 監視", None, None, **rates(0.1)),
        ],
        "targets": [
            target("orders", 8001, "healthy", None, 1234.0, 0.0004, 1.25),
            target("products", 8002, "healthy", None, 50.3, 0.0, 46.5),
            target("products", 8003, "open", "it refused the connection", 1.2, 1.0, None),
        ],
        "others": {"services": 0.0, "keys": 0.0},
    }  # fmt: skip


def line(number: int, status: int, **more: Any) -> dict[str, Any]:
    return {
        "time": f"2026-11-21T02:00:{number:02}.012Z", "tenant": "default", "service": "orders", "route": "-",
        "key": "gw_ab12cd34", "client": "-", "status": status, "code": None, "admitted": True, "units": 1,
        "bytes_in": 0, "bytes_out": 1536, "gateway_ms": 0.21, "upstream_ms": 12.5, "total_ms": 12.71,
        "request_id": f"ff42db4e2b8f46{number:02}", **more,
    }  # fmt: skip


LINES = (
    line(1, 200),
    line(2, 429, code="rate_limited", admitted=False, upstream_ms=0.0, total_ms=0.21, bytes_out=310),
    line(3, 502, code="upstream_unreachable", key="gw_bc23df45", client="kiosk-7"),
    line(4, 304, service="products"),
)


def logs(query: Mapping[str, str]) -> Any:
    if query.get("service") not in (None, "orders", "products"):
        raise ProblemError(404, "not_found", f"there is no service '{query['service']}'", did_you_mean="orders")
    classes = query.get("status", "").replace("xx", "").split(",")
    found = [each for each in LINES if str(each["status"]).startswith(tuple(classes))]
    limit = int(query["limit"])
    ended_by = "limit" if len(found) >= limit else "kept"
    at = "2026-11-22T02:00:05Z" if "since" in query else "2026-11-21T02:00:05Z"
    return {"at": at, "items": found[-limit:], "looked_back_to": "2026-11-20T18:30:00Z", "ended_by": ended_by}

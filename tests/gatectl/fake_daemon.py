"""A daemon that speaks the admin API of the contract from a dict: real HTTP on a real Unix socket, made-up answers.

What it answers is fixed, so that golden files can be. It checks what a real one would: unknown names, names that exist,
fields nobody knows.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.gatectl import billing_answers, fake_alerts, fake_backup, fake_live, fake_names, remote_answers
from tests.gatectl.fake_config import FakeConfig
from tests.gatectl.problems import ProblemError

CREATED = "2026-11-21T02:00:00Z"
DATE = "Sat, 21 Nov 2026 03:00:00 GMT"  # what this gateway's clock says, always
SECRET = "gw_nw22pq33_5Zt0kq8m2Y7nWb1RfXc9sd3JgHxVq4"
FIELDS = {
    "tenants": {
        "slug", "name", "currency", "suspended", "time_zone", "contact", "default_plan", "rates", "burst", "allow",
    },
    "services": {
        "slug", "targets", "paths", "auth", "preserve_host", "timeout_s", "connect_timeout_s", "body_limit_bytes",
        "first_byte_timeout_s", "idle_timeout_s", "tunnel_lifetime_s", "in_flight_limit", "key_header", "tls_verify",
        "tls_server_name", "tls_ca_file", "tls_cert_file", "tls_key_file", "weights", "balance", "hash_on", "health",
        "breaker", "request_headers", "response_headers",
    },
    "routes": {
        "service", "path", "exact", "host", "methods", "prefix", "name", "auth", "rates", "weight", "timeout_s",
        "first_byte_timeout_s", "body_limit_bytes", "networks",
    },
    "plans": {
        "name", "rates", "burst", "quota", "quota_mode", "in_flight_limit", "shadow", "alerts", "clients_limit",
        "price", "unit_price", "mib_price", "base_fee", "minimum", "included", "tiers", "tier_mode", "package",
        "counts", "billable",
    },
    "keys": {
        "services", "plan", "name", "expires", "allow", "networks", "labels", "rates", "burst", "quota",
        "in_flight_limit", "price",
    },
    "clients": {"name", "key", "rates", "burst"},
    "quotas": set(),
    "alerts": fake_alerts.FIELDS,
}  # fmt: skip


def service(slug: str, *targets: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"svc_{slug}", "slug": slug, "tenant": "default", "targets": list(targets), "paths": [], "auth": "key",
        "preserve_host": False, "timeout_s": 30, "connect_timeout_s": 10, "first_byte_timeout_s": 30,
        "idle_timeout_s": 300, "tunnel_lifetime_s": 86400, "body_limit_bytes": None, "in_flight_limit": None,
        "key_header": "X-API-Key", "tls_verify": True, "tls_server_name": None, "tls_ca_file": None,
        "tls_cert_file": None, "tls_key_file": None, "weights": dict.fromkeys(targets, 1), "drained": [],
        "balance": "round-robin", "hash_on": "address",
        "health": {"path": None, "interval_s": 10, "timeout_s": 5, "healthy_after": 2, "unhealthy_after": 3,
                   "eject_after": None, "eject_s": 30, "slow_start_s": 0},
        "breaker": {"failures": 20, "ratio": 0.5, "window_s": 10, "open_s": 10},
        "request_headers": [], "response_headers": [], "url": f"http://127.0.0.1:8080/{slug}/", "created_at": CREATED,
        **more,
    }  # fmt: skip


def plan(name: str, limit: int, window_s: int, burst: int, quota: int | None, price: str) -> dict[str, Any]:
    rate = {"name": "minute", "limit": limit, "window_s": window_s, "burst": burst}
    return {"id": f"pln_{name}", "name": name, "tenant": "default", "version": 2, "rates": [rate], "quota": quota,
            "quota_mode": "hard", "in_flight_limit": None, "shadow": False, "alerts": [80, 100] if quota else [],
            "clients_limit": 0, "price": price, "unit_price": "0", "mib_price": "0", "base_fee": "0", "minimum": "0",
            "included": 0, "tiers": [], "tier_mode": None, "package": None, "counts": "requests",
            "billable": ["2xx", "3xx"], "created_at": CREATED}  # fmt: skip


def route(public_id: str | None, path: str, service: str | None, **more: Any) -> dict[str, Any]:
    return {
        "id": public_id, "name": "", "tenant": "default", "service": service, "host": None, "path": path,
        "exact": False, "methods": None, "prefix": "strip", "auth": None, "rates": [], "weight": 1, "timeout_s": None,
        "first_byte_timeout_s": None, "body_limit_bytes": None, "networks": [], "created_at": CREATED, **more,
    }  # fmt: skip


def candidate(reason: str, of: dict[str, Any]) -> dict[str, Any]:
    fields = ("id", "name", "service", "host", "path", "exact", "methods")
    return {**{field: of[field] for field in fields}, "reason": reason}


def key(public_id: str, name: str, services: list[str], plan: str | None, **more: Any) -> dict[str, Any]:
    return {
        "id": f"key_{public_id}", "prefix": f"gw_{public_id}", "tenant": "default", "services": services, "plan": plan,
        "name": name, "status": "active", "expires_at": None, "created_at": CREATED, "revoked_at": None,
        "disabled_at": None, "last_used_at": None, "generation": 1, "imported": False, "allow": [], "networks": [],
        "overrides": {}, "labels": {}, **more,
    }  # fmt: skip


def tenant(slug: str, name: str) -> dict[str, Any]:
    return {"id": f"ten_{slug}", "slug": slug, "name": name, "currency": "EUR", "suspended": False,
            "time_zone": "Europe/Berlin", "contact": "ops@acme.example", "default_plan": "starter", "rates": [],
            "allow": [], "created_at": CREATED}  # fmt: skip


def client(name: str, key: str | None, limit: int | None) -> dict[str, Any]:
    rate = {"name": "second", "limit": limit, "window_s": 1, "burst": 10}
    return {"id": f"cli_{name}", "name": name, "tenant": "default", "key": key, "rates": [rate] if limit else None,
            "created_at": CREATED}  # fmt: skip


def quota(public_id: str, name: str, used: int) -> dict[str, Any]:
    return {
        "id": f"key_{public_id}", "key": f"gw_{public_id}", "name": name, "tenant": "default", "plan": "starter",
        "period": "2026-11", "quota": 10000, "granted": 5000, "limit": 15000, "used": used, "forgiven": 0,
        "remaining": 15000 - used, "mode": "hard", "alerts": [80, 100], "alerts_passed": [80],
        "resets_at": "2026-12-01T00:00:00Z",
    }  # fmt: skip


def usage_line(requests: int, cost: str, **dimensions: str) -> dict[str, Any]:
    return {
        **dimensions, "requests": requests, "billable": max(requests - 3, 0), "errors": 1, "refused": requests // 10,
        "units": requests, "bytes_in": 0, "bytes_out": requests * 1024, "p50_ms": 1.5, "p95_ms": 12.25, "p99_ms": 80.0,
        "cost": cost,
    }  # fmt: skip


def fresh_state() -> dict[str, Any]:
    """A small gateway: two services, two plans, three keys."""
    return {
        "tenants": [tenant("acme", "Acme Ltd"), tenant("default", "Default")],
        "services": [
            service("orders", "http://127.0.0.1:8001", paths=["/v1/orders"], url="http://127.0.0.1:8080/v1/orders"),
            service("products", "http://127.0.0.1:8002", "http://127.0.0.1:8003", body_limit_bytes=10 << 20),
        ],
        "routes": [
            route("rte_host2222", "/", "products", host="*.example.com", name="shop"),
            route("rte_user2222", "/v1/users/{id}", "orders", methods=["GET", "HEAD"], name="reads", weight=5,
                  rates=[{"name": "second", "limit": 100, "window_s": 1, "burst": 100}], timeout_s=2.5,
                  networks=["10.0.0.0/8", "::1/128"], body_limit_bytes=1 << 20, prefix="/v2", auth="none"),
            route("rte_keyd2222", "/api", None),
        ],
        "plans": [plan("pro", 50, 1, 100, None, "0.0005"), plan("starter", 60, 60, 10, 10000, "0.001")],
        "keys": [
            key("ab12cd34", "ci", ["orders"], "starter", expires_at="2027-02-19T02:00:00Z", labels={"team": "a"},
                last_used_at=CREATED, allow=["GET /v1/users/*", "* /health"]),
            key("bc23df45", "", [], None),
            key("cd34fg56", "old", ["orders", "products"], "pro", status="revoked", revoked_at=CREATED),
        ],
        "clients": [client("mobile-app", None, None), client("kiosk-7", "gw_ab12cd34", 5)],
        "quotas": [quota("ab12cd34", "ci", 12345), quota("bc23df45", "", 0)],
        "alerts": fake_alerts.fresh_alerts(),
        "doctor": fake_alerts.DOCTOR,
        "audit": [dict(line) for line in remote_answers.AUDIT],
        "tokens": remote_answers.fresh_tokens(),
        "ledger": billing_answers.fresh_state(),
        "top": fake_live.picture(),
        "status": {
            "version": "0.1.0", "state": "ok", "started_at": CREATED, "listen": "127.0.0.1:8080",
            "url": "http://127.0.0.1:8080",
            "state_dir": "/var/lib/gatewayd",
            "workers": [
                {"slot": slot, "pid": 4000 + slot, "state": "serving", "requests": 12345 * slot, "in_flight": slot,
                 "connections": 10 * slot, "cached_keys": 3, "journal_full": False, "journal_lost": 0,
                 "journal_error": ""}
                for slot in (1, 2)
            ],
            "journal": {"segments": 2, "torn": 0, "full": False, "damaged": [], "failure": "", "error": "", "lost": 0,
                        "waiting_records": 3, "waiting_bytes": 0, "waiting_s": 0},
            "database": {"schema": "0002", "bytes": 131072},
            "disk": {"free_bytes": 32 << 30, "total_bytes": 98 << 30},
            "certificates": [{"setting": "tls_cert", "file": "/etc/gatewayd/cert.pem", "error": None,
                              "expires_at": "2027-02-19T02:00:00Z"}],
            "now": {"window_s": 10, "requests_s": 1284.31, "errors_ratio": 0.0125, "refused_ratio": 0.041,
                    "p50_ms": 1.5, "p99_ms": 37.5, "in_flight": 12},
            "tenants": 2, "services": 2, "keys": 3, "problems": [], "troubles": [],
        },
    }  # fmt: skip


class FakeDaemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves `state` at `path` until it is closed; `requests` is what it was asked."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = fresh_state()
        self.backup = fake_backup.backup()
        self.failing: ProblemError | None = None  # what everything is refused with
        self.breaks_off_after = self.waits_after = 1 << 30  # bytes of one
        self.holds = ""  # the path, and what of the query, at which it says nothing more until it is closed
        self.held = threading.Event()
        self.closing = threading.Event()
        self.config = FakeConfig()
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        super().__init__(str(path), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.path.unlink(missing_ok=True)

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status and JSON of an answer; raises ProblemError."""
        noun, *rest = path.removeprefix("/v1/").split("/")
        if path == "/v1/targets/drain":
            return 200, _drain(body)
        if noun == "names":
            return 200, fake_names.answer(self.state, query)
        if noun == "config":
            return self.config.answer(method, path, query, body)
        if noun == "explain":
            return 200, _what_if(body) if method == "POST" else _remembered(unquote("/".join(rest)))
        if told := remote_answers.answer(self.state, method, path, query, body):
            return told
        if told := billing_answers.answer(self.state["ledger"], method, path, query, body):
            return told
        if path == "/v1/doctor/acknowledge":
            self.state["doctor"] = fake_alerts.acknowledged(self.state["doctor"], body)
        if noun in ("status", "doctor", "usage", "targets", "top", "logs") or rest == ["test"]:
            return 200, READERS["/".join([noun, *rest])](self, query)
        if path in KEY_ACTIONS:
            return 200, KEY_ACTIONS[path](self, method, query, body)
        items = self.state[noun]
        if query.get("tenant", "default") not in [tenant["slug"] for tenant in self.state["tenants"]]:
            raise ProblemError(404, "not_found", f"there is no tenant '{query['tenant']}'")
        if rest:
            return self._object(method, noun, _find(noun, items, rest[0]), rest[1:], query, body)
        if method == "POST":
            return 201, self._add(noun, items, body)
        return 200, _page(_filtered(items, query), query)

    def _add(self, noun: str, items: list[Any], body: dict[str, Any]) -> Any:
        _check(noun, body)
        if noun == "alerts":
            added = fake_alerts.added(body)
            items.append({field: value for field, value in added.items() if field != "secret"})
            return added
        name = body.get("slug") or body.get("name")
        if noun != "keys" and name and any(name in (item.get("slug"), item.get("name")) for item in items):
            raise ProblemError(409, "conflict", f"{noun[:-1]} '{name}' exists already")
        if noun == "keys" and body.get("plan"):
            _find("plans", self.state["plans"], body["plan"])
        made = {
            "tenants": lambda: tenant(body["slug"], body.get("name", "")),
            "services": lambda: {**service(body["slug"]), **body},
            "routes": lambda: {**route("rte_nw22pq33", "/", None), **body, "rates": []},
            "plans": lambda: {**plan(body["name"], 60, 60, body.get("burst", 60), 10000, "0.001"), **_priced(body)},
            "clients": lambda: client(body["name"], body.get("key"), 5 if "rates" in body else None),
            "keys": lambda: key("nw22pq33", body.get("name", ""), body.get("services", []), body.get("plan"),
                                expires_at=body.get("expires")),
        }[noun]()  # fmt: skip
        items.append(made)
        return {"id": made["id"], "key": SECRET, **made} if noun == "keys" else made

    def _object(
        self, method: str, noun: str, item: Any, rest: list[str], query: Mapping[str, str], body: Any
    ) -> tuple[int, Any]:
        if noun == "quotas":
            return self._quota(item, rest, body)
        if noun == "alerts" and method != "DELETE":
            return 200, fake_alerts.tested(item) if rest == ["test"] else fake_alerts.with_events(item)
        if rest == ["versions"]:
            first = {**item, "version": 1, "price": "0.0005", "since": "2026-10-01T00:00:00Z"}
            return 200, _page([{**item, "since": CREATED}, first], {})
        if rest == ["simulate"]:
            return 200, _simulation(item, body["since"])
        if rest == ["rotate"]:
            before, now = GENERATIONS[1], GENERATIONS[0]
            return 200, {**item, "key": SECRET, "generation": 2, "generations": [now, before]}
        if rest:
            states = {"revoke": "revoked", "disable": "disabled", "enable": "active"}
            if "generation" not in body:
                item["status"] = states[rest[0]]
                item["revoked_at" if rest == ["revoke"] else "disabled_at"] = None if rest == ["enable"] else CREATED
        elif method == "PATCH":
            _check(noun, body)
            item.update({**body, **(_priced(body) if noun == "plans" else {})})
        elif method == "DELETE":
            if item.get("slug") == "default":
                raise ProblemError(409, "conflict", "tenant 'default' cannot be removed")
            if query.get("dry_run") == "true":
                return 200, item
            self.state[noun].remove(item)
        elif noun == "keys":
            quota = {"limit": 10000, "used": 1234, "remaining": 8766}
            rates = self.state["plans"][1]["rates"]
            usage = {"requests": 1234, "billable": 1231, "cost": "1.231"}
            limits = {"rates": rates, "quota": quota, "in_flight_limit": None}
            return 200, {**item, "generations": GENERATIONS, "usage": usage, "limits": limits}
        return 200, item

    def _quota(self, item: Any, rest: list[str], body: Any) -> tuple[int, Any]:
        if not rest:
            grants = [
                {"id": "qgr_ab12cd34", "kind": "grant", "units": 5000, "until": "2026-12-01T00:00:00Z",
                 "reason": "launch day", "created_at": CREATED},
                {"id": "qgr_bc23df45", "kind": "reset", "units": 777, "until": "2026-12-01T00:00:00Z", "reason": "",
                 "created_at": CREATED},
            ]  # fmt: skip
            return 200, {**item, "grants": grants}
        return 201 if rest == ["grants"] else 200, item


def _check(noun: str, body: dict[str, Any]) -> None:
    for field in body:
        if field not in FIELDS[noun]:
            raise ProblemError(422, "invalid", f"{field!r} is not known here", field=field)
    for target in body.get("targets", []):
        if not target.startswith(("http://", "https://", "unix:")):
            raise ProblemError(
                422, "invalid", f"target '{target}' is not a URL such as http://127.0.0.1:8001", field="targets"
            )


def _find(noun: str, items: list[Any], reference: str) -> Any:
    for item in items:
        names = (item["id"], item.get("slug"), item.get("name"), item.get("prefix"), item.get("key"))
        if unquote(reference) in names:
            return item
    known = [item.get("slug") or item.get("name") or item["id"] for item in items]
    near = get_close_matches(unquote(reference), known, 1)
    detail = f"there is no {noun[:-1]} '{unquote(reference)}'"
    raise ProblemError(404, "not_found", detail, **({"did_you_mean": near[0]} if near else {}))


def _filtered(items: list[Any], query: Mapping[str, str]) -> list[Any]:
    return [
        item
        for item in items
        if query.get("status") in (None, item.get("status")) and query.get("plan") in (None, item.get("plan"))
    ]


def _page(items: list[Any], query: Mapping[str, str]) -> dict[str, Any]:
    start, limit = int(query.get("after", 0)), int(query.get("limit", 100))
    end = start + limit
    return {"items": items[start:end], "next": str(end) if end < len(items) else None}


def _usage(daemon: FakeDaemon, query: Mapping[str, str]) -> Any:
    by = query.get("by", "service").split(",")
    values = {"service": "orders", "key": "gw_ab12cd34", "status": "2xx", "client": "-", "route": "-"}
    other = {"service": "products", "key": "gw_bc23df45", "status": "4xx", "client": "mobile", "route": "-"}
    items = []
    if query.get("interval"):
        for hour in range(24):
            time = f"2026-11-{20 + (hour + 2) // 24}T{(hour + 2) % 24:02}:00:00Z"
            items.append(usage_line(100 + 100 * hour, "1", time=time, **{name: values[name] for name in by}))
            items.append(usage_line(1200 - 40 * hour, "1", time=time, **{name: other[name] for name in by}))
    else:
        items = [
            usage_line(12345, "12.342", **{name: values[name] for name in by}),
            usage_line(678, "0.3375", **{name: other[name] for name in by}),
        ]
    total = usage_line(sum(item["requests"] for item in items), "12.6795")
    return {"since": "2026-11-20T02:00:00Z", "until": "2026-11-21T03:00:00Z", "items": items, "total": total}


def _priced(body: Any) -> dict[str, Any]:
    """What a plan says of its price, as the real one does."""
    names = ("price", "unit_price", "mib_price", "base_fee", "minimum", "tier_mode", "counts", "billable")
    shown = {name: body[name] for name in names if name in body}
    if "included" in body:
        shown["included"] = _count(body["included"])
    if "tiers" in body:
        bounds = [None if tier["up_to"] is None else _count(tier["up_to"]) for tier in body["tiers"]]
        tiers = [{**tier, "up_to": bound} for tier, bound in zip(body["tiers"], bounds, strict=True)]
        shown = {"price": "0", "tier_mode": "graduated", "tiers": tiers} | shown
    if body.get("package"):
        shown = {"price": "0", "package": {**body["package"], "size": _count(body["package"]["size"])}} | shown
    return shown


def _count(text: str | int) -> int:
    return int(str(text).replace("k", "000"))


def _simulation(plan: Any, since: str) -> Any:
    def line(requests: int, refused: int, earned: str, would_earn: str, **names: str) -> dict[str, Any]:
        return {**names, "requests": requests, "units": requests, "would_refuse": refused, "earned": earned,
                "would_earn": would_earn}  # fmt: skip

    left_out = ("id", "name", "tenant", "version", "in_flight_limit", "alerts", "clients_limit", "created_at")
    terms = {name: value for name, value in plan.items() if name not in left_out}
    items = [
        line(12345, 345, "12.345", "24", key="gw_ab12cd34", name="ci"),
        line(678, 0, "0.678", "1.356", key="gw_bc23df45", name=""),
    ]
    return {"plan": plan["name"], "tenant": "default", "currency": "EUR", "since": "2026-10-22T02:00:00Z",
            "until": "2026-11-21T03:00:00Z", "terms": terms | {"price": "0.002"}, "items": items,
            "total": line(13023, 345, "13.023", "25.356"),
            "missing_before": "2025-01-10T00:00:00Z" if since == "2025-01-10T00:00:00Z" else None}  # fmt: skip


_GUARDS = ("tenant", "room", "body", "key", "validity", "scope", "place", "limits")


def _limits(left: int) -> list[dict[str, Any]]:
    minute = f"minute: 60 per 60 s, burst 60; {left} left, one more in 0.8 s"
    month = "month: 10000, 1234 used of it, 8766 left; resets 2026-12-01T00:00:00Z"
    return [
        {"of": "key", "name": "minute", "limit": 60, "window_s": 60, "burst": 60, "remaining": left,
         "more_in_s": 0.752, "detail": minute},
        {"of": "key", "name": "month", "limit": 10000, "window_s": None, "burst": None, "remaining": 8766,
         "more_in_s": 826915.067, "detail": month},
    ]  # fmt: skip


def _explained(request: Mapping[str, Any], steps: Mapping[str, str], refused: str, **more: Any) -> Any:
    """Every step passes up to the one that is `refused`."""
    told: list[dict[str, Any]] = []
    for step in ("head", "address", "gateway", *_GUARDS, "upstream"):
        reached = not any(other["outcome"] == "refuse" for other in told)
        outcome = "refuse" if step == refused else "pass" if reached and step in steps else "skip"
        detail = steps[step] if outcome != "skip" else "no such limit" if reached else "not reached"
        limits = _limits(0 if refused else 12) if step == "limits" and reached else []
        told.append({"step": step, "outcome": outcome, "detail": detail, "limits": limits})
    asked = {"id": None, "at": CREATED, "host": "api.example.com", "address": "127.0.0.1", "key": "gw_ab12cd34"}
    return {"request": {**asked, **request}, "status": None, "code": None, "steps": told, "would_pass": None,
            "forward": None, "worker": 0, **more}  # fmt: skip


_STEPS = {
    "head": "50 bytes, well-formed", "address": "service orders of tenant default, as /42",
    "gateway": "0 of 8192 requests are in flight in this worker", "tenant": "tenant default is active",
    "key": "taken as given: --key names gw_ab12cd34", "validity": "not revoked, expires 2027-02-19T02:00:00Z",
    "scope": "it is for orders", "limits": "each has one left", "upstream": "http://127.0.0.1:8001 has its turn",
}  # fmt: skip


def _what_if(body: Mapping[str, Any]) -> Any:
    forward = {
        "target": "http://127.0.0.1:8001", "url": "http://127.0.0.1:8001/42", "headers_removed": ["X-User-Id"],
        "headers_set": ["Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded",
                        "X-Request-Id"],
        "connect_timeout_s": 10.0, "first_byte_timeout_s": 30.0, "idle_timeout_s": 300.0, "timeout_s": 30.0,
    }  # fmt: skip
    request = {"method": body["method"], "path": body["path"]}
    return _explained(request, _STEPS, "", outcome="admitted", forward=forward)


def _remembered(request_id: str) -> Any:
    if request_id != "ff42db4e2b8f4688":
        raise ProblemError(404, "not_found", f"no worker remembers request '{request_id}': each worker keeps some")
    request = {"id": request_id, "method": "GET", "path": "/orders/42"}
    steps = {**_STEPS, "limits": "60 requests per minute are used up; more in 1 s"}
    would_pass = "wait 0.8 s, or take a plan with a higher rate or burst"
    return _explained(request, steps, "limits", outcome="refused", status=429, code="rate_limited",
                      would_pass=would_pass)  # fmt: skip


def _tried(daemon: FakeDaemon, query: Mapping[str, str]) -> Any:
    routes = daemon.state["routes"]
    reasons = (
        ("another host", routes[0]),
        ("another path", routes[2]),
        ("less specific", route(None, "/v1", "orders")),
    )
    winner = candidate("", routes[1]) if "/v1" in query["url"] else None
    other = query["url"].startswith("/acme")
    losers = [candidate(reason, each) for reason, each in reasons]
    return {"method": query["method"], "host": "127.0.0.1:8080", "path": query["url"], "other_tenant": other,
            "winner": winner, "losers": losers, "more": 0}  # fmt: skip


def _targets(daemon: FakeDaemon, query: Mapping[str, str]) -> Any:
    first, second = (
        {"service": "products", "url": url, "weight": weight, "state": "healthy", "since": None, "error": None,
         "seen_by": ["probe", "worker-0", "worker-1"], "error_at": None, "in_flight": None}
        for url, weight in (("http://127.0.0.1:8002", 1), ("http://127.0.0.1:8003", 3))
    )  # fmt: skip
    ill = {"state": "half-open", "since": CREATED, "seen_by": ["worker-1"], "error_at": CREATED,
           "error": "the upstream refused the connection (Connection refused)"}  # fmt: skip
    return {"items": [first, {**second, "seen_by": ["probe", "worker-0"]}, {**second, **ill}]}


def _drain(body: dict[str, Any]) -> Any:
    drained = not body["undo"]
    return {"service": "products", "target": body["target"], "drained": drained, "in_flight": 3 if drained else None}


GENERATIONS = [
    {"number": 2, "status": "current", "created_at": CREATED, "expires_at": None, "last_used_at": CREATED,
     "ended_at": None},
    {"number": 1, "status": "active", "created_at": CREATED, "expires_at": "2026-11-28T02:00:00Z",
     "last_used_at": None, "ended_at": None},
]  # fmt: skip


def _verify(daemon: FakeDaemon, method: str, query: Mapping[str, str], body: Any) -> Any:
    if body["key"] != SECRET:
        return {"valid": False, "code": "invalid_key", "detail": "this API key is not known here"}
    found = {name: daemon.state["keys"][0][name] for name in ("id", "prefix", "name", "tenant", "services", "plan")}
    quota = {"limit": 10000, "used": 1234, "remaining": 8766}
    return {"valid": True, "code": None, "detail": "", **found, "status": "active", "labels": {}, "generation": 2,
            "expires_at": None, "quota": quota}  # fmt: skip


def _import(daemon: FakeDaemon, method: str, query: Mapping[str, str], body: Any) -> Any:
    if method == "GET":
        return {"state": "storing", "rows": 2, "stored": 1}
    rows = body.splitlines()[1:]
    if "short" in rows:
        raise ProblemError(422, "invalid", f"line {rows.index('short') + 2}: has a secret that is not", field="file")
    dry_run = query.get("dry_run") == "true"
    return {"tenant": "default", "rows": len(rows), "imported": 0 if dry_run else len(rows), "dry_run": dry_run}


KEY_ACTIONS: Mapping[str, Callable[[FakeDaemon, str, Mapping[str, str], Any], Any]] = {
    "/v1/keys/verify": _verify,
    "/v1/keys/import": _import,
}


def _top(daemon: FakeDaemon, query: Mapping[str, str]) -> Any:
    by, of = query["by"], query["of"]
    names = {"key": ("gw_ab12cd34", "gw_bc23df45"), "service": ("orders", "products")}.get(by, ("-", "other"))
    items = [
        {**_heavy(9000, "9"), by: names[0], "share": 0.9},
        {**_heavy(999, "0.999"), by: names[1], "share": 0.0999},
        {**_heavy(1, "0"), by: "gw_cd34fg56", "share": 0.0001},
    ]
    limit = int(query["limit"])
    return {"since": "2026-11-21T01:00:00Z", "until": "2026-11-21T03:00:00Z", "by": by, "of": of,
            "items": items[:limit], "count": 12, "total": _heavy(10000, "9.999")}  # fmt: skip


def _heavy(requests: int, cost: str) -> dict[str, Any]:
    line = usage_line(requests, cost)
    for quantile in ("p50_ms", "p95_ms", "p99_ms"):
        del line[quantile]
    return line | {"bytes": requests * 1024}


def _export(query: Mapping[str, str]) -> list[dict[str, Any]]:
    if query.get("tenant") == "nobody":
        raise ProblemError(404, "not_found", "there is no tenant 'nobody'")
    names = {"period": "2026-11", "tenant": "default", "service": "orders", "route": "-", "client": "-"}
    lines = []
    for hour in (2, 3):
        line = usage_line(1200 + hour, "1.199", time=f"2026-11-20T{hour:02}:00:00Z", **names, key="gw_ab12cd34")
        lines.append(line | {"status": "2xx", "billable_units": 1197, "billable_bytes": 4096, "price": "0.001"})
    refused = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"))
    lines.append(lines[0] | refused | {"requests": 0, "status": "4xx", "price": None, "cost": "0", "route": 'a,"b"'})
    return lines


def _verified(daemon: FakeDaemon, query: Mapping[str, str]) -> Any:
    checked = {"segments": 2, "days": 30, "keys": 3, "invoices": 1}
    if query.get("tenant") != "acme":
        return {"ok": True, "checked": checked, "differences": []}
    differences = [
        {"what": "rollup", "where": "2026-11-20 orders", "expected": 12345, "found": 12344,
         "detail": "requests of the rollups are fewer than of the control totals"},
        {"what": "invoice", "where": "2026-10, orders, gw_ab12cd34", "expected": 12345, "found": 12346, "detail": ""},
    ]  # fmt: skip
    return {"ok": False, "checked": checked, "differences": differences}


def _tail(query: Mapping[str, str]) -> list[dict[str, Any]]:
    def record(millis: int, status: int, service: str, key: str, code: str | None, **more: Any) -> dict[str, Any]:
        return {"time": f"2026-11-21T02:00:00.{millis:03}Z", "tenant": "default", "service": service, "route": "-",
                "key": key, "client": "-", "status": status, "code": code, "admitted": status != 429, "units": 1,
                "bytes_in": 0, "bytes_out": 20480, "gateway_ms": 0.125, "upstream_ms": 12.5, "total_ms": 12.625,
                "request_id": f"ff42db4e2b8f4{millis:03}", **more}  # fmt: skip

    if query.get("service", "orders") != "orders":
        raise ProblemError(404, "not_found", f"there is no service '{query['service']}'")
    if query.get("status") == "9":
        raise ProblemError(422, "invalid", "status: '9' is not a status such as 404", field="status")
    return [
        record(7, 200, "orders", "gw_ab12cd34", None),
        record(12, 429, "orders", "gw_ab12cd34", "rate_limited"),
        {"lost": 1234},
        record(812, 502, "a-service-with-a-longer-name", "-", "upstream_unreachable", client="kiosk-7"),
    ]


# Answers that go on: lines, and then the end.
STREAMS: Mapping[str, Callable[[Mapping[str, str]], list[dict[str, Any]]]] = {
    "/v1/usage/tail": _tail,
    "/v1/usage/export": _export,
}
READERS: Mapping[str, Callable[[FakeDaemon, Mapping[str, str]], Any]] = {
    "status": lambda daemon, query: daemon.state["status"],
    "doctor": lambda daemon, query: daemon.state["doctor"],
    "doctor/acknowledge": lambda daemon, query: daemon.state["doctor"],
    "usage": _usage,
    "usage/top": _top,
    "usage/verify": _verified,
    "routes/test": _tried,
    "targets": _targets,
    "top": lambda daemon, query: daemon.state["top"],
    "logs": lambda daemon, query: fake_live.logs(query),
}


class _Handler(BaseHTTPRequestHandler):
    server: FakeDaemon
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks().decode()
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        self.server.requests.append((self.command, url.path, query, body))
        try:
            if self.server.failing is not None:
                raise self.server.failing
            if self.server.holds and self.server.holds in self.path:
                self.server.held.set()
                self.server.closing.wait(30)
            if url.path == "/v1/top" and "once" not in query:
                self._live()
                return
            if url.path in STREAMS:
                text = "".join(json.dumps(line) + "\n" for line in STREAMS[url.path](query)).encode()
                self._stream(text, "application/x-ndjson")
                return
            if url.path == "/v1/backup":
                self._stream(self.server.backup, "application/x-tar")
                return
            status, answer = self.server.answer(self.command, url.path, query, body)
        except ProblemError as problem:
            status, answer = problem.status, problem.body
        content = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, text: bytes, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        # In pieces that end in the middle of lines, as those of a real answer may.
        sent = 0
        for part in (text[:100], text[100:1000], text[1000:4000], text[4000:]):
            if sent > self.server.breaks_off_after:
                self.close_connection = True
                return
            if sent >= self.server.waits_after:
                self.server.held.set()
                self.server.closing.wait(30)
            if part:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                sent += len(part)
        self.wfile.write(b"0\r\n\r\n")

    def _live(self) -> None:
        """A picture now, and another whenever it is a new one, until the daemon is closed or the client goes."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        told = ""
        try:
            while not self.server.closing.wait(0.02):
                text = json.dumps(self.server.state["top"]) + "\n"
                if text != told:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))
                    told = text
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass

    def _chunks(self) -> bytes:
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 (http.server's names)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return DATE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's word)
        pass

    def address_string(self) -> str:
        return "socket"

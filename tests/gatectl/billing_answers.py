"""What the fake daemon knows of bills: cycles, invoices with real hashes, a ledger that takes credits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from tests.gatectl.problems import ProblemError

AT = "2026-11-21T02:00:00Z"
NUMBER = "INV-000001"
# One that is free; a plan has these fields, and so has a price on an invoice.
PRICE: dict[str, Any] = {
    "price": "0", "unit_price": "0", "mib_price": "0", "base_fee": "0", "minimum": "0", "included": 0, "tiers": [],
    "tier_mode": None, "package": None, "counts": "requests", "billable": ["2xx", "3xx"],
}  # fmt: skip


def line(service: str, key: str, name: str, kind: str, quantity: int, price: str, amount: str, **more: Any) -> Any:
    measure = {"request": "requests", "included": "requests", "tier": "requests", "unit": "units", "mib": "bytes"}
    measures = {each: quantity if measure.get(kind) == each else 0 for each in ("requests", "units", "bytes")}
    return {"service": service, "key": key, "key_name": name, "plan": "starter", "kind": kind, "tier": None,
            "quantity": quantity, **measures, "price": price, "amount": amount, "terms": 1, **more}  # fmt: skip


def body(**more: Any) -> dict[str, Any]:
    """An invoice with something of everything."""
    own = {"plan": None, "terms": 2}
    return {
        "number": NUMBER, "tenant": {"slug": "default", "name": "Łukasz & Söhne", "contact": "ops@acme.example"},
        "currency": "EUR", "time_zone": "Europe/Berlin", "period": "2026-10", "starts_at": "2026-09-30T22:00:00Z",
        "ends_at": "2026-10-31T23:00:00Z", "issued_at": "2026-11-01T00:00:07Z", "previous_sha256": None,
        "lines": [
            line("orders", "gw_ab12cd34", "ci", "included", 1000, "0", "0"),
            line("orders", "gw_ab12cd34", "ci", "tier", 9000, "0.001", "9", tier=1),
            line("orders", "gw_ab12cd34", "ci", "tier", 2342, "0.0005", "1.171", tier=2),
            line("orders", "gw_ab12cd34", "ci", "mib", 1572864, "0.01", "0.015"),
            line("products", "gw_bc23df45", "<b>mobile</b>", "request", 675, "0.0005", "0.3375", **own),
            line("-", "gw_ab12cd34", "ci", "base", 1, "25", "25"),
            line("-", "gw_bc23df45", "<b>mobile</b>", "minimum", 1, "4.6625", "4.6625", **own),
        ],
        "credits": [credit("credit", "-5", "outage of 3 October"), credit("adjustment", "1.5", "support")],
        "subtotal": "40.186", "credited": "-3.5", "total": "36.686", "carried_forward": "0",
        "terms": [
            {"id": 1, **PRICE, "mib_price": "0.01", "base_fee": "25", "included": 1000, "tier_mode": "graduated",
             "tiers": [{"up_to": 9000, "price": "0.001"}, {"up_to": None, "price": "0.0005"}]},
            {"id": 2, **PRICE, "price": "0.0005", "minimum": "5", "billable": ["2xx", "3xx", "4xx"]},
        ],
        **more,
    }  # fmt: skip


def credit(kind: str, amount: str, reason: str) -> dict[str, Any]:
    return {"at": "2026-10-20T10:00:00Z", "kind": kind, "amount": amount, "reason": reason, "author": "root"}


def canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def invoice(content: Mapping[str, Any]) -> dict[str, Any]:
    facts = {name: content[name] for name in ("number", "period", "starts_at", "ends_at", "currency", "total")}
    return {"id": content["number"], **facts, "tenant": content["tenant"]["slug"],
            "issued_at": content["issued_at"], "sha256": sha256(canonical(content)).hexdigest(),
            "body": content}  # fmt: skip


def fresh_state() -> dict[str, Any]:
    return {"invoices": {NUMBER: body()}, "credits": [{"id": 7, **credit("credit", "-5", "outage of 3 November")}],
            "differences": []}  # fmt: skip


Answer = tuple[int, Any]
State = dict[str, Any]
Query = Mapping[str, str]


def answer(state: State, method: str, path: str, query: Query, content: Any) -> Answer | None:
    """None: it is not about bills."""
    if path.startswith("/v1/invoices/"):
        return 200, _of_invoice(state, *path.removeprefix("/v1/invoices/").split("/"))
    reader = READERS.get((method, path))
    return None if reader is None else reader(state, query, content)


def _of_invoice(state: State, number: str, part: str = "") -> Any:
    if number not in state["invoices"]:
        near = {"did_you_mean": NUMBER} if number.startswith("INV") else {}
        raise ProblemError(404, "not_found", f"there is no invoice '{number}'", **near)
    content = state["invoices"][number]
    if part == "body":
        return canonical(content)
    if part == "replay":
        again = state.get("again", content)
        hashes = [sha256(canonical(each)).hexdigest() for each in (content, again)]
        return {"number": number, "same": content == again, "sha256": hashes[0], "recomputed_sha256": hashes[1],
                "body": again}  # fmt: skip
    return {**invoice(content), "sha256": state.get("sha256", invoice(content)["sha256"])}


def _bill(state: State, query: Query, content: Any) -> Answer:
    period = query.get("period", "2026-11")
    items = [
        {"service": "orders", "key": "gw_ab12cd34", "requests": 12342, "price": "0.001", "cost": "12.342",
         "kind": "request", "tier": None, "quantity": 12342, "plan": "starter"},
        {"service": "products", "key": "gw_bc23df45", "requests": 675, "price": "0.0005", "cost": "0.3375",
         "kind": "request", "tier": None, "quantity": 675, "plan": None},
    ]  # fmt: skip
    told = {"tenant": "default", "period": period, "currency": "EUR"}
    if period == "2026-10":
        closed = body()
        taken = ("service", "key", "requests", "price", "kind", "tier", "quantity", "plan")
        items = [{**{name: each[name] for name in taken}, "cost": each["amount"]} for each in closed["lines"]]
        return 200, {**told, "starts_at": closed["starts_at"], "ends_at": closed["ends_at"], "state": "closed",
                     "invoice": NUMBER, "items": items, "subtotal": "40.186",
                     "credits": [{"id": number, **each} for number, each in enumerate(closed["credits"], 1)],
                     "credited": "-3.5", "total": "36.686", "carried_forward": "0"}  # fmt: skip
    return 200, {**told, "starts_at": "2026-10-31T23:00:00Z", "ends_at": "2026-11-30T23:00:00Z", "state": "open",
                 "invoice": None, "items": items, "credits": state["credits"], "subtotal": "12.6795", "credited": "-5",
                 "total": "7.6795", "carried_forward": "0"}  # fmt: skip


def _keys(state: State, query: Query, content: Any) -> Answer:
    items = [
        {"key": "gw_ab12cd34", "name": "ci", "plan": "starter", "requests": 12342, "cost": "12.342"},
        {"key": "gw_bc23df45", "name": "", "plan": None, "requests": 675, "cost": "0.3375"},
    ]
    return 200, {"tenant": "default", "period": query.get("period", "2026-11"), "currency": "EUR", "items": items,
                 "total": "12.6795"}  # fmt: skip


def _forecast(state: State, query: Query, content: Any) -> Answer:
    return 200, {"tenant": "default", "period": "2026-11", "currency": "EUR", "as_of": AT,
                 "starts_at": "2026-10-31T23:00:00Z", "ends_at": "2026-11-30T23:00:00Z", "total": "7.6795",
                 "forecast": "13.84", "requests": 13017, "forecast_requests": 19432,
                 "method": "linear"}  # fmt: skip


def _cycles(state: State, query: Query, content: Any) -> Answer:
    def cycle(period: str, begins: str, ends: str, how: str, number: str | None, total: str) -> dict[str, Any]:
        return {"id": period, "period": period, "starts_at": f"{begins}:00:00Z", "ends_at": f"{ends}:00:00Z",
                "state": how, "invoice": number, "total": total}  # fmt: skip

    return 200, {"next": None, "items": [
        cycle("2026-11", "2026-10-31T23", "2026-11-30T23", "open", None, "7.6795"),
        cycle("2026-10.2", "2026-10-21T10", "2026-10-31T23", "due", None, "1.5"),
        cycle("2026-10", "2026-09-30T22", "2026-10-21T10", "closed", NUMBER, "36.686"),
    ]}  # fmt: skip


def _close(state: State, query: Query, content: Any) -> Answer:
    period = content.get("period", "2026-10.2")
    if period == "2026-10":
        raise ProblemError(409, "conflict", "cycle 2026-10 of tenant 'default' is closed already")
    ended = body(number="INV-000002", period=period, previous_sha256="0" * 64)
    if query.get("dry_run") == "true":
        return 200, invoice(ended)
    state["invoices"]["INV-000002"] = ended
    return 200, invoice(ended)


def _reset(state: State, query: Query, content: Any) -> Answer:
    return _close(state, query, {"period": "2026-11"})


def _credit(state: State, query: Query, content: Any) -> Answer:
    if content["kind"] == "credit" and content["amount"].startswith("-"):
        raise ProblemError(422, "invalid", "amount: a credit is more than 0", field="amount")
    content = {**content, "amount": f"-{content['amount']}"} if content["kind"] == "credit" else content
    made = {"id": 8, "at": AT, "period": "2026-11", "key": None, "service": None, "requests": 0, "units": 0, "bytes": 0,
            "author": "root", **content}  # fmt: skip
    state["credits"].append(made)
    return 201, made


def _ledger(state: State, query: Query, content: Any) -> Answer:
    def entry(number: int, kind: str, **more: Any) -> dict[str, Any]:
        return {"id": number, "at": AT, "period": query.get("period", "2026-11"), "kind": kind, "key": None,
                "service": None, "requests": 0, "units": 0, "bytes": 0, "amount": None, "reason": "",
                "author": "", **more}  # fmt: skip

    used = {"key": "gw_ab12cd34", "service": "orders", "requests": 12342, "units": 12342, "bytes": 4096}
    return 200, {"next": None, "items": [
        entry(1, "credit", amount="-5", reason="outage of 3 November", author="root"),
        entry(2, "usage", **used),
        entry(3, "close", author="clock"),
    ]}  # fmt: skip


def _verify(state: State, query: Query, content: Any) -> Answer:
    return 200, {"invoices": 2, "ok": not state["differences"], "differences": state["differences"]}


def _invoices(state: State, query: Query, content: Any) -> Answer:
    items = [invoice(each) for each in state["invoices"].values()]
    return 200, {"items": [{name: each[name] for name in each if name != "body"} for each in items], "next": None}


READERS: Mapping[tuple[str, str], Callable[[State, Query, Any], Answer]] = {
    ("GET", "/v1/billing"): _bill,
    ("GET", "/v1/billing/keys"): _keys,
    ("GET", "/v1/billing/preview"): lambda state, query, content: (200, body(number=None)),
    ("GET", "/v1/billing/forecast"): _forecast,
    ("GET", "/v1/billing/cycles"): _cycles,
    ("GET", "/v1/billing/verify"): _verify,
    ("POST", "/v1/billing/close"): _close,
    ("POST", "/v1/billing/reset"): _reset,
    ("POST", "/v1/credits"): _credit,
    ("GET", "/v1/ledger"): _ledger,
    ("GET", "/v1/invoices"): _invoices,
}

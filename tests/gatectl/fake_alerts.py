"""What the fake daemon says of alerts, and how it feels."""

from __future__ import annotations

from typing import Any

CREATED = "2026-11-21T02:00:00Z"
SIGNING_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FIELDS = {"url", "quota", "spend", "refusals", "key", "secret"}
_BODY = {"type": "quota.threshold", "timestamp": CREATED, "data": {"alert": "alr_quot2222", "used": 12000}}


def alert(public_id: str, when: str, key: str | None = None, **more: Any) -> dict[str, Any]:
    kinds = {"quota": None, "spend": None, "refusals": None} | more
    kind = next((kind for kind in ("quota", "spend", "refusals") if kinds[kind] is not None), "quota")
    return {
        "id": public_id, "tenant": "default", "kind": kind, "when": when, "key": key,
        "url": "https://ops.example.com/hooks", "state": "active", "delivered": 2, "pending": 0, "failed": 0,
        "error": "", "created_at": CREATED, **kinds,
    }  # fmt: skip


def fresh_alerts() -> list[dict[str, Any]]:
    return [
        alert(
            "alr_quot2222", "80% of the quota", quota=80, state="failing", pending=1, failed=1, error="it answered 500"
        ),
        alert("alr_spnd2222", "99.5 EUR a cycle", "gw_ab12cd34", spend="99.5"),
        alert("alr_rfsl2222", "100 refused a minute", refusals=100, state="disabled"),
    ]


def added(body: dict[str, Any]) -> dict[str, Any]:
    more = {name: body[name] for name in ("quota", "spend", "refusals") if name in body}
    when = "80% of the quota" if "quota" in body else "as it was asked for"
    made = alert("alr_nw22pq33", when, body.get("key"), delivered=0, url=body["url"], **more)
    return made if "secret" in body else {**made, "secret": SIGNING_SECRET}


def with_events(found: dict[str, Any]) -> dict[str, Any]:
    event = {"type": "quota.threshold", "created_at": CREATED, "delivered_at": None, "next_at": None, "body": _BODY}
    events = [
        {**event, "id": "evt_3", "state": "pending", "attempts": 3, "next_at": "2026-11-21T02:10:00Z",
         "error": "it answered 500"},
        {**event, "id": "evt_2", "state": "failed", "attempts": 11, "error": "it did not answer within 15 s"},
        {**event, "id": "evt_1", "state": "delivered", "attempts": 1, "delivered_at": CREATED, "error": ""},
    ]  # fmt: skip
    return {**found, "events": events}


def tested(found: dict[str, Any]) -> dict[str, Any]:
    if found["state"] == "disabled":
        return {"id": "evt_4", "delivered": False, "status": 410, "error": "it answered 410: it wants no more of these"}
    return {"id": "evt_4", "delivered": True, "status": 204, "error": ""}


DOCTOR = {
    "state": "degraded",
    "checks": [
        {"check": "workers", "state": "ok", "detail": "2 of 2 workers serve", "mend": ""},
        {"check": "records", "state": "warning", "detail": "3 torn records were dropped and not billed",
         "mend": "a power cut does that, or a bad disk: see the kernel's log; the rest of each segment is billed; "
                 "'gatectl doctor --acknowledge' takes note of it"},
        {"check": "disk", "state": "warning", "detail": "1.2 GiB of 98.0 GiB free for /var/lib/gatewayd",
         "mend": "make room, or move the state folder to a larger disk (--state-dir)"},
        {"check": "alerts", "state": "failed", "detail": "events were given up: alr_quot2222",
         "mend": "gatectl alert show alr_quot2222 tells why; mend the receiver, then gatectl alert test alr_quot2222"},
    ],
    "past": {"torn": 3, "lost": 0, "damaged": []},
}  # fmt: skip


def acknowledged(doctor: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """What is left of it. Only of torn records there is something to take note of."""
    noted = "3 torn records were dropped and not billed, acknowledged at 2026-11-21T03:00:00Z by root"
    checks = [
        {**each, "state": "ok", "detail": noted, "mend": ""} if each["check"] == "records" and seen["torn"] else each
        for each in doctor["checks"]
    ]
    return {**doctor, "checks": checks, "past": {"torn": 0, "lost": 0, "damaged": []}}

"""Targets over the admin API: weights, balance, checks, breakers, header rules; how they stand; drain."""

from __future__ import annotations

from typing import Any

import pytest

from gatewayd.conf import BreakerConf, HeaderRuleConf, HealthConf, ServiceConf, TargetConf
from gatewayd.control.admin import targets
from gatewayd.control.admin.state import TargetView
from gatewayd.control.compile import snapshot
from tests.control.conftest import Admin

A, B, C = "http://10.0.0.1", "http://10.0.0.2", "http://10.0.0.3"


def served(admin: Admin) -> ServiceConf:
    (service,) = snapshot(admin.control.database.lookup).services
    return service


def test_weights(admin: Admin) -> None:
    added = admin.post("/v1/services", slug="orders", targets=[A, B], weights={B + "/": 3})
    assert added["weights"] == {A: 1, B: 3}
    assert admin.patch("/v1/services/orders", weights={A: 2})["weights"] == {A: 2, B: 3}
    assert admin.patch("/v1/services/orders", targets=[C, B])["weights"] == {C: 1, B: 3}
    assert served(admin).targets == (TargetConf(C, 1), TargetConf(B, 3))
    problem = admin.refused("invalid", "PATCH", "/v1/services/orders", {"weights": {A: 2}})
    assert problem["detail"] == f"weights: {A} is not a target of this service"
    assert "1 or more" in admin.refused("invalid", "PATCH", "/v1/services/orders", {"weights": {C: 0}})["detail"]


OPTIONS: dict[str, Any] = {
    "balance": "hash",
    "hash_on": "header:X-Session",
    "health": {"path": "/health?deep=1", "interval_s": 2.0, "eject_after": 5, "slow_start_s": 60},
    "breaker": {"failures": 5, "open_s": 30},
    "request_headers": [{"action": "set", "name": "X-Env", "value": "prod"}],
    "response_headers": [{"action": "remove", "name": "Server"}],
}


def test_options_are_kept_and_reach_the_data_plane(admin: Admin) -> None:
    added = admin.post("/v1/services", slug="orders", targets=[A], **OPTIONS)
    assert admin.get("/v1/services/orders") == added
    service = served(admin)
    assert (service.balance, service.hash_on) == ("hash", "header:X-Session")
    assert service.health == HealthConf("/health?deep=1", 2.0, eject_after=5, slow_start_s=60.0)
    assert service.breaker == BreakerConf(failures=5, open_s=30.0)
    assert service.header_rules == (
        HeaderRuleConf("request", "set", "X-Env", "prod"),
        HeaderRuleConf("response", "remove", "Server"),
    )
    changed = admin.patch("/v1/services/orders", health={"path": None, "timeout_s": 1}, request_headers=[])
    assert changed["health"] == {**added["health"], "path": None, "timeout_s": 1.0}
    assert (changed["breaker"], changed["request_headers"]) == (added["breaker"], [])
    assert changed["response_headers"] == [{"action": "remove", "name": "Server", "value": ""}]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"balance": "random"}, "balance", "must be one of round-robin, least-outstanding, hash"),
        ({"hash_on": "cookie"}, "hash_on", "must be address, key, client or header:NAME"),
        ({"hash_on": "header:a b"}, "hash_on", "'a b' is not the name of a header"),
        ({"health": {"path": "health"}}, "health.path", "must begin with /"),
        ({"health": {"path": "/a b"}}, "health.path", "visible ASCII"),
        ({"health": {"interval_s": 0}}, "health.interval_s", "must be 0.1 or more"),
        ({"health": {"every": 1}}, "every", "known are path, interval_s"),
        ({"breaker": {"window_s": 61}}, "breaker.window_s", "must be 60 or less"),
        ({"breaker": {"ratio": "a"}}, "breaker.ratio", "must be a number, not a string"),
        ({"request_headers": [{"action": "put", "name": "A"}]}, "request_headers", "one of set, add, remove"),
        ({"request_headers": [{"name": "A"}]}, "action", "is missing"),
        (
            {"request_headers": [{"action": "set", "name": "Host"}]},
            "request_headers",
            "written by the gateway",
        ),
        (
            {"response_headers": [{"action": "remove", "name": "x-own-key"}]},
            "response_headers",
            "carries credentials",
        ),
    ],
)
def test_what_is_refused(admin: Admin, body: dict[str, Any], field: str, said: str) -> None:
    new = {"slug": "orders", "targets": [A], "key_header": "X-Own-Key"}
    problem = admin.refused("invalid", "POST", "/v1/services", {**new, **body})
    assert said in problem["detail"]
    assert problem["field"] == field
    admin.post("/v1/services", **new)
    assert said in admin.refused("invalid", "PATCH", "/v1/services/orders", body)["detail"]


def test_a_key_header_that_a_rule_touches_is_refused(admin: Admin) -> None:
    rules = [{"action": "set", "name": "X-Env", "value": "prod"}]
    admin.post("/v1/services", slug="orders", targets=[A], request_headers=rules)
    admin.refused("invalid", "PATCH", "/v1/services/orders", {"key_header": "X-Env"})


def test_targets_that_nobody_complains_of_are_healthy(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=[A, B], weights={B: 2})
    items = admin.get("/v1/targets")["items"]
    assert items[1] == {
        "service": "orders", "url": B, "weight": 2, "state": "healthy", "since": None, "seen_by": ["worker-0"],
        "error": None, "error_at": None, "in_flight": None,
    }  # fmt: skip
    assert [item["url"] for item in items] == [A, B]


def test_who_sees_a_target_how(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=[A, B])
    admin.plane.target_views = [
        TargetView("probe", A, "unhealthy", 1_788_264_060, "it answered 503", 1_788_264_061),
        TargetView("worker-0", A, "unhealthy", 1_788_264_062, "", 0),
        TargetView("worker-0", B, "open", 1_788_264_063, "it refused", 1_788_264_064),
    ]
    first, second = admin.get("/v1/targets", service="orders")["items"]
    assert (first["state"], first["seen_by"]) == ("unhealthy", ["probe", "worker-0"])
    assert (first["since"], first["error"]) == ("2026-09-01T12:01:00Z", "it answered 503")
    assert (second["state"], second["error_at"]) == ("open", "2026-09-01T12:01:04Z")
    admin.plane.target_views.pop()
    assert admin.get("/v1/targets", service="orders")["items"][1]["state"] == "healthy"


def test_drain_and_back(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "TOLD_WITHIN_S", 0.1)
    admin.post("/v1/services", slug="orders", targets=[A, B], weights={A: 4})
    admin.plane.told.clear()
    drained = admin.post("/v1/targets/drain", target=A + "/")
    assert drained == {"service": "orders", "target": A, "drained": True, "in_flight": None}
    assert admin.plane.told == ["snapshot"]
    assert served(admin).targets == (TargetConf(A, 4, True), TargetConf(B, 1))
    assert admin.get("/v1/services/orders")["drained"] == [A]
    assert admin.get("/v1/targets")["items"][0]["state"] == "drained"
    assert admin.patch("/v1/services/orders", targets=[B, A])["drained"] == [A]  # what stays stays drained
    admin.plane.target_views = [TargetView("worker-0", A, "drained", 1, "", 0, 3)]
    assert admin.post("/v1/targets/drain", target=A)["in_flight"] == 3
    assert admin.post("/v1/targets/drain", target=A, undo=True)["drained"] is False
    assert served(admin).targets[1] == TargetConf(A, 4)
    assert [line["action"] for line in admin.get("/v1/audit")["items"]][:2] == ["service.undrain", "service.drain"]


def test_which_target_is_meant(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=[A])
    admin.post("/v1/services", slug="billing", targets=[A, B])
    detail = admin.refused("conflict", "POST", "/v1/targets/drain", {"target": A})["detail"]
    assert "several services: billing, orders" in detail
    drained = admin.post("/v1/targets/drain", target=B)
    assert drained["service"] == "billing"
    assert admin.post("/v1/targets/drain", target=A, service="orders")["service"] == "orders"
    problem = admin.refused("not_found", "POST", "/v1/targets/drain", {"target": "http://10.0.0.9"})
    assert problem["did_you_mean"].startswith("http://10.0.0.")
    admin.post("/v1/tenants", slug="acme")
    admin.refused("not_found", "POST", "/v1/targets/drain?tenant=acme", {"target": A})

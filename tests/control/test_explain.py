"""The admin API's side of `explain`."""

from __future__ import annotations

import msgspec
import pytest

from gatewayd.channel import WhatIf
from gatewayd.control.admin.explain import Asked
from gatewayd.told import RequestTold, StepTold, Told
from tests.control.conftest import Admin

TOLD = Told(
    RequestTold(None, "2026-11-21T10:00:00Z", "GET", "/orders/42", "api", "10.0.0.9", "gw_ab12cd34"),
    "refused", 429, "rate_limited", (StepTold("limits", "refuse", "60 requests per minute are used up"),), "wait 1 s",
)  # fmt: skip


def test_a_what_if_is_asked_as_a_head_and_answered_as_it_is_told(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=["http://127.0.0.1:8001"])
    key = admin.post("/v1/keys", name="ci")
    admin.plane.told.clear()
    admin.plane.tells = TOLD
    asked = {"method": "POST", "path": "/orders/42?x=1", "headers": ["Accept: */*"], "address": "10.0.0.9"}
    told = admin("POST", "/v1/explain", {"key": "ci", "body_bytes": 10, "host": "api.example.com", **asked}).json()
    head = b"POST /orders/42?x=1 HTTP/1.1\r\nHost: api.example.com\r\nAccept: */*\r\nContent-Length: 10\r\n\r\n"
    assert admin.plane.told == [(head, "10.0.0.9", key["id"].removeprefix("key_"), None)]
    assert told == msgspec.json.decode(msgspec.json.encode(TOLD))
    assert list(told) == ["request", "outcome", "status", "code", "steps", "would_pass", "forward", "worker"]


def test_a_key_that_is_shown_goes_on_as_it_is(admin: Admin) -> None:
    admin.plane.tells = TOLD
    admin("POST", "/v1/explain", {"method": "GET", "path": "/", "secret": "gw_ab12cd34_secret\n"})
    assert admin.plane.told == [
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n", "127.0.0.1", None, b"gw_ab12cd34_secret")
    ]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"path": "/ HTTP/1.1\r\nA: b\r\n\r\n"}, "path"),
        ({"host": "a\nb"}, "host"),
        ({"headers": ["no colon"]}, "headers"),
        ({"headers": ["A: b\r\nHost: c"]}, "headers"),
        ({"address": "here"}, "address"),
        ({"key": "ci", "secret": "gw_x"}, "secret"),
        ({"method": ""}, "method"),
        ({"body_bytes": -1}, "body_bytes"),
    ],
)
def test_what_can_be_no_request_is_refused(admin: Admin, more: dict[str, object], field: str) -> None:
    problem = admin.refused("invalid", "POST", "/v1/explain", {"method": "GET", "path": "/", **more})
    assert problem["field"] == field
    assert admin.plane.told == []


def test_a_key_has_to_exist(admin: Admin) -> None:
    admin.refused("not_found", "POST", "/v1/explain", {"method": "GET", "path": "/", "key": "gw_ab12cd34"})


def test_a_request_that_nobody_remembers_is_not_found_and_it_is_said_what_is_kept(admin: Admin) -> None:
    problem = admin.refused("not_found", "GET", "/v1/explain/a/b")
    assert problem["detail"].startswith("no worker remembers request 'a/b': each worker keeps the last 512 refusals")
    assert admin.plane.told == ["a/b"]
    admin.plane.tells = TOLD
    assert admin.get("/v1/explain/ff42db4e2b8f4688")["code"] == "rate_limited"


def test_a_worker_that_cannot_tell_is_no_answer(admin: Admin) -> None:
    admin.refused("unavailable", "POST", "/v1/explain", {"method": "GET", "path": "/"})


def test_no_question_shows_its_secret() -> None:
    asked = Asked("GET", "/", headers=("X-API-Key: hidden",), secret="hidden")
    assert "hidden" not in f"{asked!r} {WhatIf(1, b'X-API-Key: hidden', '10.0.0.9', None, b'hidden')!r}"

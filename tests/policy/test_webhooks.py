"""Signatures as others verify them, when to try again, and what is taken as a secret and a URL."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from gatewayd.policy import webhooks
from gatewayd.policy.webhooks import (
    DELAYS_S,
    Reply,
    check_secret,
    check_url,
    next_at,
    retry_after_s,
    sign,
    write_secret,
)

NOW = 1_795_262_400


def test_the_signature_is_that_of_the_specification() -> None:
    """The example that the libraries of Standard Webhooks test themselves with."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signature = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(min_size=24, max_size=64), st.text())
def test_the_library_signs_the_same(random: bytes, text: str) -> None:
    body = text.encode(errors="replace")
    theirs = Webhook(random).sign("evt_1", datetime.fromtimestamp(NOW, UTC), body.decode())
    assert sign(write_secret(random), "evt_1", NOW, body) == theirs


@pytest.mark.parametrize("status", [200, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert Reply(status).delivered
    assert Reply(status).failure == ""


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(302), "it answered 302"),
        (Reply(500), "it answered 500"),
        (Reply(410), "it answered 410: it wants no more of these"),
        (Reply(error="no connection"), "no connection"),
    ],
)
def test_all_else_is_not(reply: Reply, says: str) -> None:
    assert not reply.delivered
    assert reply.failure == says


def test_it_is_tried_again_for_about_a_day_and_then_given_up() -> None:
    at, waits = NOW, []
    attempts = 0
    while True:
        attempts += 1
        due = next_at(Reply(500), attempts, at, 1.0)
        if due is None:
            break
        waits.append(due - at)
        at = due
    assert tuple(waits) == DELAYS_S
    assert 23 * 3600 < at - NOW < 25 * 3600
    assert sorted(waits) == waits


@given(st.integers(1, len(DELAYS_S)), st.floats(*webhooks.JITTER))
def test_delays_are_spread(attempts: int, jitter: float) -> None:
    due = next_at(Reply(500), attempts, NOW, jitter)
    assert due is not None
    assert 0.8 * DELAYS_S[attempts - 1] - 1 <= due - NOW <= 1.2 * DELAYS_S[attempts - 1] + 1


def test_gone_is_never_tried_again() -> None:
    assert next_at(Reply(410), 1, NOW, 1.0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120), (" 7 ", 7), ("", 0), ("soon", 0), ("-5", 0), ("1.5", 0),
     (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90),
     (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(text: str, seconds: int) -> None:
    assert retry_after_s(text, NOW) == seconds


@given(st.text())
def test_no_retry_after_breaks_anything(text: str) -> None:
    assert retry_after_s(text, NOW) >= 0


def test_retry_after_is_honoured_up_to_a_day() -> None:
    assert next_at(Reply(503, retry_after="600"), 1, NOW, 1.0) == NOW + 600
    assert next_at(Reply(503, retry_after="1"), 3, NOW, 1.0) == NOW + DELAYS_S[2]  # never sooner than the schedule
    assert next_at(Reply(503, retry_after="99999999999999"), 1, NOW, 1.0) == NOW + 86400


@given(st.binary(min_size=24, max_size=64))
def test_secrets_of_24_to_64_bytes_are_taken(random: bytes) -> None:
    assert check_secret(write_secret(random)) == write_secret(random)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_", "holds 0 bytes"),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), "holds 23 bytes"),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), "holds 65 bytes"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "is no base64"),
        ("whsec_hällo", "is no base64"),
    ],
)
def test_others_are_refused_and_not_quoted(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        check_secret(text)
    assert text.removeprefix("whsec_") == "" or text.removeprefix("whsec_") not in str(caught.value)


@pytest.mark.parametrize("url", ["https://ops.example.com/hooks?a=1", "http://127.0.0.1:9000", "http://[::1]:9000/x"])
def test_urls_of_http_and_https_are_taken(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    ["", "ops.example.com", "ftp://ops.example.com", "https://", "https://user:hunter2@ops.example.com/",
     "https://ops.example.com/#x", "https://ops.example.com:99999/", "https://ops.example.com:0/", "https://a b/",
     "https://ops.example.com/\r\nX: y", "https://[::1", "https://bücher.example/", "https://a/" + "x" * 2048],
)  # fmt: skip
def test_no_other_url_is(url: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        check_url(url)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_destination_is_host_and_port() -> None:
    assert webhooks.destination("https://ops.example.com/T0KEN") == "ops.example.com:443"
    assert webhooks.destination("http://[::1]/x") == "::1:80"
    assert webhooks.destination("http://a:9000") == "a:9000"

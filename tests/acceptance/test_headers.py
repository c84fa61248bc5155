"""What a caller reads off a response: rate limits, request id, problems (SPEC 3)."""

from __future__ import annotations

import re
import sqlite3
import time
import zlib

import pytest

from tests.acceptance.house import House, Response


@pytest.fixture(scope="module")
def limited(house: House) -> str:
    """A service `limited` and the key of a plan with two limits."""
    house.service("limited")
    house.gatectl.do("plan", "add", "tight", "--rate", "3/min", "--quota", "1000/month")
    return house.key("--service", "limited", "--plan", "tight")


def limits(response: Response) -> dict[str, tuple[int, int]]:
    """`RateLimit` as name: (r, t)."""
    items = re.findall(r'"(\w+)";r=(\d+);t=(\d+)', response.headers["ratelimit"])
    assert ", ".join(f'"{name}";r={r};t={t}' for name, r, t in items) == response.headers["ratelimit"]
    return {name: (int(r), int(t)) for name, r, t in items}


def test_rate_limit_headers_count_down_to_a_429(house: House, limited: str) -> None:
    for left in (2, 1, 0):
        response = house.call("/limited/x", limited)
        assert response.status == 200
        assert response.headers["ratelimit-policy"] == '"minute";q=3;w=60, "month";q=1000'
        told = limits(response)
        assert (told["minute"][0], told["month"][0]) == (left, 997 + left)
        assert 0 < told["minute"][1] <= 20  # a token every 20 s
        assert told["month"][1] <= 31 * 86400
        older = [response.headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")]
        assert older == ["3", str(left), str(told["minute"][1])]
    served = house.counting.served()
    refused = house.call("/limited/x", limited)
    assert refused.status == 429
    assert limits(refused)["minute"][0] == 0
    assert limits(refused)["month"][0] == 997  # a refused request costs no quota
    assert limits(refused)["minute"][1] <= int(refused.headers["retry-after"]) <= 20
    assert refused.headers["x-ratelimit-remaining"] == "0"
    problem = refused.json()
    assert (problem["title"], problem["code"], problem["status"]) == ("Rate limit exceeded", "rate_limited", 429)
    assert house.counting.served() == served


def test_retry_after_is_long_enough(house: House) -> None:
    house.service("soon")
    house.gatectl.do("plan", "add", "soon", "--rate", "30/min", "--burst", "1")
    key = house.key("--service", "soon", "--plan", "soon")
    assert house.call("/soon/", key).status == 200
    refused = house.call("/soon/", key)
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 2
    time.sleep(int(refused.headers["retry-after"]))
    assert house.call("/soon/", key).status == 200


def test_an_upstreams_own_limit_is_not_made_more_permissive(house: House) -> None:
    house.service("own")
    house.gatectl.do("plan", "add", "own", "--rate", "100/min")
    key = house.key("--service", "own", "--plan", "own")
    assert house.call("/own/limited", key).headers["x-ratelimit-remaining"] == "0"
    assert house.call("/own/x", key).headers["x-ratelimit-remaining"] == "98"


def test_a_request_id_is_kept_when_valid_and_else_made(house: House, limited: str) -> None:
    house.service("ids", "--auth", "none")
    kept = house.call("/ids/echo", X_Request_Id="order-7.retry_2")
    assert kept.headers["x-request-id"] == "order-7.retry_2"
    assert b"X-Request-Id: order-7.retry_2\r\n" in kept.body
    made = {house.call("/ids/echo", X_Request_Id=given).headers["x-request-id"] for given in ("", "a b", "ä" * 300)}
    assert len(made) == 3
    assert all(re.fullmatch(r"[0-9a-f]{16}", id_) for id_ in made)


# Keys that are refused. The upstream sees none of their requests.


def refusal(house: House, path: str, key: str | None, *, status: int, code: str) -> None:
    served = house.counting.served()
    response = house.call(path, key, X_Request_Id="the-request")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert (response.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"urn:gatewayd:problem:{code}"
    assert problem["request_id"] == response.headers["x-request-id"] == "the-request"
    assert problem["title"]
    assert problem["detail"]
    assert (status == 401) == ("www-authenticate" in response.headers)
    assert key is None or key not in response.body.decode()
    assert house.counting.served() == served


def test_a_missing_or_made_up_key_is_refused(house: House, limited: str) -> None:
    swapped = limited[:20] + ("A" if limited[20] != "A" else "B") + limited[21:]  # a typing error
    unknown = "gw_zzzzzzzz_5Zt0kq8m2Y7nWb1RfXc9sd" + "000000"
    refusal(house, "/limited/x", None, status=401, code="missing_key")
    for key in (swapped, unknown, limited[:-1], limited + "x", limited.upper(), "x", "gw_", limited[:12]):
        refusal(house, "/limited/x", key, status=401, code="invalid_key")


def test_a_well_formed_key_that_nobody_made_is_refused(house: House, limited: str) -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

    def checked(body: str) -> str:
        """With the checksum of SPEC 3: CRC-32 in base 62."""
        number, check = zlib.crc32(body.encode()), ""
        for _ in range(6):
            number, digit = divmod(number, 62)
            check = digits[digit] + check
        return body + check

    assert checked(limited[:-6]) == limited
    other_secret = checked(limited[:12] + "A" * 22)
    never_made = checked("gw_zzzzzzzz_" + "A" * 22)
    for key in (other_secret, never_made, never_made):
        refusal(house, "/limited/x", key, status=401, code="invalid_key")


def test_a_revoked_key_is_refused(house: House) -> None:
    house.service("revoking")
    key = house.key("--service", "revoking")
    assert house.call("/revoking/", key).status == 200
    house.gatectl.do("key", "revoke", key[:11], "--yes")
    refusal(house, "/revoking/", key, status=401, code="revoked_key")


def test_an_expired_key_is_refused(house: House) -> None:
    house.service("expiring")
    key = house.key("--service", "expiring", "--expires", "3s")
    assert house.call("/expiring/", key).status == 200
    time.sleep(3.1)
    refusal(house, "/expiring/", key, status=401, code="expired_key")


def test_a_key_of_another_service_or_tenant_is_refused(house: House, limited: str) -> None:
    house.service("elsewhere")
    refusal(house, "/elsewhere/x", limited, status=403, code="key_not_allowed")
    house.gatectl.do("tenant", "add", "rival")
    theirs = house.gatectl.do("key", "create", "-t", "rival").strip()
    refusal(house, "/elsewhere/x", theirs, status=403, code="key_not_allowed")


def test_secrets_are_not_in_the_database_or_the_log(house: House, limited: str) -> None:
    secret = limited[12:].encode()
    files = [*house.state_dir.glob("gatewayd.db*"), *house.state_dir.glob("journal/**/*.gwj"), house.gateway.daemon.log]
    assert len(files) > 2
    assert not [file for file in files if secret in file.read_bytes()]
    with sqlite3.connect(f"file:{house.state_dir}/gatewayd.db?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM key").fetchone()[0] > 0
    database.close()

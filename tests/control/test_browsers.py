"""On a forwarded socket a browser asks for every page that it shows; only ours is heard, and who is no browser."""

from __future__ import annotations

import pytest

from tests.control.conftest import Admin

OWN = "127.0.0.1:8081"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": OWN, "origin": f"http://{OWN}", "sec-fetch-site": "same-origin"},
        {"host": "localhost:8081", "origin": "http://localhost:8081"},
        {"host": "[::1]:8081", "origin": "http://[::1]:8081"},
        {"host": OWN, "sec-fetch-site": "none"},
        {"host": "gateway"},
        {"host": "10.0.0.5"},
        {"host": "[fe80::1.2.3.4]"},
    ],
)
def test_our_page_and_programs_are_heard(admin: Admin, headers: dict[str, str]) -> None:
    admin.post("/v1/keys", name="ci")
    assert admin("POST", "/v1/keys/ci/disable", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": OWN, "origin": "https://shop.example"},
        {"host": OWN, "origin": "null"},
        {"host": OWN, "origin": "http://127.0.0.1:9999"},
        {"host": OWN, "sec-fetch-site": "cross-site"},
        {"host": OWN, "sec-fetch-site": "same-site"},
        {"host": "shop.example:8081", "origin": "http://shop.example:8081"},
        {"host": "shop.example"},
        {"host": "127.0.0.1.shop.example:8081"},
        {"host": "127.0.0.1."},
    ],
)
def test_another_page_is_not(admin: Admin, headers: dict[str, str]) -> None:
    """A POST without a body needs no preflight; a name that leads here makes another page one of the same origin."""
    admin.post("/v1/keys", name="ci")
    admin.refused("not_permitted", "POST", "/v1/keys/ci/disable", headers=headers)
    admin.refused("not_permitted", "GET", "/v1/keys", headers=headers)
    assert admin.get("/v1/keys/ci")["status"] == "active"

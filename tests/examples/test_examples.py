"""The example APIs answer as the demo and the acceptance tests expect of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from tests.daemons import ROOT


@contextmanager
def example(name: str) -> Iterator[httpx.Client]:
    argv = [sys.executable, "-m", "tests.examples", name, "--port", "0"]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


@pytest.fixture(scope="module")
def orders() -> Iterator[httpx.Client]:
    with example("orders") as client:
        yield client


def test_pages_follow_each_other_to_the_end(orders: httpx.Client) -> None:
    seen, after = [], 0
    while after is not None:
        page = orders.get("/", params={"limit": 60, "after": after}).json()
        seen += [item["id"] for item in page["items"]]
        after = page["next"]
    assert seen == list(range(1, 201))


def test_one_order_adds_up(orders: httpx.Client) -> None:
    order = orders.get("/42").json()
    assert order["id"] == 42
    assert order["total_cents"] == sum(line["quantity"] * line["price_cents"] for line in order["lines"])
    assert orders.get("/100000").status_code == 404


def test_post_creates_and_refuses() -> None:
    with example("products") as products:
        made = products.post("/", json={"name": "Chisel 20 mm", "price_cents": 1490})
        assert made.status_code == 201
        assert products.get(f"/{made.json()['id']}").json() == made.json()
        assert products.post("/", json={"name": "", "price_cents": 1}).status_code == 422
        assert products.post("/", content=b"{").status_code == 400
        assert products.get("/_count").json() == {"requests": 4, "statuses": {"200": 1, "201": 1, "400": 1, "422": 1}}


def test_odd_paths(orders: httpx.Client) -> None:
    assert orders.get("/slow", params={"ms": 10}).json() == {"waited_ms": 10}
    assert orders.get("/fail").status_code == 500
    assert orders.get("/fail", params={"status": 503}).status_code == 503
    assert orders.get("/?limit=0").status_code == 400
    echoed = orders.request("DELETE", "/echo?a=%20b", content=b"xyz", headers={"X-Test": "1"}).json()
    assert (echoed["method"], echoed["query"], echoed["length"]) == ("DELETE", "a=%20b", 3)
    assert ["x-test", "1"] in echoed["headers"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"customer": "Ada", "lines": [{"sku": "P-0001", "quantity": 2}]}, 201),
        ({"customer": "Ada", "lines": [{"sku": "P-9999", "quantity": 2}]}, 422),
        ({"customer": "Ada", "lines": [{"sku": "P-0001", "quantity": 0}]}, 422),
        ({"customer": "Ada", "lines": []}, 422),
        ({"customer": "Ada", "lines": [{}]}, 400),
        (["not an object"], 422),
    ],
)
def test_orders_check_what_is_sent(orders: httpx.Client, sent: object, status: int) -> None:
    assert orders.post("/", json=sent).status_code == status


def test_a_port_in_use_is_one_line(orders: httpx.Client) -> None:
    argv = [sys.executable, "-m", "tests.examples", "orders", "--port", str(orders.base_url.port)]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert run.returncode == 1
    assert run.stderr == f"cannot listen on 127.0.0.1:{orders.base_url.port}: Address already in use\n"

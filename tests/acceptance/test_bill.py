"""The exact bill: what the senders of some hundred requests work out for themselves is what all views say, to the nano.

Then the invoice is made again by another gateway from a copy of the state, and one altered rollup is found and named.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House
from tests.acceptance.plain_bill import Line, PlainBill, Said, Sent
from tests.daemons import gateway

REQUESTS = 30  # of each key before prices change, and after
HEAVY = 7
DIFFERENT = 7  # an exit code
PATHS = {"x": 10, "missing": 2, "fail": 1, "echo": 3}  # and how often
WEIGHTS = {"orders": 1, "products": 1, "heavy": HEAVY}

# What each plan costs at first, and what is changed of it halfway.
PLANS: dict[str, tuple[Said, Said]] = {
    "flat": ({"price": "0.003000001"}, {"price": "0.0041"}),
    "same": ({"price": "0.02", "included": 11}, {}),
    "graduated": (
        {"tiers": [{"up_to": 10, "price": "0.01"}, {"up_to": 25, "price": "0.007"}, {"up_to": None, "price": "0.0005"}],
         "included": 5},
        {"tiers": [{"up_to": 20, "price": "0.000000003"}, {"up_to": None, "price": "1.5"}]},
    ),
    "volume": (
        {"tiers": [{"up_to": 90, "price": "0.9"}, {"up_to": None, "price": "0.4"}], "tier_mode": "volume",
         "counts": "units", "price": "0.000000001"},
        {"included": 100},
    ),
    "package": (
        {"package": {"size": 8, "price": "0.35"}, "included": 3, "unit_price": "0.000000007"},
        {"package": {"size": 8, "price": "0.351"}},
    ),
    "repacked": (
        {"package": {"size": 8, "price": "0.35"}, "included": 3},
        {"package": {"size": 5, "price": "0.2"}},
    ),
    "bytes": ({"price": "0", "mib_price": "0.123456789"}, {"mib_price": "977.000000001"}),
    "based": ({"price": "0.02", "base_fee": "5", "minimum": "7.25"}, {"minimum": "5.1"}),
    "strict": ({"price": "0.01", "billable": ["2xx", "3xx", "4xx"]}, {"billable": ["4xx", "5xx"]}),
}  # fmt: skip


class Customers:
    """Keys, what they cost, and everything that was sent with them."""

    def __init__(self, house: House, dice: random.Random) -> None:
        self.house = house
        self.dice = dice
        self.bill = PlainBill()
        self.prices = {plan: said for plan, (said, _) in PLANS.items()}
        self.secrets: dict[str, str] = {}
        self.plans: dict[str, str] = {}
        for service in ("orders", "products"):
            house.service(service)
            self.bill.services.append(service)
        house.gatectl.do("route", "add", "--to", "orders", "--path", "/heavy", "--weight", str(HEAVY))
        for plan, said in self.prices.items():
            house.admin("POST", "/v1/plans", {"name": plan, **said})
            number = self.bill.price(said)
            for _ in range(2 if plan in ("graduated", "package") else 1):
                self.bill.owing[self.create(plan)] = number
        self.own = self.create("based", price="0.5")
        self.bill.owing[self.own] = self.bill.price({"price": "0.5"})
        self.limited = self.create("strict", rates=["9/h"])
        self.bill.owing[self.limited] = list(PLANS).index("strict")
        self.idle = self.create("based")
        self.bill.owing[self.idle] = list(PLANS).index("based")

    def create(self, plan: str, **terms: Any) -> str:
        made = self.house.admin("POST", "/v1/keys", {"plan": plan, **terms})
        self.secrets[made["prefix"]] = made["key"]
        self.plans[made["prefix"]] = plan
        return str(made["prefix"])

    def change_prices(self) -> None:
        for plan, (_, changes) in PLANS.items():
            if changes:
                self.house.admin("PATCH", f"/v1/plans/{plan}", changes)
                self.prices[plan] = {**self.prices[plan], **changes}
                number = self.bill.price(self.prices[plan])
                self.bill.owing.update(
                    (key, number) for key, of in self.plans.items() if of == plan and key != self.own
                )
        self.house.admin("PATCH", f"/v1/keys/{self.own}", {"price": "0.25"})
        self.bill.owing[self.own] = self.bill.price({"price": "0.25"})

    def send(self) -> None:
        """Some requests with each key, in any order, over one connection that is kept."""
        turns = [key for key in self.secrets if key != self.idle] * REQUESTS
        self.dice.shuffle(turns)
        connection = http.client.HTTPConnection(*self.house.address, timeout=20)
        for key in turns:
            under = self.dice.choice(list(WEIGHTS))
            (path,) = self.dice.choices(list(PATHS), list(PATHS.values()))
            body = self.dice.randbytes(self.dice.randrange(3000)) if path == "echo" else None
            method = "GET" if body is None else "POST"
            connection.request(method, f"/{under}/{path}", body, {"X-API-Key": self.secrets[key]})
            response = connection.getresponse()
            size = len(response.read()) + len(body or b"")
            if response.status == 429:  # the API behind never says this: nothing was served
                assert key == self.limited
                continue
            assert response.status == {"missing": 404, "fail": 500}.get(path, 200)
            service = "orders" if under == "heavy" else under
            price = self.bill.owing[key]
            self.bill.sent.append(Sent(key, service, price, WEIGHTS[under], response.status, size))
        connection.close()


def lines_of(items: Sequence[Any], amount: str) -> list[Line]:
    """Lines of a bill or an invoice, as the model has them."""
    names = ("service", "key", "kind", "tier", "quantity")
    money = ("price", amount)
    return [Line._make([*(item[n] for n in names), *(Decimal(item[n]) for n in money)]) for item in items]


def in_order(lines: Sequence[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (line[:3], line.tier or 0, line[4:]))


def sum_of(lines: Sequence[Line]) -> Decimal:
    return sum((line.amount for line in lines), Decimal(0))


@pytest.fixture
def customers(new_house: NewHouse) -> Customers:
    seed = int(os.environ.get("GATEWAYD_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"\nGATEWAYD_SEED={seed}")
    return Customers(new_house(), random.Random(seed))


def test_whoever_sends_works_out_the_same_bill(customers: Customers, tmp_path: Path) -> None:
    house = customers.house
    customers.send()
    assert_billed(customers, "0")
    customers.change_prices()
    customers.send()
    house.gatectl.do("billing", "credit", "add", "3.000000001", "--reason", "outage")
    house.gatectl.do("billing", "adjust", "0.5", "--reason", "support")
    assert_shown(customers, "-2.500000001")
    lines = in_order(customers.bill.lines())
    assert {line.kind for line in lines} == {
        "included", "request", "unit", "tier", "package", "mib", "base", "minimum",
    }  # fmt: skip

    invoice = house.gatectl.json("billing", "reset", "--yes")
    body = invoice["body"]
    assert in_order(lines_of(body["lines"], "amount")) == lines
    assert Decimal(body["subtotal"]) == sum_of(lines)
    assert Decimal(body["total"]) == sum_of(lines) - Decimal("2.500000001")
    assert_proven(house.gatectl)
    exported, replayed = tmp_path / "exported.json", tmp_path / "replayed.json"
    number = invoice["number"]
    house.gatectl.do("billing", "invoice", "export", number, "--format", "json", "--out", str(exported))
    house.gatectl.do("billing", "replay", number, "--out", str(replayed))
    assert exported.read_bytes() == replayed.read_bytes()
    assert house.stop() == 0

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(house.state_dir, elsewhere / "state")
    with gateway(elsewhere, workers=1) as other:
        other.gatectl.do("billing", "replay", number, "--out", str(elsewhere / "replayed.json"))
        assert_proven(other.gatectl)
    assert (elsewhere / "replayed.json").read_bytes() == exported.read_bytes()

    key = customers.own
    day = alter_a_rollup(house, key)
    house.start()
    code, found = differences(house, "billing")
    assert code == DIFFERENT
    assert [(each["invoice"], each["what"]) for each in found] == [(number, "usage")]
    assert found[0]["line"] == f"{day} products {key} requests"
    assert found[0]["found"] == found[0]["expected"] + 1
    code, found = differences(house, "usage")
    assert code == DIFFERENT
    assert all(word in json.dumps(found) for word in (day, "products", key)), found
    again = house.gatectl.json("billing", "replay", number)
    assert again["same"], "an invoice is made of the ledger alone"


def assert_billed(customers: Customers, credited: str) -> list[Line]:
    """`billing show` says what the model says. Returns that."""
    lines = in_order(customers.bill.lines())
    print(f"{len(customers.bill.sent)} requests, {len(lines)} lines, {sum_of(lines)}")
    shown = customers.house.gatectl.json("billing", "show")
    assert in_order(lines_of(shown["items"], "cost")) == lines
    assert Decimal(shown["total"]) == sum_of(lines) + Decimal(credited)
    return lines


def assert_shown(customers: Customers, credited: str) -> None:
    """So do `billing preview`, `billing keys` and `usage show`."""
    house, bill, lines = customers.house, customers.bill, assert_billed(customers, credited)
    preview = house.gatectl.json("billing", "preview")
    assert in_order(lines_of(preview["lines"], "amount")) == lines
    by_key = {item["key"]: Decimal(item["cost"]) for item in house.gatectl.json("billing", "keys")["items"]}
    used_by_key = {item["key"]: item for item in house.gatectl.json("usage", "show", "--by", "key")["items"]}
    for key in bill.owing:
        own = [line for line in lines if line.key == key]
        assert by_key.get(key, 0) == sum_of(own)
        if key == customers.idle:
            assert key not in used_by_key
            continue
        used, sent = used_by_key[key], [sent for sent in bill.sent if sent.key == key]
        assert Decimal(used["cost"]) == sum_of([line for line in own if line.service != "-"])
        assert (used["requests"], used["units"]) == (len(sent), sum(one.weight for one in sent))
        if not used["refused"]:  # what was refused has bytes of its own
            assert used["bytes_in"] + used["bytes_out"] == sum(one.size_bytes for one in sent)
    assert Decimal(house.usage()["cost"]) == sum_of([line for line in lines if line.service != "-"])


def assert_proven(gatectl: Any) -> None:
    for noun in ("billing", "usage"):
        verified = gatectl.run(noun, "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr


def alter_a_rollup(house: House, key: str) -> str:
    """One request more of this key, in one row. Returns the day."""
    with sqlite3.connect(house.state_dir / "gatewayd.db") as database:
        of = """FROM rollup JOIN service ON service.id = rollup.service_id JOIN key ON key.id = rollup.key_id
                WHERE service.slug = 'products' AND key.public_id = ? AND billable > 0 LIMIT 1"""
        row = database.execute(
            f"SELECT hour, cycle_id, service_id, route_id, key_id, price_id, status_class {of}",
            (key.removeprefix("gw_"),),
        ).fetchone()
        where = "hour = ? AND cycle_id = ? AND service_id = ? AND route_id = ? AND key_id = ? AND price_id = ?"
        changed = database.execute(
            f"UPDATE rollup SET billable = billable + 1 WHERE {where} AND status_class = ?", row
        ).rowcount
        assert changed == 1
        (day,) = database.execute("SELECT date(?, 'unixepoch')", row[:1]).fetchone()
    database.close()
    return str(day)


def differences(house: House, noun: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of `verify` and what it found."""
    verified = house.gatectl.run(noun, "verify", "-o", "json")
    print(verified.stdout)
    return verified.returncode, json.loads(verified.stdout)["differences"]

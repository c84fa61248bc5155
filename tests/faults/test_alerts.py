"""`kill -9` of control while it delivers: the receiver gets every event, and knows a repeated one."""

from __future__ import annotations

import json
import threading
from typing import Any

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import kill, wait_until
from tests.receiver import receiver


def test_a_killed_control_delivers_every_event_and_finds_none_twice(new_house: NewHouse) -> None:
    house = new_house(1)
    house.service("api")
    house.gatectl.do("plan", "add", "small", "--rate", "1000/s", "--quota", "10", "--price", "0.5")
    key = house.key("--plan", "small")
    control_is_dead = threading.Event()

    def answer_too_late(handler: Any) -> None:
        control_is_dead.wait(20)
        handler.send_response(500)
        handler.end_headers()

    with receiver(answer_too_late, answer_too_late, 200) as hooks:
        secrets = {
            kind: house.gatectl.do("alert", "add", *option, "--url", f"{hooks.url}/{kind}").strip()
            for kind, option in {
                "quota": ("--quota", "80"), "spend": ("--spend", "4"), "refusals": ("--refusals", "2/min"),
            }.items()
        }  # fmt: skip
        for _ in range(14):  # 10 are admitted, 4 are refused
            house.call("/api/x", key)
        hooks.wait_for(2)
        kill(house.control())  # after the send, before the commit
        control_is_dead.set()
        wait_until(house.all_workers_serve)

        def all_delivered() -> bool:
            alerts = house.admin("GET", "/v1/alerts")["items"]
            return [(each["delivered"], each["pending"]) for each in alerts] == [(1, 0)] * 3

        wait_until(all_delivered, 60)
        kill(house.control())
        wait_until(house.all_workers_serve)
        house.call("/api/x", key)
        assert len(house.admin("GET", "/v1/alerts")["items"]) == 3
        got = list(hooks.got)
    ids: dict[str, set[str]] = {}
    for delivery in got:
        kind = delivery.path.rpartition("/")[2]
        assert delivery.verified(secrets[kind])["type"].startswith(kind)
        ids.setdefault(kind, set()).add(delivery.id)
    assert {kind: len(found) for kind, found in ids.items()} == {"quota": 1, "spend": 1, "refusals": 1}
    assert len(got) >= 5  # two were sent again
    log = house.gateway.daemon.output()
    audit = json.dumps(house.admin("GET", "/v1/audit"))
    for secret in secrets.values():
        assert secret.removeprefix("whsec_") not in log + audit
    assert house.stop() == 0

"""A key is rotated while callers send requests with it, and a disabled one is refused everywhere."""

from __future__ import annotations

from tests.acceptance.house import House
from tests.acceptance.load import Answer, get, run_during

CALLERS = 8


def test_no_request_is_refused_while_two_secrets_overlap(house: House) -> None:
    house.service("rotated")
    house.gatectl.do("plan", "add", "unlimited")
    old = house.key("--service", "rotated", "--plan", "unlimited", "--name", "turning")
    new: list[str] = []
    workers: set[bytes] = set()

    def rotate() -> None:
        new.append(house.gatectl.do("key", "rotate", "turning", "--overlap", "1h").strip())
        for _ in range(6):
            assert house.call("/rotated/", new[0]).status == 200

    def on_answer(answer: Answer) -> None:
        assert answer.status == 200
        workers.add(answer.worker)

    load = house.load()
    load.on_answer = on_answer
    run_during(rotate, load, [get("/rotated/x", old)], CALLERS)
    assert (load.broken, load.unheard, set(load.answers)) == (0, 0, {200})
    assert len(workers) == 2
    shown = house.gatectl.json("key", "show", "turning")
    assert [(each["number"], each["status"]) for each in shown["generations"]] == [(2, "current"), (1, "active")]
    assert all(each["last_used_at"] for each in shown["generations"])
    assert shown["usage"]["requests"] == load.ok + 6  # of one key, whichever secret was shown

    house.gatectl.do("key", "revoke", "turning", "--generation", "1", "--yes")
    for _ in range(6):
        assert house.call("/rotated/", old).json()["code"] == "revoked_key"
        assert house.call("/rotated/", new[0]).status == 200
    newest = house.gatectl.do("key", "rotate", "turning", "--overlap", "0", "--yes").strip()
    for _ in range(6):
        assert house.call("/rotated/", new[0]).json()["code"] == "expired_key"
        assert house.call("/rotated/", newest).status == 200


def test_a_disabled_key_is_refused_by_every_worker_until_it_is_enabled(house: House) -> None:
    house.service("sleeping")
    key = house.key("--service", "sleeping", "--name", "sleepy", "--rate", "1000/s")
    for verb, status in (("enable", 200), ("disable", 401), ("enable", 200)):
        house.gatectl.do("key", verb, "sleepy")
        for _ in range(8):
            answer = house.call("/sleeping/", key)
            assert answer.status == status
            assert status == 200 or answer.json()["code"] == "disabled_key"

"""Rotation over the admin API: generations, what is known of their use, and their ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gatewayd import keys
from gatewayd.control.admin.changes import now_s
from gatewayd.control.batches import group_of
from gatewayd.control.compile import find_key
from gatewayd.control.last_used import LastUsed
from gatewayd.control.retirement import retire, retire_quiet
from gatewayd.control.tables import Key
from gatewayd.errors import EXPIRED_KEY, RATE_LIMITED, UNAVAILABLE, GatewayError
from gatewayd.policy.amounts import format_time
from gatewayd.records import ADMITTED, Record
from tests.control.conftest import Admin

MINUTE = 1_800_000_000 // 60 * 60


def conf_of(admin: Admin, key: dict[str, Any]) -> Any:
    return find_key(admin.control.database.lookup, key["id"].removeprefix("key_"))


def record(key: int, generation: int, at_s: float, problem: int = 0) -> Record:
    return Record(ADMITTED, int(at_s * 1e9), 1, 1, 0, key, 0, 0, 1, 200, problem, 1, 0, 0, 0, 0, b"", generation)


def use(admin: Admin, *records: Record, uses: LastUsed | None = None) -> None:
    with admin.control.database.write() as session:
        (uses or LastUsed()).add(session, map(group_of, records))


def generations(admin: Admin, ref: str = "ci") -> dict[int, dict[str, Any]]:
    return {each["number"]: each for each in admin.get(f"/v1/keys/{ref}")["generations"]}


def test_a_rotated_key_keeps_its_id_and_gets_another_secret(admin: Admin) -> None:
    made = admin.post("/v1/keys", name="ci")
    admin.plane.told.clear()
    rotated = admin.post("/v1/keys/ci/rotate", overlap="7d")
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    assert keys.public_id_of(rotated["key"].encode()) == made["id"].removeprefix("key_")
    assert rotated["generation"] == 2
    assert admin.plane.told == [[made["id"].removeprefix("key_")]]
    conf = conf_of(admin, made)
    assert conf.digest == keys.digest(rotated["key"].encode())
    (older,) = conf.older
    assert (older.number, older.digest, older.ended) == (1, keys.digest(made["key"].encode()), False)
    assert older.until - now_s() == pytest.approx(7 * 86400, abs=60)
    assert [(each["number"], each["status"]) for each in admin.get("/v1/keys/ci")["generations"]] == [
        (2, "current"),
        (1, "active"),
    ]
    for secret in (made["key"], rotated["key"]):
        for path in ("/v1/keys", "/v1/keys/ci", "/v1/audit"):
            assert secret.rpartition("_")[2] not in admin("GET", path).text
    assert admin.get("/v1/audit")["items"][0]["action"] == "key.rotate"


def test_without_an_overlap_the_old_one_ends_at_once(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    admin.post("/v1/keys/ci/rotate", overlap="0")
    assert generations(admin)[1]["status"] == "expired"
    admin.post("/v1/keys/ci/rotate")
    assert [generations(admin)[number]["status"] for number in (1, 2, 3)] == ["expired", "active", "current"]


def test_one_generation_is_revoked_and_the_others_go_on(admin: Admin) -> None:
    made = admin.post("/v1/keys", name="ci")
    for _ in range(2):
        admin.post("/v1/keys/ci/rotate", overlap="7d")
    assert "current" in admin.refused("conflict", "POST", "/v1/keys/ci/revoke", {"generation": 3})["detail"]
    admin.refused("not_found", "POST", "/v1/keys/ci/revoke", {"generation": 4})
    for _ in range(2):
        assert admin.post("/v1/keys/ci/revoke", generation=1)["status"] == "active"
    assert [generations(admin)[number]["status"] for number in (1, 2, 3)] == ["revoked", "active", "current"]
    assert {older.number: older.ended for older in conf_of(admin, made).older} == {1: True, 2: False}
    assert [line["action"] for line in admin.get("/v1/audit")["items"]].count("key.revoke") == 1


def test_what_cannot_be_rotated_says_why(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    for _ in range(8):
        admin.post("/v1/keys/ci/rotate")
    assert "8 older secrets" in admin.refused("conflict", "POST", "/v1/keys/ci/rotate", {})["detail"]
    assert "overlap" in admin.refused("invalid", "POST", "/v1/keys/ci/rotate", {"overlap": "soon"})["detail"]
    admin.post("/v1/keys/ci/revoke")
    assert "revoked" in admin.refused("conflict", "POST", "/v1/keys/ci/rotate", {})["detail"]


def test_the_last_use_of_each_generation_is_known_to_the_minute(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    use(admin, record(1, 0, MINUTE - 600))  # of a time before there were generations in records
    assert admin.get("/v1/keys/ci")["last_used_at"] == format_time(MINUTE - 600)
    admin.post("/v1/keys/ci/rotate")
    assert admin.get("/v1/keys/ci")["last_used_at"] == format_time(MINUTE - 600)
    assert admin.get("/v1/keys")["items"][0]["last_used_at"] == format_time(MINUTE - 600)
    assert generations(admin)[2]["last_used_at"] is None
    uses = LastUsed()
    use(admin, record(1, 1, MINUTE + 59.9), record(1, 2, MINUTE + 61), record(1, 2, MINUTE + 30), uses=uses)
    use(admin, record(1, 1, MINUTE - 60), uses=uses)  # late, of another worker
    use(admin, record(1, 1, MINUTE + 700, EXPIRED_KEY.number), uses=uses)  # no use
    use(admin, record(1, 2, MINUTE + 121, RATE_LIMITED.number), uses=uses)
    known = generations(admin)
    assert known[1]["last_used_at"] == format_time(MINUTE)
    assert known[2]["last_used_at"] == format_time(MINUTE + 120)
    with admin.control.database.read() as session:
        key = session.get(Key, 1)
        assert key is not None
        assert key.first_used_at == MINUTE + 60


def test_a_quiet_generation_is_ended_once_the_new_one_is_in_use(admin: Admin) -> None:
    database = admin.control.database
    made = admin.post("/v1/keys", name="ci")
    admin.post("/v1/keys/ci/rotate", overlap="30d", retire_after="1h")
    now = now_s() // 60 * 60
    assert retire(database, now + 7200) == []  # nobody has used the new one
    use(admin, record(1, 2, now + 60), record(1, 1, now + 600))
    assert retire(database, now + 600 + 3600) == []  # a use is known to the minute: it may have been a minute later
    admin.plane.told.clear()
    public_id = made["id"].removeprefix("key_")
    assert retire(database, now + 660 + 3600) == [public_id]
    assert retire(database, now + 660 + 3600) == []
    assert conf_of(admin, made).older[0].ended is True
    line = admin.get("/v1/audit")["items"][0]
    assert (line["actor"], line["action"], line["subject"]) == ("gatewayd", "key.retire", made["id"])
    assert line["after"]["generation"] == 1


def test_one_that_was_never_used_waits_for_the_first_use_of_the_new_one(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    admin.post("/v1/keys/ci/rotate", overlap="30d", retire_after="1h")
    now = now_s() // 60 * 60
    use(admin, record(1, 2, now + 1200))
    assert retire(admin.control.database, now + 1200 + 3600) == []
    assert len(retire(admin.control.database, now + 1260 + 3600)) == 1


def test_one_that_is_kept_whether_it_is_used_or_not(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    admin.post("/v1/keys/ci/rotate", overlap="30d", retire_after=None)
    now = now_s()
    use(admin, record(1, 2, now))
    assert retire(admin.control.database, now + 29 * 86400) == []


def test_retirement_is_published_and_waits_for_the_journals(admin: Admin) -> None:
    admin.post("/v1/keys", name="ci")
    admin.post("/v1/keys/ci/rotate", overlap="30d", retire_after="0")
    use(admin, record(1, 2, now_s() - 3600))
    admin.plane.told.clear()

    async def cannot_catch_up() -> None:
        raise GatewayError(UNAVAILABLE, "the disk is full")

    admin.plane.catch_up, catch_up = cannot_catch_up, admin.plane.catch_up  # type: ignore[method-assign]
    asyncio.run(retire_quiet(admin.control.database, admin.plane))
    assert admin.plane.told == []
    admin.plane.catch_up = catch_up  # type: ignore[method-assign]
    asyncio.run(retire_quiet(admin.control.database, admin.plane))
    assert [len(told) for told in admin.plane.told if told != "caught up"] == [1]

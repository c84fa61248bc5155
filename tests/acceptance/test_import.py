"""Keys are imported while the gateway is in use: as many as they are, it starts, serves and remembers as before."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.conftest import NewHouse
from tests.acceptance.house import House
from tests.acceptance.load import get, run_during

WITHIN_S = 60.0
# A look-up needs a turn of control's loop, which computes meanwhile: about 15 ms, on a machine that does nothing else.
ANSWERED_S = 1.0
PROBES = 2000
GROWTH_LIMIT_BYTES = 32 << 20  # of a worker that has met all of the probes


def secret_of(number: int) -> str:
    return f"sk_live_{hashlib.md5(b'%d' % number, usedforsecurity=False).hexdigest()}"


def write_keys(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("secret,name,label:team\n")
        file.writelines(f"{secret_of(number)},customer-{number},{number % 7}\n" for number in range(count))


def start_to_first_answer_s(house: House, key: str) -> float:
    assert house.stop() == 0
    began = time.monotonic()
    house.start()
    assert house.call("/api/x", key).status == 200
    return time.monotonic() - began


def answered_s(house: House, key: str) -> float:
    began = time.monotonic()
    assert house.call("/api/x", key).status == 200
    return time.monotonic() - began


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) << 10


@pytest.mark.alone
@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_keys_are_imported_in_one_transaction_while_others_are_served(
    new_house: NewHouse, tmp_path: Path, count: int
) -> None:
    house = new_house(workers=1)
    house.service("api")
    house.gatectl.do("plan", "add", "unlimited")
    known = house.key("--plan", "unlimited")
    unknown = house.keys(40, plan="unlimited")
    started_s = min(start_to_first_answer_s(house, known) for _ in range(2))
    file = tmp_path / "keys.csv"
    write_keys(file, count)

    began = time.monotonic()
    importing = subprocess.Popen(
        [*house.gatectl.argv, "key", "import", str(file), "-o", "json"],
        env=house.gatectl.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    waited_s: dict[str, list[float]] = {"known": [], "looked up": []}
    while importing.poll() is None:
        waited_s["known"].append(answered_s(house, known))
        if unknown and len(waited_s["known"]) % 20 == 1:
            waited_s["looked up"].append(answered_s(house, unknown.pop()))
        time.sleep(0.02)
    took_s = time.monotonic() - began
    written, said = importing.communicate()
    assert importing.returncode == 0, said
    assert json.loads(written)["imported"] == count
    print(f"{count} keys in {took_s:.1f} s")
    for what, all_s in waited_s.items():
        print(f"{what}: {len(all_s)} calls, median {sorted(all_s)[len(all_s) // 2]:.3f} s, at most {max(all_s):.3f} s")
    assert max(*waited_s["known"], *waited_s["looked up"]) < ANSWERED_S
    assert took_s < WITHIN_S

    (worker,) = house.worker_pids()
    before = resident_bytes(worker)
    drawn = random.Random(count).sample(range(count), PROBES)
    for number in drawn[:200]:
        assert house.call("/api/x", secret_of(number)).status == 200
    assert house.call("/api/x", secret_of(count)).status == 401
    run_during(
        lambda: time.sleep(3),
        (load := house.load()),
        [get("/api/x", secret_of(number)) for number in drawn],
        PROBES // 10,
    )
    assert set(load.answers) <= {200, 429}
    grown = resident_bytes(worker) - before
    print(f"the worker grew by {grown >> 10} KiB")
    assert grown < GROWTH_LIMIT_BYTES

    name = house.gatectl.json("key", "show", f"customer-{drawn[0]}")["prefix"]
    house.gatectl.do("key", "revoke", name, "--yes")
    assert house.call("/api/x", secret_of(drawn[0])).json()["code"] == "revoked_key"
    again_s = min(start_to_first_answer_s(house, known) for _ in range(2))
    print(f"start to first answer: {started_s:.2f} s before, {again_s:.2f} s after")
    assert again_s <= 1.5 * started_s + 0.2
    assert house.call("/api/x", secret_of(drawn[1])).status in (200, 429)


def test_a_bad_line_near_the_end_leaves_nothing(house: House, tmp_path: Path) -> None:
    file = tmp_path / "keys.csv"
    write_keys(file, 20_000)
    with file.open("a") as more:
        more.write("short,x,y\n")
    ended = house.gatectl.run("key", "import", str(file))
    assert ended.returncode == 4
    assert "line 20002" in ended.stderr
    assert house.admin("GET", "/v1/keys")["items"] == []

"""What an operator changes is in force at every worker when gatectl returns."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.acceptance.house import House, wait_until
from tests.acceptance.load import get, run_for


def statuses(house: House, path: str, key: str, times: int) -> list[int]:
    """Of requests on connections of their own, which the workers share."""
    return [house.call(path, key).status for _ in range(times)]


def test_a_suspended_tenant_is_refused_until_it_is_resumed(house: House) -> None:
    do = house.gatectl.do
    do("tenant", "add", "acme")
    do("service", "add", "mine", f"{house.counting.url}/mine", "-t", "acme")
    house.service("others")
    key, other = house.key("-t", "acme"), house.key()
    assert statuses(house, "/acme/mine/x", key, 4) == [200] * 4
    do("tenant", "suspend", "acme")
    assert statuses(house, "/acme/mine/x", key, 4) == [403] * 4
    assert house.call("/acme/mine/x", key).json()["code"] == "tenant_suspended"
    assert statuses(house, "/others/x", other, 4) == [200] * 4
    do("tenant", "resume", "acme")
    assert statuses(house, "/acme/mine/x", key, 4) == [200] * 4
    assert house.counting.served("/mine/x") == 8


def test_a_tenant_that_owes_is_kept(house: House) -> None:
    do = house.gatectl.do
    do("tenant", "add", "owing", "--currency", "EUR")
    do("service", "add", "mine", f"{house.counting.url}/owing", "-t", "owing")
    key = house.key("-t", "owing")
    assert statuses(house, "/owing/mine/x", key, 3) == [200] * 3
    do("service", "remove", "mine", "-t", "owing", "--yes")
    do("key", "revoke", key[:11], "-t", "owing", "--yes")
    for option in ("--dry-run", "--yes"):
        refused = house.gatectl.run("tenant", "remove", "owing", option)
        assert refused.returncode == 4
        assert "owes 0.003 EUR for" in refused.stderr
    do("tenant", "remove", "owing", "--force", "--yes")
    assert house.gatectl.json("billing", "show", "-t", "owing")["total"] == "0.003"


def test_a_grant_and_a_reset_are_in_force_at_once(house: House) -> None:
    do = house.gatectl.do
    house.service("granted")
    do("plan", "add", "granted", "--quota", "5/month", "--alert", "80")
    key = house.key("--service", "granted", "--plan", "granted")
    assert statuses(house, "/granted/x", key, 7) == [200] * 5 + [429] * 2
    do("quota", "grant", key[:11], "3", "--reason", "launch day")
    assert statuses(house, "/granted/x", key, 5) == [200] * 3 + [429] * 2
    shown = house.gatectl.json("quota", "show", key[:11])
    assert (shown["limit"], shown["used"], shown["remaining"]) == (8, 8, 0)
    do("quota", "reset", key[:11], "--yes")
    assert statuses(house, "/granted/x", key, 9) == [200] * 8 + [429]
    shown = house.gatectl.json("quota", "show", key[:11])
    assert (shown["limit"], shown["used"], shown["forgiven"]) == (8, 8, 8)
    assert house.counting.served("/granted/x") == house.usage("--key", key[:11])["requests"] == 16


def test_a_threshold_is_told(house: House) -> None:
    house.service("told")
    house.gatectl.do("plan", "add", "told", "--quota", "5/month", "--alert", "80", "--alert", "100")
    key = house.key("--service", "told", "--plan", "told")
    statuses(house, "/told/x", key, 4)

    def alerts() -> list[int]:
        return list(house.gatectl.json("quota", "show", key[:11])["alerts_passed"])

    wait_until(alerts)
    assert alerts() == [80]
    lines = house.gatectl.json("audit", "list")["items"]
    assert [line["after"]["percent"] for line in lines if line["action"] == "quota.alert"][:1] == [80]


def test_a_new_price_is_for_what_comes_after_it(house: House) -> None:
    do = house.gatectl.do
    house.service("priced")
    do("plan", "add", "priced", "--price", "0.001")
    key = house.key("--service", "priced", "--plan", "priced")
    statuses(house, "/priced/x", key, 4)
    do("plan", "set", "priced", "--price", "0.5")
    statuses(house, "/priced/x", key, 4)
    assert house.usage("--key", key[:11])["cost"] == "2.004"
    versions = house.gatectl.json("plan", "show", "priced", "--versions")["items"]
    assert [(version["version"], version["price"]) for version in versions] == [(2, "0.5"), (1, "0.001")]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("plan add x --max-in-flight 0", "--max-in-flight: must be 1 or more"),
        ("plan add x --alert 0", "--alert: must be 1 or more"),
        ("plan add x --clients -1", "--clients: must be 0 or more"),
        ("plan add x --rate 60", "--rate: '60' is not a rate; write one such as 60/min or 10/s"),
        (
            "plan add x --rate 5/month --quota 5",
            "--quota: the quota is given twice; N/month among the rates is one too",
        ),
        ("plan simulate none", "there is no plan 'none'"),
        ("tenant add x --time-zone Mars", "--time-zone: 'Mars' is not a time zone such as UTC or Europe/Berlin"),
        (
            "tenant add x --allow GET",
            "--allow: 'GET' is not a rule such as 'GET /v1/users/*': methods, a space and a path",
        ),
        (
            "client add 'a b'",
            "NAME: 'a b' is not a client: 1 to 128 letters, digits and ._~:+/=@-, not beginning with cli_",
        ),
        ("client add a --burst 5", "--burst: belongs to a rate; give one such as 60/min"),
    ],
)
def test_what_is_refused_is_told_by_its_option(house: House, command: str, said: str) -> None:
    run = house.gatectl.run(*shlex.split(command))
    assert run.returncode in (3, 4)
    assert run.stderr.startswith(f"gatectl: {said}"), run.stderr


def test_a_quota_is_one_number_everywhere_under_load(house: House) -> None:
    """What callers counted, the header, `quota show`, `key show` and `usage show`."""
    house.service("same")
    house.gatectl.do("plan", "add", "same", "--quota", "300/month")
    key = house.key("--service", "same", "--plan", "same")
    load = house.load()
    run_for(1.5, load, [get("/same/x", key)], callers=20)
    assert load.answers.keys() == {200, 429}
    last = house.call("/same/x", key)
    assert (last.status, last.json()["code"]) == (429, "quota_exceeded")
    assert last.headers["ratelimit"].startswith('"month";r=0;')
    quota = house.gatectl.json("quota", "show", key[:11])
    shown = house.gatectl.json("key", "show", key[:11])
    assert (quota["limit"], quota["used"], quota["remaining"]) == (300, load.ok, 0)
    assert quota["used"] == shown["limits"]["quota"]["used"] == shown["usage"]["requests"]
    assert quota["used"] == house.usage("--key", key[:11])["units"] == house.counting.served("/same/x")


def test_the_configuration_as_a_file(house: House, tmp_path: Path) -> None:
    """Dumped, edited, compared, applied and rolled back, each time in force for the next request."""
    do, run = house.gatectl.do, house.gatectl.run
    do("tenant", "add", "filed")
    do("service", "add", "shop", f"{house.counting.url}/shop", "-t", "filed")
    do(
        "plan",
        "add",
        "kept",
        "--rate",
        "50/s",
        "--burst",
        "100",
        "--quota",
        "1M/month",
        "--price",
        "0.0005",
        "-t",
        "filed",
    )
    key = house.key("-t", "filed", "--plan", "kept", "--name", "till")
    file, again = tmp_path / "filed.yaml", tmp_path / "again.yaml"
    do("config", "dump", "-t", "filed", "-f", str(file))
    dumped = file.read_text()
    assert run("config", "diff", "-f", str(file), "--prune", "-t", "filed").returncode == 0
    assert statuses(house, "/filed/till/x", key, 2) == [404] * 2
    added = f"  services:\n  - slug: till\n    targets: [{house.counting.url}/till]\n    timeout_s: 5\n"
    file.write_text(dumped.replace("  services:\n", added).replace("price: 0.0005", "price: 0.00025"))
    differ = run("config", "diff", "-f", str(file), "--prune", "-t", "filed")
    assert differ.returncode == 7
    assert "    price: 0.0005 -> 0.00025\n" in differ.stdout
    assert differ.stdout.endswith("1 to add, 1 to change, 0 to remove\n")
    do("config", "apply", "-f", str(file), "--prune", "--yes", "-t", "filed", "--message", "a till")
    assert statuses(house, "/filed/till/x", key, 4) == [200] * 4
    do("config", "dump", "-t", "filed", "-f", str(again))
    assert run("config", "diff", "-f", str(file), "--prune", "-t", "filed").returncode == 0
    newest, before = house.gatectl.json("config", "history", "--limit", "2")["items"]
    assert (newest["kind"], newest["message"], before["kind"]) == ("apply", "a till", "found")
    do("config", "rollback", str(before["number"]), "--yes")
    assert statuses(house, "/filed/till/x", key, 4) == [404] * 4
    assert statuses(house, "/filed/shop/x", key, 2) == [200] * 2
    do("config", "dump", "-t", "filed", "-f", str(again))
    assert again.read_text() == dumped
    file.write_text(dumped.replace("50/s", "50/fortnight"))
    line = 1 + file.read_text().splitlines().index("    rates: [50/fortnight burst 100]")
    mistaken = run("config", "validate", "-f", str(file), "-t", "filed")
    assert mistaken.returncode == 4
    assert mistaken.stdout.startswith(f"{file}:{line}:5: rates: ")

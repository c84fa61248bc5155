"""`gatectl api`, the raw door, and `gatectl version`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import gatectl as package
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon, key

ASKED: tuple[tuple[str, tuple[str, str, dict[str, str], Any]], ...] = (
    ("api /v1/services", ("GET", "/v1/services", {}, None)),
    ("api v1/services", ("GET", "/v1/services", {}, None)),
    ("api get /v1/keys?status=active -f limit=5 -t acme",
     ("GET", "/v1/keys", {"status": "active", "tenant": "acme", "limit": "5"}, None)),
    ("api /v1/plans -f name=a -F price=0.5 -F quota=null -F shadow=true -F burst=7 -f quota_mode=7 -F 'rates[]=5/s' "
     "-F 'rates[]=9/min'",
     ("POST", "/v1/plans", {}, {"name": "a", "price": 0.5, "quota": None, "shadow": True, "burst": 7,
                                "quota_mode": "7", "rates": ["5/s", "9/min"]})),
    ("api PATCH /v1/services/orders -F 'health[path]=/up' -F 'health[interval_s]=5'",
     ("PATCH", "/v1/services/orders", {}, {"health": {"path": "/up", "interval_s": 5}})),
    ("api DELETE /v1/plans/pro -f dry_run=true", ("DELETE", "/v1/plans/pro", {}, {"dry_run": "true"})),
    ("api DELETE '/v1/plans/pro?dry_run=true'", ("DELETE", "/v1/plans/pro", {"dry_run": "true"}, None)),
    ("api '/v1/services/a b%2Fc'", ("GET", "/v1/services/a%20b%2Fc", {}, None)),
)  # fmt: skip


@pytest.mark.parametrize(("command", "request_"), ASKED, ids=[command for command, _ in ASKED])
def test_what_is_asked(
    gatectl: Gatectl, daemon: FakeDaemon, command: str, request_: tuple[str, str, dict[str, str], Any]
) -> None:
    gatectl(*shlex.split(command))
    assert daemon.requests == [request_]


def test_the_answer_is_as_it_came(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    orders = daemon.state["services"][0]
    indented = json.dumps(orders, indent=2) + "\n"
    assert gatectl("api", "/v1/services/orders") == (0, json.dumps(orders), "")
    assert gatectl("api", "/v1/services/orders", "-o", "json").out == indented
    assert gatectl.at_terminal("api", "/v1/services/orders").plain == indented
    assert yaml.safe_load(gatectl("api", "/v1/services/orders", "-o", "yaml").out) == orders
    removed = gatectl("api", "DELETE", "/v1/plans/pro")
    assert (removed.code, json.loads(removed.out)["name"]) == (0, "pro")


@pytest.mark.usefixtures("daemon")
def test_status_and_headers_come_first_when_asked_for(gatectl: Gatectl) -> None:
    head, _, body = gatectl("api", "-i", "/v1/services/orders").out.partition("\n\n")
    assert head.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "Content-Type: application/json" in head.splitlines()
    assert json.loads(body)["slug"] == "orders"


@pytest.mark.usefixtures("daemon")
def test_what_goes_on_is_written_as_it_comes(gatectl: Gatectl) -> None:
    lines = gatectl("api", "/v1/usage/tail").out.splitlines()
    assert [json.loads(line).get("status", "lost") for line in lines] == [200, 429, "lost", 502]


@pytest.mark.parametrize(
    ("line", "code", "problem"),
    [
        ("/v1/services/nope", 3, "not_found"),
        ("POST /v1/services -f slug=orders", 4, "conflict"),
        ("POST /v1/services -f colour=red", 4, "invalid"),
        ("DELETE /v1/tenants/default", 4, "conflict"),
        ("--paginate /v1/keys -t nobody", 3, "not_found"),
    ],
)
@pytest.mark.usefixtures("daemon")
def test_a_refusal_is_written_and_ends_as_a_verbs_would(gatectl: Gatectl, line: str, code: int, problem: str) -> None:
    ended = gatectl("api", *line.split())
    assert ended.code == code
    assert json.loads(ended.out)["code"] == problem
    assert ended.err.startswith("gatectl: ")
    assert ended.err.count("\n") == 1


def test_pages_are_one_list(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["keys"] = [key(f"{number:08}", "", [], None) for number in range(250)]
    told = json.loads(gatectl("api", "/v1/keys", "--paginate").out)
    assert [each["id"] for each in told["items"]] == [f"key_{number:08}" for number in range(250)]
    assert told["next"] is None
    assert len(daemon.requests) == 3
    assert gatectl("api", "/v1/status", "--paginate").err == "gatectl: /v1/status is no list; leave out --paginate\n"


def test_a_body_from_a_file_or_standard_input(gatectl: Gatectl, daemon: FakeDaemon, tmp_path: Path) -> None:
    (tmp_path / "body").write_text('{"slug": "shop", "targets": ["http://a"]}')
    assert gatectl("api", "/v1/services", "--input", str(tmp_path / "body"), "-f", "tenant=acme").code == 0
    assert daemon.requests[-1] == (
        "POST", "/v1/services", {"tenant": "acme"}, {"slug": "shop", "targets": ["http://a"]}
    )  # fmt: skip
    assert gatectl("api", "/v1/plans", "-f", "name=x", "-F", f"price=@{tmp_path / 'body'}").code == 0
    assert str(daemon.requests[-1][3]["price"]).startswith('{"slug"')
    assert gatectl("api", "/v1/services", "--input", str(tmp_path / "none")).code == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("POST", "POST needs a path; such as: gatectl api POST /v1/services"),
        ("FETCH /v1/keys", "FETCH is no method"),
        ("/v1/keys -f name", "--field: 'name' is not a name and a value"),
        ("/v1/keys -F a[=1", "'a[' is no name of a field"),
        ("/v1/keys -F a=1 -F a[b]=1", "'a[b]' is no name of a field"),
        ("/v1/keys -H Accept", "--header: 'Accept' is no header"),
        ("/v1/keys -o csv", "an answer is written as it came"),
        ("POST /v1/keys --paginate", "--paginate is for a GET"),
    ],
)
def test_what_cannot_be_asked(gatectl: Gatectl, daemon: FakeDaemon, line: str, said: str) -> None:
    ended = gatectl("api", *line.split())
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert daemon.requests == []


def test_nobody_answers(gatectl: Gatectl) -> None:
    assert gatectl("api", "/v1/keys").code == 6


@pytest.mark.usefixtures("daemon")
def test_versions_of_both(gatectl: Gatectl) -> None:
    told = json.loads(gatectl("version", "-o", "json").out)
    assert told == {"client": package.__version__, "gateway": "0.1.0"}


def test_a_gateway_that_is_down_has_no_version_and_that_is_no_error(gatectl: Gatectl) -> None:
    ended = gatectl("version")
    assert (ended.code, ended.out) == (0, f"client\t{package.__version__}\ngateway\t-\n")
    assert ended.err.startswith("gatectl: no gateway at ")
    assert json.loads(gatectl("version", "-o", "json").out)["gateway"] is None
    assert gatectl("--context", "nope", "version").code == 0
